"""Intervals by a calibrated Bayesian bootstrap.

Each draw refits the law with exponential weights on the rows (Rubin 1981), or on clusters of rows.
Weights, unlike a residual bootstrap, need no assumption that the noise is the same everywhere, and
unlike multinomial counts never empty a size of all its rows.

Left alone such intervals are not what they say: a Huber fit with a small delta is nearly a
least-absolute fit, whose bootstrap is too wide at some sample sizes, and with few rows to spare it is
too narrow. They are therefore **calibrated by simulation** (Beran 1987, prepivoting): data sets are
simulated from the fitted law on the same rows, with noise of the residuals' size, and each gets a
small bootstrap of its own. How far the known truth lies from the centre of those bootstraps, in
units of their spread, says by how much the draws must be spread or drawn in for intervals to hold
the truth as often as they say. The simulation takes the size of the noise as known, which with few
rows to spare it is not: hence a second factor, Student's quantile over the normal one. One factor
is used for all parameters, so that the draws stay joint. `benchmarks/coverage.py` measures what
this gives.
"""

import functools

import numpy as np

from scaling_jax.laws.law import Law
from scaling_jax.laws.problem import Problem, bounds_of, predicted, residuals
from scaling_jax.laws.search import descend_all

_ITERATIONS = 60
# Share of draws with a coordinate at a bound from which on draws are not drawn in.
_AT_BOUND = 0.02
# Longer tables are not calibrated: the corrections fall with the rows, and the cost grows with them.
_CALIBRATED_ROWS = 1000
# Calibration: data sets simulated, and bootstrap draws of each.
_SIMULATIONS, _INNER_DRAWS = 64, 16
_QUANTILES = (0.7, 0.8, 0.9)


def bootstrap(
    law: Law, settings, problem: Problem, point: np.ndarray, rows: int, clusters=None
) -> np.ndarray:
    """Draws of the coordinates around the optimum.

    Args:
        law: the law.
        settings: `fit.Settings` (residual, bootstrap, seed, level).
        problem: what was fitted.
        point: the optimum, (coordinates,).
        rows: how many rows of the problem are not padding.
        clusters: (rows,) labels, or None for every row its own.

    Returns:
        (settings.bootstrap, coordinates).
    """
    random = np.random.default_rng(settings.seed)
    labels = np.arange(rows) if clusters is None else np.unique(clusters, return_inverse=True)[1]
    refit = functools.partial(_refit, law, settings.residual, problem)
    loss = np.asarray(problem.loss)[None, :]
    draws = refit(point[None, :], _weights(random, settings.bootstrap, labels), loss)
    if rows <= len(point) or rows > _CALIBRATED_ROWS:
        return draws
    factor = _calibration(law, settings, problem, point, labels, random)
    factor *= student_factor(rows - len(point), settings.level)
    lower, upper = bounds_of(law, problem)
    if np.mean(np.any((draws <= lower) | (draws >= upper), axis=1)) > _AT_BOUND:
        # Draws held by a bound must not be drawn away from it: such an interval may only be widened.
        factor = max(1.0, factor)
    centre = draws.mean(axis=0)
    return np.clip(centre + factor * (draws - centre), lower, upper)


def interval(draws: np.ndarray, level: float, value: float) -> tuple[float, float]:
    """Percentiles that hold `level` of the draws, stretched to hold the estimate."""
    low, high = np.percentile(draws, [50 * (1 - level), 50 * (1 + level)])
    return float(min(low, value)), float(max(high, value))


def student_factor(spare: int, level: float) -> float:
    """Student's quantile with `spare` degrees of freedom over the normal one, at a two-sided level."""
    from scipy.special import ndtri, stdtrit

    tail = 0.5 * (1 + level)
    return float(stdtrit(spare, tail) / ndtri(tail))


def _calibration(law, settings, problem, point, labels, random) -> float:
    """The factor by which deviations of the draws from their centre must be multiplied."""
    from scipy.special import stdtrit

    rows, inner = len(labels), _INNER_DRAWS
    simulated = _simulate(law, settings.residual, problem, point, rows, _SIMULATIONS, random)
    refit = functools.partial(_refit, law, settings.residual, problem)
    once = refit(point, np.ones((1, rows)), simulated)
    weights = _weights(random, _SIMULATIONS * inner, labels)
    again = refit(np.repeat(once, inner, axis=0), weights, np.repeat(simulated, inner, axis=0))
    measured = _quantities(law, problem, again, rows).reshape(_SIMULATIONS, inner, -1)
    truth = _quantities(law, problem, point[None], rows)[0]
    spread = measured.std(axis=1, ddof=1)
    usable = spread > 0
    if not usable.any():
        return 1.0
    distance = np.abs(measured.mean(axis=1) - truth)[usable] / spread[usable]
    # For a bootstrap that is right, the distance is Student's with inner - 1 degrees of freedom.
    ideal = np.sqrt(1 + 1 / inner) * stdtrit(inner - 1, 0.5 * (1 + np.array(_QUANTILES)))
    factor = np.mean(np.quantile(distance, _QUANTILES) / ideal)
    return float(np.clip(factor, 0.5, 2.0)) if np.isfinite(factor) else 1.0


def _quantities(law, problem, points, rows) -> np.ndarray:
    """What the calibration is over: every coordinate, and the law at as many rows, (..., quantities)."""
    chosen = np.linspace(0, rows - 1, points.shape[-1]).round().astype(int)
    values = predicted(law, problem, points, np)[..., chosen] / problem.scale
    return np.concatenate([points, values], axis=-1)


def _simulate(law, residual, problem, point, rows, draws, random) -> np.ndarray:
    """Losses by the fitted law with normal noise of the residuals' size, (draws, padded rows)."""
    values = predicted(law, problem, point, np)
    errors = residuals(law, residual, problem, point, np)[:rows]
    size = np.sqrt(np.sum(errors**2) / max(1, rows - len(point)))
    noise = np.zeros((draws, len(values)))
    noise[:, :rows] = size * random.standard_normal((draws, rows))
    return values * np.exp(noise) if residual == "log" else np.maximum(values + noise, 1e-3 * values)


def _weights(random, draws: int, labels: np.ndarray) -> np.ndarray:
    """Exponential weights with mean one, equal inside a cluster, (draws, rows)."""
    return random.exponential(size=(draws, labels.max() + 1))[:, labels]


def _refit(law, residual, problem, starts, weights, losses) -> np.ndarray:
    """Refits from `starts` with weights (draws or 1, rows) and losses (draws or 1, padded rows)."""
    weights = np.pad(weights, ((0, 0), (0, np.shape(losses)[-1] - weights.shape[1])))
    return descend_all(law, residual, problem, starts, weights, losses, _ITERATIONS)[0]
