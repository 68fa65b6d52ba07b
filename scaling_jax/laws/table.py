"""Tables of results: .csv, .tsv or .jsonl read into columns that remember their lines.

Cells stay text until a column is asked for as numbers, so that an error can name file, line and
column. An empty cell means "not measured".
"""

import csv
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.laws import expressions


@dataclass(frozen=True)
class Table:
    """Rows of a results table.

    Attributes:
        source: the file's name, for messages.
        cells: column -> object array of text (rows,); "" is empty.
        lines: the line in the file of each row, (rows,).
        lost: the rows whose status is not `done`; they follow `where` and `groups`, so that every fit can
            say what it misses. None when there is no status column.
    """

    source: str
    cells: Mapping[str, np.ndarray]
    lines: np.ndarray
    lost: "Table | None" = None

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
        if column not in self.cells:
            raise InputError(f"{self.source}: no column {column!r}{did_you_mean(column, self.cells)}")
        return self.cells[column]

    def numbers(self, column: str) -> np.ndarray:
        """A column as float64, (rows,); empty cells are NaN.

        Raises:
            InputError: no such column; a cell that is not a number, or NaN, or infinite (names the line).
        """
        texts = self.text(column)
        try:
            values = np.array([math.nan if not cell else float(cell) for cell in texts], np.float64)
        except ValueError:
            values = np.array([self._number(cell, row, column) for row, cell in enumerate(texts)])
        strange = np.flatnonzero(~np.isfinite(values) & (texts != ""))
        if len(strange):
            self._refuse(strange[0], column, f"{texts[strange[0]]!r} is not a finite number")
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
            if np.isnan(values[row]):
                self._refuse(row, column, "empty where a number is needed; leave such rows out with --where")
            hint = f"; leave such rows out with --where '{column} > 0'" if values[row] == 0 else ""
            self._refuse(row, column, f"{self.cells[column][row]} is not above zero{hint}")
        return values

    @cached_property
    def typed(self) -> dict[str, np.ndarray]:
        """Columns for expressions: numbers where every filled cell is one (and one is filled), else text."""
        return {column: self._typed(column) for column in self.cells}

    def rows(self, keep: np.ndarray) -> "Table":
        """The rows that `keep` chooses: (rows,) of bool, or positions."""
        cells = {column: values[keep] for column, values in self.cells.items()}
        return Table(self.source, cells, self.lines[keep], self.lost)

    @property
    def dropped(self) -> dict[str, int]:
        """Why rows are lost, by status and reason -> count."""
        if self.lost is None:
            return {}
        status = self.lost.text("status")
        reasons = self.lost.cells.get("reason", np.full(len(status), "", object))
        pairs = zip(status, reasons, strict=True)
        return dict(
            Counter(": ".join(part for part in (state or "no status", why) if part) for state, why in pairs)
        )

    def where(self, condition: str | None) -> "Table":
        """The rows where an expression is true; all of them for None."""
        if condition is None:
            return self
        kept = self.rows(self.matches(condition))
        try:
            lost = self.lost.where(condition) if self.lost is not None else None
        except InputError:
            # A lost row may be too broken for the expression; then it is counted rather than hidden.
            lost = self.lost
        return Table(kept.source, kept.cells, kept.lines, lost)

    def matches(self, condition: str) -> np.ndarray:
        """Whether an expression is true, (rows,) of bool."""
        return expressions.condition(condition, self.typed, len(self))

    def derive(self, assignment: str) -> "Table":
        """Adds a column: "name = expression" of numbers.

        Raises:
            InputError: not an assignment, a column of that name exists, or as `expressions.evaluate`.
        """
        name, separator, expression = assignment.partition("=")
        name = name.strip()
        if not separator or not name.isidentifier() or expression.startswith("="):
            raise InputError(f"--derive {assignment!r} is not 'new_column = expression'")
        if name in self.cells:
            raise InputError(f"--derive {assignment!r}: {self.source} already has a column {name!r}")
        values = expressions.evaluate(expression, self.typed, len(self))
        if values.dtype.kind != "f":
            raise InputError(f"--derive {assignment!r}: the expression does not give numbers")
        texts = np.array(["" if math.isnan(value) else repr(float(value)) for value in values], object)
        lost = self.lost.derive(assignment) if self.lost is not None and len(self.lost) else self.lost
        return Table(self.source, {**self.cells, name: texts}, self.lines, lost)

    def groups(self, by: Iterable[str]) -> list[tuple[dict[str, str], "Table"]]:
        """Splits by the values of columns; ({column: value}, rows) in order of first appearance."""
        by = tuple(by)
        if not by:
            return [({}, self)]
        keys = self._keys(by)
        lost_keys = self.lost._keys(by) if self.lost is not None else []
        positions: dict[tuple, list[int]] = {}
        for row, key in enumerate(keys):
            positions.setdefault(key, []).append(row)
        found = []
        for key, members in positions.items():
            rows = self.rows(np.array(members))
            lost = None
            if self.lost is not None:
                lost = self.lost.rows(np.array([other == key for other in lost_keys], bool))
            group = Table(rows.source, rows.cells, rows.lines, lost)
            found.append((dict(zip(by, key, strict=True)), group))
        return found

    def _keys(self, by: tuple[str, ...]) -> list[tuple]:
        return list(zip(*(self.text(column) for column in by), strict=True))

    def _typed(self, column: str) -> np.ndarray:
        texts = self.cells[column]
        try:
            values = np.array([math.nan if not cell else float(cell) for cell in texts], np.float64)
        except ValueError:
            return texts
        return values if len(texts) == 0 or not np.all(np.isnan(values)) else np.full(len(texts), math.nan)

    def _number(self, cell: str, row: int, column: str) -> float:
        if not cell:
            return math.nan
        try:
            return float(cell)
        except ValueError:
            hint = " (write a decimal point, not a comma)" if "," in cell else ""
            self._refuse(row, column, f"{cell!r} is not a number{hint}")

    def _refuse(self, row: int, column: str, problem: str) -> None:
        raise InputError(f"{self.source}:{self.lines[row]}: column {column!r}: {problem}")


