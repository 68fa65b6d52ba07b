"""T5's objective: spans of a window are cut out, and the target says what was in them.

With sentinels <0>, <1>, ... a window  a b c d e f g h  whose spans  b c  and  g  are cut out gives

    inputs   a <0> d e f <1> h EOS
    targets  <0> b c <1> g EOS

(Raffel et al. 2020, sections 3.1.4 and 3.3). The number of tokens cut out, of spans, and so both lengths,
are the same for every window, and are those of T5. Of all ways to cut so many tokens into so many
separate spans each is equally likely. T5's own code ends every window with a span; of one long span, as
UL2 has them, that would leave no choice.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scaling_jax.data.objectives.objective import Example, Lengths, Objective, register
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError


@register("span_corruption")
@dataclasses.dataclass(frozen=True)
class SpanCorruption(Objective):
    """A share of the tokens is cut out, in spans.

    Attributes:
        rate: share of a window's tokens that is cut out, rounded to tokens.
        mean_span: tokens in a span on average; the number of spans is rounded.
    """

    rate: float = 0.15
    mean_span: float = 3.0

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise InputError(f"span_corruption.rate = {self.rate!r}: a share between 0 and 1")
        if self.mean_span < 1:
            raise InputError(f"span_corruption.mean_span = {self.mean_span!r}: at least 1 token")

    def counts(self, window: int) -> tuple[int, int]:
        """(tokens cut out, spans) of every window of so many tokens."""
        cut = min(max(round(window * self.rate), 1), window - 1)
        spans = max(round(cut / self.mean_span), 1)
        return cut, min(spans, window - cut)  # between two spans a token is kept

    def lengths(self, window: int) -> Lengths:
        cut, spans = self.counts(window)
        inputs, targets = window - cut + spans + 1, cut + spans + 1
        return Lengths(inputs, targets, inputs + targets)

    def extra_ids(self, window: int) -> int:
        return self.counts(window)[1]

    def draw(self, window: np.ndarray, vocabulary: VocabularyFile, seed: Sequence[int]) -> Example:
        return self.corrupt(window, vocabulary, np.random.default_rng(seed))

    def corrupt(
        self, window: np.ndarray, vocabulary: VocabularyFile, generator: np.random.Generator
    ) -> Example:
        """The example of a window, from the next draws of a generator."""
        cut, spans = self.counts(len(window))
        is_cut = spans_cut(len(window), cut, spans, generator)
        begins = is_cut & ~np.concatenate([[False], is_cut[:-1]])
        sentinels = vocabulary.sentinel(np.arange(spans))
        inputs = window.astype(np.int32)
        inputs[begins] = sentinels
        targets = np.insert(window[is_cut].astype(np.int32), np.flatnonzero(begins[is_cut]), sentinels)
        return Example(
            np.append(inputs[~is_cut | begins], np.int32(vocabulary.eos_id)),
            np.append(targets, np.int32(vocabulary.eos_id)),
        )


def spans_cut(window: int, cut: int, spans: int, generator: np.random.Generator) -> np.ndarray:
    """Which tokens are cut out: bool [window], of `cut` tokens in `spans` spans, each way equally likely."""
    gaps = _parts(window - cut + 2, spans + 1, generator)
    gaps[[0, -1]] -= 1  # nothing need be kept before the first span and after the last
    lengths = np.zeros(2 * spans + 1, np.int64)
    lengths[::2], lengths[1::2] = gaps, _parts(cut, spans, generator)
    return np.repeat(np.arange(2 * spans + 1) % 2 == 1, lengths)


def _parts(items: int, count: int, generator: np.random.Generator) -> np.ndarray:
    """Lengths [count], each at least 1, that add up to `items`."""
    ends = 1 + np.sort(generator.choice(items - 1, count - 1, replace=False, shuffle=False))
    return np.diff(ends, prepend=0, append=items)
