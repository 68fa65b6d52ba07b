"""Fits of a pilot: for each method several laws, with the weights and the discrepancy of its forecast.

Weights and discrepancy come from rolling origins inside the pilot (`rolling.py`), together for the methods
that compete. Rows weigh as their number of examples, residuals are squared: so the forecasts that were
back-tested (docs/backtest.md) are made.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from scaling_jax.decisions.rolling import Curves, curves_of, fits, learned_discrepancy, roll, stacking_weights
from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings, samples_of
from scaling_jax.laws.law import Law, find_law
from scaling_jax.laws.results import Fit
from scaling_jax.laws.sample import Sample
from scaling_jax.laws.table import Table

# Roles of the columns -> the laws that are averaged.
DEFAULT_LAWS = {
    ("d",): ("pure_power", "power", "rectified"),
    ("d", "x"): ("pure_multiplicative", "multiplicative", "additive"),
}
# A form of less weight is left out.
_LEAST_WEIGHT = 0.02


def fit_pilot(
    table: Table,
    columns: Mapping[str, str],
    loss_column: str = "loss",
    by: Sequence[str] = ("task", "method"),
    where: str | None = None,
    settings: Settings | None = None,
    laws: Sequence[str] = (),
    along: str = "method",
) -> list[Fit]:
    """Fits the laws of a pilot to each group.

    Args:
        table: results, from `read_table`.
        columns: role -> column: `d`, and `x` where several model sizes were run.
        loss_column: what the laws describe, above zero.
        by: columns whose values form the groups, the method's among them.
        where: only rows where this expression is true.
        settings: of the fits; squared residuals of logarithms for None.
        laws: by name; `DEFAULT_LAWS` for ().
        along: the column of `by` whose groups compete, and so share weights and discrepancy.

    Returns:
        Fits with `weight`, `discrepancy` and `row_weights` in their `extra`, for `recommend`.

    Raises:
        InputError: as `fit_table`; a group has too few sizes for every law (says how many are needed).
    """
    found, short = fit_pilot_groups(table, columns, loss_column, by, where, settings, laws, along)
    if short:
        raise InputError(next(iter(short.values())))
    return found


def fit_pilot_groups(
    table: Table,
    columns: Mapping[str, str],
    loss_column: str = "loss",
    by: Sequence[str] = ("task", "method"),
    where: str | None = None,
    settings: Settings | None = None,
    laws: Sequence[str] = (),
    along: str = "method",
) -> tuple[list[Fit], dict[str, str]]:
    """As `fit_pilot`, but groups that no law can be fitted to do not hide the others.

    Returns:
        (fits, value of `along` -> why its group has none).
    """
    settings = settings or Settings(loss="squared", bootstrap=500)
    names = tuple(laws) or DEFAULT_LAWS.get(tuple(sorted(columns)), ())
    if not names:
        raise InputError(f"a pilot's laws are in d, or in x and d, not in {', '.join(sorted(columns))}")
    forms = {name: find_law(name) for name in names}
    curves = curves_of(table, columns, loss_column, by, where)
    short = _too_short(curves, forms, table.source, along)
    rolled = {name: roll(curves, law) for name, law in forms.items()}
    found = {}
    for members in _competing(curves, by, along):
        members = [curve for curve in members if curve not in short]
        own = {name: every and every.only(members) for name, every in rolled.items()}
        weights = stacking_weights(own, curves)
        shared = learned_discrepancy(own, weights, curves)
        for curve in members:
            found[curve] = _weights(curves, curve, forms, weights), shared
    made = [
        fit
        for name, law in forms.items()
        for fit in _fits(name, law, table, columns, loss_column, by, where, settings, found)
    ]
    return made, dict(short.values())


def _fits(name, law, table, columns, loss_column, by, where, settings, found) -> list[Fit]:
    """One law's fits to the groups in which it has weight."""
    from scaling_jax.laws.solution import fit_samples

    wanted = [curve for curve, (weights, _) in sorted(found.items()) if weights.get(name, 0.0) > 0]
    if not wanted:
        return []
    groups = [own for _, own in table.where(where).drop_missing([*columns.values(), loss_column]).groups(by)]
    fitted = []
    for curve in wanted:
        # Each group by itself: another one may have too few rows for this law.
        sample = samples_of(groups[curve], law, columns, loss_column, settings, by)[0]
        weights, discrepancy = found[curve]
        fit = fit_samples([_weighted(sample)], law, settings, reference=name, where=where)[0]
        extra = {"weight": weights[name], "discrepancy": discrepancy, "row_weights": columns["d"]}
        fitted.append(dataclasses.replace(fit, extra={**fit.extra, **extra}))
    return fitted


def _weighted(sample: Sample) -> Sample:
    """Rows that weigh as their examples, 1 for the largest."""
    return dataclasses.replace(sample, weights=sample.sizes["d"] / sample.sizes["d"].max())


def _weights(curves: Curves, curve: int, forms: Mapping[str, Law], weights: Mapping[str, float]):
    """The weights of the forms that one group has rows for, 1 together."""
    mask = np.isfinite(curves.losses[curve])
    able = {name: weights[name] for name, law in forms.items() if fits(curves, mask, law)}
    kept = {name: weight for name, weight in able.items() if weight >= _LEAST_WEIGHT}
    kept = kept or dict.fromkeys(able, 1.0)
    total = sum(kept.values())
    return {name: weight / total for name, weight in kept.items()}


def _competing(curves: Curves, by: Sequence[str], along: str) -> list[list[int]]:
    found: dict[tuple, list[int]] = {}
    for curve, group in enumerate(curves.groups):
        found.setdefault(tuple(group[column] for column in by if column != along), []).append(curve)
    return list(found.values())


def _too_short(
    curves: Curves, forms: Mapping[str, Law], source: str, along: str
) -> dict[int, tuple[str, str]]:
    """Curve -> (its value of `along`, why no law can be fitted to it with a size to spare)."""
    found = {}
    least = min(len(law.parameters) for law in forms.values()) + 1
    wanted = " and ".join(repr(curves.names[role]) for role in curves.columns)
    for curve, group in enumerate(curves.groups):
        mask = np.isfinite(curves.losses[curve])
        if any(fits(curves, mask, law) for law in forms.values()):
            continue
        cells = np.unique(np.stack([values[mask] for values in curves.columns.values()]), axis=1).shape[1]
        told = ", ".join(f"{column}={value}" for column, value in group.items()) or "all rows"
        few = f"{source}: {told} has {cells} different values of {wanted}; a forecast needs {least} at least"
        found[curve] = str(group.get(along, told)), f"{few}, and two of each"
    return found
