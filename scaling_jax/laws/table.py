"""Tables of results: .csv, .tsv, .txt, .summary or .jsonl read into columns that remember their lines.

Cells stay text until a column is asked for as numbers, so that an error can name file, line and
column. An empty cell, and in a column of numbers also NA, N/A, NaN, null, None, - or --, means "not
measured". No row disappears unseen: what is not kept is in `lost`, with a reason.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.laws import cells as cell_values
from scaling_jax.laws import expressions
from scaling_jax.laws.reading import read_columns

_LARGEST = "1e300"


@dataclass(frozen=True)
class Table:
    """Rows of a results table.

    Attributes:
        source: the file's name, for messages.
        cells: column -> object array of text (rows,), "" is empty; of a derived column float64 (rows,).
        lines: the line in the file of each row, (rows,).
        lost: the rows that cannot be used: their status is not `done`, or a value that is needed was not
            measured. They follow `where` and `groups`, so that every fit can say what it misses.
        notes: what a reader of the fit should know of the table, for example that rows repeat.
        reasons: of the rows of a `lost` table why each is there, (rows,) of text; None in other tables.
        derived: derived column -> its expression.
    """

    source: str
    cells: Mapping[str, np.ndarray]
    lines: np.ndarray
    lost: "Table | None" = None
    notes: tuple[str, ...] = ()
    reasons: np.ndarray | None = None
    derived: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many rows."""
        return len(self.lines)

    def __contains__(self, column: str) -> bool:
        """Whether there is such a column."""
        return column in self.cells

    def text(self, column: str) -> np.ndarray:
        """The cells of a column as text, (rows,).

        Raises:
            InputError: no such column (names the nearest).
        """
        return cell_values.as_text(self._column(column))

    def numbers(self, column: str) -> np.ndarray:
        """A column as float64, (rows,); NaN where it was not measured.

        Raises:
            InputError: no such column; a cell that is not a number, or is infinite; a derived cell that is
                not finite though all it is derived from is there (names the line).
        """
        stored, values = self._column(column), self.typed[column]
        if values.dtype == object:
            row = cell_values.first_text(stored)
            if row < 0:
                return np.full(len(self), math.nan)
            self._refuse(row, column, cell_values.why_not_a_number(stored[row]))
        wrong = np.isinf(values)
        if column in self.derived:
            wrong = wrong | (np.isnan(values) & ~self._missing(column))
        if wrong.any():
            row = np.flatnonzero(wrong)[0]
            if column in self.derived:
                problem = f"{self.derived[column].strip()} is not a finite number here"
            else:
                problem = cell_values.why_not_a_number(stored[row])
            leave = f"leave such rows out with --where '{expressions.quoted(column)} < {_LARGEST}'"
            self._refuse(row, column, f"{problem}; {leave}")
        return values

    def positive(self, column: str) -> np.ndarray:
        """A column as numbers above zero, none missing, (rows,).

        Raises:
            InputError: as `numbers`, and for an empty cell, zero or a negative number.
        """
        values = self.numbers(column)
        wrong = np.flatnonzero(~(values > 0))
        if len(wrong):
            row = wrong[0]
            cell = self.text(column)[row]
            leave = f"leave such rows out with --where '{expressions.quoted(column)} > 0'"
            if np.isnan(values[row]):
                spelled = f"{cell_values.shown(cell)}, or empty," if cell else "empty"
                self._refuse(row, column, f"{spelled} where a number is needed; {leave}")
            self._refuse(row, column, f"{cell} is not above zero; {leave}")
        return values

    @cached_property
    def typed(self) -> cell_values.Typed:
        """Columns for expressions: float64 where every measured cell is a number, else text (rows,)."""
        return cell_values.Typed(self.cells)

    def rows(self, keep: np.ndarray) -> "Table":
        """The rows that `keep` chooses: (rows,) of bool, or positions; what is lost stays."""
        return replace(
            self,
            cells={column: values[keep] for column, values in self.cells.items()},
            lines=self.lines[keep],
            reasons=None if self.reasons is None else self.reasons[keep],
        )

    @property
    def dropped(self) -> dict[str, int]:
        """Why rows are lost: reason -> count."""
        if self.lost is None:
            return {}
        return dict(Counter(_reasons(self.lost).tolist()))

    def where(self, condition: str | None) -> "Table":
        """The rows where an expression is true; all of them for None.

        Rows of which the expression says nothing, since a value it needs was not measured, are lost.
        """
        if condition is None:
            return self
        truth = self._truth(condition)
        lost = self.lost
        if lost is not None:
            try:
                lost = lost.rows(lost._truth(condition) != expressions.FALSE)
            except InputError:
                # A lost row may be too broken for the expression; then it is counted rather than hidden.
                lost = self.lost
        kept = replace(self, lost=lost).lose(
            truth == expressions.UNKNOWN, f"no value for {condition.strip()!r}"
        )
        return kept.rows(truth[truth != expressions.UNKNOWN] == expressions.TRUE)

    def matches(self, condition: str) -> np.ndarray:
        """Whether an expression is true, (rows,) of bool; false where a value it needs was not measured."""
        return self._truth(condition) == expressions.TRUE

    def drop_missing(self, columns: Iterable[str]) -> "Table":
        """Moves the rows in which one of these columns was not measured to `lost`.

        Raises:
            InputError: no such column.
        """
        table = self
        for column in columns:
            table = table.lose(table._missing(column), f"no value in column {column!r}")
        return table

    def drop_undecided(self, condition: str | None) -> "Table":
        """Moves the rows of which an expression says nothing, since a value was not measured, to `lost`.

        Where another part of the expression decides (`method == "lora" and rank == 16` of full tuning,
        which has no rank), nothing is missing. None keeps all.
        """
        if condition is None:
            return self
        undecided = self._truth(condition) == expressions.UNKNOWN
        return self.lose(undecided, f"no value for {' '.join(condition.split())!r}")

    def derive(self, assignment: str) -> "Table":
        """Adds a column: "name = expression" of numbers.

        A cell is empty where one that it is derived from is. Where the expression has no finite value (a
        division by zero, an overflow) the table can still be read, so that `where` may leave the row out; it
        is refused when the column is used as numbers.

        Raises:
            InputError: not an assignment, a column of that name exists, or as `expressions.evaluate`.
        """
        given = cell_values.shown(assignment)
        name, separator, expression = assignment.partition("=")
        name = name.strip()
        if not separator or not name.isidentifier() or expression.startswith("="):
            raise InputError(f"--derive {given} is not 'new_column = expression'")
        if name in self.cells:
            raise InputError(f"--derive {given}: {self.source} already has a column {name!r}")
        values = self._evaluate(expressions.evaluate, expression)
        if values.dtype.kind != "f":
            raise InputError(f"--derive {given}: the expression does not give numbers")
        cells = {**self.cells, name: values}
        lost = self.lost
        if lost is not None:
            try:
                lost = lost.derive(assignment)
            except InputError:
                # A lost row may be too broken for the expression; it is counted all the same.
                lost = replace(lost, cells={**lost.cells, name: np.full(len(lost), math.nan)})
        return replace(self, cells=cells, lost=lost, derived={**self.derived, name: expression})

    def groups(self, by: Iterable[str]) -> list[tuple[dict[str, str], "Table"]]:
        """Splits by the values of columns; ({column: value}, rows) in order of first appearance.

        A group of which every row is lost is named in the notes of the others.
        """
        by = tuple(by)
        if not by:
            return [({}, self)]
        members = self._members(by)
        lost = self.lost._members(by) if self.lost is not None else {}
        gone = [key for key in lost if key not in members]
        notes = [
            f"no row to use where {', '.join(f'{c} is {v!r}' for c, v in zip(by, key, strict=True))} "
            f"({len(lost[key])} lost)"
            for key in gone
        ]
        nothing = np.zeros(0, np.intp)
        found = []
        for key, positions in members.items():
            rows = replace(self.rows(positions), notes=(*self.notes, *notes))
            if self.lost is not None:
                rows = replace(rows, lost=self.lost.rows(lost.get(key, nothing)))
            found.append((dict(zip(by, key, strict=True)), rows))
        return found

    def _members(self, by: tuple[str, ...]) -> dict[tuple[str, ...], np.ndarray]:
        """Values of columns -> the rows that have them, in order of first appearance."""
        columns = [self.text(column) for column in by]
        codes = np.zeros(len(self), np.int64)
        for texts in columns:
            known: dict[str, int] = {}
            own = np.fromiter((known.setdefault(cell, len(known)) for cell in texts.tolist()), np.int64)
            # Dense again after each column, so that the product cannot overflow.
            codes = np.unique(codes * max(len(known), 1) + own, return_inverse=True)[1]
        order = np.argsort(codes, kind="stable")
        starts = np.flatnonzero(np.diff(codes[order])) + 1
        groups = sorted(np.split(order, starts), key=lambda rows: rows[0]) if len(self) else []
        return {tuple(texts[rows[0]] for texts in columns): rows for rows in groups}

    def lose(self, gone: np.ndarray, why: str | np.ndarray) -> "Table":
        """Moves the rows of a mask to `lost`; `why` is one reason, or one for each of these rows."""
        if not gone.any():
            return self
        rows = self.rows(gone)
        reasons = np.full(len(rows), "", object)
        reasons[:] = why
        rows = replace(rows, lost=None, reasons=reasons)
        return replace(self.rows(~gone), lost=rows if self.lost is None else _joined(self.lost, rows))

    def _missing(self, column: str) -> np.ndarray:
        """Where a column was not measured, (rows,) of bool; a derived one where one it is made of was not."""
        if column not in self.derived:
            stored = self._column(column)
            return np.isnan(stored) if stored.dtype != object else cell_values.is_missing(stored)
        operands = expressions.column_names(self.derived[column])
        masks = [self._missing(operand) for operand in operands]
        return np.logical_or.reduce(masks) if masks else np.zeros(len(self), bool)

    def _column(self, column: str) -> np.ndarray:
        if column not in self.cells:
            raise InputError(f"{self.source}: no column {column!r}{did_you_mean(column, self.cells)}")
        return self.cells[column]

    def _truth(self, condition: str) -> np.ndarray:
        return self._evaluate(expressions.truth, condition)

    def _evaluate(self, apply, expression: str) -> np.ndarray:
        expressions.column_names(expression)
        try:
            return apply(expression, self.typed, len(self), self._first_text)
        except InputError as error:
            raise InputError(f"{self.source}: {error}") from error

    def _first_text(self, column: str) -> str:
        row = cell_values.first_text(self.cells[column])
        return f" (line {self.lines[row]}: {cell_values.shown(self.cells[column][row])})"

    def _refuse(self, row: int, column: str, problem: str) -> None:
        raise InputError(f"{self.source}:{self.lines[row]}: column {column!r}: {problem}")


