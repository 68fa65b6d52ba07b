"""LoRA: initial values, the merge by hand, dropout, and settings that cannot be."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.selection import PROJECTIONS
from tests.models import tiny
from tests.tuning import made

CONFIG = tiny.CONFIG


@pytest.fixture(scope="module")
def base():
    return tiny.parameters()


@pytest.fixture(scope="module")
def tuned(base):
    return made.added(LoRA(rank=2), base)


def test_shapes_and_initial_values(base, tuned):
    found = made.leaves(tuned)
    assert {name.split("/")[-1] for name in found} == {"lora_a", "lora_b"}
    assert {name.split("/")[-2] for name in found} == set(PROJECTIONS)
    assert all(leaf.dtype == jnp.float32 for leaf in found.values())
    kernels = made.leaves(base)
    downs = []
    for name, leaf in found.items():
        layers, features_in, features_out = kernels[name.rsplit("/", 1)[0] + "/kernel"].shape
        if name.endswith("lora_b"):
            assert leaf.shape == (layers, 2, features_out) and not np.any(leaf)
        else:
            assert leaf.shape == (layers, features_in, 2)
            bound = features_in**-0.5
            assert 0.6 * bound < np.abs(leaf).max() <= bound
            downs += [tuple(np.ravel(layer)[:8]) for layer in np.asarray(leaf)]
    assert len(set(downs)) == len(downs) == 14, "every layer and projection draws its own"


def test_seed_of_what_is_added(base, tuned):
    method = LoRA(rank=2)
    again, other = made.added(method, base), made.added(method, base, seed=1)
    name = "layers/layer/attention/query/lora_a"
    np.testing.assert_array_equal(made.leaves(again)[name], made.leaves(tuned)[name])
    assert not np.array_equal(made.leaves(other)[name], made.leaves(tuned)[name])


@pytest.mark.parametrize("alpha", [None, 6.0])
def test_merged_by_hand(base, tuned, alpha):
    method, tuned = LoRA(rank=2, alpha=alpha), made.moved(tuned)
    assert method.scale == (1.0 if alpha is None else 3.0)
    merged = method.merge(tuned, base)
    assert jax.tree.structure(merged) == jax.tree.structure(base)
    np.testing.assert_array_equal(merged["embedding"]["table"], base["embedding"]["table"])
    for layer in range(CONFIG.layers):
        out = tuned["layers"]["layer"]["attention"]["out"]
        product = np.asarray(out["lora_a"])[layer] @ np.asarray(out["lora_b"])[layer]
        before = base["layers"]["layer"]["attention"]["out"]["kernel"][layer]
        after = np.asarray(merged["layers"]["layer"]["attention"]["out"]["kernel"])[layer]
        np.testing.assert_allclose(after, before + method.scale * product, atol=1e-6)


def test_dropout_is_for_training_only(base, tuned):
    """Hidden inputs are drawn per layer and step seed, and on average nothing is lost."""
    method, tuned = LoRA(rank=2, dropout=0.5), made.moved(tuned)
    variables = method.variables(tuned, base)
    apply = jax.jit(made.program(method).module.apply)
    without = np.asarray(apply(variables, *tiny.tokens()))
    np.testing.assert_array_equal(without, made.losses(LoRA(rank=2), tuned, base))
    drawn = [
        np.asarray(apply(variables, *tiny.tokens(), rngs={"dropout": jax.random.key(i)})) for i in (1, 1, 2)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert np.abs(drawn[0] - drawn[2]).max() > 1e-3 < np.abs(drawn[0] - without).max()


def test_a_dropped_step_follows_from_seed_and_step(base):
    """The same run twice is the same to the last bit, another seed is not; microbatches draw apart."""
    whole = np.random.default_rng(0).integers(0, 48, (2, 4, 7)).astype(np.int32)
    batches = {
        "inputs": whole[..., :-1],
        "targets": whole[..., 1:],
        "weights": np.ones((2, 4, 6), np.float32),
    }
    program = made.program(LoRA(rank=2, dropout=0.3, targets=("query", "up")))
    start = made.added(program.method, base)

    def losses(seed):
        state = program.restart(start, seed)
        return np.asarray(program.train(state, base, batches, np.full(2, 0.1, np.float32))[1]["loss"])

    first = losses(0)
    np.testing.assert_array_equal(losses(0), first)
    assert losses(1)[1] != first[1]


def test_trained_parameters_equal_the_formula():
    def number(method):
        return made.program(method).trained_parameters()

    width, hidden, attention, shared = CONFIG.model_dim, CONFIG.feed_forward_dim, 2 * 8, 8
    per_rank = 2 * (width + attention) + 2 * (width + shared) + 3 * (width + hidden)
    assert number(LoRA(rank=2)) == CONFIG.layers * 2 * per_rank
    assert number(LoRA(rank=4)) == 2 * number(LoRA(rank=2))
    assert number(LoRA(rank=2, targets=("query",))) == CONFIG.layers * 2 * (width + attention)
    assert number(LoRA(rank=2, targets=("query",), layers="last 1")) == 2 * (width + attention)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rank": 0}, "lora.rank = 0: at least 1"),
        ({"dropout": 1.0}, "lora.dropout = 1.0: a share, at least 0 and below 1"),
    ],
)
def test_bad_settings(settings, says):
    with pytest.raises(InputError, match=says):
        LoRA(**settings)


def test_a_rank_above_the_matrix():
    with pytest.raises(InputError, match=r"lora.rank = 9 is above the smaller side of key \[16, 8\]"):
        made.program(LoRA(rank=9)).trained_parameters()
    assert made.program(LoRA(rank=9, targets=("query", "feed_forward"))).trained_parameters()
