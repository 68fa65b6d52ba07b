"""Prompts that show examples before they ask: zero-, one- and five-shot (Zhang et al. 2024, section 4).

An example is shown as training lays it out: its input, in EOS where the task's inputs end in it (as the
question's then does), and its target. Which ones are shown is decided once by a seed, the same for every
question; the one of one-shot is the first of five-shot.
"""

import dataclasses
from collections.abc import Sequence

import gin
import numpy as np

from scaling_jax.data.pieces import pieces_of
from scaling_jax.data.store import Split, VocabularyFile
from scaling_jax.errors import InputError

SHOTS = {"zero_shot": 0, "one_shot": 1, "five_shot": 5}


@gin.configurable(module="evaluation")
@dataclasses.dataclass(frozen=True)
class Shots:
    """How many examples are shown, and which.

    Attributes:
        count: 0 shows none.
        seed: of the choice among the training examples.
        separator: text between an example and what follows; empty is the vocabulary's EOS, with which
            examples end in training.
    """

    count: int = 0
    seed: int = 0
    separator: str = ""

    def __post_init__(self):
        if not isinstance(self.count, int) or self.count < 0:
            raise InputError(f"Shots.count = {self.count!r}: an integer, at least 0")


def shot_prompts(
    inputs: Sequence[np.ndarray], split: Split, vocabulary: VocabularyFile, shots: Shots
) -> list[np.ndarray]:
    """The inputs, int32 [tokens] each, with the shown examples before them.

    Args:
        inputs: token ids as an example's `inputs` are.
        split: training examples with `inputs` and `targets`.
        vocabulary: that of both.
        shots: how many and which.

    Raises:
        InputError: fewer training examples than shots, or windows; a separator of unknown pieces.
    """
    if not shots.count:
        return [np.asarray(tokens, np.int32) for tokens in inputs]
    if split.features != ("inputs", "targets"):
        raise InputError(f"split {split.name!r} holds windows, shots are examples with inputs and targets")
    if shots.count > len(split):
        raise InputError(f"{shots.count} shots, but split {split.name!r} has {len(split)} examples")
    between = _separator(vocabulary, shots.separator)
    shown = []
    for index in shown_examples(len(split), shots):
        example = split[int(index)]
        shown += [example["inputs"], _open(example["targets"], vocabulary.eos_id), between]
    before = np.concatenate(shown)
    return [np.concatenate([before, tokens]).astype(np.int32) for tokens in inputs]


def shown_examples(examples: int, shots: Shots) -> np.ndarray:
    """Indices [count] of the shown examples among so many."""
    return np.random.default_rng([shots.seed, 2]).permutation(examples)[: shots.count]


def _open(tokens: np.ndarray, eos_id: int) -> np.ndarray:
    """Without EOS at the end."""
    return tokens[:-1] if len(tokens) and tokens[-1] == eos_id else tokens


def _separator(vocabulary: VocabularyFile, text: str) -> np.ndarray:
    if not text:
        return np.array([vocabulary.eos_id], np.int32)
    ids = pieces_of(vocabulary).encode(text)
    if not ids or vocabulary.unk_id in ids:
        raise InputError(
            f"Shots.separator = {text!r}: the vocabulary has no pieces for it; '' separates by EOS"
        )
    return np.array(ids, np.int32)
