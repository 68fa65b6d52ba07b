"""Cross-entropy in chunks: the same numbers, less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.models import loss


def arrays(batch, length, width, vocabulary):
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(batch, length, width)).astype(np.float32)
    table = generator.normal(size=(vocabulary, width)).astype(np.float32)
    return hidden, table, generator.integers(0, vocabulary, (batch, length)).astype(np.int32)


def gradient(chunk):
    def total(hidden, table, targets):
        found = loss.next_token_loss(hidden, table, targets, chunk)
        return jnp.sum(found * jnp.arange(found.size).reshape(found.shape)), found

    return jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))


@pytest.mark.parametrize("chunk", [1, 4, 6])
def test_chunks_equal_the_whole_in_value_and_gradient(chunk):
    given = arrays(2, 12, 8, 40)
    plain, chunked = gradient(12)(*given), gradient(chunk)(*given)
    for wanted, found in zip(jax.tree.leaves(plain), jax.tree.leaves(chunked), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    hidden, table, targets = given
    logits = hidden.astype(np.float64) @ table.T.astype(np.float64)
    by_hand = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(chunked[1], by_hand, rtol=1e-5, atol=1e-5)


def test_large_logits_do_not_overflow():
    hidden, table, targets = arrays(1, 2, 8, 40)
    found = loss.next_token_loss(hidden * 1000, table, targets, 1)
    assert np.isfinite(found).all() and (np.asarray(found) > -1e-3).all()


def test_chunks_need_less_memory_at_a_large_vocabulary():
    given = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, arrays(2, 32, 8, 20000)))
    needed = [
        gradient(chunk).lower(*given).compile().memory_analysis().temp_size_in_bytes for chunk in (32, 2)
    ]
    whole_logits = 2 * 32 * 20000 * 4
    assert needed[0] >= whole_logits
    assert needed[1] < needed[0] / 2


def test_an_asked_chunk_fits_every_length():
    assert [loss.chunk_length((4, length), 50, at_most=16) for length in (1, 8, 48, 51, 23)] == [
        1,
        8,
        16,
        3,
        1,
    ]


def test_chunk_length_divides_and_keeps_the_limit():
    assert loss.chunk_length((32, 64), 512) == 64
    for shape, vocabulary in (((16, 2048), 128_000), ((64, 96), 32_000), ((4, 7), 1 << 23)):
        chunk = loss.chunk_length(shape, vocabulary)
        assert shape[1] % chunk == 0
        assert chunk == 1 or shape[0] * chunk * vocabulary <= loss.LOGITS_AT_ONCE
