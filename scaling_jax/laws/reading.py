"""From a file to columns of text: .csv, .tsv, .tab, .txt, .summary and .jsonl.

Separated text is UTF-8, with or without a byte order mark, with any line ends. The header decides
what separates the columns: a comma, a semicolon or a tab, whichever is usual for the file's name
first. A line that starts with `#` is a comment. Anything that would have to be guessed is refused;
what was read in an unusual way becomes a note for the reader.
"""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.cells import MISSING, numbers, shown

# What separates columns, the usual one first.
_SEPARATORS = {
    ".csv": ",;\t",
    ".txt": ",;\t",
    ".tsv": "\t,;",
    ".tab": "\t,;",
    ".summary": "\t,;",
}
SUFFIXES = (*_SEPARATORS, ".jsonl")
_WORDS = {",": "commas", ";": "semicolons", "\t": "tabs"}
# Small pieces stay in the processor's cache while rows become columns.
_CHUNK = 1000
_WRONG_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
_UNPRINTABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True)
class Columns:
    """What a file holds.

    Attributes:
        cells: column -> object array of stripped text (rows,).
        lines: the line of the file on which each row starts, (rows,).
        notes: what a reader should know about how it was read.
    """

    cells: dict[str, np.ndarray]
    lines: np.ndarray
    notes: tuple[str, ...] = ()


def read_columns(path: Path) -> Columns:
    """Reads a file of rows.

    Raises:
        InputError: the name ends in none of `SUFFIXES`; not readable; not UTF-8; no header, no rows, ragged
            rows, column names that repeat or are empty (names the line).
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(f"{path}: a table is a {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file")
    data = _content(path)
    if suffix == ".jsonl":
        return _read_json_lines(path, data)
    return _read_separated(path, data, _SEPARATORS[suffix])


def _content(path: Path) -> bytes:
    """The bytes of a file that is UTF-8 text."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"cannot read {str(path)!r}: {error}") from error
    wrong = _WRONG_ENCODINGS.get(data[:2])
    if wrong:
        raise InputError(f"{path}: {wrong} text; save it as UTF-8")
    nul = data.find(b"\0")
    if nul >= 0:
        raise InputError(
            f"{path}:{_line(data, nul)}: a NUL byte; a table is UTF-8 text, not binary or UTF-16"
        )
    try:
        data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}:{_line(data, error.start)}: not UTF-8 text (byte 0x{data[error.start]:02x}); "
            "save the file as UTF-8"
        ) from error
    return data


def _line(data: bytes, position: int) -> int:
    return data[:position].count(b"\n") + 1


def _lines_of(data: bytes) -> io.TextIOWrapper:
    # Decoded in pieces: a table of a million rows should not be held twice as text.
    return io.TextIOWrapper(io.BytesIO(data), "utf-8-sig", newline="")


def _without_comments(data: bytes, comments: list[int]) -> Iterator[str]:
    """The lines, comments made blank so that line numbers hold; their numbers are added to `comments`."""
    quoted = False
    for number, line in enumerate(_lines_of(data), start=1):
        # A line inside a quoted cell is no comment.
        if line.startswith("#") and not quoted:
            comments.append(number)
            yield "\n"
            continue
        quoted ^= line.count('"') % 2 == 1
        yield line


def _read_separated(path: Path, data: bytes, separators: str) -> Columns:
    separator = _separator(path, data, separators)
    comments: list[int] = []
    # Looking at every line takes as long as all the rest.
    lines = _without_comments(data, comments) if b"#" in data else _lines_of(data)
    reader = csv.reader(lines, delimiter=separator, strict=True)
    start, names, notes = 1, [], []
    try:
        for row in reader:
            if not _is_blank(row):
                names = _names(path, start, row)
                break
            start = reader.line_num + 1
        columns, row_lines, long_rows = _read_rows(path, reader, len(names), separator)
    except csv.Error as error:
        raise InputError(f"{path}:{start}: {_why(error)}") from error
    below = [number for number in comments if number > start]
    if not row_lines:
        hint = f" (line {below[0]} starts with '#', a comment)" if below else ""
        raise InputError(f"{path}: no rows; a table is a header line and one row a run{hint}")
    if separator != separators[0]:
        notes.append(f"columns separated by {_WORDS[separator]}")
    if below:
        notes.append(f"{_lines_text(below)} below the header skipped as comments ('#')")
    if long_rows:
        notes.append(f"{_lines_text(long_rows)}: a quoted cell goes over several lines")
    cells = dict(zip(names, columns, strict=True))
    return Columns(cells, np.array(row_lines), tuple(notes))


def _separator(path: Path, data: bytes, separators: str) -> str:
    """What separates the columns: the first of `separators` that the header has outside quotes."""
    numbered = enumerate(_without_comments(data, []), start=1)
    number, header = next(((number, line) for number, line in numbered if line.strip()), (1, ""))
    bare = re.sub('"[^"]*"', "", header)
    for separator in separators:
        if separator in bare:
            return separator
    if len(bare.split()) > 1 or "|" in bare:
        raise InputError(
            f"{path}:{number}: the header {shown(header.strip())} is one column; "
            "separate columns by commas, semicolons or tabs"
        )
    return separators[0]