def read_table(path: str | Path) -> Table:
    """Reads a table and keeps the rows whose `status` is `done` (all rows where there is no such column).

    The file's name ends in .csv, .tsv, .tab, .txt, .summary or .jsonl; see `reading` for what is understood.

    Raises:
        InputError: not readable, not UTF-8, no header, no rows, ragged rows, column names that repeat or are
            empty, another kind of file.
    """
    columns = read_columns(Path(path))
    return _noted(Table(str(path), columns.cells, columns.lines, notes=columns.notes))


def table_of(source: str, columns: Mapping[str, Iterable]) -> Table:
    """A table from columns in memory: numbers or text; None is empty. Lines count from 2, below a header."""
    cells = {
        name: np.array([cell_values.text_of(value) for value in values], object)
        for name, values in columns.items()
    }
    lengths = {len(values) for values in cells.values()}
    if len(lengths) > 1:
        raise InputError(f"{source}: columns of unequal length")
    return _noted(Table(source, cells, np.arange(2, 2 + next(iter(lengths), 0))))


def keep_done(table: Table) -> Table:
    """Moves the rows whose `status` is not `done` to `lost`; without such a column all are kept."""
    if "status" not in table:
        return table
    gone = table.text("status") != "done"
    return table.lose(gone, _reasons(table.rows(gone)))


