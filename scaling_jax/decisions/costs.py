"""What a run of each method would cost, from the costs of runs that were made.

Memory and seconds are a constant and a part in proportion to the model size, both not negative (weights,
gradients and most of the work grow with the model; the rest is there for the smallest one too); seconds also
have a power of the examples. Stored bytes are a power of the model size. Fitted by least squares of relative
errors for each method, and said in words. Empty where nothing was measured; where the table has one model
size and the question is of another, the cost is taken in proportion to the size, which is said too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.forecast import Estimate
from scaling_jax.laws.table import Table

_GIB, _MIB, _HOUR = 2.0**30, 2.0**20, 3600.0
_SIZES = ("model_params", "non_embedding_params")
_EXAMPLES = "finetune_examples"
# The two factors of a cost are fitted in turn.
_ROUNDS = 30
# Cost -> column, unit, whether it grows with the examples.
_COSTS = {
    "memory_gib": ("peak_memory_bytes", _GIB, False),
    "hours": ("train_seconds", _HOUR, True),
    "checkpoint_mib": ("checkpoint_bytes", _MIB, False),
}


@dataclass(frozen=True)
class Cost:
    """What a run would need; None where nothing was measured.

    Attributes:
        memory_gib: of one device, GiB.
        hours: of training, on the device that the table was measured on.
        checkpoint_mib: what is stored of the tuned model, MiB.
        how: cost -> how it was found, in words.
    """

    memory_gib: Estimate | None = None
    hours: Estimate | None = None
    checkpoint_mib: Estimate | None = None
    how: Mapping[str, str] = None


def costs_at(table: Table | None, at: Mapping, column: str, value: str, level: float = 0.9) -> Cost:
    """The cost of one method at a point.

    Args:
        table: of results, with any of the cost columns of `results.csv`; None for none.
        at: column -> value, with any of model_params, non_embedding_params, finetune_examples.
        column, value: the method's column and its name.
        level: of the intervals, which are those of one more run.

    Raises:
        InputError: the table has no such column; a cost is not a number (names the line).
    """
    if table is None:
        return Cost(how={})
    rows = table.rows(table.text(column) == value)
    for name in ("task",):
        if name in at and name in rows:
            rows = rows.rows(rows.text(name) == str(at[name]))
    found, how = {}, {}
    for cost, (source, unit, grows) in _COSTS.items():
        estimate, told = _cost(rows, source, unit, grows, at, level)
        how[cost] = told
        if estimate is not None:
            found[cost] = estimate
    return Cost(**found, how=how)


def _cost(rows: Table, source: str, unit: float, grows: bool, at: Mapping, level: float):
    """(estimate or None, how it was found)."""
    if source not in rows or not len(rows):
        return None, "not measured"
    rows = rows.drop_missing([source])
    note = ""
    if source == "peak_memory_bytes" and "runs_at_once" in rows:
        alone = ~(rows.numbers("runs_at_once") > 1)
        if not alone.any():
            return None, "measured only of several runs made together"
        rows = rows.rows(alone)
    elif source == "train_seconds" and "runs_at_once" in rows and np.any(rows.numbers("runs_at_once") > 1):
        note = "; seconds of runs made together are each run's share"
    if len(rows):
        rows = rows.rows(rows.numbers(source) > 0)
    if not len(rows):
        return None, "not measured"
    size = next((name for name in _SIZES if name in at and name in rows), None)
    columns = [
        *([size] if size else []),
        *([_EXAMPLES] if grows and _EXAMPLES in at and _EXAMPLES in rows else []),
    ]
    rows = rows.drop_missing(columns)
    for name in columns:
        rows = rows.rows(rows.numbers(name) > 0) if len(rows) else rows
    if not len(rows):
        return None, "not measured"
    return _regressed(rows, source, unit, columns, at, level, note)


def _regressed(
    rows: Table, source: str, unit: float, columns: list[str], at: Mapping, level: float, note: str
):
    """(estimate, how): a product of one factor for each column."""
    values = rows.numbers(source) / unit
    sizes = {column: rows.numbers(column) for column in columns}
    aims = {column: float(at[column]) for column in columns}
    for column in columns:
        note += _distance(column, sizes[column], aims[column])
    varying = [column for column in columns if np.ptp(np.log(sizes[column])) > 1e-9]
    fixed = math.prod(aims[column] / sizes[column][0] for column in columns if column not in varying)
    affine = next((c for c in varying if c in _SIZES and source != "checkpoint_bytes"), None)
    powers = [column for column in varying if column != affine]
    logs, target, found = np.log(values), 0.0, []
    fitted = np.zeros(len(rows))
    for _ in range(_ROUNDS if affine and powers else 1):
        slopes, middle = _slopes({column: sizes[column] for column in powers}, logs - fitted)
        power = sum((slopes[c] * np.log(sizes[c]) for c in powers), middle)
        if affine is None:
            break
        constant, rate = _affine(sizes[affine], np.exp(logs - power))
        fitted = np.log(constant + rate * sizes[affine])
    target = middle + sum(slopes[column] * math.log(aims[column]) for column in powers)
    if affine is not None:
        target += math.log(constant + rate * aims[affine])
        share = rate * aims[affine] / (constant + rate * aims[affine])
        found.append(f"a constant + a multiple of {affine} ({share:.0%} there)")
    found += [f"{column}^{round(slopes[column], 2) + 0.0:g}" for column in powers]
    how = f"{len(rows)} runs, {'as ' + ' and '.join(found) if found else 'their geometric mean'}{note}"
    value = fixed * math.exp(target)
    spare = len(rows) - 1 - len(powers) - (affine is not None)
    if spare < 1:
        return Estimate(value), how
    errors = logs - power - fitted
    scatter = math.sqrt(float(np.sum(errors**2)) / spare)
    width = 1.0 + sum(_leverage(np.log(sizes[column]), math.log(aims[column])) for column in varying)
    factor = math.exp(_student(spare, level) * scatter * math.sqrt(width))
    return Estimate(value, value / factor, value * factor), how


def _distance(column: str, sizes: np.ndarray, aim: float) -> str:
    """What is to be said of a target beyond the measured sizes."""
    low, high = float(sizes.min()), float(sizes.max())
    if low == high:
        return "" if aim == low else f"; measured at one {column} ({low:g}), taken in proportion to it"
    far = max(aim / high, low / aim)
    return f"; {far:.3g} times beyond the measured {column}" if far > 1 + 1e-9 else ""


def _slopes(sizes: Mapping[str, np.ndarray], logs: np.ndarray) -> tuple[dict[str, float], float]:
    """(column -> exponent, the logarithm of the factor) of a product of powers."""
    design = np.stack([*(np.log(values) for values in sizes.values()), np.ones(len(logs))], axis=1)
    found, *_ = np.linalg.lstsq(design, logs, rcond=None)
    return dict(zip(sizes, found[:-1].tolist(), strict=True)), float(found[-1])


def _affine(sizes: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """(constant, rate), not negative, of the least relative squares."""
    from scipy.optimize import nnls

    scale = sizes.max()
    design = np.stack([1.0 / values, sizes / scale / values], axis=1)
    (constant, rate), _ = nnls(design, np.ones(len(values)))
    return float(constant), float(rate / scale)


def _leverage(logs: np.ndarray, aim: float) -> float:
    """How much a straight line's error grows with the distance from the measured sizes."""
    away = logs - logs.mean()
    return 1 / len(logs) + (aim - logs.mean()) ** 2 / float(away @ away)


def _student(spare: int, level: float) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 * (1 + level), spare))
