"""One measure of tuned models against their tokens of pretraining, and whether it follows its law.

Isik et al. (2024): a score should follow the log-law `score_log` (Equation 1), the loss the power law
(Equation 3). Laws are fitted to the four levels with the fewest tokens and judged on the others, as there,
unless a study holds out levels of its own; a second fit to all levels is what is predicted from.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.factors import PRETRAINING, lose_not_pretrained
from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table

# Levels with the least pretraining that are fitted where more are there (section 4 of the paper).
FITTED_LEVELS = 4
# Huber's delta of the paper: 0.1 for scores, 1e-3 for the loss; both of logarithms.
DELTAS = {"score_log": 0.1, "power": 1e-3}
# Standard deviations of a difference of two means below which it is taken for noise: several are looked at.
DEVIATIONS = 3.0
# Held-out means must lie within so many times the law's interval, for the same reason.
WITHIN = 2.0
# Differences that are taken for noise where no level has two seeds: a share of the largest value.
ASSUMED_NOISE = {"score_log": 0.02, "power": 0.01}


@dataclass(frozen=True)
class Curve:
    """A measure by tokens of pretraining.

    Attributes:
        column: of results.csv.
        law: "score_log" for a score, "power" for a loss.
        tokens: levels above zero, ascending.
        means: the mean over seeds at each.
        seeds: how many runs each has.
        baseline: mean of the model that was not pretrained; None where there is none.
        noise: standard deviation between seeds, pooled over levels; None where no level has two seeds.
        allowed: a difference of two means that is taken for noise.
        falls: levels at which the measure is worse than the best before by more than that: (tokens, by how
            much).
        held_out: the levels that were held out.
        tested: the fit to the other levels; None where nothing is held out, or nothing can be fitted.
        whole: the fit to all levels; None where it cannot be fitted.
        follows: whether it follows its law; None where there are too few levels to tell.
        reason: why it does not, or cannot be told.
    """

    column: str
    law: str
    tokens: tuple[float, ...]
    means: tuple[float, ...]
    seeds: tuple[int, ...]
    baseline: float | None
    noise: float | None
    allowed: float
    falls: tuple[tuple[float, float], ...]
    held_out: tuple[float, ...]
    tested: Fit | None
    whole: Fit | None
    follows: bool | None
    reason: str

    @property
    def sign(self) -> float:
        """1 where larger is better, -1 where smaller is."""
        return 1.0 if self.law == "score_log" else -1.0

    @property
    def best(self) -> float:
        """The best mean of all levels."""
        return max(self.means) if self.sign > 0 else min(self.means)

    @property
    def growth(self) -> float:
        """By how much the last level is better than the first."""
        return self.sign * (self.means[-1] - self.means[0])

    @property
    def worth(self) -> float | None:
        """By how much the best level is better than the model that was not pretrained."""
        return None if self.baseline is None else self.sign * (self.best - self.baseline)


def curve(
    rows: Table, baseline: Table, column: str, law: str, noise: float | None, hold_out: str | None, **fitting
) -> Curve | None:
    """The curve of one group of runs; None where no run that was pretrained measured it.

    Args:
        rows: runs of one task, method, model, mixture and number of examples.
        baseline: the same of the model that was not pretrained; may be empty.
        column: the measure.
        law: "score_log" or "power".
        noise: from `noise_of`.
        hold_out: the study's expression of what is held out.
        fitting: `bootstrap` and `seed` of the intervals.
    """
    rows = lose_not_pretrained(rows).drop_missing([PRETRAINING, column])
    if not len(rows):
        return None
    tokens, values = rows.positive(PRETRAINING), rows.numbers(column)
    levels = np.unique(tokens)
    means = [float(values[tokens == level].mean()) for level in levels]
    seeds = [int(np.sum(tokens == level)) for level in levels]
    others = baseline.drop_missing([column]).numbers(column)
    sign = 1.0 if law == "score_log" else -1.0
    if noise is None:
        allowed = ASSUMED_NOISE[law] * max(abs(mean) for mean in means)
    else:
        allowed = DEVIATIONS * noise * math.sqrt(2 / min(seeds))
    falls = _falls(levels, sign * np.array(means), allowed)
    held = _held_out(rows, levels, hold_out)
    settings = Settings(residual="log" if np.all(values > 0) else "linear", delta=DELTAS[law], **fitting)
    found = {
        "column": column,
        "law": law,
        "tokens": tuple(levels.tolist()),
        "means": tuple(means),
        "seeds": tuple(seeds),
        "baseline": float(others.mean()) if len(others) else None,
        "noise": noise,
        "allowed": allowed,
        "falls": falls,
        "held_out": tuple(held),
        "tested": None,
        "whole": None,
    }
    if len(levels) < 3:
        return Curve(**found, follows=None, reason=f"{len(levels)} levels of pretraining; a law needs three")
    columns = {"d": PRETRAINING}
    found["whole"] = _fit(rows, law, columns, column, None, settings)
    if held:
        expression = " or ".join(f"{PRETRAINING} == {level:.17g}" for level in held)
        found["tested"] = _fit(rows, law, columns, column, expression, settings)
    follows, reason = _follows(found)
    return Curve(**found, follows=follows, reason=reason)


def noise_of(table: Table, by: tuple[str, ...], column: str) -> float | None:
    """The standard deviation between runs that differ in the seed alone, pooled; None without such runs."""
    squares, freedom = 0.0, 0
    for _, cell in table.groups(by):
        values = cell.drop_missing([column]).numbers(column)
        if len(values) > 1:
            squares += float(np.sum((values - values.mean()) ** 2))
            freedom += len(values) - 1
    return math.sqrt(squares / freedom) if freedom else None


def _falls(levels: np.ndarray, means: np.ndarray, allowed: float) -> tuple[tuple[float, float], ...]:
    behind = np.maximum.accumulate(means) - means
    return tuple((float(level), float(by)) for level, by in zip(levels, behind, strict=True) if by > allowed)


def _held_out(rows: Table, levels: np.ndarray, hold_out: str | None) -> list[float]:
    """Levels that a law is judged on: the study's own, or all but the four smallest."""
    own = set(rows.positive(PRETRAINING)[rows.matches(hold_out)]) if hold_out else set()
    if own and len(levels) - len(own) >= 3:
        return sorted(float(level) for level in own)
    return levels[FITTED_LEVELS:].tolist()


