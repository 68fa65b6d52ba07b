"""Which method to take at a target, how sure that is, what it costs, and what would tell more.

`recommend` takes fits (of `fits.json`, of any table) and, for costs, a results table. The draws of all
methods are compared jointly: the probability that a method is the best and the expected regret of the
choice come from the same draws as the intervals. The method of the lowest expected loss within the limits
is chosen; where it is not sure enough, the pair of runs that would tell is named.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from scaling_jax.decisions.costs import Cost, costs_at
from scaling_jax.decisions.critical_size import Comparison, compared
from scaling_jax.decisions.forecast import Estimate, Forecast, forecasts_of, same
from scaling_jax.decisions.limits import Limits, least_change
from scaling_jax.decisions.next_runs import RunPair, best_pair
from scaling_jax.decisions.prior import Prior, prior_advice
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.laws.results import Fit, plain
from scaling_jax.laws.table import Table

EXAMPLES = "finetune_examples"
SIZES = ("model_params", "non_embedding_params")
# Noise of one run where the fits do not show it, relative.
_LEAST_NOISE = 1e-3
# Critical sizes are found for the pairs of so many leading methods.
_COMPARED = 5
# From this weight of `rectified` on a curve is said to bend: 0 to 0.06 where intervals held, about half where
# they did not (docs/backtest.md).
_BENT = 0.15
# They are looked for from a tenth of the smallest examples, fitted or asked for, to ten times the largest.
_BELOW, _ABOVE, _GRID = 0.1, 10.0, 300


@dataclass(frozen=True)
class Candidate:
    """One method at the target.

    Attributes:
        method: its name.
        loss: predicted, with its interval.
        score: predicted from the loss where a relation was fitted; None without.
        cost: memory, time, stored bytes.
        probability_best: of having the lowest loss among the methods that keep the limits; 0 for the others.
        excluded_by: limits that it does not keep, in words; empty where it keeps them.
        unchecked: limits of which the costs say nothing.
        laws: law -> its weight in the forecast.
        discrepancy: relative error of the change that is predicted beyond the fitted sizes.
        extrapolates: columns in which the target lies outside what was fitted, in words.
    """

    method: str
    loss: Estimate
    score: Estimate | None
    cost: Cost
    probability_best: float
    excluded_by: tuple[str, ...]
    unchecked: tuple[str, ...]
    laws: Mapping[str, float]
    discrepancy: float
    extrapolates: tuple[str, ...]


@dataclass(frozen=True)
class Gain:
    """What a change of the target would buy with the chosen method.

    Attributes:
        change: in words, for example "twice the examples".
        at: the changed target.
        loss: change of the loss, negative where it falls, with its interval (paired draws).
    """

    change: str
    at: Mapping[str, float]
    loss: Estimate


@dataclass(frozen=True)
class Recommendation:
    """The answer; `to_json` is the object `recommendation` of `decision.json` (docs/decision.md).

    Attributes:
        at: the target, column -> value.
        group: column -> value that all methods share, such as the task.
        along: the column that is chosen along, usually "method".
        loss_column: what was fitted.
        lower_is_better: whether it is a loss.
        level: of all intervals.
        limits: of the user.
        candidates: one per method, the best expected first, excluded ones last.
        choice: the method to take; None where no method keeps the limits.
        status: "clear" (the choice is best with probability `sure` at least), "alike" (not, but little is
            lost by it, below `indifferent`), "cannot tell", "only one" (one method), "no method fits".
        probability_best: of the choice, among those that keep the limits; None without a choice.
        regret: expected loss of the choice above the best one, with its interval; None without a choice.
        sure, indifferent: the thresholds of the status; the second relative to the loss.
        interpolation: whether the target lies inside what was fitted for every method.
        crossings: critical sizes of the five leading methods at the target's other columns.
        gains: what more examples or a larger model would buy.
        runs: the pair of runs that would tell more; None where it is clear or there is one method.
        relaxed: where no method fits, the least change of the limits that would admit one; else None.
        prior: what the literature would advise, beside the answer; None where models are chosen, not methods.
        notes: what else a reader should know.
    """

    at: Mapping[str, float]
    group: Mapping
    along: str
    loss_column: str
    lower_is_better: bool
    level: float
    limits: Limits
    candidates: tuple[Candidate, ...]
    choice: str | None
    status: str
    probability_best: float | None
    regret: Estimate | None
    sure: float
    indifferent: float
    interpolation: bool
    crossings: tuple[Comparison, ...]
    gains: tuple[Gain, ...]
    runs: RunPair | None
    relaxed: str | None
    prior: Prior | None
    notes: tuple[str, ...] = field(default=())

    def candidate(self, method: str) -> Candidate:
        """The candidate of that name."""
        return next(found for found in self.candidates if found.method == method)

    def to_json(self) -> dict:
        """Plain types for `decision.json`."""
        content = dataclasses.asdict(self) | {
            "crossings": [comparison.to_json() for comparison in self.crossings]
        }
        return plain(content)


def recommend(
    fits: Sequence[Fit],
    at: Mapping[str, float | str],
    limits: Limits | None = None,
    costs: Table | None = None,
    along: str = "method",
    sure: float = 0.8,
    indifferent: float = 0.005,
    score_fits: Mapping[str, Fit] | None = None,
    task_kind: str | None = None,
    methods: Sequence[str] = (),
    next_size: float | None = None,
    discrepancy: float | None = None,
) -> Recommendation:
    """Recommends a method at a target.

    Args:
        fits: of the methods, as `read_fits` or `fit_pilot` gives them; several laws of one method are
            averaged by `weight` in their `extra`.
        at: the target, column -> value; columns of groups, such as the task, may be named too.
        limits: what the user can pay.
        costs: results table with cost columns; None leaves costs empty.
        along: the column that is chosen along.
        sure: probability of being the best from which a choice is called clear.
        indifferent: relative loss below which methods are called alike.
        score_fits: method -> fit of a law of the loss (role x) such as `loss_to_score`.
        task_kind: "classification" or "generation", for the prior.
        methods: those to choose among; all of them for ().
        next_size: the next larger model, of the size column of `at`; twice the target's for None.
        discrepancy: of fits that have none in their `extra`; see `forecast`. The learned one for None.

    Raises:
        InputError: no fit can answer, a method is not known, tasks are mixed, a limit or a threshold means
            nothing.
    """
    limits = limits or Limits()
    if not 0.5 <= sure < 1 or not 0 <= indifferent < 1:
        raise InputError(
            f"--sure {sure:g} lies between 0.5 and 1, --indifferent {indifferent:g} between 0 and 1"
        )
    asked = _without_costs(fits, at, costs)
    forecasts = _chosen(forecasts_of(fits, asked, along, discrepancy), methods, along)
    return _Decision(forecasts, dict(at), limits, along, sure, indifferent).made(
        costs, score_fits or {}, task_kind, next_size
    )


def _without_costs(fits: Sequence[Fit], at: Mapping, costs: Table | None) -> dict:
    """The target without columns that only the costs are in, such as the size of a pilot's one model.

    Raises:
        InputError: the runs were made at other values of such a column, of which the laws say nothing.
    """
    known = {
        column for fit in fits for column in (*fit.group, *fit.columns.values(), *fit.extra.get("fixed", {}))
    }
    kept = {}
    for column, value in at.items():
        if column in known or costs is None or column not in costs:
            kept[column] = value
            continue
        values = sorted(set(costs.text(column)) - {""})
        if not any(same(other, value) for other in values):
            shown = f"{value:g}" if isinstance(value, float) else repr(value)
            raise InputError(
                f"--at: the laws are not in {column!r}: the runs were made at {', '.join(values[:4])} and "
                f"say nothing of {shown}"
            )
    return kept


def _chosen(forecasts: list[Forecast], methods: Sequence[str], along: str) -> list[Forecast]:
    known = [forecast.name for forecast in forecasts]
    for method in methods:
        if method not in known:
            raise InputError(f"no fit of {along} {method!r} can answer{did_you_mean(method, known)}")
    return [forecast for forecast in forecasts if not methods or forecast.name in methods]


@dataclass(frozen=True)
class _Decision:
    """The forecasts and what is asked of them."""

    forecasts: Sequence[Forecast]
    asked: dict
    limits: Limits
    along: str
    sure: float
    indifferent: float

    @property
    def at(self) -> dict[str, float]:
        """The columns of the laws at the target."""
        found = {}
        for forecast in self.forecasts:
            for fit in forecast.fits:
                values = fit.column_values(self.asked)
                found |= {fit.columns[role]: float(value) for role, value in values.items()}
        return found

    def made(self, costs: Table | None, score_fits, task_kind, next_size) -> Recommendation:
        """The whole answer."""
        forecasts, at = self.forecasts, self.at
        level = forecasts[0].fits[0].level
        lower = forecasts[0].lower_is_better
        draws = {forecast.name: forecast.draws(at) for forecast in forecasts}
        count = min(map(len, draws.values()))
        draws = {name: values[:count] for name, values in draws.items()}
        priced = {
            forecast.name: costs_at(
                costs, {**forecast.group, **self.asked, **at}, self.along, forecast.name, level
            )
            for forecast in forecasts
        }
        excluded = {name: tuple(self.limits.excluded_by(cost)) for name, cost in priced.items()}
        inside = [forecast for forecast in forecasts if not excluded[forecast.name]]
        order = sorted(inside, key=lambda one: np.mean(draws[one.name]) * (1 if lower else -1))
        shares = _shares([draws[one.name] for one in order], lower)
        best = {one.name: share for one, share in zip(order, shares, strict=True)}
        rest = [forecast for forecast in forecasts if excluded[forecast.name]]
        candidates = tuple(
            Candidate(
                method=one.name,
                loss=one.estimate(at, level),
                score=_score(score_fits.get(one.name), draws[one.name], float(one.predict(at)), level),
                cost=priced[one.name],
                probability_best=best.get(one.name, 0.0),
                excluded_by=excluded[one.name],
                unchecked=tuple(self.limits.unknown(priced[one.name])),
                laws={fit.law: weight for fit, weight in zip(one.fits, one.weights, strict=True)},
                discrepancy=one.discrepancy,
                extrapolates=tuple(one.beyond(at)),
            )
            for one in (*order, *rest)
        )
        choice = order[0] if order else None
        regret = _regret(draws, order, lower, level) if choice else None
        status = self._status(order, best, draws, regret)
        rivals = sorted(order[1:], key=lambda one: -best[one.name])
        wanting = status in ("cannot tell", "alike") and EXAMPLES in at
        return Recommendation(
            at=at,
            group={key: value for key, value in forecasts[0].group.items() if key != self.along},
            along=self.along,
            loss_column=forecasts[0].loss_column,
            lower_is_better=lower,
            level=level,
            limits=self.limits,
            candidates=candidates,
            choice=choice.name if choice else None,
            status=status,
            probability_best=best[choice.name] if choice else None,
            regret=regret,
            sure=self.sure,
            indifferent=self.indifferent,
            interpolation=not any(candidate.extrapolates for candidate in candidates),
            crossings=_crossings((*order, *rest)[:_COMPARED], at, level),
            gains=_gains(choice, at, level, next_size) if choice else (),
            runs=best_pair(choice, rivals[0], at, EXAMPLES, self.sure, _noise(choice)) if wanting else None,
            relaxed=None if choice else least_change(self.limits, priced),
            prior=prior_advice(at[EXAMPLES], task_kind, self.limits, at.get(SIZES[0]))
            if EXAMPLES in at and self.along == "method"
            else None,
            notes=_notes(candidates),
        )

    def _status(self, order, best, draws, regret) -> str:
        if not order:
            return "no method fits"
        if len(order) == 1:
            return "only one"
        if best[order[0].name] >= self.sure:
            return "clear"
        size = abs(float(np.mean(draws[order[0].name])))
        return "alike" if regret.high <= self.indifferent * size else "cannot tell"


def _notes(candidates: Sequence[Candidate]) -> tuple[str, ...]:
    """What the weights say against the intervals."""
    bent = [one.method for one in candidates if one.laws.get("rectified", 0.0) >= _BENT and one.extrapolates]
    if not bent:
        return ()
    return (
        f"the fall of {', '.join(bent)} has not been one power so far (rolling errors give `rectified` "
        "weight): larger runs may leave these intervals more often than they say",
    )


def _shares(draws: Sequence[np.ndarray], lower: bool) -> list[float]:
    """In which share of the draws each is the best."""
    if not draws:
        return []
    table = np.stack(draws)
    winners = np.argmin(table, axis=0) if lower else np.argmax(table, axis=0)
    return [float(np.mean(winners == position)) for position in range(len(table))]


def _regret(
    draws: Mapping[str, np.ndarray], order: Sequence[Forecast], lower: bool, level: float
) -> Estimate:
    """How much worse the choice is than the best within the limits, over the draws."""
    table = np.stack([draws[one.name] for one in order]) * (1 if lower else -1)
    lost = table[0] - table.min(axis=0)
    low, high = np.percentile(lost, [50 * (1 - level), 50 * (1 + level)])
    return Estimate(float(lost.mean()), float(low), float(high))


def _score(fit: Fit | None, losses: np.ndarray, loss: float, level: float) -> Estimate | None:
    """The score at a loss, with what is uncertain of loss and relation."""
    if fit is None:
        return None
    count = min(len(losses), len(next(iter(fit.draws.values()))))
    each = {name: values[:count] for name, values in fit.draws.items()}
    values = np.asarray(fit.form.predict(each, {"x": losses[:count]}))
    low, high = np.percentile(values, [50 * (1 - level), 50 * (1 + level)])
    value = float(fit.form.predict(fit.parameters, {"x": loss}))
    return Estimate(value, min(float(low), value), max(float(high), value))


def _crossings(forecasts: Sequence[Forecast], at: Mapping, level: float) -> tuple[Comparison, ...]:
    """Critical sizes of every pair along the examples, the other columns as at the target."""
    if EXAMPLES not in at:
        return ()
    ranges = [one.fitted_range(EXAMPLES) for one in forecasts]
    lowest, highest = min(low for low, _ in ranges), max(high for _, high in ranges)
    sizes = np.geomspace(_BELOW * min(lowest, at[EXAMPLES]), _ABOVE * max(highest, at[EXAMPLES]), _GRID)
    sign = 1.0 if forecasts[0].lower_is_better else -1.0
    along = {**at, EXAMPLES: sizes}
    means = [sign * one.predict(along) for one in forecasts]
    draws = [sign * one.draws(along) for one in forecasts]
    count = min(map(len, draws))
    fixed = {column: value for column, value in at.items() if column != EXAMPLES}
    return tuple(
        compared(
            (forecasts[i].name, forecasts[j].name),
            sizes,
            means[i] - means[j],
            draws[i][:count] - draws[j][:count],
            column=EXAMPLES,
            at=fixed,
            fitted=(max(ranges[i][0], ranges[j][0]), min(ranges[i][1], ranges[j][1])),
            level=level,
        )
        for i, j in itertools.combinations(range(len(forecasts)), 2)
    )


def _gains(one: Forecast, at: Mapping, level: float, next_size: float | None) -> tuple[Gain, ...]:
    found = []
    if EXAMPLES in at:
        found.append(_gain(one, at, {EXAMPLES: at[EXAMPLES] + 1}, "one more example", level))
        found.append(_gain(one, at, {EXAMPLES: 2 * at[EXAMPLES]}, "twice the examples", level))
    size = next((name for name in SIZES if name in at), None)
    if size:
        larger = next_size or 2 * at[size]
        told = f"a model of {larger:.3g} parameters" + ("" if next_size else " (twice the size)")
        found.append(_gain(one, at, {size: larger}, told, level))
    return tuple(found)


def _gain(one: Forecast, at: Mapping, change: Mapping, told: str, level: float) -> Gain:
    there = {**at, **change}
    value = float(one.predict(there) - one.predict(at))
    low, high = np.percentile(one.draws(there) - one.draws(at), [50 * (1 - level), 50 * (1 + level)])
    return Gain(told, there, Estimate(value, min(float(low), value), max(float(high), value)))


def _noise(one: Forecast) -> float:
    """Relative scatter of one run around the laws."""
    errors = [fit.errors.get("fitted_rmsd_log") for fit in one.fits]
    known = [error for error in errors if error is not None and math.isfinite(error)]
    return max(_LEAST_NOISE, min(known)) if known else _LEAST_NOISE
