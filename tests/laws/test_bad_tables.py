"""Broken tables, made by a seeded generator: a result or a clear refusal, and every row accounted for."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.laws.table import Table, read_table

COUNT = 420
NOT_NUMBERS = (
    "many",
    "1,5",
    "1,234.5",
    "1_000",
    "0x1F",
    "50%",
    "1.5B",
    "\u0661\u0662",
    "1e",
    "--3",
    "\u22121",
    "#3",
)
NOT_FINITE = ("inf", "-inf", "Infinity", "1e999", "-1e400")
NOT_MEASURED = ("", "NA", "N/A", "nan", "NaN", "null", "None", "--", "-")


@dataclass
class Broken:
    """A table to be written: what it says, how it is spelled, and what must come of it.

    Attributes:
        bytes_edits: changes to the file's bytes, after everything else.
        strict: the number of rows the file has is known (bytes were not broken at random).
        unreadable: no such bytes may be read.
    """

    header: list[str]
    rows: list[list[str]]
    separator: str = ","
    newline: str = "\n"
    suffix: str = ".csv"
    bytes_edits: list[Callable[[bytes], bytes]] = field(default_factory=list)
    strict: bool = True
    unreadable: bool = False

    @property
    def must_fail(self) -> bool:
        """Whether no such file may be read, if its bytes were not broken at random."""
        names = [name.strip() for name in self.header]
        if "" in names or "two\nlines" in names:
            return True
        if self.suffix == ".jsonl":
            return self.unreadable
        ragged = any(len(row) != len(names) for row in self.rows)
        return self.unreadable or ragged or len(set(names)) < len(names)

    @property
    def row_count(self) -> int:
        """The rows that are no comments."""
        if self.suffix == ".jsonl":
            return len(self.rows)
        return sum(not row[0].startswith("#") for row in self.rows)

    def content(self) -> bytes:
        if self.suffix == ".jsonl":
            lines = [json.dumps(dict(zip(self.header, row, strict=False))) for row in self.rows]
        else:
            lines = [self.separator.join(self._cell(c) for c in row) for row in (self.header, *self.rows)]
        json_comment = self.suffix == ".jsonl" and "#" in self.newline
        data = ("\n" if json_comment else self.newline).join(lines).encode()
        for edit in self.bytes_edits:
            data = edit(data)
        return data

    def _cell(self, cell: str) -> str:
        if self.separator in cell or '"' in cell:
            return '"' + cell.replace('"', '""') + '"'
        return cell


def _cell_changes(rng, table: Broken) -> None:
    choices = [NOT_NUMBERS, NOT_FINITE, NOT_MEASURED, ("0", "0.0", "-0", "-3", "-1e-5"), ("x" * 200_000,)]
    choices += [("1e-300", "1e300", "9.9e299", "5e-324", "1e308"), (" 2.5 ", "\t7", "+3", "1E5", ".5", "5.")]
    kind = choices[rng.integers(len(choices))]
    for _ in range(rng.integers(1, 4)):
        row = table.rows[rng.integers(len(table.rows))]
        row[rng.integers(len(row))] = kind[rng.integers(len(kind))]


def _missing_column(rng, table: Broken) -> None:
    position = rng.integers(len(table.header))
    for row in (table.header, *table.rows):
        if len(row) > position:
            del row[position]


def _extra_columns(rng, table: Broken) -> None:
    for name in ("Model Size", "note", "größe")[: rng.integers(1, 4)]:
        if name not in table.header:
            table.header.append(name)
            for row in table.rows:
                row.append(str(rng.choice(["", "x y", "1", "it's", 'say "5"', "a;b"])))


def _one_row(rng, table: Broken) -> None:
    del table.rows[1:]


def _constant_column(rng, table: Broken) -> None:
    position = rng.integers(len(table.header))
    for row in table.rows:
        if len(row) > position:
            row[position] = table.rows[0][min(position, len(table.rows[0]) - 1)]


def _repeated_rows(rng, table: Broken) -> None:
    table.rows += [list(table.rows[rng.integers(len(table.rows))]) for _ in range(3)]


def _huge_and_tiny(rng, table: Broken) -> None:
    for row in table.rows:
        for position in range(1, len(row)):
            row[position] = repr(float(10.0 ** rng.uniform(-300, 300)))


def _status(rng, table: Broken) -> None:
    if "status" not in table.header:
        table.header += ["status", "reason"]
        for row in table.rows:
            row += [str(rng.choice(["done", "done", "failed", "diverged", ""])), str(rng.choice(["", "oom"]))]


def _separators(rng, table: Broken) -> None:
    table.separator = str(rng.choice([";", "\t"]))
    table.suffix = str(rng.choice([".csv", ".tsv", ".txt", ".summary"]))


def _json_lines(rng, table: Broken) -> None:
    table.suffix = ".jsonl"


def _line_ends(rng, table: Broken) -> None:
    table.newline = str(rng.choice(["\r\n", "\r", "\n\n", '\n# a comment, with "quotes\n', "\r\n \r\n"]))


def _byte_order_mark(rng, table: Broken) -> None:
    table.bytes_edits.append(lambda data: b"\xef\xbb\xbf" + data.removeprefix(b"\xef\xbb\xbf"))


def _ragged(rng, table: Broken) -> None:
    row = table.rows[rng.integers(len(table.rows))]
    if rng.random() < 0.5 and len(row) > 2:
        row.pop()
    else:
        row.append("1")


def _bad_names(rng, table: Broken) -> None:
    table.header[-1] = str(rng.choice(["", " ", table.header[0], "two\nlines"]))


def _decimal_commas(rng, table: Broken) -> None:
    for row in table.rows:
        row[-1] = row[-1].replace(".", ",")


def _unbalanced_quote(rng, table: Broken) -> None:
    table.strict = False
    for _ in range(rng.integers(1, 3)):
        place = rng.random()
        table.bytes_edits.append(
            lambda data, p=place: data[: int(p * len(data))] + b'"' + data[int(p * len(data)) :]
        )


def _bytes_at_random(rng, table: Broken) -> None:
    table.strict = False
    place, value = rng.random(), bytes(rng.integers(0, 256, rng.integers(1, 6), np.uint8))
    table.bytes_edits.append(
        lambda data: data[: int(place * len(data))] + value + data[int(place * len(data)) :]
    )


def _cut_short(rng, table: Broken) -> None:
    table.strict = False
    place = rng.random()
    table.bytes_edits.append(lambda data: data[: int(place * len(data))])


def _not_a_table(rng, table: Broken) -> None:
    table.unreadable = True
    contents = [
        b"",
        b"\n\n",
        b"# only a comment\n",
        bytes(rng.integers(0, 256, 500, np.uint8)) + b"\0",
        b"\xff",
    ]
    header_only = table.separator.join(table.header).encode()
    content = [*contents, header_only, b"PK\x03\x04\x14\x00\x00\x00"][rng.integers(len(contents) + 2)]
    table.bytes_edits.append(lambda data: content)


def _wrong_encoding(rng, table: Broken) -> None:
    table.unreadable = True
    encoding = str(rng.choice(["utf-16", "utf-16-le", "utf-16-be", "latin-1", "utf-32"]))
    table.bytes_edits.append(
        lambda data: (data.decode(errors="replace") + "größe").encode(encoding, "replace")
    )


def _nul(rng, table: Broken) -> None:
    table.unreadable = True
    table.bytes_edits.append(lambda data: data + b"\n1,\0,3\n")


CHANGES = (
    *(
        _cell_changes,
        _cell_changes,
        _cell_changes,
        _missing_column,
        _extra_columns,
        _one_row,
        _constant_column,
    ),
    *(
        _repeated_rows,
        _huge_and_tiny,
        _status,
        _separators,
        _json_lines,
        _line_ends,
        _byte_order_mark,
        _ragged,
    ),
    *(_bad_names, _decimal_commas, _unbalanced_quote, _bytes_at_random, _cut_short, _not_a_table),
    *(_wrong_encoding, _nul),
)


def clean(rng) -> Broken:
    """Rows of a sound table: method, two sizes, a loss."""
    rows = []
    for _ in range(rng.integers(3, 30)):
        size, examples = 10.0 ** rng.integers(6, 10), int(10.0 ** rng.uniform(2, 6))
        loss = 3 * examples**-0.1 + size**-0.05 + rng.random() / 100
        rows.append([str(rng.choice(["full", "lora"])), repr(float(size)), str(examples), repr(float(loss))])
    return Broken(["method", "n", "d", "loss"], rows)


def broken(seed: int) -> Broken:
    """A table with one to three things wrong."""
    rng = np.random.default_rng(seed)
    table = clean(rng)
    for position in rng.choice(len(CHANGES), rng.integers(1, 4), replace=False):
        CHANGES[position](rng, table)
    return table


def lost(table: Table) -> int:
    return sum(table.dropped.values())


def attempt(path, data: bytes, step: Callable):
    """A step's result; or None where it refuses, once the refusal is seen to be a good one."""
    try:
        return step()
    except InputError as error:
        message = str(error)
    assert str(path) in message
    assert len(message) < 1000 and "\n" not in message
    located = re.match(rf"{re.escape(str(path))}:(\d+): (?:column '(.*?)': '(.*?)' is not a)?", message)
    text = data.decode("utf-8-sig", "replace").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if located:
        line, _, cell = located.groups()
        assert 1 <= int(line) <= len(text) + 1
        # The cell at fault stands on the line that is named.
        if cell and "\\" not in cell and path.suffix != ".jsonl":
            assert cell.removesuffix("...") in text[int(line) - 1].replace('""', '"')
    elif "is not a number" in message or "not above zero" in message or "where a number" in message:
        raise AssertionError(f"a cell is at fault, but no line is named: {message}")
    return None


