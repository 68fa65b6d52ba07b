"""Cross-entropy of the next token without float32 logits for the whole batch."""

import jax
import jax.numpy as jnp

# Float32 logits that may exist at one time: 64 MiB a step of the scan on one device.
LOGITS_AT_ONCE = 1 << 24


def chunk_length(shape: tuple[int, int], vocabulary_size: int, at_most: int = 0) -> int:
    """Positions per chunk: the largest divisor of the length that is no more than `at_most`.

    At 0, that keeps the logits of the batch below `LOGITS_AT_ONCE`.
    """
    batch, length = shape
    allowed = at_most or max(1, LOGITS_AT_ONCE // (batch * vocabulary_size))
    return max(size for size in range(1, length + 1) if length % size == 0 and size <= allowed)


def logits(hidden: jax.Array, table: jax.Array) -> jax.Array:
    """Float32 logits [..., vocabulary] of hidden [..., model_dim] against table [vocabulary, model_dim]."""
    rows = hidden.reshape(-1, hidden.shape[-1])
    scores = jnp.einsum("re,ve->rv", rows, table, preferred_element_type=jnp.float32)
    return scores.reshape(*hidden.shape[:-1], table.shape[0])


def next_token_loss(hidden: jax.Array, table: jax.Array, targets: jax.Array, chunk: int) -> jax.Array:
    """-log p(target) in nats, float32 [batch, length].

    Args:
        hidden: [batch, length, model_dim].
        table: tied embedding [vocabulary, model_dim].
        targets: token ids [batch, length].
        chunk: positions whose logits exist at one time; a divisor of length. The backward pass
            computes them again.
    """

    def losses(part_hidden: jax.Array, part_targets: jax.Array) -> jax.Array:
        scores = logits(part_hidden, table)
        chosen = jnp.take_along_axis(scores, part_targets[..., None], axis=-1)[..., 0]
        return jax.nn.logsumexp(scores, axis=-1) - chosen

    batch, length = targets.shape
    if chunk == length:
        return losses(hidden, targets)
    # Chunks run along the length so that the batch keeps its sharding.
    hidden_parts = hidden.reshape(batch, length // chunk, chunk, -1).swapaxes(0, 1)
    target_parts = targets.reshape(batch, length // chunk, chunk).swapaxes(0, 1)
    _, parts = jax.lax.scan(
        lambda carry, part: (carry, jax.checkpoint(losses)(*part)), None, (hidden_parts, target_parts)
    )
    return parts.swapaxes(0, 1).reshape(batch, length)