def _noted(table: Table) -> Table:
    repeated = cell_values.repeated_rows(table.cells)
    if len(repeated):
        lines = ", ".join(str(line) for line in table.lines[repeated[:3]])
        kind = "rows are exact duplicates" if len(repeated) > 1 else "rows is an exact duplicate"
        note = (
            f"{len(repeated)} of {len(table)} {kind} of an earlier row "
            f"(line {lines}{', ...' if len(repeated) > 3 else ''}) and kept"
        )
        table = replace(table, notes=(*table.notes, note))
    return keep_done(table)


def _reasons(lost: Table) -> np.ndarray:
    """Why rows are lost, (rows,): as recorded, or by their status and reason."""
    if lost.reasons is not None:
        return lost.reasons
    nothing = np.full(len(lost), "", object)
    states, whys = (lost.text(name) if name in lost else nothing for name in ("status", "reason"))
    pairs = zip(states.tolist(), whys.tolist(), strict=True)
    joined = [": ".join(part for part in (state or "no status", why) if part) for state, why in pairs]
    return np.array(joined, object)


def _joined(first: Table, second: Table) -> Table:
    """Lost rows together, in the order of the file."""
    order = np.argsort(np.concatenate([first.lines, second.lines]), kind="stable")
    cells = {}
    for column, values in second.cells.items():
        other = first.cells.get(column, np.full(len(first), "", object))
        if other.dtype != values.dtype:
            other, values = cell_values.as_text(other), cell_values.as_text(values)
        cells[column] = np.concatenate([other, values])[order]
    reasons = np.concatenate([_reasons(first), _reasons(second)])[order]
    lines = np.concatenate([first.lines, second.lines])[order]
    return replace(second, cells=cells, lines=lines, reasons=reasons)
