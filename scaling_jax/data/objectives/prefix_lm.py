"""The rest of a window after its beginning (Raffel et al. 2020, section 3.2; UL2's S-denoiser)."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scaling_jax.data.objectives.objective import Example, Lengths, Objective, register
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError


@register("prefix_lm")
@dataclasses.dataclass(frozen=True)
class PrefixLM(Objective):
    """A window cut in two: the first part is the input, the second the target. No token is added.

    Attributes:
        target_share: share of the window that is the target, rounded to tokens, at least one on either
            side (UL2: 0.25). None draws the cut of each window, every place with the same probability.
    """

    target_share: float | None = None

    def __post_init__(self):
        if self.target_share is not None and not 0 < self.target_share < 1:
            raise InputError(
                f"prefix_lm.target_share = {self.target_share!r}: between 0 and 1, or None to draw each cut"
            )

    def lengths(self, window: int) -> Lengths:
        if self.target_share is None:
            return Lengths(window - 1, window - 1, window)
        targets = self._targets(window)
        return Lengths(window - targets, targets, window)

    def mean_lengths(self, window: int) -> tuple[float, float]:
        targets = window / 2 if self.target_share is None else float(self._targets(window))
        return window - targets, targets

    def draw(self, window: np.ndarray, vocabulary: VocabularyFile, seed: Sequence[int]) -> Example:
        if self.target_share is None:
            cut = int(np.random.default_rng(seed).integers(1, len(window)))
        else:
            cut = len(window) - self._targets(len(window))
        return Example(window[:cut], window[cut:])

    def _targets(self, window: int) -> int:
        return min(max(round(window * self.target_share), 1), window - 1)
