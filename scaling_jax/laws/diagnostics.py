"""What the data cannot tell: which parameters are not identified, and why, in words."""

from collections.abc import Mapping

import numpy as np

from scaling_jax.laws.law import Law
from scaling_jax.laws.problem import Problem, bounds_of

_CONDITION_LIMIT = 1e4
# A term whose lower interval end, at the centre of the data, is below this share of its estimate.
_NEARLY_ZERO = 0.05


def condition(slopes: np.ndarray) -> tuple[float, np.ndarray]:
    """Condition number of the slopes with unit columns, and the weakest direction, (coordinates,).

    Infinite when the rows cannot tell the coordinates apart at all.
    """
    size = np.linalg.norm(slopes, axis=0)
    if not np.all(np.isfinite(slopes)) or np.any(size == 0):
        return float("inf"), (size == 0).astype(float)
    _, singular, directions = np.linalg.svd(slopes / size, full_matrices=False)
    smallest = singular[-1] if len(slopes) >= slopes.shape[1] else 0.0
    return float(singular[0] / smallest) if smallest > 1e-14 else float("inf"), np.abs(directions[-1])


def identified(
    law: Law,
    problem: Problem,
    point: np.ndarray,
    points: np.ndarray,
    parameters: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    slopes: np.ndarray,
) -> dict[str, bool | str]:
    """For each parameter True, or the reason why the data do not identify it.

    Args:
        point: the optimum, (coordinates,).
        points: the bootstrap's draws of it, (draws, coordinates).
        parameters, intervals: by name.
        slopes: (rows, coordinates).
    """
    lower, upper = bounds_of(law, problem)
    names = [*law.linear, *(parameter.name for parameter in law.nonlinear)]
    if len(slopes) <= len(names):
        reason = "there are no more rows than parameters, so that nothing is left to judge by"
        return dict.fromkeys(law.parameter_names, reason)
    number, weakest = condition(slopes)
    # At the centre of the data, where a term's size does not hang on the exponents.
    smallest = np.percentile(points, 5, axis=0)
    found = {}
    for position, name in enumerate(names):
        low, high = intervals[name]
        value = parameters[name]
        if point[position] <= lower[position] or point[position] >= upper[position]:
            found[name] = f"{name} is at its bound ({value:.4g}): the data do not show where it lies"
        elif number > _CONDITION_LIMIT and weakest[position] > 0.3:
            others = [n for n, w in zip(names, weakest, strict=True) if w > 0.3 and n != name]
            beside = f" from {' and '.join(others)}" if others else ""
            found[name] = f"the rows cannot tell {name}{beside} apart (condition number {number:.1e})"
        elif name in law.linear and smallest[position] <= _NEARLY_ZERO * point[position]:
            found[name] = f"the term of {name} may be nearly zero: the data do not show that it is there"
        elif name in law.linear and high > 100 * low:
            found[name] = (
                f"the interval of {name} spans a factor of {high / low:.2g}; it moves with the exponents"
            )
        elif name not in law.linear and low <= 0.0 <= high:
            found[name] = (
                f"the interval of {name} holds zero: the data do not show that the loss depends on it"
            )
        elif high - low > 2.0 * abs(value) and name not in law.linear:
            found[name] = f"the interval of {name} is wider than twice its value"
        else:
            found[name] = True
    return {name: found[name] for name in law.parameter_names}
