"""Examples shown before a question."""

import numpy as np
import pytest

from scaling_jax.data.store import VocabularyFile, open_store, write_store
from scaling_jax.errors import InputError
from scaling_jax.evaluation.prompts import SHOTS, Shots, shot_prompts, shown_examples
from tests.training import tiny

VOCABULARY = VocabularyFile("bytes", 259)
QUESTIONS = [np.array([5, 6]), np.array([7])]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return [open_store(path) for path in tiny.write_stores(tmp_path_factory.mktemp("stores"))]


def test_zero_shot_is_the_question(stores):
    found = shot_prompts(QUESTIONS, stores[1].split("train"), VOCABULARY, Shots())
    assert [prompt.tolist() for prompt in found] == [[5, 6], [7]]
    assert SHOTS == {"zero_shot": 0, "one_shot": 1, "five_shot": 5}


def test_examples_stand_before_every_question(stores):
    split = stores[1].split("train")
    (index,) = shown_examples(len(split), Shots(1))
    example = split[int(index)]
    assert example["targets"][-1] == VOCABULARY.eos_id
    shown = [*example["inputs"], *example["targets"]]  # whose EOS is the separator
    for found, question in zip(shot_prompts(QUESTIONS, split, VOCABULARY, Shots(1)), QUESTIONS, strict=True):
        assert found.tolist() == [*shown, *question]
        assert found.dtype == np.int32
    (found, _) = shot_prompts(QUESTIONS, split, VOCABULARY, Shots(1, separator="A\n"))
    assert found.tolist() == [*shown[:-1], ord("A") + 3, ord("\n") + 3, 5, 6]


def test_inputs_that_end_in_eos_do_so_in_every_example(tmp_path):
    examples = [{"inputs": np.array([9, 1]), "targets": np.array([8, 1])}] * 3
    written = {"facts": {}, "seed": 0, "settings": {}, "vocabulary": VOCABULARY}
    lengths = {"inputs": 4, "targets": 4}
    store = write_store(
        tmp_path / "store", task="t_v1", feature_lengths=lengths, splits={"train": examples}, **written
    )
    (found,) = shot_prompts([np.array([5, 6, 1])], store.split("train"), VOCABULARY, Shots(2))
    assert found.tolist() == [9, 1, 8, 1, 9, 1, 8, 1, 5, 6, 1], "as training lays them out, one after another"


def test_one_shot_is_the_first_of_five_and_the_seed_decides(stores):
    five = shown_examples(40, Shots(5))
    assert len(set(five)) == 5
    np.testing.assert_array_equal(five[:1], shown_examples(40, Shots(1)))
    assert set(five) != set(shown_examples(40, Shots(5, seed=1)))


def test_what_cannot_be_shown(stores):
    with pytest.raises(InputError, match="41 shots, but split 'train' has 40"):
        shot_prompts(QUESTIONS, stores[1].split("train"), VOCABULARY, Shots(41))
    with pytest.raises(InputError, match="holds windows"):
        shot_prompts(QUESTIONS, stores[0].split("train"), VOCABULARY, Shots(1))
    with pytest.raises(InputError, match=r"Shots.count = -1"):
        Shots(-1)
