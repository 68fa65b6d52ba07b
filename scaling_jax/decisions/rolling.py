"""What a pilot says of its own predictions: rolling origins inside it, the weights of forms, the discrepancy.

Every form is fitted to the k smallest numbers of examples and predicts the larger ones that the pilot has,
for every k that leaves it a row to spare. From these errors follow

- the weights of the forms: the average of their logarithms that would have erred least (stacking), pulled
  towards weights learned from other curves, the less the more curves the pilot has;
- the discrepancy: by which share the further fall of the loss was wrong, over sqrt(1 + away) (`forecast.py`).

Rows count in proportion to their number of examples: what is near the target tells the most about it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.forecast import DISCREPANCY, TAILS, away
from scaling_jax.errors import InputError
from scaling_jax.laws.design import check_design, describe
from scaling_jax.laws.law import Law, find_law
from scaling_jax.laws.many import Lanes
from scaling_jax.laws.table import Table

# So many curves' worth the learned value counts beside a pilot's own rolling errors.
_PRIOR_CURVES = 3.0
# Weights of the forms on those curves, towards which few curves' weights are pulled; other forms count alike.
_PRIOR_WEIGHTS = {"pure_power": 0.7, "power": 0.3, "rectified": 0.0}
# How strong the pull is, in units of the best form's mean squared error, for a pilot of one curve.
_PULL = 3.0
_GRID = np.geomspace(0.02, 1.5, 150)


@dataclass(frozen=True)
class Curves:
    """Curves over the union of their sizes.

    Attributes:
        groups: one column -> value for each curve.
        columns: role -> (rows,), sizes; `d` is among them.
        losses: (curves, rows), NaN where a curve has no such row.
        names: role -> column, and "y" -> the loss column.
    """

    groups: tuple[Mapping, ...]
    columns: Mapping[str, np.ndarray]
    losses: np.ndarray
    names: Mapping[str, str]

    @property
    def sizes(self) -> np.ndarray:
        """The different numbers of examples, ascending."""
        return np.unique(self.columns["d"])

    def upto(self, size: float) -> "Curves":
        """The curves with the rows of at most `size` examples."""
        return Curves(
            self.groups, self.columns, np.where(self.columns["d"] <= size, self.losses, np.nan), self.names
        )

    def weights(self) -> np.ndarray:
        """(curves, rows): a row's examples over those of the curve's largest row; 0 where there is none."""
        known = np.where(np.isfinite(self.losses), self.columns["d"], 0.0)
        return known / np.maximum(known.max(axis=1, keepdims=True), 1e-300)


def curves_of(
    table: Table, columns: Mapping[str, str], loss_column: str, by: Sequence[str], where: str | None = None
) -> Curves:
    """The groups of a table as curves over common sizes; repeated runs of one size are rows of their own.

    Raises:
        InputError: a column is missing or holds what it must not; a design column varies inside a group.
    """
    rows = table.where(where)
    names = {**columns, "y": loss_column}
    rows = rows.drop_missing(names.values())
    for column in by:
        table.text(column)
    if not len(rows):
        raise InputError(f"{table.source}: no row has a value in each of {', '.join(names.values())}")
    members, keys = [], {}
    for group, own in rows.groups(by):
        check_design(own, (*names.values(), *by), group)
        values = {role: own.positive(column) for role, column in names.items()}
        seen: dict[tuple, int] = {}
        found = {}
        for position, cell in enumerate(zip(*(values[role] for role in columns), strict=True)):
            seen[cell] = seen.get(cell, 0) + 1
            key = (*cell, seen[cell])
            found[keys.setdefault(key, len(keys))] = values["y"][position]
        members.append((group, found))
    losses = np.full((len(members), len(keys)), np.nan)
    for curve, (_, found) in enumerate(members):
        losses[curve, list(found)] = list(found.values())
    cells = np.array([key[:-1] for key in keys], np.float64)
    sizes = {role: cells[:, place] for place, role in enumerate(columns)}
    return Curves(tuple(group for group, _ in members), sizes, losses, names)


@dataclass(frozen=True)
class Rolling:
    """Predictions of one form from every origin inside a pilot.

    Attributes:
        origins: (lanes,), the largest number of examples that was fitted.
        curves: (lanes,), which curve.
        logs: (lanes, rows), logarithm of the predicted loss.
        ends: (lanes, rows), the same, but of as many examples as the origin has.
        away: (lanes, rows), how far beyond the fitted numbers of examples; see `forecast`.
    """

    origins: np.ndarray
    curves: np.ndarray
    logs: np.ndarray
    ends: np.ndarray
    away: np.ndarray

    def upto(self, size: float) -> "Rolling | None":
        """The origins below `size`; None where there is none."""
        kept = self.origins < size
        if not kept.any():
            return None
        return self.rows(np.flatnonzero(kept))

    def only(self, members: Sequence[int]) -> "Rolling | None":
        """The lanes of some curves; None where there is none."""
        kept = np.isin(self.curves, members)
        return self.rows(np.flatnonzero(kept)) if kept.any() else None

    def rows(self, lanes: np.ndarray) -> "Rolling":
        """Some of the lanes."""
        parts = (self.origins, self.curves, self.logs, self.ends, self.away)
        return Rolling(*(part[lanes] for part in parts))


def roll(curves: Curves, law: Law) -> Rolling | None:
    """Fits a form from every origin that leaves it a cell to spare; None where there is no such origin."""
    masks, origins, which = [], [], []
    known = np.isfinite(curves.losses)
    for origin in curves.sizes[:-1]:
        for curve in range(len(known)):
            mask = known[curve] & (curves.columns["d"] <= origin)
            later = known[curve] & (curves.columns["d"] > origin)
            here = known[curve] & (curves.columns["d"] == origin)
            if later.any() and here.any() and fits(curves, mask, law):
                masks.append(mask), origins.append(origin), which.append(curve)
    if not masks:
        return None
    masks, which, origins = np.array(masks), np.array(which), np.array(origins)
    weights = np.where(masks, curves.columns["d"] / origins[:, None], 0.0)
    own = {role: curves.columns[role] for role in law.role_names}
    lanes = Lanes(law, own, curves.losses[which], weights)
    with np.errstate(all="ignore"):
        logs = np.log(lanes.predict(own))
        ends = np.stack([_at_end(law, lanes, own, origins, lane) for lane in range(len(origins))])
    smallest = np.array([curves.columns["d"][mask].min() for mask in masks])
    return Rolling(
        origins, which, logs, ends, away(curves.columns["d"][None], smallest[:, None], origins[:, None])
    )


def fits(curves: Curves, mask: np.ndarray, law: Law) -> bool:
    """Whether these rows of a curve leave a form a cell to spare, with two values of every size."""
    cells = np.stack([curves.columns[role][mask] for role in law.role_names], axis=1)
    enough = len(np.unique(cells, axis=0)) > len(law.parameters)
    return enough and all(len(np.unique(column)) > 1 for column in cells.T)


def stacking_weights(rolled: Mapping[str, Rolling | None], curves: Curves) -> dict[str, float]:
    """The weight of each form: a convex combination of logarithms of least squared error.

    A form that has not predicted anything yet, as it needs all sizes but one to be fitted, is not known to be
    worse: it keeps its weight of other curves, and the judged forms share the rest.

    Args:
        rolled: form -> its rolling predictions; None where it has none.
        curves: the pilot.

    Returns:
        Form -> weight, 1 together.
    """
    prior = _shares({name: _PRIOR_WEIGHTS.get(name, 1 / len(rolled)) for name in rolled})
    able = {name: found for name, found in rolled.items() if found is not None}
    if not able:
        return prior
    # Judged where all of them predict: the origins of the form that needs the most rows.
    while not (common := _common(able)):
        able.pop(min(able, key=lambda name: len(able[name].origins)))
    errors = np.stack([_errors(found, curves, common) for found in able.values()], axis=1)
    pulled_to = _shares({name: prior[name] for name in able})
    count = len({curve for curve, _ in common})
    stacked = _simplex(errors, np.array([*pulled_to.values()]), _PULL / count)
    judged = dict(zip(able, stacked.tolist(), strict=True))
    left = 1 - sum(share for name, share in prior.items() if name not in judged)
    return {name: left * judged[name] if name in judged else prior[name] for name in rolled}


def _shares(weights: Mapping[str, float]) -> dict[str, float]:
    """The same, 1 together; alike where all are 0."""
    total = sum(weights.values())
    return {name: weight / total if total else 1 / len(weights) for name, weight in weights.items()}


def _common(rolled: Mapping[str, Rolling]) -> set:
    """The (curve, origin) from which all forms predict."""
    return set.intersection(*(set(zip(f.curves, f.origins, strict=True)) for f in rolled.values()))


def learned_discrepancy(
    rolled: Mapping[str, Rolling | None], weights: Mapping[str, float], curves: Curves
) -> float:
    """The discrepancy: what was learned from other curves, and this pilot's rolling errors."""
    used = {name: found for name, found in rolled.items() if found is not None and weights[name] > 0}
    if not used:
        return DISCREPANCY
    common = _common(used)
    total = sum(weights[name] for name in used)
    ratios, owners = [], []
    parts = {name: _aligned(found, common) for name, found in used.items()}
    logs = sum(weights[name] / total * part.logs for name, part in parts.items())
    ends = sum(weights[name] / total * part.ends for name, part in parts.items())
    first = next(iter(parts.values()), None)
    if first is None or not len(first.curves):
        return DISCREPANCY
    for lane, (curve, origin) in enumerate(zip(first.curves, first.origins, strict=True)):
        later = np.isfinite(curves.losses[curve]) & (curves.columns["d"] > origin)
        fall = (np.abs(logs[lane] - ends[lane]) * np.sqrt(1 + first.away[lane]))[later]
        error = (np.log(curves.losses[curve]) - logs[lane])[later]
        ratios += (error / np.maximum(fall, 1e-6)).tolist()
        owners += [curve] * int(later.sum())
    return discrepancy_of(np.array(ratios), np.array(owners), _PRIOR_CURVES)


