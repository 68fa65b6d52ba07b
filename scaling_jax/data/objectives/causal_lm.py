"""Every token after those before it: what a decoder is pretrained with unless another objective is bound."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scaling_jax.data.objectives.objective import Example, Lengths, Objective, register
from scaling_jax.data.store import VocabularyFile

_NOTHING = np.zeros(0, np.int32)


@register("causal_lm")
@dataclasses.dataclass(frozen=True)
class CausalLM(Objective):
    """The whole window is the target; an encoder would have nothing to read."""

    def lengths(self, window: int) -> Lengths:
        return Lengths(0, window, window)

    def draw(self, window: np.ndarray, vocabulary: VocabularyFile, seed: Sequence[int]) -> Example:
        return Example(_NOTHING, window)
