"""Selection by module and by layer: patterns, phrases, and what stands in layers that were not chosen."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.models.config import ModelConfig
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.selection import chosen_layers, matches
from tests.models import tiny
from tests.tuning import made

FOUR_LAYERS = ModelConfig("tiny", 4, 2, 8, 16, 24, 48)
DECODER = ("layers", "layer", "attention", "query")
CROSS = ("decoder", "layers", "layer", "cross_attention", "key")


@pytest.mark.parametrize(
    ("pattern", "path", "does"),
    [
        ("query", DECODER, True),
        ("key", DECODER, False),
        ("attention", DECODER, True),
        ("attention", CROSS, True),
        ("attention/key", CROSS, True),
        ("self_attention", CROSS, False),
        ("self_attention/query", DECODER, True),
        ("decoder/cross_attention", CROSS, True),
        ("encoder/attention", CROSS, False),
        ("key/decoder", CROSS, False),
        ("decoder/k*", CROSS, True),
        ("*", DECODER, True),
        ("feed_forward", DECODER, False),
        ("quer", DECODER, False),
    ],
)
def test_patterns(pattern, path, does):
    assert matches(pattern, path) == does


@pytest.mark.parametrize(
    ("wanted", "indices"),
    [
        ("all", [0, 1, 2, 3, 4, 5]),
        ("first 2", [0, 1]),
        ("last 3", [3, 4, 5]),
        ("random 6 seed 3", [0, 1, 2, 3, 4, 5]),
        ((5, 0), [0, 5]),
    ],
)
def test_layers(wanted, indices):
    assert chosen_layers("lora.layers", wanted, 6).tolist() == indices


def test_random_layers_follow_from_the_seed():
    drawn = [chosen_layers("lora.layers", f"random 4 seed {seed}", 24).tolist() for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2] and len(set(drawn[0])) == 4


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("last", "'all', 'first N', 'last N', 'random N seed S' or a list"),
        ("first two", "'all', 'first N'"),
        ("random 2", "'all', 'first N'"),
        ("first 7", "lora.layers = 'first 7': the model has 6 layers, choose 1 to 6"),
        ("last 0", "choose 1 to 6"),
        ((), "different indices between 0 and 5"),
        ((1, 1), "different indices"),
        ((0, 6), r"lora.layers = \(0, 6\): different indices between 0 and 5, of the 6 layers"),
        ((-1,), "different indices"),
    ],
)
def test_layers_that_cannot_be(wanted, says):
    with pytest.raises(InputError, match=says):
        chosen_layers("lora.layers", wanted, 6)


@pytest.mark.parametrize(
    ("method", "says"),
    [
        (LoRA(targets=("query", "keys")), "lora.targets: 'keys' matches no projection; those that exist: "),
        (IA3(targets=()), "ia3.targets: an empty list matches no projection"),
        (BitFit(targets=("encoder",)), "those that exist: attention/key, attention/out, attention/query, "),
    ],
)
def test_targets_that_match_nothing(method, says):
    with pytest.raises(InputError, match=says):
        made.program(method).trained_parameters()
    with pytest.raises(InputError, match=says):
        made.program(method).start(tiny.parameters(), 0)


@pytest.mark.parametrize(
    ("method", "unroll"),
    [
        (LoRA(rank=2), 1),
        (IA3(), 4),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((LoRA(rank=2), 4), (IA3(), 1), (BitFit(), 4))
        ),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_layers_that_are_not_chosen_stay_as_they_are(method, unroll):
    """The chosen rows, trained, equal all rows with the identity by hand in the others."""
    config = dataclasses.replace(FOUR_LAYERS, unroll=unroll)
    base = tiny.parameters(config)
    chosen = dataclasses.replace(method, layers=(1, 3))
    some, every = (made.added(one, base, config=config) for one in (chosen, method))
    for name, leaf in made.leaves(some).items():
        np.testing.assert_array_equal(leaf, np.asarray(made.leaves(every)[name])[[1, 3]])
    some = made.moved(some)
    by_hand = {name: np.full_like(leaf, method.identity) for name, leaf in made.leaves(every).items()}
    for name, leaf in made.leaves(some).items():
        by_hand[name][[1, 3]] = leaf
    tree = jax.tree.unflatten(jax.tree.structure(every), list(by_hand.values()))
    found = made.losses(chosen, some, base, config)
    np.testing.assert_allclose(found, made.losses(method, tree, base, config), atol=1e-6)
    assert np.abs(found - tiny.losses(config, base, tiny.tokens())).max() > 1e-3
