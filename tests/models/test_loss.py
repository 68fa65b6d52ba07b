"""Cross-entropy in chunks: the same numbers, less memory."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from scaling_jax.models import loss
from scaling_jax.training.mesh import AXES, RULES


def arrays(batch, length, width, vocabulary):
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(batch, length, width)).astype(np.float32)
    table = generator.normal(size=(vocabulary, width)).astype(np.float32)
    return hidden, table, generator.integers(0, vocabulary, (batch, length)).astype(np.int32)


def gradient(chunk, of=(0, 1)):
    def total(hidden, table, targets):
        found = loss.next_token_loss(hidden, table, targets, chunk)
        return jnp.sum(found * jnp.arange(found.size).reshape(found.shape)), found

    return jax.jit(jax.grad(total, argnums=of, has_aux=True))


@pytest.mark.parametrize("chunk", [1, 5, 6])
def test_parts_equal_the_whole_in_value_and_gradient(chunk):
    given = arrays(2, 12, 8, 40)
    plain, parted = gradient(12)(*given), gradient(chunk)(*given)
    for wanted, found in zip(jax.tree.leaves(plain), jax.tree.leaves(parted), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)
    hidden, table, targets = given
    logits = hidden.astype(np.float64) @ table.T.astype(np.float64)
    by_hand = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(parted[1], by_hand, rtol=1e-5, atol=1e-5)


def test_parts_in_half_precision_add_up_in_float32():
    """The gradient of the table over many parts is as near to that of exact sums as over one."""
    hidden, table, targets = arrays(2, 64, 8, 40)
    half = (hidden.astype(jnp.bfloat16), table.astype(jnp.bfloat16), targets)
    exact = gradient(64)(*(np.asarray(array, np.float32) for array in half[:2]), targets)[0][1]
    for chunk in (64, 2):
        found = np.asarray(gradient(chunk)(*half)[0][1], np.float32)
        assert np.linalg.norm(found - exact) < 0.01 * np.linalg.norm(exact)


def test_large_logits_do_not_overflow():
    hidden, table, targets = arrays(1, 2, 8, 40)
    found = loss.next_token_loss(hidden * 1000, table, targets, 1)
    assert np.isfinite(found).all() and (np.asarray(found) > -1e-3).all()


def test_parts_need_less_memory_at_a_large_vocabulary():
    given = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, arrays(2, 32, 8, 20000)))
    needed = [
        gradient(chunk).lower(*given).compile().memory_analysis().temp_size_in_bytes for chunk in (32, 2)
    ]
    whole_logits = 2 * 32 * 20000 * 4
    assert needed[0] >= whole_logits
    assert needed[1] < needed[0] / 2


def test_a_frozen_output_matrix_has_no_gradient():
    given = arrays(2, 12, 8, 40)  # 12 rows in a part: [8, 40] is nothing but that gradient
    for of, wanted in ((0, False), ((0, 1), True)):
        program = gradient(6, of).lower(*given).compile().as_text()
        products = re.findall(r"= f32\[([\d,]+)\]\S* (?:dot|custom-call)\(", program)
        assert any(sorted(map(int, shape.split(",")))[-2:] == [8, 40] for shape in products) == wanted


def test_parts_are_of_nearly_the_asked_length():
    asked = [loss.chunk_length((4, length), 50, at_most=16) for length in (1, 8, 48, 51, 23)]
    assert asked == [1, 8, 16, 13, 12]


def test_parts_follow_from_what_a_device_holds():
    assert loss.chunk_length((32, 64), 512) == 64
    for (batch, length), vocabulary in (((16, 2048), 128_000), ((64, 960), 32_000), ((4, 7), 1 << 23)):
        chunk = loss.chunk_length((batch, length), vocabulary)
        parts = -(-length // chunk)
        assert (parts - 1) * chunk < length <= parts * chunk
        rows = batch * chunk
        assert rows <= loss.ROWS_AT_LEAST or rows * vocabulary <= loss.LOGITS_AT_ONCE
    mesh = AbstractMesh((4, 2, 4), AXES, axis_types=(AxisType.Auto,) * 3)
    alone = loss.chunk_length((64, 1024), 128_000)
    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(RULES):
        assert loss.chunk_length((64, 1024), 128_000) == 16 * alone == 256
