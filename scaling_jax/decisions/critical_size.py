"""The critical finetuning size: where two methods' fitted losses cross.

Zhang et al. (ICLR 2024), section 5 and Table 5. There is no closed form in general, so every sign
change of the difference in a range is found; Equation 3 gives one for a fixed gap E1 - E2.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.results import Fit

_GRID = 400
# How far beyond the fitted sizes crossings are looked for, as factors of the smallest and the largest.
_BELOW, _ABOVE = 0.1, 100.0


@dataclass(frozen=True)
class Crossing:
    """One critical size.

    Attributes:
        size: examples at which the two fitted losses are equal.
        low, high: its interval; None where the interval is open because enough bootstrap draws put
            the crossing outside the searched range on that side.
        better_below, better_above: the method with the lower loss on each side.
    """

    size: float
    low: float | None
    high: float | None
    better_below: str
    better_above: str


@dataclass(frozen=True)
class Comparison:
    """Two methods compared along one column, all other columns fixed.

    Attributes:
        first, second: the methods.
        column: along which the sizes vary.
        at: column -> value of what is fixed.
        searched: (smallest, largest) size searched.
        fitted: (smallest, largest) size fitted by both; a crossing outside is an extrapolation.
        crossings: all of them in the range, ascending; empty for none.
        share_crossing: share of the bootstrap draws that cross in the range.
        better: the method with the lower loss everywhere in the range, or None when they cross.
        level: of the intervals.
        closed_form: {"H", "gamma"} of Equation 3, for two multiplicative laws; else None.
    """

    first: str
    second: str
    column: str
    at: Mapping[str, float]
    searched: tuple[float, float]
    fitted: tuple[float, float]
    crossings: tuple[Crossing, ...]
    share_crossing: float
    better: str | None
    level: float
    closed_form: Mapping[str, float | None] | None

    def to_json(self) -> dict:
        """Plain types for JSON, with a sentence under `text`."""
        return asdict(self) | {
            "at": dict(self.at),
            "searched": list(self.searched),
            "fitted": list(self.fitted),
            "crossings": [asdict(crossing) for crossing in self.crossings],
            "text": self.text(),
        }

    def text(self) -> str:
        """One sentence for people."""
        low, high = (f"{size:.3g}" for size in self.searched)
        share = f"{100 * self.share_crossing:.0f}% of the bootstrap draws cross"
        if not self.crossings:
            better = f"{self.better} is better throughout" if self.better else "the two do not differ"
            return f"no crossing in range ({low} to {high} {self.column}): {better}; {share}"
        parts = []
        for crossing in self.crossings:
            bounds = [
                f"{crossing.low:.3g}" if crossing.low is not None else f"below {low}",
                f"{crossing.high:.3g}" if crossing.high is not None else f"above {high}",
            ]
            outside = not self.fitted[0] <= crossing.size <= self.fitted[1]
            parts.append(
                f"{crossing.better_below} is better below {crossing.size:.3g} {self.column}, "
                f"{crossing.better_above} "
                f"above ({100 * self.level:.0f}% interval {bounds[0]} to {bounds[1]}"
                f"{', outside the fitted sizes' if outside else ''})"
            )
        return "; ".join(parts) + f"; {share}"


def critical_sizes(
    first: Fit,
    second: Fit,
    at: Mapping[str, float],
    search_range: tuple[float, float] | None = None,
    role: str = "d",
    between: str = "method",
) -> Comparison:
    """All sizes at which two fits predict the same loss.

    Args:
        first, second: fits whose groups differ in the column `between`.
        at: values of the laws' other columns, by role or column name.
        search_range: sizes to search; by default a tenth of the smallest fitted to 100 times the largest.
        role: the law's role along which to search.
        between: the column whose values name the two.

    Raises:
        InputError: the fits have no such role, a value is missing from `at`, the range is empty.
    """
    for fit in (first, second):
        if role not in fit.columns:
            raise InputError(f"law {fit.law!r} has no role {role!r} along which to look for a crossing")
    fitted = (
        max(first.fitted_range[role][0], second.fitted_range[role][0]),
        min(first.fitted_range[role][1], second.fitted_range[role][1]),
    )
    low, high = search_range or (
        _BELOW * min(first.fitted_range[role][0], second.fitted_range[role][0]),
        _ABOVE * max(first.fitted_range[role][1], second.fitted_range[role][1]),
    )
    if not 0 < low < high < math.inf:
        raise InputError(f"a search range needs 0 < low < high, not {low:g} to {high:g}")
    sizes = np.geomspace(low, high, _GRID)
    if first.form.better != second.form.better:
        raise InputError(f"laws {first.law!r} and {second.law!r}: a loss and a score cannot be compared")
    # Above zero where the second is better.
    sign = 1.0 if first.form.better == "lower" else -1.0
    gap = sign * (_values(first, at, role, sizes)[0] - _values(second, at, role, sizes)[0])
    draws = sign * _draw_gaps(first, second, at, role, sizes)
    names = (str(first.group.get(between, "first")), str(second.group.get(between, "second")))
    return compared(
        names,
        sizes,
        gap,
        draws,
        column=first.columns[role],
        at=at,
        fitted=fitted,
        level=first.level,
        closed_form=closed_form(first, second),
    )


def compared(
    names: tuple[str, str],
    sizes: np.ndarray,
    gap: np.ndarray,
    draws: np.ndarray,
    column: str,
    at: Mapping[str, float],
    fitted: tuple[float, float],
    level: float,
    closed_form: Mapping[str, float | None] | None = None,
) -> Comparison:
    """The crossings in a difference that is known on a grid.

    Args:
        names: the two methods.
        sizes: (sizes,), ascending, a fine grid in the logarithm.
        gap: (sizes,), the first's loss minus the second's.
        draws: (draws, sizes), the same of every draw.
        column, at, fitted, level, closed_form: as in `Comparison`.
    """
    positions = _sign_changes(gap)
    crossings = tuple(_crossing(sizes, gap, draws, position, names, level) for position in positions)
    changes = np.any(np.sign(draws[:, 1:]) != np.sign(draws[:, :-1]), axis=1)
    return Comparison(
        first=names[0],
        second=names[1],
        column=column,
        at={key: float(value) for key, value in at.items()},
        searched=(float(sizes[0]), float(sizes[-1])),
        fitted=fitted,
        crossings=crossings,
        share_crossing=float(np.mean(changes)),
        better=None if crossings or not np.any(gap) else names[0 if gap[len(gap) // 2] < 0 else 1],
        level=level,
        closed_form=closed_form,
    )


def closed_form(first: Fit, second: Fit) -> dict[str, float | None] | None:
    """H and gamma of D = H X^gamma (Equation 3), for two multiplicative laws; None for other laws.

    The size at which the reducible losses are equal, that is, at which the gap of the losses is E1 - E2.
    H is None where it is beyond float64.
    """
    if first.law != "multiplicative" or second.law != "multiplicative":
        return None
    one, two = first.parameters, second.parameters
    slope = one["beta"] - two["beta"]
    if slope == 0 or one["A"] <= 0 or two["A"] <= 0:
        return {"H": None, "gamma": None}
    log_h = (math.log(one["A"]) - math.log(two["A"])) / slope
    return {
        "H": math.exp(log_h) if abs(log_h) < 700 else None,
        "gamma": (two["alpha"] - one["alpha"]) / slope,
    }


def difference(first: Fit, second: Fit, at: Mapping[str, float]) -> tuple[float, float, float]:
    """First's loss minus second's at one point: (value, low, high). Draws of the two are independent."""
    value = float(first.predict(at)[0] - second.predict(at)[0])
    one, two = (fit.draw_predictions(fit.column_values(at)) for fit in (first, second))
    count = min(len(one), len(two))
    tail = 50 * (1 - first.level)
    low, high = np.percentile(one[:count] - two[:count], [tail, 100 - tail])
    return value, float(low), float(high)


def _values(fit: Fit, at, role: str, sizes: np.ndarray):
    return fit.predict({**at, role: sizes})


def _draw_gaps(first: Fit, second: Fit, at, role: str, sizes) -> np.ndarray:
    """Differences at every draw, (draws, sizes); the two fits' draws are paired as independent."""
    one, two = (fit.draw_predictions(fit.column_values({**at, role: sizes})) for fit in (first, second))
    count = min(len(one), len(two))
    return one[:count] - two[:count]


