"""What the data cannot tell: which parameters are not identified, and why, in words."""

from collections.abc import Mapping

import numpy as np

from scaling_jax.laws.problem import Objective, bounds_of

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
    objective: Objective,
    group: int,
    point: np.ndarray,
    points: np.ndarray,
    parameters: Mapping[str, float],
    intervals: Mapping[str, tuple[float, float]],
    slopes: np.ndarray,
) -> dict[str, bool | str]:
    """For each parameter of one group True, or the reason why the data do not identify it.

    Args:
        objective: what was fitted.
        group: which group's parameters.
        point: the optimum, (coordinates,).
        points: the draws of it, (draws, coordinates).
        parameters, intervals: of the group, by name.
        slopes: (rows, coordinates).
    """
    if len(slopes) <= objective.coordinates:
        reason = "there are no more rows than parameters, so that nothing is left to judge by"
        return dict.fromkeys(objective.law.parameter_names, reason)
    number, weakest = condition(slopes)
    confused = [
        name
        for name in objective.fitted
        if number > _CONDITION_LIMIT and weakest[objective.coordinate(name, group)] > 0.3
    ]
    lower, upper = bounds_of(objective)
    found = {}
    for name in objective.law.parameter_names:
        at = objective.coordinate(name, group)
        inside = at is None or lower[at] < point[at] < upper[at]
        if not inside:
            found[name] = (
                f"{name} is at its bound ({parameters[name]:.4g}): the data do not show where it lies"
            )
        elif name in confused:
            others = [other for other in confused if other != name]
            beside = f" from {' and '.join(others)}" if others else ""
            found[name] = f"the rows cannot tell {name}{beside} apart (condition number {number:.1e})"
        else:
            # At the centre of the data a term's size does not hang on the exponents.
            smallest = np.inf if at is None else np.percentile(points[:, at], 5)
            usual = 0.0 if at is None else point[at]
            spread = _spread_reason(objective, name, parameters[name], intervals[name], smallest, usual)
            found[name] = spread or True
    return found


def _spread_reason(objective, name, value, interval, smallest, usual) -> str | None:
    """Why an interval is too wide to speak of its parameter; None if it is not."""
    low, high = interval
    positive = {p.name for p in objective.law.nonlinear if p.transform == "log"}
    if name in objective.law.linear:
        if smallest <= _NEARLY_ZERO * usual:
            return _zero_reason(objective, name)
        if high > 100 * low:
            factor = f"{high / low:.2g}" if low > 0 else "infinity"
            return f"the interval of {name} spans a factor of {factor}; it moves with the exponents"
        return None
    if name in positive:
        return f"the interval of {name} spans a factor of {high / low:.2g}" if high > 100 * low else None
    if low <= 0.0 <= high:
        return f"the interval of {name} holds zero: the data do not show that the loss depends on it"
    if high - low > 2.0 * abs(value):
        return f"the interval of {name} is wider than twice its value"
    return None


def _zero_reason(objective, name) -> str:
    constant = name == objective.law.linear[-1] and name == "E"
    if constant:
        return "E is not identified: the loss never leaves the power phase, so the floor may be nearly zero"
    return f"the term of {name} may be nearly zero: the data do not show that it is there"
