"""The decoder against plain NumPy, and what its execution choices may not change."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.models import counts
from scaling_jax.models.decoder import Decoder
from scaling_jax.models.layers import rotate
from tests.models import tiny

CONFIG = tiny.CONFIG


@pytest.fixture(scope="module")
def params():
    return tiny.parameters()


@pytest.fixture(scope="module")
def plain_losses(params):
    return tiny.losses(CONFIG, params, tiny.tokens())


def numpy_forward(config, params, inputs):
    """Logits [rows, length, vocabulary] in float64, one row, head and position at a time."""
    table = np.asarray(params["embedding"]["table"], np.float64)
    layers = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params["layers"]["layer"])
    rows, length = inputs.shape
    logits = np.zeros((rows, length, config.vocabulary_size))
    for row in range(rows):
        hidden = np.stack([table[token] for token in inputs[row]]) * math.sqrt(config.model_dim)
        for index in range(config.layers):
            layer = jax.tree.map(lambda leaf, index=index: leaf[index], layers)
            normed = numpy_norm(hidden, layer["attention_norm"]["scale"])
            hidden = hidden + numpy_attention(config, layer["attention"], normed)
            normed = numpy_norm(hidden, layer["feed_forward_norm"]["scale"])
            gate = normed @ layer["feed_forward"]["gate"]["kernel"]
            gelu = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
            up = normed @ layer["feed_forward"]["up"]["kernel"]
            hidden = hidden + (gelu * up) @ layer["feed_forward"]["down"]["kernel"]
        final = numpy_norm(hidden, np.asarray(params["final_norm"]["scale"], np.float64))
        logits[row] = final @ table.T
    return logits


def numpy_norm(values, scale):
    return values / np.sqrt((values * values).mean(-1, keepdims=True) + 1e-6) * scale


def numpy_rotated(vector, position, base):
    """Pairs (i, i + half) as complex numbers turned by position * base ** (-i / half)."""
    half = len(vector) // 2
    turned = (vector[:half] + 1j * vector[half:]) * np.exp(1j * position * base ** (-np.arange(half) / half))
    return np.concatenate([turned.real, turned.imag])


def numpy_attention(config, weights, normed):
    length, size = len(normed), config.head_dim
    queries, keys = normed @ weights["query"]["kernel"], normed @ weights["key"]["kernel"]
    values = normed @ weights["value"]["kernel"]
    mixed = np.zeros((length, config.heads * size))
    for head in range(config.heads):
        shared = head // (config.heads // config.key_value_heads)
        own, other = slice(head * size, (head + 1) * size), slice(shared * size, (shared + 1) * size)
        for position in range(length):
            query = numpy_rotated(queries[position, own], position, config.rotary_base)
            scores = np.array(
                [
                    query @ numpy_rotated(keys[earlier, other], earlier, config.rotary_base) / math.sqrt(size)
                    for earlier in range(position + 1)
                ]
            )
            share = np.exp(scores - scores.max())
            mixed[position, own] = (share / share.sum()) @ values[: position + 1, other]
    return mixed @ weights["out"]["kernel"]


@pytest.mark.parametrize(
    "changes", [{}, {"heads": 4, "key_value_heads": 2, "head_dim": 4, "rotary_base": 100.0}]
)
def test_forward_equals_numpy_by_hand(changes):
    config = dataclasses.replace(CONFIG, **changes)
    params, (inputs, targets) = tiny.parameters(config, seed=4), tiny.tokens()
    wanted = numpy_forward(config, params, inputs)
    found = jax.jit(lambda p, x: Decoder(config).apply({"params": p}, x, method="logits"))(params, inputs)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    total = np.log(np.exp(wanted).sum(-1))
    negative_log_likelihood = total - np.take_along_axis(wanted, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(
        tiny.losses(config, params, (inputs, targets)), negative_log_likelihood, atol=1e-5
    )


def test_a_later_token_changes_no_earlier_loss(params, plain_losses):
    inputs, targets = tiny.tokens()
    changed = inputs.copy()
    changed[:, 7] = (changed[:, 7] + 1) % CONFIG.vocabulary_size
    found = tiny.losses(CONFIG, params, (changed, targets))
    np.testing.assert_array_equal(found[:, :7], plain_losses[:, :7])
    assert (found[:, 7:] != plain_losses[:, 7:]).all()


def test_padding_on_the_right_changes_no_loss(params, plain_losses):
    padded = [np.pad(part, ((0, 0), (0, 4))) for part in tiny.tokens()]
    np.testing.assert_allclose(tiny.losses(CONFIG, params, padded)[:, :12], plain_losses, atol=2e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {"remat": "full"},
        {"remat": "dots"},
        {"remat": "attention"},
        {"unroll": 2},
        {"remat": "full", "unroll": 2},
        {"logits_chunk": 3},
    ],
)
def test_execution_choices_change_no_loss_and_no_layout(params, plain_losses, changes):
    config = dataclasses.replace(CONFIG, **changes)
    np.testing.assert_allclose(tiny.losses(config, params, tiny.tokens()), plain_losses, atol=1e-6)
    layouts = [jax.tree.map(jnp.shape, tree) for tree in (counts.abstract_parameters(config), params)]
    assert layouts[0] == layouts[1]


def test_bfloat16_runs_and_is_near_float32(params, plain_losses):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    found = tiny.losses(config, params, tiny.tokens())
    assert found.dtype == np.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(counts.abstract_parameters(config))} == {
        jnp.dtype("float32")
    }
    np.testing.assert_allclose(found, plain_losses, atol=0.15)
    assert np.abs(found - plain_losses).max() > 0, "bfloat16 was not used"


def test_rotary_scores_depend_on_the_distance_alone():
    generator = np.random.default_rng(0)
    query, key = generator.normal(size=(2, 8)).astype(np.float32)

    def everywhere(vector):
        at = jnp.arange(20.0)
        return rotate(jnp.broadcast_to(jnp.asarray(vector), (1, 20, 1, 8)), 100.0, at)[0, :, 0]

    scores = np.asarray(everywhere(query) @ everywhere(key).T)
    for distance in (-5, 0, 1, 7):
        np.testing.assert_allclose(np.diagonal(scores, distance), np.diagonal(scores, distance)[0], atol=1e-5)
    np.testing.assert_allclose(scores[3, 3], query @ key, atol=1e-5)
    assert np.ptp(scores[0]) > 0.1


def test_initial_scale():
    """Rows of the table have unit length, kernels keep the variance, and no two layers are the same."""
    wide = dataclasses.replace(CONFIG, model_dim=64, heads=4, feed_forward_dim=128, vocabulary_size=256)
    fresh = tiny.initial_parameters(wide)
    assert abs(np.std(fresh["embedding"]["table"]) * math.sqrt(64) - 1) < 0.05
    feed_forward = fresh["layers"]["layer"]["feed_forward"]
    assert abs(np.std(feed_forward["up"]["kernel"]) * math.sqrt(64) - 1) < 0.05
    assert abs(np.std(feed_forward["down"]["kernel"]) * math.sqrt(128) - 1) < 0.05
    assert not np.array_equal(feed_forward["up"]["kernel"][0], feed_forward["up"]["kernel"][1])
    assert not np.array_equal(feed_forward["up"]["kernel"], feed_forward["gate"]["kernel"])