def _sign_changes(gap: np.ndarray) -> np.ndarray:
    """Positions i where the sign differs between i and i + 1."""
    sign = np.where(gap == 0, 1.0, np.sign(gap))
    return np.flatnonzero(sign[1:] != sign[:-1])


def _crossing(sizes, gap, draws, position: int, names, level: float) -> Crossing:
    logs = np.log(sizes)
    size = math.exp(_root(logs, gap, position))
    rising = gap[position + 1] > gap[position]
    # A draw that does not cross this way in the range has its crossing beyond one of the ends: the end at
    # which the sign is still what it is on the other side of the crossing.
    found = []
    for draw in draws:
        same = [i for i in _sign_changes(draw) if (draw[i + 1] > draw[i]) == rising]
        roots = [_root(logs, draw, i) for i in same]
        if roots:
            found.append(min(roots, key=lambda root: abs(root - math.log(size))))
        else:
            above = (draw[len(draw) // 2] < 0) == rising
            found.append(math.inf if above else -math.inf)
    tail = 0.5 * (1 - level)
    low, high = np.quantile(found, [tail, 1 - tail], method="inverted_cdf")
    # As for the parameters, the interval holds the estimate.
    low, high = min(low, math.log(size)), max(high, math.log(size))
    before, after = (names[0], names[1]) if rising else (names[1], names[0])
    return Crossing(
        size=size,
        low=math.exp(low) if math.isfinite(low) else None,
        high=math.exp(high) if math.isfinite(high) else None,
        better_below=before,
        better_above=after,
    )


def _root(logs: np.ndarray, gap: np.ndarray, i: int) -> float:
    """Where the gap is zero between i and i + 1, linear in the logarithm; the grid is fine (1 to 3%)."""
    return float(logs[i] - gap[i] * (logs[i + 1] - logs[i]) / (gap[i + 1] - gap[i]))