def _fit(
    rows: Table, law: str, columns: Mapping, column: str, hold_out: str | None, settings: Settings
) -> Fit | None:
    try:
        return fit_table(rows, law, columns, column, hold_out=hold_out, settings=settings)[0]
    except InputError:  # such as more parameters than rows; the curve says that it has no fit
        return None


def _follows(found: Mapping) -> tuple[bool | None, str]:
    """Whether the means agree with the law, and why not."""
    law, allowed = found["law"], found["allowed"]
    if found["falls"]:
        at, by = found["falls"][0]
        worse = "falls" if law == "score_log" else "rises"
        return False, f"it {worse} by {by:.3g} at {at:,.0f} tokens, more than noise"
    fit = found["tested"] or found["whole"]
    if fit is None:
        return None, "the law could not be fitted"
    if found["tested"] is None and len(found["tokens"]) <= len(fit.parameters):
        return None, f"{len(found['tokens'])} levels for {len(fit.parameters)} parameters fit any law"
    judged = found["held_out"] if found["tested"] else found["tokens"]
    means = dict(zip(found["tokens"], found["means"], strict=True))
    for level, value, low, high in zip(judged, *fit.predict({"d": np.array(judged)}), strict=True):
        below, above = value - WITHIN * (value - low) - allowed, value + WITHIN * (high - value) + allowed
        if not below <= means[level] <= above:
            return False, (
                f"at {level:,.0f} tokens it is {means[level]:.3g}, the law says {value:.3g} "
                f"[{low:.3g}, {high:.3g}]"
            )
    return True, ""
