"""The optimum of record: search, polish, and parameters shared over groups.

A plain fit is searched by variable projection (`search.py`). Where groups share parameters, the
starts come from the groups alone: each is fitted by itself, the shared parameters are put at each
group's values and on a grid between them, and every group's other parameters follow by a search
with the shared ones frozen. All starts are then improved together.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.polish import polish
from scaling_jax.laws.problem import Objective, Problem, parameters_of, point_of
from scaling_jax.laws.search import LANES, descend_sorted, grid_starts, search

_AGREEMENT = 1e-6
_POLISHED = 3
_SHARED_GRID = 25
# Absolute residuals have no curvature: the search sees them rounded off, less and less.
_ROUNDINGS = (1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Optimum:
    """The best point of a fit.

    Attributes:
        point: (coordinates,).
        value: the objective there.
        agreeing, starts: how many of the starts end within 1e-6 of that value.
    """

    point: np.ndarray
    value: float
    agreeing: int
    starts: int


def best_point(objective: Objective, problem: Problem, back_end: str = "jaxopt") -> Optimum:
    """The search improves the starts; the back end polishes the best few; the lowest objective wins.

    Raises:
        InputError: the law gives no finite loss at any start.
    """
    if objective.coordinates == 0:
        raise InputError(f"law {objective.law.name!r}: every parameter is frozen; nothing is left to fit")
    points, values = _searched(objective, problem)
    if not np.isfinite(values[0]):
        raise InputError(
            f"law {objective.law.name!r} gives no finite loss at any start; check the columns' units"
        )
    distinct = [0]
    for position in range(1, len(points)):
        away = [np.max(np.abs(points[position] - points[kept])) > 1e-4 for kept in distinct]
        if all(away) and np.isfinite(values[position]) and len(distinct) < _POLISHED:
            distinct.append(position)
    polished = [polish(objective, problem, points[position], back_end) for position in distinct]
    point, value = min(polished, key=lambda pair: pair[1])
    # Of a perfect fit nothing is left but rounding: squares of 1e-12 a row, in units of the residual.
    unit = 1.0 if objective.residual == "log" else float(problem.scale)
    rounding = 1e-24 * float(np.sum(problem.weights)) * unit**2
    agreeing = int(np.sum(values <= value * (1 + _AGREEMENT) + rounding))
    return Optimum(point, float(value), agreeing, len(values))


def _searched(objective: Objective, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    find = search if objective.groups == 1 else shared_search
    if objective.loss != "absolute":
        return find(objective, problem)
    points, _ = find(objective, problem._replace(delta=np.float64(_ROUNDINGS[0])))
    for rounding in (*_ROUNDINGS[1:], problem.delta):
        points, values = descend_sorted(
            objective, problem._replace(delta=np.float64(rounding)), points, iterations=60
        )
    return points, values


def shared_search(objective: Objective, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """The best points found where groups share parameters: (points, values), best first."""
    alone = [_group_alone(objective, problem, group) for group in range(objective.groups)]
    single = dataclasses.replace(objective, groups=1, shared=())
    solo = []
    for own in alone:
        points, _ = search(single, own)
        solo.append({name: value[0] for name, value in parameters_of(single, own, points[0], np).items()})
    starts = []
    for candidate in _shared_candidates(objective, solo):
        parts = [_frozen_start(objective, own, candidate) for own in alone]
        joint = {name: np.array([part[name] for part in parts]) for name in objective.law.parameter_names}
        starts.append(point_of(objective, problem, joint))
    starts = np.array(starts)
    starts = starts[np.isfinite(starts).all(axis=1)][:LANES]
    return descend_sorted(objective, problem, starts, iterations=100)


def _group_alone(objective: Objective, problem: Problem, group: int) -> Problem:
    """The same arrays with no weight on other groups' rows, so that compiled code is shared."""
    return problem._replace(
        weights=problem.weights * (problem.group == group),
        group=np.zeros_like(problem.group),
        centre={role: values[group : group + 1] for role, values in problem.centre.items()},
        frozen={name: values[group : group + 1] for name, values in problem.frozen.items()},
    )


def _shared_candidates(objective: Objective, solo: list[Mapping]) -> list[dict[str, float]]:
    """Values of the shared parameters to start from."""
    shared = [name for name in objective.fitted if name in objective.shared]
    found = [{name: values[name] for name in shared} for values in solo]
    found.append({name: float(np.median([values[name] for values in solo])) for name in shared})
    side = max(2, round(_SHARED_GRID ** (1 / max(1, len(shared)))))
    axes = []
    for name in shared:
        values = [parameters[name] for parameters in solo]
        axes.append(np.linspace(min(values), max(values), side))
    grid = itertools.islice(itertools.product(*axes), LANES)
    return (found + [dict(zip(shared, values, strict=True)) for values in grid])[:LANES]


def _frozen_start(objective: Objective, alone: Problem, shared: Mapping[str, float]) -> dict[str, float]:
    """One group's parameters with the shared ones given: the best start of a search for the others."""
    frozen = (*objective.frozen, *shared)
    restricted = dataclasses.replace(objective, groups=1, shared=(), frozen=frozen)
    values = {name: np.array([value]) for name, value in shared.items()}
    own = alone._replace(frozen={**alone.frozen, **values})
    point = grid_starts(restricted, own)[0] if restricted.coordinates else np.zeros(0)
    return {name: value[0] for name, value in parameters_of(restricted, own, point, np).items()}
