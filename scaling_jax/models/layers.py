"""Parts of a Transformer, each with logical axis names: embed, heads, mlp, vocabulary, layers."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models.hooks import Hook

ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {"gelu": jax.nn.gelu, "silu": jax.nn.silu}


class Projection(nn.Module):
    """A matrix [in, features] without bias, applied to the last axis; the tuning hook's place.

    Initialised normal with variance 1 / in (truncated at two deviations).
    """

    features: int
    axes: tuple[str, str]
    hook: Hook
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        initializer = nn.initializers.variance_scaling(1.0, "fan_in", "truncated_normal")
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", nn.with_logical_partitioning(initializer, self.axes), shape)

        def project(values: jax.Array) -> jax.Array:
            return jnp.dot(values, kernel.astype(self.dtype))

        return self.hook.project(self, inputs, project)


class RMSNorm(nn.Module):
    """x / rms(x) * scale, computed in float32 (Zhang and Sennrich 2019)."""

    dtype: jnp.dtype
    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        scale = self.param(
            "scale", nn.with_logical_partitioning(nn.initializers.ones, ("embed",)), (inputs.shape[-1],)
        )
        values = inputs.astype(jnp.float32)
        values = values * jax.lax.rsqrt(jnp.mean(values**2, axis=-1, keepdims=True) + self.epsilon)
        return (values * scale).astype(self.dtype)


def rotate(values: jax.Array, base: float) -> jax.Array:
    """Rotary positions (Su et al. 2021) for values [batch, length, heads, head_dim]; halves are paired."""
    length, half = values.shape[1], values.shape[-1] // 2
    frequencies = base ** -(jnp.arange(half, dtype=jnp.float32) / half)
    angles = jnp.arange(length, dtype=jnp.float32)[:, None, None] * frequencies
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(values.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(values.dtype)


class Attention(nn.Module):
    """Causal self-attention with shared key and value heads (Shazeer 2019; Ainslie et al. 2023)."""

    heads: int
    key_value_heads: int
    head_dim: int
    rotary_base: float
    hook: Hook
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        def heads(name: str, count: int, axis: str) -> jax.Array:
            projected = Projection(count * self.head_dim, ("embed", axis), self.hook, self.dtype, name=name)(
                inputs
            )
            return projected.reshape(*inputs.shape[:-1], count, self.head_dim)

        query = rotate(heads("query", self.heads, "heads"), self.rotary_base)
        key = rotate(heads("key", self.key_value_heads, "key_value_heads"), self.rotary_base)
        value = heads("value", self.key_value_heads, "key_value_heads")
        attended = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        attended = attended.reshape(*inputs.shape[:-1], self.heads * self.head_dim)
        return Projection(inputs.shape[-1], ("heads", "embed"), self.hook, self.dtype, name="out")(attended)


class FeedForward(nn.Module):
    """Gated feed-forward: down(activation(gate(x)) * up(x)) (Shazeer 2020)."""

    features: int
    activation: str
    hook: Hook
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        gate = Projection(self.features, ("embed", "mlp"), self.hook, self.dtype, name="gate")(inputs)
        up = Projection(self.features, ("embed", "mlp"), self.hook, self.dtype, name="up")(inputs)
        hidden = ACTIVATIONS[self.activation](gate) * up
        return Projection(inputs.shape[-1], ("mlp", "embed"), self.hook, self.dtype, name="down")(hidden)
