"""Finds fits by what they are about, and joins them with the rows they were made from."""

import math
from collections.abc import Sequence

import numpy as np

from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table, table_of
from scaling_jax.reports.study_data import Run, Study


def factor_of(fit: Fit) -> str:
    """What the law varies beside the examples: "single", "model_size", "pretraining" or "tuning_size"."""
    return str(fit.extra.get("factor", ""))


def find_fit(study: Study, task: str, method: str, factor: str, law: str = "multiplicative") -> Fit | None:
    """The fit of that group, None when there is none."""
    wanted = (law, factor, task, method)
    for fit in study.fits:
        if (fit.law, factor_of(fit), str(fit.group.get("task")), str(fit.group.get("method"))) == wanted:
            return fit
    return None


def single_fits(study: Study, task: str, method: str) -> list[Fit]:
    """The fits in the examples alone, one per model, smallest model first."""
    found = [
        fit
        for fit in study.fits
        if factor_of(fit) == "single" and (fit.group.get("task"), fit.group.get("method")) == (task, method)
    ]
    return sorted(found, key=lambda fit: float(fit.group.get("non_embedding_params", 0.0)))


def curve_fit(study: Study, task: str, method: str) -> Fit | None:
    """The law of loss against examples: the joint one over model sizes, else that of the largest model."""
    joint = find_fit(study, task, method, "model_size")
    return joint or next(reversed(single_fits(study, task, method)), None)


def x_column(fit: Fit) -> str:
    """The results column that is the law's X."""
    return fit.columns["x"]


def level(study: Study) -> str:
    """The level of the intervals as text, from the fits themselves."""
    levels = {fit.level for fit in study.fits}
    return f"{100 * min(levels):.0f}%" if levels else "90%"


def bounds(fit: Fit, parameter: str) -> tuple[float, float]:
    """The interval of a parameter, NaN where there is none."""
    return fit.intervals.get(parameter, (math.nan, math.nan))


def rows_of(study: Study, fit: Fit) -> list[tuple[Run, bool]]:
    """The finished rows a fit is about, each with whether it was held out.

    Both are decided as when fitting: by the fit's own group, condition and hold-out expression.
    """
    runs = [
        run
        for run in study.done
        if run["finetune_examples"] > 0 and all(_same(run, *pair) for pair in fit.group.items())
    ]
    if fit.where and runs:
        keep = _table(runs).matches(fit.where)
        runs = [run for run, kept in zip(runs, keep, strict=True) if kept]
    if not runs or not fit.hold_out:
        return [(run, False) for run in runs]
    held = _table(runs).matches(fit.hold_out)
    return [(run, bool(hidden)) for run, hidden in zip(runs, held, strict=True)]


def sizes(fit: Fit, rows: Sequence[tuple[Run, bool]]) -> list[float]:
    """The distinct values of the law's X among `rows`, ascending."""
    return sorted({run[x_column(fit)] for run, _ in rows})


def predict(fit: Fit, x, examples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The law at sizes `x` and numbers of examples, broadcast to [n]: (value, low, high)."""
    x, examples = np.broadcast_arrays(np.atleast_1d(np.asarray(x, float)), np.asarray(examples, float))
    return fit.predict({"x": x, "d": examples})


def _same(run: Run, column: str, value) -> bool:
    """Whether a cell holds a group's value, which `Fit` keeps as a number where it is one."""
    cell = run.cells.get(column, "")
    if isinstance(value, str) or not cell:
        return cell == str(value)
    try:
        return float(cell) == float(value)
    except ValueError:
        return False


def _table(runs: Sequence[Run]) -> Table:
    return table_of("results.csv", {name: [run.cells[name] for run in runs] for name in runs[0].cells})
