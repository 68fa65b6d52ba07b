"""Cross-entropy of the next token without float32 logits for the whole batch.

Where all logits would be too many, positions are taken in parts: the forward pass keeps what a position's
scores add up to, the backward pass computes the scores of a part again and at once what follows from
them. Where they are few there is one part, and nothing is computed twice.
"""

import functools

import jax
import jax.numpy as jnp

from scaling_jax.models import placement

# Float32 logits that may exist at one time on one device: 256 MiB.
LOGITS_AT_ONCE = 1 << 26
# Rows of a part on one device, however large the vocabulary: every part adds to the gradient of the whole
# output matrix, and with fewer rows than that reading and writing it would take longer than the products.
ROWS_AT_LEAST = 1024


def chunk_length(shape: tuple[int, int], vocabulary_size: int, at_most: int = 0) -> int:
    """Positions per part, of rows [batch, length]; parts of equal length, the last one filled up.

    At 0, `at_most` follows from what fits on a device: `LOGITS_AT_ONCE`, or `ROWS_AT_LEAST` where those are
    more.
    """
    batch, length = shape
    own_batch = -(-batch // placement.parts("batch"))
    own_vocabulary = -(-vocabulary_size // placement.parts("vocabulary"))
    rows = max(LOGITS_AT_ONCE // own_vocabulary, ROWS_AT_LEAST)
    allowed = min(at_most or max(1, rows // own_batch), length)
    parts = -(-length // allowed)
    return -(-length // parts)


def logits(hidden: jax.Array, table: jax.Array) -> jax.Array:
    """Float32 logits [..., vocabulary] of hidden [..., model_dim] against table [vocabulary, model_dim]."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    scores = jnp.einsum("re,ve->rv", rows, table, preferred_element_type=jnp.float32)
    return scores.reshape(*hidden.shape[:-1], table.shape[0])


def next_token_loss(hidden: jax.Array, table: jax.Array, targets: jax.Array, chunk: int) -> jax.Array:
    """-log p(target) in nats, float32 [batch, length].

    Args:
        hidden: [batch, length, model_dim].
        table: output matrix [vocabulary, model_dim], of the dtype of `hidden`.
        targets: token ids [batch, length].
        chunk: positions whose logits exist at one time; at least the length is no parts.
    """
    length = targets.shape[1]
    if chunk >= length:
        return _losses(hidden, table, targets)[0]
    # Parts run along the length so that the batch keeps its sharding.
    filled = ((0, 0), (0, -length % chunk))
    hidden, targets = jnp.pad(hidden, (*filled, (0, 0))), jnp.pad(targets, filled)
    return _in_parts(hidden, table, targets, chunk)[:, :length]


def _losses(hidden: jax.Array, table: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(nats, logarithm of the sum of exponentials of the scores), float32 [batch, length]."""
    scores = logits(hidden, table)
    chosen = jnp.take_along_axis(scores, targets[..., None], axis=-1)[..., 0]
    total = jax.nn.logsumexp(scores, axis=-1)
    return total - chosen, total


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _in_parts(hidden: jax.Array, table: jax.Array, targets: jax.Array, chunk: int) -> jax.Array:
    return _forward(hidden, table, targets, chunk)[0]


def _forward(hidden: jax.Array, table: jax.Array, targets: jax.Array, chunk: int) -> tuple[jax.Array, tuple]:
    def of_part(_: None, part: tuple[jax.Array, jax.Array]) -> tuple[None, tuple[jax.Array, jax.Array]]:
        own_hidden, own_targets = part
        return None, _losses(own_hidden, table, own_targets)

    parts = (_cut(hidden, chunk), _cut(targets, chunk))
    nats, totals = (_joined(found) for found in jax.lax.scan(of_part, None, parts)[1])
    return nats, (hidden, table, targets, totals)


def _backward(chunk: int, kept: tuple, gradient: jax.Array) -> tuple[jax.Array, jax.Array, None]:
    """Of a score: its probability, minus one if it is the target's. Products are of the model's dtype, as
    those of every other matrix; parts add up in float32."""
    hidden, table, targets, totals = kept
    # One sum for every part of the batch that is elsewhere: devices exchange them once, not in every part.
    groups = placement.parts("batch")
    if hidden.shape[0] % groups:
        groups = 1

    def of_part(into_table: jax.Array, part: tuple) -> tuple[jax.Array, jax.Array]:
        own_hidden, own_targets, own_totals, own_gradient = part
        scores = logits(own_hidden, table)
        is_target = own_targets[..., None] == jnp.arange(table.shape[0])
        of_scores = (jnp.exp(scores - own_totals[..., None]) - is_target) * own_gradient[..., None]
        of_scores = of_scores.astype(table.dtype)
        of_hidden = jnp.einsum("blv,ve->ble", of_scores, table)
        by_group = [array.reshape(groups, -1, array.shape[-1]) for array in (of_scores, own_hidden)]
        into_table += jnp.einsum("grv,gre->gve", *by_group, preferred_element_type=jnp.float32)
        return into_table, of_hidden

    parts = tuple(_cut(array, chunk) for array in (hidden, targets, totals, gradient))
    into_table = jnp.zeros((groups, *table.shape), jnp.float32)
    into_table = placement.constrained(into_table, "batch", "vocabulary", None)
    into_table, of_hidden = jax.lax.scan(of_part, into_table, parts)
    return _joined(of_hidden), jnp.sum(into_table, axis=0).astype(table.dtype), None


_in_parts.defvjp(_forward, _backward)


def _cut(array: jax.Array, chunk: int) -> jax.Array:
    """[parts, batch, chunk, ...] of [batch, length, ...]."""
    batch, length, *rest = array.shape
    return array.reshape(batch, length // chunk, chunk, *rest).swapaxes(0, 1)


def _joined(parts: jax.Array) -> jax.Array:
    """[batch, length, ...] of [parts, batch, chunk, ...]."""
    count, batch, chunk, *rest = parts.shape
    return parts.swapaxes(0, 1).reshape(batch, count * chunk, *rest)
