"""Layers stacked on a leading axis, scanned or unrolled, and what is below and above them."""

from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models.attention import ATTENDED
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.layers import Attention, FeedForward, RMSNorm
from scaling_jax.models.positions import RelativeBias


class Context(NamedTuple):
    """What every layer of a stack reads beside its input; each may be None.

    Attributes:
        bias: of self-attention by distance, [1, heads, length, length].
        mask: positions of the input that self-attention reads, bool [batch, length].
        memory: the encoder's output [batch, memory length, model_dim].
        memory_mask: positions of it that are read, bool [batch, memory length].
    """

    bias: jax.Array | None = None
    mask: jax.Array | None = None
    memory: jax.Array | None = None
    memory_mask: jax.Array | None = None


NO_CONTEXT = Context()


class Layer(nn.Module):
    """Attention, attention to the memory if there is one, feed-forward: each after a norm, and added."""

    config: ModelConfig
    hook: Hook
    causal: bool

    attention_type: ClassVar[type[Attention]] = Attention

    def setup(self):
        config, hook = self.config, self.hook
        self.attention = self.attention_type(config, hook, self.causal)
        self.attention_norm = RMSNorm(config)
        self.cross_attention = self.attention_type(config, hook, causal=False)
        self.cross_attention_norm = RMSNorm(config)
        self.feed_forward = FeedForward(config, hook)
        self.feed_forward_norm = RMSNorm(config)

    def __call__(self, hidden: jax.Array, context: Context) -> jax.Array:
        """Hidden states [batch, length, model_dim], from such."""
        normed = self.attention_norm(hidden)
        hidden = hidden + self.attention(normed, mask=context.mask, bias=context.bias)
        if context.memory is not None:
            normed = self.cross_attention_norm(hidden)
            hidden = hidden + self.cross_attention(normed, context.memory, context.memory_mask)
        return self.fed(hidden)

    def fed(self, hidden: jax.Array) -> jax.Array:
        """After the feed-forward."""
        hidden = hidden + self.feed_forward(self.feed_forward_norm(hidden))
        return nn.with_logical_constraint(hidden, ("batch", "length", "embed_activation"))


class _ScannedLayer(nn.Module):
    config: ModelConfig
    hook: Hook
    causal: bool

    @nn.compact
    def __call__(self, hidden: jax.Array, context: Context) -> tuple[jax.Array, None]:
        return _layer(self.config)(self.config, self.hook, self.causal, name="layer")(hidden, context), None


def _layer(config: ModelConfig) -> type[nn.Module]:
    if config.remat == "none":
        return Layer
    saved = jax.checkpoint_policies
    policies = {
        "full": None,
        "dots": saved.dots_with_no_batch_dims_saveable,
        "attention": saved.save_only_these_names("query", "key", "value", ATTENDED),
    }
    # Between the loops of a scan nothing can be shared; without loops XLA would undo the recomputation.
    scanned = config.unroll < max(config.layers, config.encoder_layers)
    return nn.remat(Layer, policy=policies[config.remat], prevent_cse=not scanned)


def stacked_layers(config: ModelConfig, count: int) -> type[nn.Module]:
    """`count` layers as one module of (hidden, context); layer i's variables are row i of each array."""
    return nn.scan(
        _ScannedLayer,
        variable_axes={"params": 0, "tuned": 0},
        split_rngs={"params": True, "dropout": True},
        in_axes=nn.broadcast,
        length=count,
        unroll=config.unroll,
        metadata_params={nn.PARTITION_NAME: "layers"},
    )


class Stack(nn.Module):
    """`count` layers between embeddings and a last norm, with the distance bias that they share."""

    config: ModelConfig
    hook: Hook
    count: int
    causal: bool

    def setup(self):
        self.layers = stacked_layers(self.config, self.count)(self.config, self.hook, self.causal)
        self.final_norm = RMSNorm(self.config)
        if self.config.positions == "relative":
            self.relative_bias = RelativeBias(self.config, self.causal)

    def __call__(self, embeddings: jax.Array, context: Context = NO_CONTEXT) -> jax.Array:
        """Normed hidden states [batch, length, model_dim] of embeddings [batch, length, model_dim]."""
        hidden = embeddings.astype(jnp.dtype(self.config.dtype))
        hidden = nn.with_logical_constraint(hidden, ("batch", "length", "embed_activation"))
        if self.config.positions == "relative":
            context = context._replace(bias=self.relative_bias(hidden.shape[1]))
        return self.final_norm(self.layers(hidden, context)[0])


class TokenEmbedding(nn.Module):
    """The table [vocabulary, model_dim], tokens looked up in it.

    Rows start with variance 1 / model_dim where they are the output matrix too or are scaled up after
    the look-up: unit logits, unit inputs. Elsewhere they start with variance 1.
    """

    config: ModelConfig
    hook: Hook

    @nn.compact
    def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(embeddings [batch, length, model_dim] as the hook leaves them, table)."""
        config = self.config
        small = config.embedding_scale == "width" or config.output == "tied"
        initializer = nn.initializers.normal(stddev=config.model_dim**-0.5 if small else 1.0)
        partitioned = nn.with_logical_partitioning(initializer, ("vocabulary", "embed"))
        table = self.param("table", partitioned, (config.vocabulary_size, config.model_dim))
        scale = config.model_dim**0.5 if config.embedding_scale == "width" else 1.0
        return self.hook.embed(self, table[tokens] * scale, table * scale), table


class OutputTable(nn.Module):
    """The matrix [vocabulary, model_dim] of an untied output."""

    config: ModelConfig

    @nn.compact
    def __call__(self) -> jax.Array:
        config = self.config
        initializer = nn.initializers.normal(stddev=config.model_dim**-0.5)
        partitioned = nn.with_logical_partitioning(initializer, ("vocabulary", "embed"))
        return self.param("table", partitioned, (config.vocabulary_size, config.model_dim))
