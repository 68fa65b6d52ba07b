"""When a pilot cannot tell two methods apart: the pair of runs that would, and what it would tell.

Both methods are run on D examples, at the model of the question, for some D beyond the fitted ones. What
such a pair would show is simulated: each draw of the laws is taken for the truth in turn, its difference at
D is measured with the noise of two runs, and the other draws are weighed by how well they agree. How often
the then likelier method is the better one at the target is the value of the pair. The cheapest pair that
reaches what is asked is named, by examples, else the best one.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.forecast import Forecast

# Sizes tried: so many doublings of the largest fitted one, as far as the target.
_MOST_STEPS = 12


@dataclass(frozen=True)
class RunPair:
    """Two runs, one of each method at the same point.

    Attributes:
        methods: the two.
        at: column -> value.
        sure: probability that the better of the two at the target would then be known.
        now: that probability without the runs.
        why: one sentence.
    """

    methods: tuple[str, str]
    at: Mapping[str, float]
    sure: float
    now: float
    why: str


def best_pair(
    first: Forecast, second: Forecast, at: Mapping, examples: str, wanted: float, noise: float
) -> RunPair:
    """The pair of runs that tells two methods apart at a target.

    Args:
        first, second: their forecasts.
        at: the target, column -> value.
        examples: the column of which the pair may take another value.
        wanted: probability of the right choice that is enough.
        noise: relative standard deviation of one run.
    """
    gap = np.log(first.draws(at)) - np.log(second.draws(at))
    now = float(max(np.mean(gap < 0), np.mean(gap > 0)))
    found = []
    for size in _sizes(first, second, at, examples):
        there = {**at, examples: size}
        measured = np.log(first.draws(there, at)) - np.log(second.draws(there, at))
        found.append((size, _sure_after(measured, gap, noise * math.sqrt(2))))
    enough = [pair for pair in found if pair[1] >= wanted]
    size, sure = enough[0] if enough else max(found, key=lambda pair: (round(pair[1], 2), -pair[0]))
    target = float(at[examples])
    if size == target:
        place = "at the target itself"
    else:
        place = f"on {size:,.0f} examples, {size / target:.2g} of the target"
    why = (
        f"run {first.name} and {second.name} {place}: which of them is better at the target would then be "
        f"known with probability {sure:.0%} (now {now:.0%})"
    )
    if not enough:
        why += "; no smaller pair tells as much"
    return RunPair((first.name, second.name), {**at, examples: float(size)}, sure, now, why)


def _sizes(first: Forecast, second: Forecast, at: Mapping, examples: str) -> Sequence[float]:
    """Doublings of the largest fitted number of examples below the target, and the target."""
    target = float(at[examples])
    largest = max(forecast.fitted_range(examples)[1] for forecast in (first, second))
    sizes = [largest * 2**step for step in range(1, _MOST_STEPS)]
    return [*(size for size in sizes if size < 0.99 * target), target]


def _sure_after(measured: np.ndarray, gap: np.ndarray, noise: float) -> float:
    """Probability of the right choice after a measurement, the mean over what may be measured."""
    seen = measured + noise * np.random.default_rng(0).standard_normal(len(measured))
    distance = (seen[:, None] - measured[None, :]) / max(noise, 1e-9)
    likely = -0.5 * np.minimum(distance**2, 1e6)
    weights = np.exp(likely - likely.max(axis=1, keepdims=True))
    below = (weights * (gap < 0)).sum(axis=1) / weights.sum(axis=1)
    return float(np.mean(np.maximum(below, 1 - below)))
