"""A mixture of denoisers: short spans, long or many spans, and the rest of a text (Tay et al. 2022, UL2).

Each window gets one of them, and the inputs begin with its mode token:

    [R]  regular   few short spans are cut out, as T5 does
    [S]  sequential  the window is cut in two, as prefix_lm does
    [X]  extreme   long spans, or many of them

Modes are the first three of the vocabulary's extra ids, in this order; sentinels are the last.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from scaling_jax.data.objectives.objective import Example, Lengths, Objective, register
from scaling_jax.data.objectives.prefix_lm import PrefixLM
from scaling_jax.data.objectives.span_corruption import SpanCorruption
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError

MODES = ("R", "S", "X")


@register("ul2")
@dataclasses.dataclass(frozen=True)
class UL2(Objective):
    """The seven denoisers of UL2, Table 1, each with the same share.

    Attributes:
        regular, extreme: (mean span in tokens, rate) of each denoiser of the mode.
        sequential: share of the window that the sequential denoiser's target is.
        regular_share, sequential_share, extreme_share: of the windows that a mode gets, in expectation;
            they add up to 1. The denoisers of one mode share alike.
    """

    regular: Sequence[tuple[float, float]] = ((3.0, 0.15), (8.0, 0.15))
    extreme: Sequence[tuple[float, float]] = ((3.0, 0.5), (8.0, 0.5), (64.0, 0.15), (64.0, 0.5))
    sequential: float = 0.25
    regular_share: float = 2 / 7
    sequential_share: float = 1 / 7
    extreme_share: float = 4 / 7

    def __post_init__(self):
        for name in ("regular", "extreme"):  # gin and JSON give lists
            object.__setattr__(self, name, _pairs(f"ul2.{name}", getattr(self, name)))
        shares = (self.regular_share, self.sequential_share, self.extreme_share)
        if min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
            raise InputError(
                "ul2.regular_share, sequential_share and extreme_share: none below 0, and together 1, "
                f"not {sum(shares):g}"
            )
        for name, share in (("regular", self.regular_share), ("extreme", self.extreme_share)):
            if share and not getattr(self, name):
                raise InputError(f"ul2.{name} is empty, but ul2.{name}_share = {share:g}")
        try:
            self.denoisers  # noqa: B018  made once, here, so that what does not fit is refused here
        except InputError as error:
            raise InputError(f"a denoiser of ul2 ({error})") from error

    @functools.cached_property
    def denoisers(self) -> tuple[tuple[str, float, Objective], ...]:
        """(mode, share of the windows, denoiser) of all that have a share."""
        sequential = PrefixLM(target_share=self.sequential)
        of_mode = (
            ("R", self.regular_share, _span_denoisers(self.regular)),
            ("S", self.sequential_share, (sequential,)),
            ("X", self.extreme_share, _span_denoisers(self.extreme)),
        )
        return tuple(
            (mode, share / len(denoisers), denoiser)
            for mode, share, denoisers in of_mode
            if share
            for denoiser in denoisers
        )

    def lengths(self, window: int) -> Lengths:
        of_each = [denoiser.lengths(window) for _, _, denoiser in self.denoisers]
        inputs, targets, both = (max(lengths) for lengths in zip(*of_each, strict=True))
        return Lengths(inputs + 1, targets, both + 1)  # the mode token

    def mean_lengths(self, window: int) -> tuple[float, float]:
        of_each = [(share, denoiser.mean_lengths(window)) for _, share, denoiser in self.denoisers]
        inputs, targets = (sum(share * lengths[i] for share, lengths in of_each) for i in (0, 1))
        return inputs + 1, targets

    def extra_ids(self, window: int) -> int:
        return len(MODES) + max(denoiser.extra_ids(window) for _, _, denoiser in self.denoisers)

    def draw(self, window: np.ndarray, vocabulary: VocabularyFile, seed: Sequence[int]) -> Example:
        bounds = np.cumsum([share for _, share, _ in self.denoisers])
        drawn = np.random.default_rng(seed).random() * bounds[-1]
        mode, _, denoiser = self.denoisers[int(np.searchsorted(bounds, drawn, side="right"))]
        inputs, targets = denoiser.draw(window, vocabulary, (*seed, 1))
        return Example(np.append(vocabulary.mode(MODES.index(mode)), inputs).astype(np.int32), targets)


def _span_denoisers(settings: Sequence[tuple[float, float]]) -> tuple[Objective, ...]:
    return tuple(SpanCorruption(rate=rate, mean_span=mean_span) for mean_span, rate in settings)


def _pairs(binding: str, value: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    try:
        return tuple((float(mean_span), float(rate)) for mean_span, rate in value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{binding} = {value!r}: a list of (mean span, rate) such as [(3, 0.15)]") from error
