"""The rows of one fit as arrays, checked: what is fitted, what is held out, what each row weighs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws import expressions
from scaling_jax.laws.design import describe
from scaling_jax.laws.law import Law
from scaling_jax.laws.table import Table


@dataclass(frozen=True)
class Sample:
    """One group's rows.

    Attributes:
        group: column -> value of the `--by` columns.
        columns: role -> column, and "y" -> the loss column.
        sizes: role -> (rows,), above zero.
        loss: (rows,).
        weights: (rows,), above zero.
        held: (rows,) of bool, rows that are predicted and not fitted.
        runs: (rows,), the line of each row in its file; rows of one run share it.
        clusters: (rows,) labels of rows that are resampled together, or None.
        hold_out: the expression that chose the held-out rows, or None.
        dropped: reason -> count of the rows left out.
        notes: what a reader should know of the rows.
    """

    group: Mapping
    columns: Mapping[str, str]
    sizes: Mapping[str, np.ndarray]
    loss: np.ndarray
    weights: np.ndarray
    held: np.ndarray
    runs: np.ndarray
    clusters: np.ndarray | None
    hold_out: str | None
    dropped: Mapping[str, int]
    notes: tuple[str, ...]

    @property
    def fitted(self) -> dict[str, np.ndarray]:
        """Role -> sizes of the rows that are fitted."""
        return {role: values[~self.held] for role, values in self.sizes.items()}


def sample_rows(
    rows: Table,
    law: Law,
    columns: Mapping[str, str],
    loss_column: str,
    residual: str,
    hold_out: str | None = None,
    weights: str | None = None,
    cluster: str | None = None,
    group: Mapping | None = None,
    given: Sequence[str] = (),
) -> Sample:
    """Reads and checks one group's rows.

    Args:
        rows: the group's rows; those with an empty cell in a column used are left out and counted.
        law: for its roles and how many rows it needs.
        columns: role -> column.
        loss_column: what the law describes.
        residual: "log" needs losses above zero, "linear" numbers.
        hold_out: rows where this expression is true are held out.
        weights: column of the rows' weights, above zero; all 1 for None.
        cluster: column whose equal values are resampled together.
        group: column -> value, for messages and the fit's record.
        given: parameters that other rows help to fit, so that these rows need not be as many.

    Raises:
        InputError: a cell is not what it must be; too few rows; a column with one value.
    """
    group = dict(group or {})
    used = [*(columns[role] for role in law.role_names), loss_column, *([weights] if weights else [])]
    rows = rows.drop_missing(used).drop_undecided(hold_out)
    if not len(rows):
        inside = f" in the group {describe(group)}" if group else ""
        raise InputError(f"{rows.source}: no row{inside} has a value in each of {', '.join(used)}")
    sizes = {role: rows.positive(columns[role]) for role in law.role_names}
    loss = rows.positive(loss_column) if residual == "log" else rows.numbers(loss_column)
    held = rows.matches(hold_out) if hold_out else np.zeros(len(rows), bool)
    found = Sample(
        group=group,
        columns={**{role: columns[role] for role in law.role_names}, "y": loss_column},
        sizes=sizes,
        loss=loss,
        weights=rows.positive(weights) if weights else np.ones(len(rows)),
        held=held,
        runs=rows.lines,
        clusters=rows.text(cluster) if cluster else None,
        hold_out=hold_out,
        dropped=rows.dropped,
        notes=rows.notes,
    )
    check_enough(rows.source, law, columns, found.fitted, group, len(set(given)))
    return found


def check_enough(
    source: str, law: Law, columns: Mapping, fitted: Mapping, group: Mapping, given: int = 0
) -> None:
    """Refuses fewer rows than parameters, and a column with one value.

    Args:
        source: the table's name, for messages.
        columns: role -> column.
        fitted: role -> sizes of the rows that are not held out.
        given: how many of the law's parameters other rows help to fit.

    Raises:
        InputError: says how many rows there are and how many are needed.
    """
    count = len(next(iter(fitted.values())))
    inside = f" in the group {describe(dict(group))}" if group else ""
    needed = max(1, len(law.parameters) - given)
    if count < needed:
        raise InputError(
            f"{source}: {count} rows to fit{inside}, but law {law.name!r} has "
            f"{needed} parameters; it needs at least as many rows (that are not held out)"
        )
    for role, values in fitted.items():
        if len(np.unique(values)) < 2 and not given:
            raise InputError(
                f"{source}: column {columns[role]!r} has one value ({values[0]:g}) in the rows "
                f"to fit{inside}; law {law.name!r} needs at least two"
            )


def hold_out_largest(rows: Table, column: str, count: int) -> str:
    """The expression that holds out the rows with the `count` largest values of a column.

    Raises:
        InputError: the column has no more than `count` values.
    """
    values = np.unique(rows.drop_missing([column]).positive(column))
    if not 0 < count < len(values):
        raise InputError(
            f"{rows.source}: column {column!r} has {len(values)} values; {count} of them cannot be held out"
        )
    return f"{expressions.quoted(column)} >= {float(values[-count])!r}"


def typed_group(group: Mapping) -> dict:
    """A group's values as numbers where the number, written out, is the text again."""
    return {column: _number_or_text(value) for column, value in group.items()}


def _number_or_text(value):
    try:
        number = float(value)
    except (TypeError, ValueError):
        return value
    if not math.isfinite(number) or str(value) not in (repr(number), f"{number:.0f}"):
        return value
    return int(number) if number.is_integer() else number