def through(path, data: bytes, strict_rows: int | None) -> Table | None:
    """Reads and uses a table in every way; None if it was refused."""
    table = attempt(path, data, lambda: read_table(path))
    if table is None:
        return None
    total = len(table) + lost(table)
    if strict_rows is not None:
        assert total == strict_rows
    lines = np.concatenate([table.lines, table.lost.lines if table.lost is not None else []])
    assert len(set(lines)) == total
    derived = attempt(path, data, lambda: table.derive("ratio = d / n"))
    derived = (
        attempt(path, data, lambda: (derived or table).derive("logs = log10(n) + sqrt(loss)")) or derived
    )
    table = derived or table
    assert len(table) + lost(table) == total
    for condition in ("n > 0", "loss < 3 or method == 'lora'", "ratio <= 1 and d in (1, 100)"):
        kept = attempt(path, data, lambda condition=condition: table.where(condition))
        rest = attempt(path, data, lambda condition=condition: table.where(f"not ({condition})"))
        if kept is None or rest is None:
            assert kept is rest is None
            continue
        unknown = lost(kept) - (0 if table.lost is None else len(_not_false(table, condition)))
        assert len(kept) + len(rest) + unknown == len(table)
        assert set(kept.lines).isdisjoint(rest.lines)
    for column in table.cells:
        measured = table.drop_missing([column])
        assert len(measured) + lost(measured) == total
        values = attempt(path, data, lambda measured=measured, column=column: measured.positive(column))
        if values is not None:
            assert values.dtype == np.float64 and len(values) == len(measured)
            assert np.all(np.isfinite(values)) and np.all(values > 0)
    groups = attempt(path, data, lambda: table.groups(("method",)))
    if groups is not None:
        assert sum(len(rows) for _, rows in groups) == len(table)
        assert sorted(line for _, rows in groups for line in rows.lines) == sorted(table.lines)
    return table


