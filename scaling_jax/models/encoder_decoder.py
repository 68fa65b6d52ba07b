"""An encoder-decoder: T5 1.0 and 1.1, FLAN-T5 (Raffel et al. 2020; Chung et al. 2022)."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models import loss
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.decoder import output
from scaling_jax.models.hooks import Hook
from scaling_jax.models.stack import Context, OutputTable, Stack, TokenEmbedding


class HookedStack(Stack):
    """A stack that shows the hook its embeddings: the token table is shared, what a hook adds is not."""

    @nn.compact
    def __call__(self, embeddings: jax.Array, table: jax.Array, context: Context) -> jax.Array:
        """Hidden states [batch, prefix + length, model_dim]; `context.mask` is of the length alone."""
        extended = self.hook.embed(self, embeddings, table)
        context = context._replace(mask=extended_mask(context.mask, extended.shape[1] - embeddings.shape[1]))
        return super().__call__(extended, context)


class EncoderDecoder(nn.Module):
    """Two token sequences in, the loss of the second after the first out."""

    config: ModelConfig
    hook: Hook = dataclasses.field(default_factory=Hook)

    def setup(self):
        config = self.config
        self.embedding = TokenEmbedding(config, Hook())
        self.encoder = HookedStack(config, self.hook, config.encoder_layers, causal=False)
        self.decoder = HookedStack(config, self.hook, config.layers, causal=True)
        if config.output == "untied":
            self.output = OutputTable(config)

    def __call__(
        self, inputs: jax.Array, targets: jax.Array, encoder_inputs: jax.Array, encoder_mask: jax.Array
    ) -> jax.Array:
        """Negative log-likelihood in nats, float32 [batch, length], of targets [batch, length].

        Args:
            inputs: the targets shifted right by one [batch, length].
            targets: padding on the right needs no mask; give it no weight.
            encoder_inputs: what the encoder reads [batch, encoder length].
            encoder_mask: bool of the same shape, false for padding.
        """
        hidden, table = self.hidden(inputs, encoder_inputs, encoder_mask)
        chunk = loss.chunk_length(inputs.shape, self.config.vocabulary_size, self.config.logits_chunk)
        return loss.next_token_loss(hidden, table, targets, chunk)

    def logits(self, inputs: jax.Array, encoder_inputs: jax.Array, encoder_mask: jax.Array) -> jax.Array:
        """Float32 logits [batch, length, vocabulary]."""
        return loss.logits(*self.hidden(inputs, encoder_inputs, encoder_mask))

    def hidden(
        self, inputs: jax.Array, encoder_inputs: jax.Array, encoder_mask: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Last hidden states [batch, length, model_dim], normed, without a prefix; and the output table."""
        embeddings, table = self.embedding(encoder_inputs)
        memory = self.encoder(embeddings, table, Context(mask=encoder_mask))
        memory_mask = extended_mask(encoder_mask, memory.shape[1] - encoder_inputs.shape[1])
        embeddings, table = self.embedding(inputs)
        hidden = self.decoder(embeddings, table, Context(memory=memory, memory_mask=memory_mask))
        if self.config.output == "untied":
            table = self.output()
        return output(self.config, hidden[:, hidden.shape[1] - inputs.shape[1] :], table)


def extended_mask(mask: jax.Array | None, prefix: int) -> jax.Array | None:
    """The mask with a prefix in front that is read."""
    return mask if mask is None else jnp.pad(mask, ((0, 0), (prefix, 0)), constant_values=True)
