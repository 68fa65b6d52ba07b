"""CSV files with a header: errors name the file, the line and the column."""

import csv
from collections.abc import Iterator
from pathlib import Path

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import text_files

# Characters of a cell; csv's own 131,072 are fewer than some documents have. Where a quote is never closed,
# no more than this is held in memory.
csv.field_size_limit(1 << 24)


def rows(path: Path, *columns: str) -> Iterator[tuple[str, ...]]:
    """These columns of every row; a file may have more of them.

    Raises:
        InputError: no such column, two of one name, a row that is longer or shorter than the header, or no
            CSV.
    """
    reader = csv.reader((f"{line}\n" for line in text_files.lines(path)), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise InputError(f"{path}: the file is empty")
        missing = [name for name in columns if name not in header]
        if missing:
            raise InputError(f"{path}:1: no column {missing[0]!r}{did_you_mean(missing[0], header)}")
        twice = [name for name in columns if header.count(name) > 1]
        if twice:
            raise InputError(f"{path}:1: two columns are called {twice[0]!r}: rename or remove one")
        places = [header.index(name) for name in columns]
        for row in filter(None, reader):  # a blank last line is common
            if len(row) != len(header):
                raise InputError(
                    f"{path}:{reader.line_num}: {len(row)} cells, the header has {len(header)} columns"
                )
            yield tuple(row[place] for place in places)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error