def _not_false(table: Table, condition: str) -> Table:
    """The lost rows that a condition does not rule out (all if it cannot be applied to them)."""
    try:
        ruled_out = table.lost.matches(f"not ({condition})")
    except InputError:
        return table.lost
    return table.lost.rows(~ruled_out)


@pytest.mark.parametrize("seed", range(COUNT))
def test_a_broken_table_gives_a_result_or_a_clear_refusal(tmp_path, seed):
    table = broken(seed)
    path = tmp_path / f"t{table.suffix}"
    data = table.content()
    path.write_bytes(data)
    rows = table.row_count if table.strict else None
    read = through(path, data, rows)
    if table.must_fail and table.strict:
        assert read is None
    elif read is None and table.strict:
        # What is wrong inside a cell must not keep the table from being read.
        assert any(len(cell) > 131_072 for row in table.rows for cell in row) or table.row_count == 0
    if read is not None and not any("several lines" in note for note in read.notes):
        text = re.split("\r\n|\r|\n", data.decode("utf-8-sig"))
        filled = [line for line in text if line.strip() and not line.startswith("#")]
        assert len(read) + lost(read) == len(filled) - (table.suffix != ".jsonl")
    if read is not None and re.search(rb"\n#", data.split(b"\n", 1)[1] if b"\n" in data else b""):
        assert any("skipped as comments" in note or "several lines" in note for note in read.notes)


def test_the_generator_makes_both_kinds(tmp_path):
    outcomes = []
    for seed in range(0, COUNT, 3):
        table = broken(seed)
        path = tmp_path / f"t{table.suffix}"
        path.write_bytes(table.content())
        try:
            read_table(path)
            outcomes.append(True)
        except InputError:
            outcomes.append(False)
    assert 0.25 < np.mean(outcomes) < 0.75


