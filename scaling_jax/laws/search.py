"""The search for the best basin: variable projection on a grid, then damped least squares.

For every combination of exponents on a grid the linear parameters follow from a small
non-negative least squares. The best combinations, ranked by the true robust objective, are
improved by Levenberg-Marquardt on iteratively reweighted residuals, all lanes at once. Exponents
that a plain grid of starts misses (the optimum of a weakly identified law lies in a narrow curved
valley) are found because the valley's linear directions are solved exactly.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax.laws.law import Parameter
from scaling_jax.laws.problem import (
    COMPILER_OPTIONS,
    Objective,
    Problem,
    bounds_of,
    float64_on_cpu,
    frozen_part,
    huber,
    nonlinear_at,
    residuals,
    term_ratios,
    value_at,
)

# Lanes of one batch of damped least squares. One size for search and bootstrap alike: one compilation.
LANES = 64
_GRID_POINTS = 1100
_MULTISTART_POINTS = 4096
_BLOCK_FLOATS = 2_000_000
# A longer table is searched on that many of its rows, and its lanes on all rows are fewer.
_SEARCHED_ROWS = 4096
_LANE_ROWS = 1 << 18
# Coordinates up to which the small solver is unrolled.
_UNROLLED = 12


def search(objective: Objective, problem: Problem, iterations: int = 100) -> tuple[np.ndarray, np.ndarray]:
    """The best points found, for one group of rows.

    Args:
        objective: what is minimised; its law, with one group.
        problem: from `make_problem`.
        iterations: of damped least squares.

    Returns:
        (points, values): (lanes, coordinates) and (lanes,), best first.
    """
    if np.sum(problem.weights > 0) > _SEARCHED_ROWS:
        points, _ = search(objective, _sample(problem), iterations)
        starts = points[: max(1, _lanes(problem) // 2)]
    else:
        starts = grid_starts(objective, problem)[:LANES]
    return descend_sorted(objective, problem, starts, iterations)


def grid_starts(objective: Objective, problem: Problem, thin: int = 1) -> np.ndarray:
    """Points to start from, the most promising first, (at most LANES, coordinates).

    Of the grid every `thin`-th point along each axis.
    """
    if objective.linear:
        grid = _grid(objective.nonlinear)
        grid = grid[(slice(None, None, thin),) * (grid.ndim - 1)]
        flat = grid.reshape(int(np.prod(grid.shape[:-1])), grid.shape[-1])
        points = _in_blocks(_project, objective, problem, flat)
        values = _in_blocks(_values, objective, problem, points)
        return points[_basins(values.reshape(grid.shape[:-1]), LANES)]
    points = _scattered(objective.nonlinear)
    values = _in_blocks(_values, objective, problem, points)
    return points[np.argsort(values, kind="stable")[:LANES]]


def descend_sorted(objective: Objective, problem: Problem, starts: np.ndarray, iterations: int):
    """Improves starts (lanes, coordinates) by damped least squares; (points, values), best first."""
    points, _ = descend_all(objective, problem, starts, problem.weights, problem.loss, iterations)
    values = _in_blocks(_values, objective, problem, points)
    order = np.argsort(values, kind="stable")
    return points[order], values[order]


def descend_all(
    objective: Objective, problem: Problem, starts, weights, losses, iterations: int, frozen=None
):
    """`descend` over any number of lanes, in batches.

    Args:
        starts: (coordinates,) or (lanes, coordinates).
        weights, losses: (padded rows,) or (lanes, padded rows).
        frozen: name -> (lanes, groups) of frozen parameters; None for the problem's in every lane.

    Returns:
        (points, values): (lanes, coordinates), (lanes,).
    """
    frozen = frozen or {name: values[None] for name, values in problem.frozen.items()}
    parts = {"starts": starts, "weights": weights, "losses": losses, **frozen}
    parts = {name: np.atleast_2d(part) for name, part in parts.items()}
    lanes = max(len(part) for part in parts.values())
    parts = {name: np.broadcast_to(part, (lanes, part.shape[1])) for name, part in parts.items()}
    size = _lanes(problem)
    points, values = [], []
    with float64_on_cpu():
        for first in range(0, lanes, size):
            batch = {
                name: np.resize(part[first : first + size], (size, part.shape[1]))
                for name, part in parts.items()
            }
            own = [batch.pop(name) for name in ("starts", "weights", "losses")]
            found = descend(objective, problem, *own, batch, iterations)
            points.append(np.asarray(found[0])), values.append(np.asarray(found[1]))
    return np.concatenate(points)[:lanes], np.concatenate(values)[:lanes]


@functools.partial(jax.jit, static_argnames=("objective",), compiler_options=COMPILER_OPTIONS)
def descend(objective: Objective, problem: Problem, starts, weights, losses, frozen, iterations):
    """Levenberg-Marquardt under Huber weights, kept inside the bounds, one lane a start.

    Args:
        starts: (lanes, coordinates).
        weights, losses: (lanes, rows), so that a lane can be a bootstrap draw.
        frozen: name -> (lanes, groups).
        iterations: how many, the same for all lanes.

    Returns:
        (points, values): (lanes, coordinates), (lanes,); values are sums of Huber losses.
    """
    lower, upper = bounds_of(objective)

    def lane(start, weight, loss, known):
        own = problem._replace(loss=loss, weights=weight, frozen=known)

        def evaluate(point):
            """(objective, residuals, slopes (coordinates, rows)); objective infinite where not a number."""

            errors, along = jax.linearize(functools.partial(residuals, objective, own), point)
            slopes = jax.vmap(along)(jnp.eye(len(point)))
            value = jnp.sum(weight * huber(errors, own.delta))
            return jnp.where(jnp.isfinite(value), value, jnp.inf), errors, slopes

        def step(_, state):
            point, damping, (value, errors, slopes) = state
            robust = weight * jnp.minimum(1.0, own.delta / jnp.maximum(jnp.abs(errors), 1e-300))
            gradient = jnp.sum(slopes * (robust * errors), axis=-1)
            held = ((point <= lower) & (gradient > 0)) | ((point >= upper) & (gradient < 0))
            free = jnp.where(held, 0.0, 1.0)
            matrix = _curvature(slopes, robust) * jnp.outer(free, free)
            proposal = jnp.clip(point - _damped_solve(matrix, free * gradient, damping), lower, upper)
            proposed = evaluate(proposal)
            better = proposed[0] < value
            kept = jax.tree.map(
                lambda new, old: jnp.where(better, new, old), proposed, (value, errors, slopes)
            )
            damping = jnp.clip(jnp.where(better, 0.2 * damping, 4.0 * damping), 1e-12, 1e12)
            return jnp.where(better, proposal, point), damping, kept

        start = jnp.clip(start, lower, upper)
        point, _, (value, _, _) = jax.lax.fori_loop(0, iterations, step, (start, 1e-3, evaluate(start)))
        return point, value

    return jax.vmap(lane)(starts, weights, losses, frozen)


def _lanes(problem: Problem) -> int:
    """How many lanes fit one batch: a power of two, fewer for long tables."""
    return int(min(LANES, max(1, _LANE_ROWS * 16 // len(problem.loss))))


def _sample(problem: Problem) -> Problem:
    """Some of the rows of a long table, the same ones at every call."""
    rows = np.flatnonzero(problem.weights > 0)
    chosen = np.sort(np.random.default_rng(0).choice(rows, _SEARCHED_ROWS, replace=False))
    return problem._replace(
        columns={role: values[chosen] for role, values in problem.columns.items()},
        logs={role: values[chosen] for role, values in problem.logs.items()},
        loss=problem.loss[chosen],
        weights=problem.weights[chosen],
        group=problem.group[chosen],
    )


def _curvature(slopes, robust):
    """Slopes (c, rows) weighted and multiplied with themselves, (c, c); one fused loop where c is small."""
    if len(slopes) > _UNROLLED:
        return (slopes * robust) @ slopes.T
    return jnp.sum((slopes * robust)[:, None] * slopes[None, :], axis=-1)


def _damped_solve(matrix, vector, damping):
    """Solves (M + damping diag M) move = vector for a small symmetric M by an unrolled Cholesky factor.

    Unrolled, the lanes of a batch stay one fused loop; LAPACK would be called once a lane. Coordinates
    whose row is zero (held at a bound) do not move.
    """
    count = matrix.shape[0]
    diagonal = jnp.diagonal(matrix)
    size = jnp.where(diagonal > 0, jnp.sqrt(jnp.maximum(diagonal, 1e-300)), 1.0)
    scaled = matrix / (size[:, None] * size[None, :])
    target = vector / size
    if count > _UNROLLED:
        damped = scaled + jnp.diag(jnp.where(diagonal > 0, damping + 1e-14, 1.0))
        return jnp.linalg.solve(damped, target) / size
    factor = [[None] * count for _ in range(count)]
    forward = []
    for i in range(count):
        for j in range(i):
            inner = sum((factor[i][k] * factor[j][k] for k in range(j)), 0.0)
            factor[i][j] = (scaled[i, j] - inner) / factor[j][j]
        inner = sum((factor[i][k] ** 2 for k in range(i)), 0.0)
        factor[i][i] = jnp.sqrt(jnp.maximum(1.0 + damping + 1e-14 - inner, 1e-14))
        forward.append((target[i] - sum((factor[i][k] * forward[k] for k in range(i)), 0.0)) / factor[i][i])
    move = [None] * count
    for i in reversed(range(count)):
        inner = sum((factor[k][i] * move[k] for k in range(i + 1, count)), 0.0)
        move[i] = (forward[i] - inner) / factor[i][i]
    return jnp.stack(move) / size


def _grid(nonlinear: tuple[Parameter, ...]) -> np.ndarray:
    """All combinations of the nonlinear coordinates, (n1, .., nm, m); denser near the lower ends."""
    side = max(3, round(_GRID_POINTS ** (1 / max(1, len(nonlinear))))) if len(nonlinear) > 1 else 129
    axes = []
    for parameter in nonlinear:
        low, high = parameter.starts
        if parameter.transform == "log":
            axes.append(np.linspace(np.log(low), np.log(high), side))
        else:
            axes.append(low + (high - low) * np.linspace(0.0, 1.0, side) ** 1.5)
    if not axes:
        return np.zeros((1, 0))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)


def _scattered(nonlinear: tuple[Parameter, ...]) -> np.ndarray:
    """Low-discrepancy starts for a law without linear parameters, (points, coordinates)."""
    count = len(nonlinear)
    # Additive recurrence with the generalised golden ratio (Roberts 2018).
    ratio = 2.0
    for _ in range(40):
        ratio = (1.0 + ratio) ** (1.0 / (count + 1))
    steps = ratio ** -np.arange(1.0, count + 1)
    unit = (0.5 + np.arange(_MULTISTART_POINTS)[:, None] * steps) % 1.0
    low, high = np.array([parameter.starts for parameter in nonlinear], np.float64).reshape(-1, 2).T
    for position, parameter in enumerate(nonlinear):
        if parameter.transform == "log":
            low[position], high[position] = np.log(low[position]), np.log(high[position])
    return low + (high - low) * unit


def _in_blocks(function, objective: Objective, problem: Problem, points: np.ndarray) -> np.ndarray:
    """Applies `function` to blocks of points, so that a long table does not fill the memory."""
    block = max(1, _BLOCK_FLOATS // len(problem.loss))
    parts = [points[first : first + block] for first in range(0, len(points), block)]
    return np.concatenate([function(objective, problem, part) for part in parts])


def _values(objective: Objective, problem: Problem, points: np.ndarray) -> np.ndarray:
    """The objective at points (n, coordinates), in NumPy; infinite where it is not a number."""
    with np.errstate(all="ignore"):
        found = np.asarray(value_at(objective, problem, points, np))
    return np.where(np.isfinite(found), found, np.inf)


def _project(objective: Objective, problem: Problem, grid: np.ndarray) -> np.ndarray:
    """The points whose linear parameters are best at every combination of exponents, (n, coordinates).

    The squares are of relative errors for log residuals. Non-negative least squares is exact by trying
    every subset of terms: there are two or three.
    """
    count, rows = len(objective.linear), len(problem.loss)
    scale = problem.scale
    with np.errstate(all="ignore"):
        weights = problem.weights / ((problem.loss / scale) ** 2 if objective.residual == "log" else 1.0)
        nonlinear = nonlinear_at(objective, problem, grid, np)
        ratios = term_ratios(objective, problem, nonlinear, np)
        shape = (len(grid), rows)
        design = np.stack([np.broadcast_to(ratios[n], shape) / scale for n in objective.linear], axis=-1)
        rest = frozen_part(objective, problem, nonlinear, np)
        target = np.broadcast_to((problem.loss - rest) / scale, shape)
        matrix = np.einsum("nrk,r,nrl->nkl", design, weights, design, optimize=True)
        target = np.einsum("nrk,r,nr->nk", design, weights, target, optimize=True)
        usable = np.isfinite(matrix).all((1, 2)) & np.isfinite(target).all(1)
        matrix, target = (
            np.where(usable[:, None, None], matrix, np.eye(count)),
            np.where(usable[:, None], target, 0),
        )
        best, least = np.zeros((len(grid), count)), np.full(len(grid), np.inf)
        for used in itertools.product((0.0, 1.0), repeat=count):
            used = np.array(used)
            ridge = 1.0 - used + 1e-13 * used * np.einsum("nkk->nk", matrix) + 1e-300
            masked = matrix * np.outer(used, used) + ridge[:, :, None] * np.eye(count)
            linear = np.linalg.solve(masked, (used * target)[..., None])[..., 0]
            error = np.einsum("nk,nkl,nl->n", linear, matrix, linear) - 2 * np.sum(linear * target, axis=1)
            better = np.all(linear >= 0, axis=1) & (error < least)
            best[better], least[better] = linear[better], error[better]
    # A term left out stays a little above zero: from exactly zero its exponent has no slope.
    return np.concatenate([np.maximum(best, 1e-6), grid], axis=1)


def _basins(values: np.ndarray, lanes: int) -> np.ndarray:
    """Flat indices of grid points to start from: local minima of the grid first, then the next best."""
    values = np.where(np.isfinite(values), values, np.inf)
    lowest = np.ones(values.shape, bool)
    padded = np.pad(values, 1, constant_values=np.inf)
    for shift in itertools.product((0, 1, 2), repeat=values.ndim):
        window = tuple(slice(s, s + size) for s, size in zip(shift, values.shape, strict=True))
        lowest &= values <= padded[window]
    flat = values.reshape(-1)
    order = np.argsort(flat, kind="stable")
    minima = [index for index in order if lowest.reshape(-1)[index]][: lanes // 2]
    others = [index for index in order if index not in set(minima)][: lanes - len(minima)]
    return np.array(minima + others)
