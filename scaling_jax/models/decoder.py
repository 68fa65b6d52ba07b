"""A decoder alone: the bilingual decoder of Zhang et al. 2024 (Table 3), and the LLaMA family."""

import dataclasses

import flax.linen as nn
import jax

from scaling_jax.models import loss
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.stack import OutputTable, Stack, TokenEmbedding


class Decoder(nn.Module):
    """Tokens in, the loss of the next token out.

    Parameters of layer i are row i of the leading axis of everything under `layers`, whether the
    layers are scanned or unrolled.
    """

    config: ModelConfig
    hook: Hook = dataclasses.field(default_factory=Hook)

    def setup(self):
        config = self.config
        self.embedding = TokenEmbedding(config, self.hook)
        self.stack = Stack(config, self.hook, config.layers, causal=True)
        nn.share_scope(self, self.stack)  # its parameters lie at the top: layers, final_norm
        if config.output == "untied":
            self.output = OutputTable(config)

    def __call__(self, inputs: jax.Array, targets: jax.Array) -> jax.Array:
        """Negative log-likelihood in nats, float32 [batch, length], of targets [batch, length] after inputs.

        `inputs` are the targets shifted right by one. Attention is causal, so padding on the right
        needs no mask; give it no weight.
        """
        hidden, table = self.hidden(inputs)
        chunk = loss.chunk_length(inputs.shape, self.config.vocabulary_size, self.config.logits_chunk)
        return loss.next_token_loss(hidden, table, targets, chunk)

    def logits(self, inputs: jax.Array) -> jax.Array:
        """Float32 logits [batch, length, vocabulary]."""
        return loss.logits(*self.hidden(inputs))

    def hidden(self, inputs: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Last hidden states [batch, length, model_dim], normed, without a prefix; and the output table."""
        embeddings, table = self.embedding(inputs)
        hidden = self.stack(embeddings)
        if self.config.output == "untied":
            table = self.output()
        return output(self.config, hidden[:, hidden.shape[1] - inputs.shape[1] :], table)


def output(config: ModelConfig, hidden: jax.Array, table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Hidden states and output table as their product, the logits, needs them."""
    if config.output == "tied_scaled":
        hidden = hidden * config.model_dim**-0.5
    return hidden, table.astype(hidden.dtype)
