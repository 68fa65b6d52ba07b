"""Parts of a Transformer, each with logical axis names: embed, heads, mlp, vocabulary, layers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.positions import rotary_frequencies, rotate

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "relu": jax.nn.relu,
}


class Projection(nn.Module):
    """A matrix [in, features] applied to the last axis, a bias [features] where the config has one; the
    tuning hook's place.

    Initialised normal with variance `variance` / in (truncated at two deviations), the bias zero.
    """

    features: int
    axes: tuple[str, str]
    config: ModelConfig
    hook: Hook
    variance: float = 1.0

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        dtype = jnp.dtype(self.config.dtype)
        initializer = nn.initializers.variance_scaling(self.variance, "fan_in", "truncated_normal")
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.with_logical_partitioning(initializer, self.axes), shape)
        bias = None
        if self.name in self.config.biases:
            zeros = nn.with_logical_partitioning(nn.initializers.zeros, self.axes[1:])
            bias = self.param("bias", zeros, shape[1:])

        def project(values: jax.Array) -> jax.Array:
            product = jnp.dot(values, kernel.astype(dtype))
            return product if bias is None else product + bias.astype(dtype)

        return self.hook.project(self, inputs, project)


class RMSNorm(nn.Module):
    """x / rms(x) * scale, computed in float32 (Zhang and Sennrich 2019)."""

    config: ModelConfig

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        scale = self.param(
            "scale", nn.with_logical_partitioning(nn.initializers.ones, ("embed",)), (inputs.shape[-1],)
        )
        values = inputs.astype(jnp.float32)
        mean_square = jnp.mean(values**2, axis=-1, keepdims=True)
        values = values * jax.lax.rsqrt(mean_square + self.config.norm_epsilon)
        return (values * scale).astype(jnp.dtype(self.config.dtype))


class Attention(nn.Module):
    """Attention with shared key and value heads (Shazeer 2019; Ainslie et al. 2023).

    To itself: causal or masked, with rotated queries and keys or a bias by distance. To a memory:
    neither, only masked.
    """

    config: ModelConfig
    hook: Hook
    causal: bool

    @nn.compact
    def __call__(
        self,
        inputs: jax.Array,
        memory: jax.Array | None = None,
        mask: jax.Array | None = None,
        bias: jax.Array | None = None,
    ) -> jax.Array:
        """
        Args:
            inputs: [batch, length, model_dim].
            memory: what is read [batch, memory length, model_dim]; None reads `inputs`.
            mask: which positions of it are read, bool [batch, memory length]; None is all.
            bias: added to the scores, [1, heads, length, length].
        """
        config = self.config
        # T5 leaves scores undivided and begins with queries that are smaller by the same factor.
        undivided = config.attention_scale == "none"
        read = inputs if memory is None else memory
        shared = "heads" if config.key_value_heads == config.heads else "key_value_heads"
        query = self._heads(inputs, "query", config.heads, "heads", 1 / config.head_dim if undivided else 1.0)
        key = self._heads(read, "key", config.key_value_heads, shared)
        value = self._heads(read, "value", config.key_value_heads, shared)
        if memory is None and config.positions == "rotary":
            frequencies = rotary_frequencies(config)
            query, key = rotate(query, frequencies), rotate(key, frequencies)
        attended = jax.nn.dot_product_attention(
            query,
            key,
            value,
            bias=bias,
            mask=None if mask is None else mask[:, None, None, :],
            scale=1.0 if undivided else None,
            is_causal=self.causal,
        )
        attended = attended.reshape(*inputs.shape[:-1], config.heads * config.head_dim)
        out = Projection(inputs.shape[-1], ("heads", "embed"), config, self.hook, name="out")
        return out(attended)

    def _heads(self, inputs: jax.Array, name: str, count: int, axis: str, variance: float = 1.0) -> jax.Array:
        features = count * self.config.head_dim
        projection = Projection(features, ("embed", axis), self.config, self.hook, variance, name=name)
        return projection(inputs).reshape(*inputs.shape[:-1], count, self.config.head_dim)


class FeedForward(nn.Module):
    """Gated: down(activation(gate(x)) * up(x)) (Shazeer 2020). Plain: down(activation(up(x)))."""

    config: ModelConfig
    hook: Hook

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        config = self.config
        activation = ACTIVATIONS[config.activation]

        def widened(name: str) -> jax.Array:
            return Projection(config.feed_forward_dim, ("embed", "mlp"), config, self.hook, name=name)(inputs)

        if config.feed_forward == "gated":
            hidden = activation(widened("gate")) * widened("up")
        else:
            hidden = activation(widened("up"))
        return Projection(inputs.shape[-1], ("mlp", "embed"), config, self.hook, name="down")(hidden)
