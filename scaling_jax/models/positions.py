"""How attention knows positions: rotation of queries and keys, or a bias by distance."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax.models.config import ModelConfig


def rotary_frequencies(config: ModelConfig) -> jax.Array:
    """Radians per position of every pair: float32 [head_dim / 2].

    LLaMA 3's scaling (Grattafiori et al. 2024; as in its released code): waves longer than
    original_length / low_frequency are stretched by the factor, those shorter than original_length /
    high_frequency are left alone, those between are mixed linearly in their number of turns.
    """
    half = config.head_dim // 2
    frequencies = config.rotary_base ** -(jnp.arange(half, dtype=jnp.float32) / half)
    if config.rotary_factor == 1.0:
        return frequencies
    turns = config.rotary_original_length * frequencies / (2 * math.pi)
    low, high = config.rotary_low_frequency, config.rotary_high_frequency
    kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
    return frequencies * (kept + (1 - kept) / config.rotary_factor)


def rotate(values: jax.Array, frequencies: jax.Array, positions: jax.Array) -> jax.Array:
    """Rotary positions (Su et al. 2021) for values [..., length, heads, head_dim]; halves are paired.

    `positions` are float32 [length], or [..., length] where they differ.
    """
    angles = positions[..., None, None] * frequencies
    sine, cosine = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(values.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(values.dtype)


def distance_buckets(length: int, causal: bool, buckets: int, farthest: int) -> np.ndarray:
    """Buckets of the distances 1 - length to length - 1 from a query to a key: int32 [2 length - 1].

    Half of the buckets are for single distances, half for spans that grow by a constant factor up to
    `farthest`. Without causality one half of all looks back and the other ahead (Raffel et al. 2020).
    Computed by NumPy in float32: on the edge of a span the last bit of the logarithm decides, which
    compilers do not agree on.
    """
    ahead = np.arange(1 - length, length)
    if causal:
        offset, distance = 0, np.maximum(-ahead, 0)
    else:
        buckets //= 2
        offset, distance = np.where(ahead > 0, buckets, 0), np.abs(ahead)
    single = buckets // 2
    ratio = np.maximum(distance, 1).astype(np.float32) / np.float32(single)
    growth = np.log(ratio) / np.float32(math.log(farthest / single)) * np.float32(buckets - single)
    spans = np.minimum(single + growth.astype(np.int32), buckets - 1)
    return (offset + np.where(distance < single, distance, spans)).astype(np.int32)


class RelativeBias(nn.Module):
    """One trained number per distance bucket and head, added to the scores of every layer."""

    config: ModelConfig
    causal: bool

    def setup(self):
        config = self.config
        initializer = nn.initializers.normal(stddev=config.relative_buckets**-0.5)
        shape = (config.relative_buckets, config.heads)
        self.table = self.param("table", nn.with_logical_partitioning(initializer, (None, "heads")), shape)

    def __call__(self, length: int) -> jax.Array:
        """Float32 [1, heads, length, length]."""
        places = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
        return self.between(places, length).transpose(2, 0, 1)[None]

    def between(self, distances: jax.Array, length: int) -> jax.Array:
        """Float32 [..., heads] of distances from a query to a key [...], all of them less than `length`."""
        config = self.config
        buckets = distance_buckets(length, self.causal, config.relative_buckets, config.relative_distance)
        return self.table[buckets][distances + length - 1]