# Eight sizes with two losses each.
SOUND = "\n".join(
    ["d,loss,seed"]
    + [f"{d},{12 * d**-0.3 + 0.7 + 0.001 * s!r},{s}" for d in (100 * 2**k for k in range(8)) for s in (0, 1)]
    + [""]
).encode()
END_TO_END = {
    "sound": (SOUND, "t.csv", {0}, 16),
    "byte order mark": (b"\xef\xbb\xbf" + SOUND, "t.csv", {0}, 16),
    "semicolons": (SOUND.replace(b",", b";"), "t.csv", {0}, 16),
    "tabs": (SOUND.replace(b",", b"\t"), "t.summary", {0}, 16),
    "windows": (SOUND.replace(b"\n", b"\r\n"), "t.csv", {0}, 16),
    "comments": (b"# of a study\n" + SOUND.replace(b"\n200,", b"\n# again\n200,"), "t.csv", {0}, 16),
    "duplicated rows": (SOUND + b"100,3.5,0\n100,3.5,0\n", "t.csv", {0}, 18),
    "not done": (
        b"\n".join(line + (b",status" if line.startswith(b"d") else b",done") for line in SOUND.splitlines())
        + b"\n900,,0,diverged\n",
        "t.csv",
        {0},
        17,
    ),
    "not measured": (SOUND + b"5000,NA,0\n", "t.csv", {0, 2}, 17),
    "huge": (re.sub(rb"\n(\d+),", rb"\n\1e290,", SOUND), "t.csv", {0}, 16),
    "tiny": (re.sub(rb"\n(\d+),", rb"\n\1e-290,", SOUND), "t.csv", {0}, 16),
    "constant loss": (b"d,loss\n1,2\n2,2\n4,2\n8,2\n16,2\n", "t.csv", {0, 2}, 5),
    "tiny and huge sizes": (b"d,loss\n1e-300,4\n1e-100,3\n1,2.5\n1e100,2.1\n1e300,2\n", "t.csv", {0, 2}, 5),
    "tiny and huge losses": (b"d,loss\n1,1e-300\n2,1e-100\n3,1\n4,1e100\n5,1e300\n", "t.csv", {0, 2}, 5),
    "missing column": (SOUND.replace(b"loss", b"lost"), "t.csv", {2}, None),
    "mixed types": (SOUND + b"many,2,0\n", "t.csv", {2}, None),
    "infinite": (SOUND + b"900,inf,0\n", "t.csv", {2}, None),
    "zero": (SOUND + b"0,2,0\n", "t.csv", {2}, None),
    "negative": (SOUND + b"900,-2,0\n", "t.csv", {2}, None),
    "one row": (b"d,loss\n1,2\n", "t.csv", {2}, None),
    "constant size": (b"d,loss\n1,2\n1,3\n1,4\n1,5\n", "t.csv", {2}, None),
    "decimal commas": (SOUND.replace(b",", b";").replace(b".", b","), "t.csv", {2}, None),
    "ragged": (SOUND + b"900,2\n", "t.csv", {2}, None),
    "unbalanced quote": (SOUND + b'900,"2,0\n', "t.csv", {2}, None),
    "nul": (SOUND + b"900,\0,0\n", "t.csv", {2}, None),
    "empty": (b"", "t.csv", {2}, None),
    "only a header": (b"d,loss,seed\n", "t.csv", {2}, None),
    "binary": (bytes(range(256)), "t.csv", {2}, None),
    "utf-16": (SOUND.decode().encode("utf-16"), "t.csv", {2}, None),
    "broken json": (b'{"d": 1, "loss": 2}\n{"d": \n', "t.jsonl", {2}, None),
}


@pytest.mark.parametrize("name", END_TO_END)
def test_the_command_line_fits_or_refuses_on_one_line(tmp_path, capsys, name):
    data, file_name, codes, rows = END_TO_END[name]
    path = tmp_path / file_name
    path.write_bytes(data)
    arguments = ["--law", "power", "--d", "d", "--y", "loss", "--bootstrap", "20", "--json"]
    code = main(["fit", str(path), *arguments])
    output, complaint = capsys.readouterr()
    assert code in codes
    if code == 2:
        assert output == ""
        assert complaint.startswith("scaling-jax fit: error: ") and complaint.count("\n") == 1
        assert str(path) in complaint
        return
    assert complaint == ""
    (fit,) = json.loads(output)
    assert sum(fit["rows"].values()) == rows
    assert sum(fit["dropped_reasons"].values()) == fit["rows"]["dropped"]