def read_table(path: str | Path) -> Table:
    """Reads a table and keeps the rows whose `status` is `done` (all rows where there is no such column).

    Raises:
        InputError: not readable, not UTF-8, no header, no rows, ragged rows, repeated column names, a file
            name that does not end in .csv, .tsv or .jsonl.
    """
    path = Path(path)
    readers = {".csv": _read_separated, ".tsv": _read_separated, ".jsonl": _read_json_lines}
    if path.suffix not in readers:
        raise InputError(f"{path}: a table is a .csv, .tsv or .jsonl file")
    try:
        content = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise InputError(f"{path}:{line}: not UTF-8 text (byte {error.start})") from error
    return keep_done(readers[path.suffix](path, content))


def table_of(source: str, columns: Mapping[str, Iterable]) -> Table:
    """A table from columns in memory: numbers or text; None is empty. Lines count from 2, below a header."""
    cells = {
        name: np.array([_as_text(value) for value in values], object) for name, values in columns.items()
    }
    lengths = {len(values) for values in cells.values()}
    if len(lengths) > 1:
        raise InputError(f"{source}: columns of unequal length")
    return keep_done(Table(source, cells, np.arange(2, 2 + next(iter(lengths), 0))))


def keep_done(table: Table) -> Table:
    """Moves the rows whose `status` is not `done` to `lost`; without such a column all are kept."""
    if "status" not in table:
        return table
    done = table.text("status") == "done"
    kept, lost = table.rows(done), table.rows(~done)
    return Table(table.source, kept.cells, kept.lines, lost)


def _read_separated(path: Path, content: str) -> Table:
    separator = "\t" if path.suffix == ".tsv" else ","
    reader = csv.reader(content.splitlines(keepends=True), delimiter=separator, strict=True)
    header, rows, lines = None, [], []
    try:
        for row in reader:
            if (
                not row
                or (len(row) == 1 and not row[0].strip())
                or (header is None and row[0].startswith("#"))
            ):
                continue
            if header is None:
                header = _header(path, row, reader.line_num, separator)
            elif len(row) != len(header):
                raise InputError(
                    f"{path}:{reader.line_num}: {len(row)} cells where the header has {len(header)}"
                )
            else:
                rows.append(row)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}") from error
    if header is None or not rows:
        raise InputError(f"{path}: no rows; a table is a header line and one row a run")
    transposed = zip(*rows, strict=True)
    cells = {
        name: np.array([c.strip() for c in values], object)
        for name, values in zip(header, transposed, strict=True)
    }
    return Table(str(path), cells, np.array(lines))


def _header(path: Path, row: list[str], line: int, separator: str) -> list[str]:
    names = [name.strip() for name in row]
    for other, word in ((";", "semicolons"), ("\t", "tabs"), (",", "commas")):
        if len(names) == 1 and other != separator and other in names[0]:
            expected = "tabs" if separator == "\t" else "commas"
            raise InputError(
                f"{path}:{line}: columns are separated by {word}; {path.suffix} needs {expected}"
            )
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated or "" in names:
        problem = (
            f"column {repeated[0]!r} appears twice" if repeated and repeated[0] else "a column has no name"
        )
        raise InputError(f"{path}:{line}: {problem}")
    return names


def _read_json_lines(path: Path, content: str) -> Table:
    rows, lines = [], []
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            where = f" (column {error.colno}: {error.msg})" if isinstance(error, json.JSONDecodeError) else ""
            raise InputError(f"{path}:{number}: not JSON{where}") from error
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: a line must be a JSON object of column: value")
        for name, value in row.items():
            if isinstance(value, dict | list):
                raise InputError(f"{path}:{number}: column {name!r}: a cell must be a number or text")
        rows.append(row)
        lines.append(number)
    if not rows:
        raise InputError(f"{path}: no rows; a .jsonl table has one JSON object a line")
    names = dict.fromkeys(name for row in rows for name in row)
    cells = {name: np.array([_as_text(row.get(name)) for row in rows], object) for name in names}
    return Table(str(path), cells, np.array(lines))


def _as_text(value) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value) and value is math.nan):
        return ""
    if isinstance(value, float | np.floating):
        return repr(float(value))
    return str(value).strip()