def discrepancy_of(ratios: np.ndarray, owners: np.ndarray, prior_curves: float = 0.0) -> float:
    """The scale of Student's t of relative errors of the fall; each curve counts as one.

    Args:
        ratios: (errors,), error over predicted fall.
        owners: (errors,), the curve of each.
        prior_curves: how many curves the learned value counts as.
    """
    from scipy.special import stdtrit

    ratios, owners = ratios[np.isfinite(ratios)], owners[np.isfinite(ratios)]
    counts = np.bincount(owners, minlength=1)[owners]

    def likelihood(values, weights):
        return (student_log(values[:, None], _GRID) * weights[:, None]).sum(axis=0)

    quantiles = DISCREPANCY * stdtrit(TAILS, (np.arange(40) + 0.5) / 40)
    total = prior_curves * likelihood(quantiles, np.full(40, 1 / 40))
    if len(ratios):
        total = total + likelihood(ratios, 1 / counts)
    return float(_GRID[np.argmax(total)])


def student_log(errors: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Logarithm of Student's density of the discrepancy, short of its constant."""
    return -0.5 * (TAILS + 1) * np.log1p((errors / scale) ** 2 / TAILS) - np.log(scale)


def forms_of(names: Sequence[str]) -> dict[str, Law]:
    """Name -> law."""
    return {name: find_law(name) for name in names}


def described(curves: Curves, curve: int) -> str:
    """A curve's group in words."""
    return describe(dict(curves.groups[curve]))


def _at_end(law: Law, lanes: Lanes, columns: Mapping, origins: np.ndarray, lane: int) -> np.ndarray:
    own = {name: values[lane] for name, values in lanes.parameters().items()}
    there = {**columns, "d": np.minimum(columns["d"], origins[lane])}
    return np.log(np.broadcast_to(law.predict(own, there), columns["d"].shape))


def _aligned(found: Rolling, common: set) -> Rolling:
    """The lanes of `common`, in one order for all forms."""
    place = {key: lane for lane, key in enumerate(zip(found.curves, found.origins, strict=True))}
    lanes = np.array([place[key] for key in sorted(common)], np.intp)
    return found.rows(lanes)


def _errors(found: Rolling, curves: Curves, common: set) -> np.ndarray:
    part = _aligned(found, common)
    later = curves.columns["d"][None] > part.origins[:, None]
    measured = np.log(curves.losses[part.curves])
    return (part.logs - measured)[later & np.isfinite(measured)]


def _simplex(errors: np.ndarray, prior: np.ndarray, pull: float) -> np.ndarray:
    """Weights, not negative and 1 together, of the least mean square of the weighted errors, (forms,).

    To which pull times the squared distance from `prior` is added, in units of the best form's mean square.
    """
    finite = np.nan_to_num(errors, nan=1e3, posinf=1e3, neginf=-1e3)
    square = finite.T @ finite / len(finite)
    pull = pull * np.min(np.diagonal(square))
    weights = np.full(len(square), 1 / len(square))
    for _ in range(5000):
        slope = square @ weights + pull * (weights - prior)
        weights = weights * np.exp(-0.5 * slope / max(np.max(np.abs(slope)), 1e-300))
        weights = weights / weights.sum()
    weights = np.where(weights < 1e-3, 0.0, weights)
    return weights / weights.sum()
