"""Replays of pilots on measured curves: fit the small sizes, predict and choose, compare with the largest.

The curves are groups of a table over one column of sizes. A pilot ends at a share of the largest size that
all curves have; every rule then predicts the loss there. What is compared: the error of the logarithm of the
loss, how often intervals hold the measured loss, and what choosing the curve (a model, a method) of the
lowest prediction would have cost.

The discrepancy of the intervals is cross-validated over folds of curves: that of a curve is learned from the
outcomes of the curves of other folds alone. Beside it stands the interval that a user gets, which knows no
outcome of this table (but see docs/backtest.md for the table that its constant was learned from).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from scaling_jax.decisions.baselines import accept_then_stop, largest_run
from scaling_jax.decisions.choices import choices
from scaling_jax.decisions.forecast import away, mixing
from scaling_jax.decisions.rolling import (
    Curves,
    fits,
    forms_of,
    learned_discrepancy,
    roll,
    stacking_weights,
    student_log,
)
from scaling_jax.errors import InputError
from scaling_jax.laws.law import Law
from scaling_jax.laws.many import Lanes
from scaling_jax.laws.results import plain

AVERAGE, ALIKE = "average", ", rows alike"
FORMS = ("pure_power", "power", "rectified")
LEVELS = (0.8, 0.9)
ENDS = (1 / 8, 1 / 32, 1 / 128, 1 / 512)
_BASELINES = {"largest run": largest_run, "AtS": accept_then_stop}
_GRID = np.geomspace(0.01, 1.5, 150)


@dataclass(frozen=True)
class Replay:
    """One rule at one end.

    Attributes:
        rule: a form ("power"), "power, rows alike", "average", or a baseline.
        end: share of the target's size at which the pilot ends.
        sizes: how many sizes the pilot has.
        curves: how many curves it predicts.
        median_log, mean_log: absolute error of the logarithm of the loss.
        median_loss, mean_loss: of the loss.
        coverage: interval -> level as text -> share of the curves whose loss it holds; intervals are "law"
            (of the law alone), "shipped" (what `recommend` gives) and "crossed" (cross-validated).
        width: interval -> median width of the 90% interval over the predicted loss.
        pearson, relative_accuracy, regret, pairs: see `choices.Choices`.
        weights: form -> weight of the average.
        discrepancy: interval -> its discrepancy, the median over curves.
        predictions: curve -> [predicted, low, high (90%, shipped or of the law), measured].
    """

    rule: str
    end: float
    sizes: int
    curves: int
    median_log: float
    mean_log: float
    median_loss: float
    mean_loss: float
    coverage: Mapping[str, Mapping[str, float]]
    width: Mapping[str, float]
    pearson: float | None
    relative_accuracy: float | None
    regret: float | None
    pairs: Sequence[Sequence[float]]
    weights: Mapping[str, float]
    discrepancy: Mapping[str, float]
    predictions: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Backtest:
    """All replays of one table.

    Attributes:
        source: the table.
        names: role -> column, "y" -> the loss.
        by, select: columns that make the curves; those of them along which one is chosen.
        target: the size that is predicted.
        folds: how many folds of curves the cross-validation has.
        replays: in the order of ends and rules.
    """

    source: str
    names: Mapping[str, str]
    by: tuple[str, ...]
    select: tuple[str, ...]
    target: float
    folds: int
    replays: tuple[Replay, ...]

    def to_json(self) -> dict:
        """Plain types for JSON."""
        return plain(asdict(self))


@dataclass(frozen=True)
class Forecasts:
    """Predictions of one rule from one end, for the curves that allow one.

    Attributes:
        curves: (n,), which.
        logs: (n, rows), logarithm of the loss at every row.
        reaches: (n, rows), predicted change of the logarithm from the end of the pilot, times sqrt(1 + away).
        draws: (n, draws, rows), of the laws alone; None for a rule without intervals.
        deviates: (draws,), of the discrepancy.
        shipped: (n,), the discrepancy that a user would get.
        weights: form -> weight, the mean over curves.
    """

    curves: np.ndarray
    logs: np.ndarray
    reaches: np.ndarray
    draws: np.ndarray | None
    deviates: np.ndarray | None
    shipped: np.ndarray
    weights: Mapping[str, float]


def backtest(
    curves: Curves,
    source: str,
    by: Sequence[str],
    select: Sequence[str],
    ends: Sequence[float] = ENDS,
    forms: Sequence[str] = FORMS,
    folds: Sequence[str] | None = None,
    draws: int = 100,
    seed: int = 0,
) -> Backtest:
    """Replays pilots.

    Args:
        curves: from `curves_of`, over `d` alone.
        source: the table's name.
        by: the columns that make the curves.
        select: those of them along which one is chosen; curves alike in the others compete.
        ends: shares of the target's size.
        forms: laws of `d` to average and to show one by one.
        folds: (curves,), labels; curves of one label are left out together. Each its own for None.
        draws: behind the intervals, per curve and form.
        seed: of the draws.

    Raises:
        InputError: one size; no size that all curves have; an end that leaves nothing to fit or to predict.
    """
    target = _target(curves, source)
    folds = np.array(folds if folds is not None else [str(i) for i in range(len(curves.groups))])
    laws = forms_of(forms)
    rolled = {name: roll(curves, law) for name, law in laws.items()}
    found, groups = {}, _selections(curves, by, select)
    for end in ends:
        limit = end * target * (1 + 1e-9)
        pilot = curves.upto(limit)
        _check_end(pilot, end, target, source)
        inside = {name: own and own.upto(_largest(pilot)) for name, own in rolled.items()}
        found |= {
            (end, name): own for name, own in _forecasts(pilot, laws, inside, groups, draws, seed).items()
        }
    measured = _measured(curves, target)
    crossed = {
        rule: _crossed([own for (_, name), own in found.items() if name == rule], curves, folds)
        for rule in dict.fromkeys(name for _, name in found)
    }
    replays = [
        _replay(rule, end, own, curves, target, measured, groups, crossed[rule])
        for (end, rule), own in found.items()
    ]
    return Backtest(
        source=source,
        names=dict(curves.names),
        by=tuple(by),
        select=tuple(select),
        target=target,
        folds=len(set(folds.tolist())),
        replays=tuple(replays),
    )


def _forecasts(pilot: Curves, laws: Mapping[str, Law], rolled, groups, draws: int, seed: int):
    """Every rule from one end: name -> Forecasts. Curves that compete are one pilot."""
    able = {
        name: np.array([c for c, own in enumerate(pilot.losses) if fits(pilot, np.isfinite(own), law)])
        for name, law in laws.items()
    }
    laws = {name: law for name, law in laws.items() if len(able[name])}
    parts = {name: _part(pilot, law, able[name], pilot.weights(), draws, seed) for name, law in laws.items()}
    known = np.isfinite(pilot.losses).astype(float)
    alike = {name: _part(pilot, law, able[name], known, draws, seed, "huber") for name, law in laws.items()}
    weights, shipped = {}, {name: np.zeros(len(pilot.losses)) for name in (AVERAGE, *laws)}
    for members in groups:
        own = {name: rolled[name] and rolled[name].only(members) for name in laws}
        stacked = stacking_weights(own, pilot)
        shipped[AVERAGE][members] = learned_discrepancy(own, stacked, pilot)
        for name in laws:
            shipped[name][members] = learned_discrepancy({name: own[name]}, {name: 1.0}, pilot)
        weights |= dict.fromkeys(members, stacked)
    found = {AVERAGE: _average(parts, weights, shipped[AVERAGE], draws, seed)} if parts else {}
    found |= {name: _single(part, name, shipped[name], draws, seed) for name, part in parts.items()}
    found |= {
        f"{name}{ALIKE}": _single(part, name, shipped[name], draws, seed) for name, part in alike.items()
    }
    return found | {name: _baseline(pilot, rule) for name, rule in _BASELINES.items()}


@dataclass(frozen=True)
class _Part:
    """One form on every curve that allows it: as in `Forecasts`, (n, ...)."""

    curves: np.ndarray
    logs: np.ndarray
    reaches: np.ndarray
    draws: np.ndarray


def _part(pilot: Curves, law: Law, able: np.ndarray, weights, draws: int, seed: int, loss="squared") -> _Part:
    own = {role: pilot.columns[role] for role in law.role_names}
    lanes = Lanes(law, own, pilot.losses[able], weights[able], loss)
    largest = np.array([pilot.columns["d"][np.isfinite(pilot.losses[curve])].max() for curve in able])
    clipped = np.minimum(pilot.columns["d"][None], largest[:, None])
    parameters = {name: values[:, None] for name, values in lanes.parameters().items()}
    drawn = {name: values[:, :, None] for name, values in lanes.draws(draws, seed=seed).items()}
    with np.errstate(all="ignore"):
        logs = np.log(lanes.predict(own))
        ends = np.log(np.broadcast_to(law.predict(parameters, {**own, "d": clipped}), logs.shape))
        many = np.log(law.predict(drawn, own))
    smallest = np.array([pilot.columns["d"][np.isfinite(pilot.losses[curve])].min() for curve in able])
    beyond = away(pilot.columns["d"][None], smallest[:, None], largest[:, None])
    return _Part(able, logs, (logs - ends) * np.sqrt(1 + beyond), many)


def _single(part: _Part, name: str, shipped: np.ndarray, draws: int, seed: int) -> Forecasts:
    _, deviates = mixing((1.0,), draws, seed)
    own = shipped[part.curves]
    return Forecasts(part.curves, part.logs, part.reaches, part.draws, deviates, own, {name: 1.0})


def _average(parts: Mapping[str, _Part], weights, shipped: np.ndarray, draws: int, seed: int) -> Forecasts:
    """The weighted forms; a curve that does not allow a form is averaged over the others."""
    place = {name: {curve: i for i, curve in enumerate(part.curves.tolist())} for name, part in parts.items()}
    curves, logs, reaches, many, used = [], [], [], [], []
    _, deviates = mixing((1.0,), draws, seed)
    for curve in sorted(weights):
        own = {name: weights[curve].get(name, 0.0) for name in parts if curve in place[name]}
        own = {name: weight for name, weight in own.items() if weight > 0} or dict.fromkeys(own, 1.0)
        if not own:
            continue
        total = sum(own.values())
        share = [value / total for value in own.values()]
        rows = [(parts[name], place[name][curve]) for name in own]
        chosen, _ = mixing(share, draws, [seed, curve])
        curves.append(curve)
        logs.append(sum(w * part.logs[i] for w, (part, i) in zip(share, rows, strict=True)))
        reaches.append(sum(w * part.reaches[i] for w, (part, i) in zip(share, rows, strict=True)))
        many.append(np.stack([part.draws[i] for part, i in rows])[chosen, np.arange(draws)])
        used.append([dict(zip(own, share, strict=True)).get(name, 0.0) for name in parts])
    means = dict(zip(parts, np.mean(used, axis=0).tolist(), strict=True))
    curves = np.array(curves)
    return Forecasts(
        curves, np.array(logs), np.array(reaches), np.array(many), deviates, shipped[curves], means
    )


def _baseline(pilot: Curves, rule) -> Forecasts:
    curves, logs = [], []
    for curve, losses in enumerate(pilot.losses):
        known = np.isfinite(losses)
        sizes = np.unique(pilot.columns["d"][known])
        if len(sizes) < 3:
            continue
        means = np.array([losses[known & (pilot.columns["d"] == size)].mean() for size in sizes])
        curves.append(curve)
        logs.append([np.log(rule(sizes, means, size)) for size in pilot.columns["d"]])
    logs = np.array(logs).reshape(len(curves), -1)
    return Forecasts(
        np.array(curves, np.intp), logs, np.zeros_like(logs), None, None, np.zeros(len(curves)), {}
    )


def _crossed(found: Sequence[Forecasts], curves: Curves, folds: np.ndarray) -> np.ndarray | None:
    """The discrepancy of each curve, learned from the outcomes of the curves of other folds, (curves,)."""
    if found[0].draws is None or len(set(folds.tolist())) < 2:
        return None
    errors, reaches, spreads, owners = [], [], [], []
    for own in found:
        low, high = np.percentile(own.draws, [16, 84], axis=1)
        for place, curve in enumerate(own.curves):
            later = np.isfinite(curves.losses[curve]) & (np.abs(own.reaches[place]) > 0)
            errors.append(np.log(curves.losses[curve][later]) - own.logs[place][later])
            reaches.append(np.abs(own.reaches[place][later]))
            spreads.append(0.5 * (high - low)[place][later])
            owners.append(np.full(int(later.sum()), curve))
    errors, reaches, spreads, owners = map(np.concatenate, (errors, reaches, spreads, owners))
    likelihood = _likelihoods(errors, reaches, spreads)
    # Every curve counts as one, whatever it has of errors.
    likelihood = likelihood / np.bincount(owners, minlength=len(folds))[owners][:, None]
    chosen = {}
    for fold in set(folds.tolist()):
        others = folds[owners] != fold
        chosen[fold] = _GRID[np.argmax(likelihood[others].sum(axis=0))] if others.any() else np.nan
    return np.array([chosen[fold] for fold in folds.tolist()])


def _likelihoods(errors: np.ndarray, reaches: np.ndarray, spreads: np.ndarray) -> np.ndarray:
    """Log likelihood of each error at each discrepancy of the grid, (errors, grid)."""
    scale = np.maximum(np.sqrt(spreads[:, None] ** 2 + (_GRID[None] * reaches[:, None]) ** 2), 1e-9)
    return student_log(errors[:, None], scale)


def _replay(rule, end, own: Forecasts, curves: Curves, target, measured, groups, crossed) -> Replay:
    column = int(np.flatnonzero(curves.columns["d"] == target)[0])
    truth = measured[own.curves]
    predicted = np.exp(own.logs[:, column])
    error = np.abs(np.log(predicted) - np.log(truth))
    coverage, width, discrepancy, bounds = {}, {}, {}, None
    if own.draws is not None:
        ways = {"law": np.zeros(len(truth)), "shipped": own.shipped}
        if crossed is not None:
            ways["crossed"] = crossed[own.curves]
        for name, shares in ways.items():
            logs = own.draws[:, :, column] + (
                shares[:, None] * np.abs(own.reaches[:, column])[:, None] * own.deviates[None]
            )
            coverage[name], discrepancy[name] = {}, float(np.median(shares))
            for level in LEVELS:
                low, high = np.percentile(logs, [50 * (1 - level), 50 * (1 + level)], axis=1)
                low, high = np.minimum(low, np.log(predicted)), np.maximum(high, np.log(predicted))
                held = (low <= np.log(truth)) & (np.log(truth) <= high)
                coverage[name][f"{level:g}"] = float(np.mean(held))
            width[name] = float(np.median((np.exp(high) - np.exp(low)) / predicted))
            if name != "crossed":
                bounds = (np.exp(low), np.exp(high))
    law = None if own.draws is None else own.draws[:, :, column]
    moves = own.shipped * np.abs(own.reaches[:, column])
    chosen = choices(own.curves, predicted, measured, groups, law, moves)
    low, high = bounds if bounds is not None else (np.full(len(truth), np.nan),) * 2
    pilot = curves.columns["d"] <= end * target * (1 + 1e-9)
    return Replay(
        rule=rule,
        end=end,
        sizes=len(np.unique(curves.columns["d"][pilot])),
        curves=len(truth),
        median_log=float(np.median(error)),
        mean_log=float(np.mean(error)),
        median_loss=float(np.median(np.abs(predicted - truth))),
        mean_loss=float(np.mean(np.abs(predicted - truth))),
        coverage=coverage,
        width=width,
        weights=dict(own.weights),
        discrepancy=discrepancy,
        predictions={
            "; ".join(map(str, curves.groups[curve].values())): [float(v) for v in values]
            for curve, *values in zip(own.curves, predicted, low, high, truth, strict=True)
        },
        pearson=chosen.pearson,
        relative_accuracy=chosen.relative_accuracy,
        regret=chosen.regret,
        pairs=chosen.pairs,
    )


def _selections(curves: Curves, by: Sequence[str], select: Sequence[str]) -> list[list[int]]:
    """Curves that compete: alike in the columns that are not selected along."""
    found: dict[tuple, list[int]] = {}
    for curve, group in enumerate(curves.groups):
        found.setdefault(tuple(group[column] for column in by if column not in select), []).append(curve)
    return list(found.values())


def _target(curves: Curves, source: str) -> float:
    sizes = [set(curves.columns["d"][np.isfinite(losses)].tolist()) for losses in curves.losses]
    if max(map(len, sizes)) < 2:
        raise InputError(
            f"{source}: column {curves.names['d']!r} has one size in every group; a replay needs several"
        )
    common = set.intersection(*sizes)
    if not common:
        raise InputError(
            f"{source}: no value of {curves.names['d']!r} is there for every group; leave out some "
            "with --where"
        )
    return max(common)


def _measured(curves: Curves, target: float) -> np.ndarray:
    at = curves.columns["d"] == target
    return np.nanmean(curves.losses[:, at], axis=1)


def _largest(pilot: Curves) -> float:
    return float(pilot.columns["d"][np.isfinite(pilot.losses).any(axis=0)].max())


def _check_end(pilot: Curves, end: float, target: float, source: str) -> None:
    if not 0 < end < 1:
        raise InputError(f"--ends {end:g}: an end is a share of the largest size, above 0 and below 1")
    sizes = np.unique(pilot.columns["d"][np.isfinite(pilot.losses).any(axis=0)])
    if len(sizes) < 3:
        least = np.sort(np.unique(pilot.columns["d"]))[:3]
        raise InputError(
            f"{source}: a pilot that ends at {end:g} of {target:g} has {len(sizes)} sizes; a fit needs "
            f"three, so the end is {least[-1] / target:.3g} at least"
        )
