"""What a cell of a table means: a number, nothing (not measured), or text.

A number is what an analyst would read as one without a second thought: ASCII digits, one decimal
point, an exponent. Thousands separators, decimal commas, per cent signs, hexadecimal digits and
underscores are refused, with what to write instead, because guessing wrong would go unseen.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

# Whole cells, in any of the usual capitals, that say "not measured" in a column of numbers.
_MISSING_WORDS = ("NA", "N/A", "NaN", "-NaN", "null", "None")
MISSING = frozenset(
    {"", "-", "--"}
    | {
        spelled
        for word in _MISSING_WORDS
        for spelled in (word, word.lower(), word.upper(), word.capitalize())
    }
)
_SHOWN = 40
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_INFINITE = re.compile(r"[+-]?(?:inf|infinity)", re.IGNORECASE)
_HINTS = (
    (
        re.compile(r"[+-]?[0-9.]*,[0-9,.]*(?:[eE][+-]?[0-9]+)?"),
        "write a decimal point, not a comma, and no thousands separators",
    ),
    (re.compile(r"[^%]*%"), "write the number without %"),
    (re.compile(r"[+-]?[0-9.]*_[0-9_.]*"), "write the digits without _"),
    (re.compile(r"[+-]?0[xX].*"), "write it in decimal digits"),
    (re.compile(r"[+-]?[0-9.]+ ?[kKmMbBgGtT]"), "write it out, for example 1.5e9 for 1.5B"),
    (re.compile(r"[+-]?[0-9.]+(?:\s[0-9.]+)+"), "write the digits without spaces"),
)


def numbers(texts: np.ndarray) -> np.ndarray | None:
    """Cells as numbers.

    Args:
        texts: object array of stripped text, (rows,).

    Returns:
        float64 (rows,), NaN where nothing was measured and infinite where a cell says so or overflows; None
        when a cell is text.
    """
    cells = texts.tolist()
    joined = "\n".join(cells)
    # Python's own conversion also takes digits of other scripts and underscores.
    if "_" in joined or not joined.isascii():
        return None
    try:
        values = np.array(list(map(float, cells)), np.float64)
    except ValueError:
        try:
            known = ["nan" if cell in MISSING else cell for cell in cells]
            values = np.array(list(map(float, known)), np.float64)
        except ValueError:
            return None
    spelled = all(cells[row] in MISSING for row in np.flatnonzero(np.isnan(values)).tolist())
    return values if spelled else None


def first_text(texts: np.ndarray) -> int:
    """The position of the first cell that is neither a number nor missing; -1 if there is none."""
    for position, cell in enumerate(texts.tolist()):
        if cell not in MISSING and not _NUMBER.fullmatch(cell) and not _INFINITE.fullmatch(cell):
            return position
    return -1


def is_missing(texts: np.ndarray) -> np.ndarray:
    """Whether cells say that nothing was measured, (rows,) of bool."""
    return np.fromiter((cell in MISSING for cell in texts.tolist()), bool, len(texts))


def why_not_a_number(cell: str) -> str:
    """A refusal of a cell, for example "'1,5' is not a number (write a decimal point, ...)"."""
    if _NUMBER.fullmatch(cell) or _INFINITE.fullmatch(cell):
        return f"{shown(cell)} is not a finite number"
    hint = next((hint for pattern, hint in _HINTS if pattern.fullmatch(cell)), "")
    if not hint and not cell.isascii() and _reads_as_number(cell.replace("\N{MINUS SIGN}", "-")):
        hint = "write it in the digits 0 to 9 and a plain minus"
    return f"{shown(cell)} is not a number" + (f" ({hint})" if hint else "")


def shown(cell: str) -> str:
    """A cell in quotes for a message, cut when it is long."""
    return repr(cell if len(cell) <= _SHOWN else cell[:_SHOWN] + "...")


def text_of(value) -> str:
    """A value of any kind as the text of a cell; None and NaN give ""."""
    if value is None:
        return ""
    if isinstance(value, float | np.floating):
        return "" if math.isnan(value) else repr(float(value))
    return str(value).strip()


def as_text(values: np.ndarray) -> np.ndarray:
    """A column as object array of text; numbers (of a derived column) as Python writes them."""
    if values.dtype == object:
        return values
    return np.array([text_of(value) for value in values.tolist()], object)


class Typed(Mapping):
    """Columns as numbers where they are, converted when first asked for."""

    def __init__(self, cells: Mapping[str, np.ndarray]):
        self._cells = cells
        self._known: dict[str, np.ndarray] = {}

    def __getitem__(self, column: str) -> np.ndarray:
        if column not in self._known:
            stored = self._cells[column]
            values = numbers(stored) if stored.dtype == object else stored
            words = values is not None and np.all(np.isnan(values)) and np.any(stored != "")
            # A column in which "NA" or "None" is all there is may as well be text.
            self._known[column] = stored if values is None or words else values
        return self._known[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cells)

    def __len__(self) -> int:
        return len(self._cells)


def repeated_rows(cells: Mapping[str, np.ndarray]) -> np.ndarray:
    """The rows that repeat an earlier row in every column, as positions in order."""
    columns = [column.tolist() for column in cells.values()]
    if not columns or len(columns[0]) < 2:
        return np.zeros(0, np.intp)
    mixed = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) ^ np.fromiter(map(hash, column), np.int64).view(
            np.uint64
        )
        # Mixed, so that columns of one content do not cancel.
        mixed ^= mixed >> np.uint64(29)
    order = np.argsort(mixed, kind="stable")
    equal = mixed[order[1:]] == mixed[order[:-1]]
    suspects = np.sort(order[np.concatenate([equal, [False]]) | np.concatenate([[False], equal])])
    return _confirmed(columns, suspects)


def _confirmed(columns: Sequence[list], suspects: np.ndarray) -> np.ndarray:
    seen, repeated = set(), []
    for row in suspects.tolist():
        key = tuple(column[row] for column in columns)
        if key in seen:
            repeated.append(row)
        seen.add(key)
    return np.array(repeated, np.intp)


def _reads_as_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
