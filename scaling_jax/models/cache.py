"""What a decoding model remembers, and how a query reads it.

It lies in three places, per layer:

- `prompt`: keys and values of what stood there at the beginning, one row per example. Prompts are
  padded on the right and read by the forward pass of training, in which padding on the right is never
  seen. A step does not write here, and an example's beams share it.
- `new`: of the tokens written since, one row per sequence. Every sequence writes into the same column
  in the same step, behind all padding, so that a step is one write in place.
- `memory`: of an encoder's output, computed once.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models.config import ModelConfig

# What is added to the score of a column that must not be read.
UNREAD = -0.7 * float(jnp.finfo(jnp.float32).max)


class KeysValues(NamedTuple):
    """Of one layer: keys as they are read, and values [rows, key-value heads, columns, head_dim]."""

    keys: jax.Array
    values: jax.Array


class Cache(NamedTuple):
    """What was read at the beginning; no step changes it.

    Attributes:
        prompt: per layer, rows are examples.
        memory: per layer, of the encoder's output; empty in a decoder alone.
        lengths: int32 [examples], positions read at the beginning, a method's prefix among them.
        memory_bias: float32 [examples, 1, 1, memory length], what a padded column adds to a score.
        table: output table [vocabulary, model_dim].
    """

    prompt: tuple[KeysValues, ...]
    memory: tuple[KeysValues, ...]
    lengths: jax.Array
    memory_bias: jax.Array | None
    table: jax.Array


class Place(NamedTuple):
    """Where a step stands, the same for all layers.

    Attributes:
        column: int32, of `new`, that this step writes.
        positions: float32 [rows, 1], of the token in its sequence, without padding.
        prompt_bias: float32 [examples, key-value heads or 1, queries of a head or 1, columns of the prompt].
        new_bias: float32 [1, the same, the same, columns of `new`].
    """

    column: jax.Array
    positions: jax.Array
    prompt_bias: jax.Array
    new_bias: jax.Array


def key_value_axis(config: ModelConfig) -> str:
    """Logical axis of the key-value heads."""
    return "heads" if config.key_value_heads == config.heads else "key_value_heads"


def empty(config: ModelConfig, rows: int, columns: int) -> tuple[KeysValues, ...]:
    """`new` before the first step, per layer."""
    axes = ("batch", key_value_axis(config), None, None)

    def zeros() -> jax.Array:
        shape = (rows, config.key_value_heads, columns, config.head_dim)
        array = jnp.zeros(shape, jnp.dtype(config.dtype))
        return nn.with_logical_constraint(array, axes)

    return tuple(KeysValues(zeros(), zeros()) for _ in range(config.layers))


def read_parts(query: jax.Array, parts: tuple[tuple[KeysValues, jax.Array], ...], scale: float) -> jax.Array:
    """What one query per row reads from several stores of keys and values together.

    Args:
        query: [rows, heads, head_dim].
        parts: stores and what is added to their scores [their rows or 1, key-value heads or 1, queries of
            a head or 1, columns]. A store with fewer rows than there are queries is shared by as many
            neighbouring rows.
        scale: what scores are multiplied by.

    Returns:
        [rows, heads * head_dim].
    """
    rows, _, head_dim = query.shape
    heads = parts[0][0].keys.shape[1]
    grouped = query.reshape(rows, heads, -1, head_dim)
    scores = [
        _of_rows(
            _of_store(grouped, stored, lambda mine, stored=stored: _products(mine, stored.keys)) * scale
            + bias[:, None],
            rows,
        )
        for stored, bias in parts
    ]
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(query.dtype)
    read, begin = 0.0, 0
    for stored, _ in parts:
        columns = stored.keys.shape[2]
        own = weights[..., begin : begin + columns]
        found = _of_store(own, stored, lambda mine, stored=stored: jnp.matmul(mine, stored.values))
        read, begin = read + _of_rows(found, rows), begin + columns
    return read.reshape(rows, -1)


def _products(queries: jax.Array, keys: jax.Array) -> jax.Array:
    """Float32 [rows, heads, queries, columns]."""
    return jnp.einsum("xkqd,xkcd->xkqc", queries, keys, preferred_element_type=jnp.float32)


def _of_store(of_rows: jax.Array, stored: KeysValues, product: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """`product` of [rows, heads, group, ...] with a store, one for all rows that share a row of it.

    Returns:
        [rows of the store, rows that share one, heads, group, ...].
    """
    rows, heads, group, width = of_rows.shape
    examples = stored.keys.shape[0]
    shared = of_rows.reshape(examples, rows // examples, heads, group, width).swapaxes(1, 2)
    found = product(shared.reshape(examples, heads, -1, width))
    return found.reshape(examples, heads, rows // examples, group, -1).swapaxes(1, 2)


def _of_rows(of_store: jax.Array, rows: int) -> jax.Array:
    return of_store.reshape(rows, *of_store.shape[2:])
