"""Tables: what is read, and every refusal with file, line and column."""

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.laws.table import read_table, table_of


def write(folder, content, name="results.csv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_reads_csv_tsv_and_jsonl_alike(tmp_path):
    tables = [
        read_table(write(tmp_path, "a,b\n1,x\n2.5,y\n")),
        read_table(write(tmp_path, "a\tb\n1\tx\n2.5\ty\n", "t.tsv")),
        read_table(write(tmp_path, '{"a": 1, "b": "x"}\n\n{"a": 2.5, "b": "y"}\n', "t.jsonl")),
    ]
    for table in tables:
        np.testing.assert_array_equal(table.numbers("a"), [1.0, 2.5])
        assert list(table.text("b")) == ["x", "y"]
    assert list(tables[0].lines) == [2, 3]
    assert list(tables[2].lines) == [1, 3]


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    table = read_table(write(tmp_path, b"\xef\xbb\xbfloss,n\r\n1,2\r\n"))
    assert "loss" in table
    np.testing.assert_array_equal(table.numbers("n"), [2.0])


def test_rows_that_are_not_done_are_counted_with_their_reason(tmp_path):
    lost = ",diverged,loss not finite,a\n,diverged,loss not finite,b\n,failed,,b\n"
    text = "loss,status,reason,method\n1,done,,a\n" + lost
    table = read_table(write(tmp_path, text))
    assert len(table) == 1
    assert table.dropped == {"diverged: loss not finite": 2, "failed": 1}
    assert table.where("method == 'a'").dropped == {"diverged: loss not finite": 1}
    ((group, rows),) = table.groups(("method",))
    assert group == {"method": "a"}
    assert rows.dropped == {"diverged: loss not finite": 1}


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "t.csv", "no rows"),
        ("a,b\n", "t.csv", "no rows"),
        ("a,b\n1,2\n3\n", "t.csv", ":3: 1 cells where the header has 2"),
        ("a,b\n1,2,3\n", "t.csv", ":2: 3 cells"),
        ("a,a\n1,2\n", "t.csv", ":1: column 'a' appears twice"),
        ("a;b\n1;2\n", "t.csv", ":1: columns are separated by semicolons"),
        ("a\tb\n1\t2\n", "t.csv", "separated by tabs"),
        (b"a,b\n1,2\n3,\xff\n", "t.csv", ":3: not UTF-8"),
        ('{"a": 1}\n{"a": \n', "t.jsonl", ":2: not JSON"),
        ('{"a": 1}\n[1]\n', "t.jsonl", ":2: a line must be a JSON object"),
        ('{"a": [1]}\n', "t.jsonl", ":1: column 'a'"),
        ("a,b\n1,2\n", "t.xlsx", "a table is a .csv, .tsv or .jsonl file"),
    ],
)
def test_unreadable_tables(tmp_path, content, name, message):
    path = write(tmp_path, content, name)
    with pytest.raises(InputError) as error:
        read_table(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_no_such_file(tmp_path):
    with pytest.raises(InputError, match="cannot read .*missing.csv"):
        read_table(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("abc", "'abc' is not a number"),
        ("NaN", "'NaN' is not a finite number"),
        ("inf", "'inf' is not a finite number"),
        ("0", "is not above zero; leave such rows out with --where 'n > 0'"),
        ("-3", "-3 is not above zero"),
        ("", "empty where a number is needed"),
        ('"1,5"', "not a number (write a decimal point"),
    ],
)
def test_bad_cells_name_line_and_column(tmp_path, cell, message):
    table = read_table(write(tmp_path, f"n,loss\n1,1\n2,1\n{cell},1\n"))
    with pytest.raises(InputError) as error:
        table.positive("n")
    assert ":4: column 'n': " in str(error.value)
    assert message in str(error.value)


def test_missing_column_names_the_nearest():
    with pytest.raises(InputError, match="no column 'los'; did you mean 'loss'"):
        table_of("t", {"loss": [1.0]}).numbers("los")


def test_derive_adds_a_column_and_refuses_to_replace_one():
    table = table_of("t", {"flop": [12.0, 24.0], "n": [1.0, 2.0]}).derive("tokens = flop / (6 * n)")
    np.testing.assert_array_equal(table.numbers("tokens"), [2.0, 2.0])
    with pytest.raises(InputError, match="already has a column"):
        table.derive("n = 1 * flop")
    with pytest.raises(InputError, match="not 'new_column = expression'"):
        table.derive("n == 1")
