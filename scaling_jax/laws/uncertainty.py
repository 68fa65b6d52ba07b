"""Draws of the parameters around the optimum, from which every interval is taken.

Three ways, by the number of rows unless one is asked for:

- `simulated` (up to 1,000 rows): losses are simulated from the fitted law with the noise that the
  residuals show (`noise.py`) and refitted. A Huber fit with a small delta is nearly a least-absolute fit;
  resampling rows, the usual way, gives it intervals that are too wide at some sample sizes and too
  narrow at others, as refits of few rows jump between the points that they pass through. Simulated
  losses do not have this fault. The size of the noise is itself estimated: it is enlarged by Student's
  quantile over the normal one. `benchmarks/coverage.py` measures what this gives. Where a few rows do not
  follow the law such draws are too sure; rows are then resampled beside them, and the difference is said.
- `rows`: each draw refits with exponential weights on the rows (Rubin 1981) or on clusters of rows. It
  needs no model of the noise; taken where clusters are named, and up to 10,000 rows.
- `sandwich`: normal draws with the covariance H^-1 J H^-1 of an M-estimator (Huber 1967), the only
  affordable one above 10,000 rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.noise import noise_of
from scaling_jax.laws.problem import Objective, Problem, bounds_of, predicted, residuals, slopes_at
from scaling_jax.laws.search import descend_all

METHODS = ("simulated", "rows", "sandwich")
# Fewer steps are enough from the optimum where many rows make the objective smooth.
_ITERATIONS, _ITERATIONS_LONG = 60, 20
_SIMULATED_ROWS, _RESAMPLED_ROWS = 1_000, 10_000
# Beside simulated draws so many are made by resampling rows, and it is said when they scatter so much more.
_COMPARED, _MUCH_WIDER = 192, 1.75


@dataclass(frozen=True)
class Draws:
    """What `draw` returns.

    Attributes:
        points: (draws, coordinates).
        method: of `METHODS`, the one taken.
        note: what was found about the noise; empty when there is nothing to say.
    """

    points: np.ndarray
    method: str
    note: str


def draw(
    objective: Objective,
    problem: Problem,
    point: np.ndarray,
    draws: int,
    level: float,
    seed: int | Sequence[int],
    method: str | None = None,
    labels: np.ndarray | None = None,
    frozen: dict[str, np.ndarray] | None = None,
    resampled: bool = False,
) -> Draws:
    """Draws of the coordinates around the optimum.

    Args:
        objective, problem: what was fitted.
        point: the optimum, (coordinates,).
        draws: how many.
        level: of the intervals that will be taken (for Student's factor).
        seed: of all random choices.
        method: of `METHODS`; None chooses by the number of rows.
        labels: (rows,) of what shares its noise or is resampled together; None for every row its own.
        frozen: name -> (draws, groups), frozen parameters that are uncertain themselves.
        resampled: whether the labels are clusters, so that rows cannot be simulated one by one.

    Raises:
        InputError: an unknown method.
    """
    random = np.random.default_rng(seed)
    rows = int(np.sum(problem.weights > 0))
    clusters = np.arange(rows) if labels is None else np.unique(labels, return_inverse=True)[1].reshape(-1)
    count = int(clusters.max()) + 1
    if method is None:
        method = "rows" if resampled or rows > _SIMULATED_ROWS else "simulated"
        method = "sandwich" if rows > _RESAMPLED_ROWS and not frozen else method
    if method not in METHODS:
        raise InputError(f"intervals {method!r}: one of {', '.join(METHODS)}")
    if resampled and count <= objective.coordinates:
        raise InputError(
            f"{count} clusters cannot show how uncertain {objective.coordinates} parameters are; resample "
            "something of which there is more, or leave out --cluster"
        )
    if resampled and method == "simulated":
        raise InputError("rows of one cluster cannot be simulated; take --intervals rows (or sandwich)")
    if frozen and method == "sandwich":
        raise InputError("sandwich errors do not know uncertain frozen parameters; take --intervals rows")
    factor = student_factor(count - len(point), level)
    if method == "simulated":
        points, notes = _simulated(objective, problem, point, clusters, draws, factor, random, frozen)
        if not frozen:
            other = _resampled(objective, problem, point, clusters, _COMPARED, random)
            notes += _wider(objective, points, _stretched(objective, point, other, factor))
        return Draws(points, method, "; ".join(notes))
    if method == "sandwich":
        points = _sandwich(objective, problem, point, clusters, draws, random)
    else:
        points = _resampled(objective, problem, point, clusters, draws, random, frozen)
    if frozen:
        # These draws follow the frozen parameters' own, which have been stretched already.
        return Draws(points, method, "")
    return Draws(_stretched(objective, point, points, factor), method, "")


def interval(draws: np.ndarray, level: float, value: float) -> tuple[float, float]:
    """Percentiles that hold `level` of the draws, stretched to hold the estimate."""
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return float(min(low, value)), float(max(high, value))


def student_factor(spare: int, level: float) -> float:
    """Student's quantile with `spare` degrees of freedom over the normal one, at a two-sided level."""
    from scipy.special import ndtri, stdtrit

    tail = 0.5 * (1 + level)
    return float(stdtrit(max(1, spare), tail) / ndtri(tail))


def _stretched(objective, point, points, factor: float) -> np.ndarray:
    """Draws moved away from the optimum by a factor, or by less where a coordinate would leave its bounds.

    All coordinates of a draw move alike: one that is clipped alone would no longer belong to the others.
    """
    lower, upper = bounds_of(objective)
    moves = points - point
    with np.errstate(all="ignore"):
        room = np.where(
            moves > 0, (upper - point) / moves, np.where(moves < 0, (lower - point) / moves, np.inf)
        )
    # A coordinate that lies at its bound in the optimum leaves no room; the others of its draw move on.
    room = np.where(room > 0, room, np.inf)
    share = np.minimum(factor, np.min(room, axis=1, initial=np.inf))
    return np.clip(point + share[:, None] * moves, lower, upper)


def _wider(objective, simulated, resampled) -> list[str]:
    """Says when resampled rows scatter the parameters much more: a few rows then do not follow the law."""
    if len(resampled) < 2:
        return []
    spreads = [np.subtract(*np.percentile(points, [84, 16], axis=0)) for points in (resampled, simulated)]
    with np.errstate(all="ignore"):
        ratio = np.where(spreads[1] > 0, spreads[0] / spreads[1], 1.0)
    worst = int(np.argmax(ratio))
    if not ratio[worst] > _MUCH_WIDER:
        return []
    name = next(name for name, at in objective.positions.items() if at.start <= worst < at.stop)
    return [
        f"resampling the rows scatters {name} {ratio[worst]:.2g} times as much: some rows may not follow the "
        "law; see also --intervals rows"
    ]


def _simulated(objective, problem, point, clusters, draws, factor, random, frozen):
    """(draws, notes); noise larger by Student's factor, as its size is estimated too."""
    used = np.flatnonzero(problem.weights > 0)
    values = predicted(objective, problem, point, np)
    errors = residuals(objective, problem, point, np)[used]
    normal = random.standard_normal((draws, int(clusters.max()) + 1))[:, clusters]
    scatter, notes = np.zeros((draws, len(values))), []
    for group in range(objective.groups):
        here = problem.group[used] == group
        rows = used[here]
        logs = {role: column[rows] for role, column in problem.logs.items()}
        noise = noise_of(errors[here], logs, problem.weights[rows], _fitted_here(objective))
        scatter[:, rows] = factor * noise.draw(random, normal[:, here])
        notes += [noise.text()] if noise.text() not in ("", *notes) else []
    # Losses over many orders of magnitude may be simulated out of the numbers; such draws change nothing.
    with np.errstate(all="ignore"):
        losses = values * np.exp(scatter) if objective.residual == "log" else values + scatter
    losses = np.where(np.isfinite(losses), losses, problem.loss)
    points, _ = descend_all(objective, problem, point, problem.weights, losses, _ITERATIONS, frozen)
    return points, notes


def _fitted_here(objective: Objective) -> float:
    """How many coordinates a group's rows pay for: its own, and its part of the shared ones."""
    own = sum(1 for name in objective.fitted if name not in objective.shared)
    return own + (len(objective.fitted) - own) / objective.groups


def _resampled(objective, problem, point, clusters, draws, random, frozen=None) -> np.ndarray:
    weights = np.zeros((draws, len(problem.loss)))
    used = np.flatnonzero(problem.weights > 0)
    weights[:, used] = random.exponential(size=(draws, int(clusters.max()) + 1))[:, clusters]
    weights = weights * problem.weights
    iterations = _ITERATIONS if len(used) <= _SIMULATED_ROWS else _ITERATIONS_LONG
    return descend_all(objective, problem, point, weights, problem.loss, iterations, frozen)[0]


def _sandwich(objective, problem, point, clusters, draws, random) -> np.ndarray:
    """Normal draws around the optimum; coordinates at a bound stay there."""
    lower, upper = bounds_of(objective)
    free = (point > lower) & (point < upper)
    used = np.flatnonzero(problem.weights > 0)
    slopes = slopes_at(objective, problem, point)[used][:, free]
    errors = residuals(objective, problem, point, np)[used]
    weights = problem.weights[used]
    # The slope of the robust score, averaged over a width at which there are residuals to count.
    spread = 1.4826 * np.median(np.abs(errors - np.median(errors)))
    width = max(float(min(problem.delta, spread)), 1.06 * spread * len(errors) ** -0.2, 1e-300)
    score = np.clip(errors, -problem.delta, problem.delta)
    above = np.clip(errors + width, -problem.delta, problem.delta)
    below = np.clip(errors - width, -problem.delta, problem.delta)
    curvature = weights * (above - below) / (2 * width)
    hessian = (slopes.T * curvature) @ slopes
    pulls = np.zeros((int(clusters.max()) + 1, slopes.shape[1]))
    np.add.at(pulls, clusters, slopes * (weights * score)[:, None])
    middle = pulls.T @ pulls
    size = np.sqrt(np.maximum(np.diagonal(hessian), 1e-300))
    inverse = np.linalg.pinv(hessian / np.outer(size, size), hermitian=True)
    covariance = inverse @ (middle / np.outer(size, size)) @ inverse / np.outer(size, size)
    values, vectors = np.linalg.eigh(covariance)
    deviates = random.standard_normal((draws, len(size))) * np.sqrt(np.maximum(values, 0.0))
    points = np.repeat(point[None], draws, axis=0)
    points[:, free] += deviates @ vectors.T
    return points
