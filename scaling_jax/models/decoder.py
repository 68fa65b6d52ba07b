"""The bilingual decoder of Zhang et al. 2024 (Table 3), layers stacked on a leading axis."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models import loss
from scaling_jax.models.config import DecoderConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.layers import Attention, FeedForward, RMSNorm


class TokenEmbedding(nn.Module):
    """The tied table [vocabulary, model_dim], and the hook's place before the first layer.

    Rows start with variance 1 / model_dim: unit logits, and unit inputs after sqrt(model_dim).
    """

    vocabulary_size: int
    model_dim: int
    hook: Hook

    @nn.compact
    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        initializer = nn.with_logical_partitioning(
            nn.initializers.normal(stddev=self.model_dim**-0.5), ("vocabulary", "embed")
        )
        table = self.param("table", initializer, (self.vocabulary_size, self.model_dim))
        scale = self.model_dim**0.5
        return self.hook.embed(self, table[tokens] * scale, table * scale), table


class DecoderLayer(nn.Module):
    """Attention and feed-forward, each after a norm and added to what came in."""

    config: DecoderConfig
    hook: Hook

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        config, dtype = self.config, jnp.dtype(self.config.dtype)
        attention = Attention(
            config.heads,
            config.key_value_heads,
            config.head_dim,
            config.rotary_base,
            self.hook,
            dtype,
            name="attention",
        )
        hidden = hidden + attention(RMSNorm(dtype, name="attention_norm")(hidden))
        feed_forward = FeedForward(
            config.feed_forward_dim, config.activation, self.hook, dtype, name="feed_forward"
        )
        hidden = hidden + feed_forward(RMSNorm(dtype, name="feed_forward_norm")(hidden))
        return nn.with_logical_constraint(hidden, ("batch", "length", "embed_activation"))


class Decoder(nn.Module):
    """Tokens in, the loss of the next token out.

    Parameters of layer i are row i of the leading axis of everything under `layers`, whether the
    layers are scanned or unrolled.
    """

    config: DecoderConfig
    hook: Hook = dataclasses.field(default_factory=Hook)

    def setup(self):
        config = self.config
        self.embedding = TokenEmbedding(config.vocabulary_size, config.model_dim, self.hook)
        self.layers = _stacked_layers(config)(config, self.hook)
        self.final_norm = RMSNorm(jnp.dtype(config.dtype))

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
        dtype = jnp.dtype(self.config.dtype)
        embeddings, table = self.embedding(inputs)
        hidden = nn.with_logical_constraint(embeddings.astype(dtype), ("batch", "length", "embed_activation"))
        hidden, _ = self.layers(hidden, None)
        return self.final_norm(hidden[:, hidden.shape[1] - inputs.shape[1] :]), table.astype(dtype)


class _ScannedLayer(nn.Module):
    config: DecoderConfig
    hook: Hook

    @nn.compact
    def __call__(self, hidden: jax.Array, _: None) -> tuple[jax.Array, None]:
        return _layer(self.config)(self.config, self.hook, name="layer")(hidden), None


def _layer(config: DecoderConfig) -> type[nn.Module]:
    if config.remat == "none":
        return DecoderLayer
    policies = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}
    # Between the loops of a scan nothing can be shared; without loops XLA would undo the recomputation.
    return nn.remat(DecoderLayer, policy=policies[config.remat], prevent_cse=config.unroll == config.layers)


def _stacked_layers(config: DecoderConfig) -> type[nn.Module]:
    return nn.scan(
        _ScannedLayer,
        variable_axes={"params": 0, "tuned": 0},
        split_rngs={"params": True, "dropout": True},
        length=config.layers,
        unroll=config.unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )
