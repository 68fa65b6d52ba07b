"""Prompt tuning: where the vectors come from, where they stand, how many there are."""

import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.tuning.prompt import Prompt
from tests.models import tiny
from tests.tuning import made

CONFIG = tiny.CONFIG


@pytest.fixture(scope="module")
def base():
    return tiny.parameters()


def test_it_begins_from_rows_of_the_table(base):
    tuned = made.added(Prompt(length=5), base)
    assert {name.split("/")[-1] for name in made.leaves(tuned)} == {"prompt"}
    (prompt,) = made.leaves(tuned).values()
    assert prompt.shape == (5, CONFIG.model_dim) and prompt.dtype == jnp.float32
    rows = base["embedding"]["table"] * np.float32(CONFIG.model_dim**0.5)
    distance = np.abs(np.asarray(prompt)[:, None] - rows[None]).max(-1)
    assert (distance.min(1) < 1e-6).all()
    assert len(set(distance.argmin(1))) > 1


def test_it_equals_the_same_tokens_in_front(base):
    """A prompt of embeddings is the model reading those tokens first."""
    chosen = np.array([7, 3, 30])
    prompt = base["embedding"]["table"][chosen] * np.float32(CONFIG.model_dim**0.5)
    inputs, targets = tiny.tokens()
    found = made.losses(Prompt(length=3), {"embedding": {"prompt": prompt}}, base)
    front = np.tile(chosen, (3, 1)).astype(np.int32)
    longer = [np.concatenate([front, part], 1) for part in (inputs, targets)]
    np.testing.assert_allclose(found, tiny.losses(CONFIG, base, longer)[:, 3:], atol=1e-5)
    assert found.shape == targets.shape


def test_stacks_that_are_not_there():
    assert made.program(Prompt(4, stacks="decoder")).trained_parameters() == 4 * CONFIG.model_dim
    with pytest.raises(InputError, match="this model has no encoder; it has decoder"):
        made.program(Prompt(4, stacks=("encoder",))).trained_parameters()
    with pytest.raises(InputError, match="prompt.stacks = .'middle',.: 'encoder', 'decoder', both"):
        Prompt(4, stacks=("middle",))
    with pytest.raises(InputError, match="prompt.length = 0"):
        Prompt(0)
