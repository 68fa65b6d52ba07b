"""Fits of a pilot: for each method the default laws, with the weights by which a forecast averages them."""

import dataclasses
from collections.abc import Mapping, Sequence

from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table

# Roles of the columns -> the laws that are averaged.
DEFAULT_LAWS = {("d",): ("power",), ("d", "x"): ("multiplicative",)}


def fit_pilot(
    table: Table,
    columns: Mapping[str, str],
    loss_column: str = "loss",
    by: Sequence[str] = ("task", "method"),
    where: str | None = None,
    settings: Settings | None = None,
    laws: Sequence[str] = (),
) -> list[Fit]:
    """Fits the laws of a pilot to each group.

    Args:
        table: results, from `read_table`.
        columns: role -> column: `d`, and `x` where several model sizes were run.
        loss_column: what the laws describe.
        by: columns whose values form the groups, the method's among them.
        where: only rows where this expression is true.
        settings: of the fits.
        laws: by name; the default ones for ().

    Returns:
        Fits with `weight` and `discrepancy` in their `extra`, for `recommend`.

    Raises:
        InputError: as `fit_table`.
    """
    laws = tuple(laws) or DEFAULT_LAWS[tuple(sorted(columns))]
    found = []
    for law in laws:
        fits = fit_table(table, law, columns, loss_column, by, where, settings=settings)
        found += [
            dataclasses.replace(fit, extra={**fit.extra, "weight": 1 / len(laws), "discrepancy": 0.0})
            for fit in fits
        ]
    return found