def _read_rows(
    path: Path, reader, width: int, separator: str
) -> tuple[list[np.ndarray], list[int], list[int]]:
    """The rest of a reader: (columns of `width`, first line of each row, those that go over several)."""
    parts: list[list[np.ndarray]] = [[] for _ in range(width)]
    rows, lines, long_rows = [], [], []
    last = reader.line_num
    try:
        for row in reader:
            start, last = last + 1, reader.line_num
            if len(row) != width:
                if _is_blank(row):
                    continue
                hint = " (write decimal points, not commas?)" if separator == "," and len(row) > width else ""
                raise InputError(f"{path}:{start}: {len(row)} cells where the header has {width}{hint}")
            if width == 1 and _is_blank(row):
                continue
            if last != start:
                long_rows.append(start)
            rows.append(row)
            lines.append(start)
            if len(rows) == _CHUNK:
                _keep(rows, parts)
                rows = []
    except csv.Error as error:
        raise InputError(f"{path}:{last + 1}: {_why(error)}") from error
    _keep(rows, parts)
    return [np.concatenate(column) for column in parts if column], lines, long_rows


def _why(error: csv.Error) -> str:
    return "a quoted cell is never closed" if "unexpected end" in str(error) else str(error)


def _keep(rows: list[list[str]], parts: list[list[np.ndarray]]) -> None:
    """Turns rows into pieces of columns; equal cells of a piece share their text, which saves memory."""
    # Without rows there are no columns to pair.
    for column, piece in zip(zip(*rows, strict=True), parts, strict=False):
        once: dict[str, str] = {}
        cells = [once.setdefault(cell, cell) for cell in map(str.strip, column)]
        piece.append(np.array(cells, object))


def _is_blank(row: Sequence[str]) -> bool:
    return not row or (len(row) == 1 and not row[0].strip())


def _names(path: Path, line: int, row: Sequence[str]) -> list[str]:
    names = [name.strip() for name in row]
    if "" in names:
        place = names.index("") + 1
        raise InputError(f"{path}:{line}: column {place} of {len(names)} has no name; name it or remove it")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(f"{path}:{line}: column {shown(repeated[0])} appears twice")
    broken = [name for name in names if not name.isprintable()]
    if broken:
        raise InputError(f"{path}:{line}: column {shown(broken[0])} has a line break or control character")
    values = numbers(np.array(names, object))
    if values is not None and not set(names) <= MISSING:
        raise InputError(
            f"{path}:{line}: a header of numbers ({shown(', '.join(names))}); "
            "the first line that is no comment ('#') must name the columns"
        )
    return names


def _lines_text(numbers: Sequence[int]) -> str:
    few = ", ".join(str(number) for number in numbers[:3]) + (", ..." if len(numbers) > 3 else "")
    return f"{len(numbers)} lines ({few})" if len(numbers) > 1 else f"line {few}"


def _read_json_lines(path: Path, data: bytes) -> Columns:
    parts: dict[str, list[np.ndarray]] = {}
    rows: list[list[str]] = []
    lines: list[int] = []
    names: tuple[str, ...] = ()
    for number, line in enumerate(_lines_of(data), start=1):
        if line.isspace():
            continue
        try:
            row = _json_row(line)
            new = [_checked(name) for name in row if name not in parts]
        except _Unusable as error:
            raise InputError(f"{path}:{number}: {error}") from error
        if new or len(rows) == _CHUNK:
            _keep(rows, list(parts.values()))
            rows = []
            for name in new:
                # A column that appears late was not measured in the rows before.
                parts.setdefault(name, [np.full(len(lines), "", object)])
            names = tuple(parts)
        rows.append(list(row.values()) if tuple(row) == names else [row.get(name, "") for name in names])
        lines.append(number)
    _keep(rows, list(parts.values()))
    if not lines:
        raise InputError(f"{path}: no rows; a .jsonl table has one JSON object a line")
    if not parts:
        raise InputError(f"{path}: no columns; a .jsonl table has one JSON object of column: value a line")
    return Columns({name: np.concatenate(pieces) for name, pieces in parts.items()}, np.array(lines))


def _json_row(line: str) -> dict[str, str]:
    """One object as column -> text. Numbers stay as they are written.

    Raises:
        _Unusable: says what is wrong with the line.
    """
    try:
        row = _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise _Unusable(f"not JSON (column {error.colno}: {error.msg})") from error
    except RecursionError as error:
        raise _Unusable("not JSON") from error
    if not isinstance(row, _JsonObject):
        raise _Unusable("a line must be a JSON object of column: value")
    cells = {
        name.strip(): value.strip() if type(value) is str else _json_text(name, value) for name, value in row
    }
    if len(cells) < len(row):
        repeated = Counter(name.strip() for name, _ in row).most_common(1)[0][0]
        raise _Unusable(f"column {shown(repeated)} appears twice")
    # Only an escape can bring in what the file's bytes may not hold.
    if "\\u" in line:
        for name, cell in cells.items():
            if _UNPRINTABLE.search(cell):
                raise _Unusable(f"column {shown(name)} has a character that cannot be printed")
    return cells


def _json_text(name: str, value) -> str:
    if isinstance(value, list):
        raise _Unusable(f"column {shown(name)}: a cell must be a number or text")
    return "" if value is None else str(value)


def _checked(name: str) -> str:
    if not name:
        raise _Unusable("a column has no name")
    if not name.isprintable():
        raise _Unusable(f"column {shown(name)} has a character that cannot be printed")
    return name


class _Unusable(Exception):
    """A line that is no row; the message says why."""


class _JsonObject(list):
    """The (name, value) pairs of a JSON object, so that a repeated name can be seen."""


# Numbers stay as they are written: nothing is rounded, and no long integer has to be made.
_DECODER = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str, object_pairs_hook=_JsonObject)
