"""Tables: what is read, and every refusal with file, line and column."""

import json
import os
import time
from pathlib import Path

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


@pytest.mark.parametrize(
    ("content", "name", "note"),
    [
        ("a;b c\n1;x, y\n2.5;z\n", "t.csv", "columns separated by semicolons"),
        ("a\tb c\n1\tx, y\n2.5\tz\n", "t.csv", "columns separated by tabs"),
        ("a\tb c\n1\tx, y\n2.5\tz\n", "t.TSV", None),
        ('a,b c\n1,"x, y"\n2.5,z\n', "t.tsv", "columns separated by commas"),
        ('a,b c\n1,"x, y"\n2.5,z\n', "t.txt", None),
        ("# head; b, c\n\na\tb c\n1\tx, y\n2.5\tz\n", "t.summary", None),
        ('"a"; "b c"\n1;x, y\n2.5;z\n'.replace("; ", ";"), "t.csv", "columns separated by semicolons"),
        ('a,b c\r\n1 , "x, y"\r\n\r\n2.5,z'.replace(', "', ',"'), "t.csv", None),
        ('a,b c\r1,"x, y"\r2.5,z\r', "t.csv", None),
        ("a;b c\n1;x, y\n#2;q\n2.5;z\n", "t.csv", "line 3 below the header skipped as comments ('#')"),
    ],
)
def test_separators_line_ends_and_comments(tmp_path, content, name, note):
    table = read_table(write(tmp_path, content, name))
    np.testing.assert_array_equal(table.positive("a"), [1.0, 2.5])
    assert list(table.text("b c")) == ["x, y", "z"]
    assert note in table.notes if note else table.notes == ()
    for line, cell in zip(table.lines, ("x, y", "z"), strict=True):
        assert cell in content.replace("\r\n", "\n").replace("\r", "\n").split("\n")[line - 1]


def test_a_comma_in_a_header_name_does_not_hide_the_semicolons(tmp_path):
    table = read_table(write(tmp_path, '"Size, params";loss\n1e9;2\n'))
    assert list(table.cells) == ["Size, params", "loss"]
    assert len(table.where("`Size, params` > 1")) == 1


def test_a_decimal_comma_is_never_misread(tmp_path):
    table = read_table(write(tmp_path, "n;loss\n1;2,5\n2;1,234\n"))
    with pytest.raises(
        InputError, match=r"results.csv:2: column 'loss': '2,5' is not a number \(write a decimal p"
    ):
        table.positive("loss")
    with pytest.raises(InputError, match="column 'loss' is text .line 2: '2,5'"):
        table.where("loss < 3")
    with pytest.raises(
        InputError, match=r"results.csv:2: 4 cells where the header has 2 \(write decimal points"
    ):
        read_table(write(tmp_path, "n,loss\n1,5,2,5\n"))


def test_a_quoted_cell_over_several_lines_is_told(tmp_path):
    table = read_table(write(tmp_path, 'n,why\n1,"a\n#b"\n2,c\n#3,d\n4,e\n'))
    assert list(table.lines) == [2, 4, 6]
    assert table.text("why")[0] == "a\n#b"
    assert table.notes == (
        "line 5 below the header skipped as comments ('#')",
        "line 2: a quoted cell goes over several lines",
    )


def test_repeated_rows_are_told_and_kept(tmp_path):
    content = "n,loss,method\n1,2,a\n1,2,b\n1,2,a\n2,2,a\n1, 2 ,a\n"
    table = read_table(write(tmp_path, content))
    assert len(table) == 5
    note = "2 of 5 rows are exact duplicates of an earlier row (line 4, 6) and kept"
    assert table.notes == (note,)
    (_, first), (_, second) = table.where("n > 0").derive("m = 2 * n").groups(("method",))
    assert first.notes == second.notes == (note,)
    once = table_of("t", {"a": [1, 1]}).notes
    assert once == ("1 of 2 rows is an exact duplicate of an earlier row (line 3) and kept",)
    # Columns whose contents are swapped or shifted are no duplicates.
    assert table_of("t", {"a": [1, 2, 3], "b": [2, 1, 3]}).notes == ()


def test_missing_words_are_missing_in_numbers_and_text_in_text(tmp_path):
    words = ["", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "-nan", "null", "NULL", "None", "none", "--", "-"]
    rows = "".join(f"{word},x{word}\n" for word in words)
    table = read_table(write(tmp_path, f"n,name\n5,x\n{rows}"))
    np.testing.assert_array_equal(table.numbers("n"), [5.0] + [np.nan] * len(words))
    assert list(table.text("n")) == ["5", *words]
    kept = table.drop_missing(["n", "name"])
    assert len(kept) == 1
    assert kept.dropped == {"no value in column 'n'": len(words)}
    assert list(kept.lost.lines) == list(range(3, 3 + len(words)))
    groups = table_of("t", {"init": ["None", "random"]})
    assert len(groups.where("init == 'None'")) == 1


def test_a_column_of_nothing_is_missing_everywhere(tmp_path):
    table = read_table(write(tmp_path, "n,m,loss\nNA,,1\nNA,,2\n"))
    for column in ("n", "m"):
        assert np.isnan(table.numbers(column)).all()
        with pytest.raises(InputError, match=f":2: column '{column}'"):
            table.positive(column)
        assert table.drop_missing([column]).dropped == {f"no value in column '{column}'": 2}
    with pytest.raises(InputError, match="no column 'lost'"):
        table.drop_missing(["lost"])


def test_rows_of_which_a_condition_says_nothing_are_counted(tmp_path):
    table = read_table(write(tmp_path, "n,method,loss\n1,a,1\nNA,a,2\n,b,3\n4,b,4\n"))
    kept = table.where("n > 2")
    assert list(kept.lines) == [5]
    assert kept.dropped == {"no value for 'n > 2'": 2}
    # In a row of method b nothing hangs on n.
    assert table.where("method == 'a' and n < 2").dropped == {"no value for \"method == 'a' and n < 2\"": 1}
    assert list(table.matches("not n > 2")) == [True, False, False, False]
    # Lost for one reason, then for another: each row once, and only while the condition may hold.
    both = table.drop_missing(["n"]).where("method == 'a'")
    assert len(both) == 1
    assert both.dropped == {"no value in column 'n'": 1}


def test_a_group_that_lost_every_row_is_named(tmp_path):
    text = "loss,method,status\n1,a,done\n2,b,failed\n3,b,failed\n"
    ((group, rows),) = read_table(write(tmp_path, text)).groups(("method",))
    assert group == {"method": "a"}
    assert rows.notes == ("no row to use where method is 'b' (2 lost)",)
    assert rows.dropped == {}


def test_groups_come_in_order_of_first_appearance_with_their_rows():
    rng = np.random.default_rng(0)
    columns = {"a": rng.integers(0, 5, 200), "b": rng.integers(0, 3, 200), "row": np.arange(200)}
    expected: dict[tuple, list] = {}
    for a, b, row in zip(*columns.values(), strict=True):
        expected.setdefault((str(a), str(b)), []).append(row)
    found = table_of("t", columns).groups(("a", "b"))
    assert [tuple(group.values()) for group, _ in found] == list(expected)
    for (_, rows), members in zip(found, expected.values(), strict=True):
        np.testing.assert_array_equal(rows.numbers("row"), members)
    assert table_of("t", {"a": []}).groups(("a",)) == []


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
        ("a,b\n1,2,3\n", "t.csv", ":2: 3 cells where the header has 2 (write decimal points"),
        ("a,b\n\n# x\n1,2\n3\n", "t.csv", ":5: 1 cells where the header has 2"),
        ("a,a\n1,2\n", "t.csv", ":1: column 'a' appears twice"),
        ("# x\n\na,,b\n1,2,3\n", "t.csv", ":3: column 2 of 3 has no name"),
        ('"a\nb",c\n1,2\n', "t.csv", ":1: column 'a\\nb' has a line break"),
        ("1,2\n3,4\n", "t.csv", ":1: a header of numbers ('1, 2')"),
        ("# a,b\n1,2\n3,4\n", "t.csv", ":2: a header of numbers"),
        ("a b c\n1 2 3\n", "t.txt", ":1: the header 'a b c' is one column; separate columns by commas"),
        ("a|b\n1|2\n", "t.csv", "separate columns by commas"),
        (
            "a,b\n#1,2\n",
            "t.csv",
            "no rows; a table is a header line and one row a run (line 2 starts with '#'",
        ),
        ('a,b\n1,2\n3,"4\n5,6\n', "t.csv", ":3: a quoted cell is never closed"),
        ('a,b\n1,2\n3,"4"5\n5,6\n', "t.csv", ":3: "),
        ('\na,"b\n1,2\n', "t.csv", ":2: a quoted cell is never closed"),
        (b"a,b\n1,2\n3,\xff\n", "t.csv", ":3: not UTF-8 text (byte 0xff); save the file as UTF-8"),
        ("größe,b\n1,2\n".encode("latin-1"), "t.csv", ":1: not UTF-8"),
        ("a,b\n1,2\n".encode("utf-16"), "t.csv", "UTF-16 text; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "t.csv", ":1: a NUL byte; a table is UTF-8 text"),
        ("a,b\n1,\0\n", "t.csv", ":2: a NUL byte"),
        ('{"a": 1}\n{"a": \n', "t.jsonl", ":2: not JSON"),
        ('{"a": 1}\n[1]\n', "t.jsonl", ":2: a line must be a JSON object"),
        ('{"a": [1]}\n', "t.jsonl", ":1: column 'a'"),
        ('{"a": {"b": 1}}\n', "t.jsonl", ":1: column 'a'"),
        ('{"a": 1, "a": 2}\n', "t.jsonl", ":1: column 'a' appears twice"),
        ('{"a": 1}\n{" ": 2}\n', "t.jsonl", ":2: a column has no name"),
        ('{"a": 1, "a ": 2}\n', "t.jsonl", ":1: column 'a' appears twice"),
        ('{"a": 1}\n{"a": 2, "\\u0000": 3}\n', "t.jsonl", ":2: column '\\x00' has a character"),
        ('{"a": "\\ud800"}\n', "t.jsonl", ":1: column 'a' has a character that cannot be printed"),
        ('{"a": ' + "[" * 100_000 + "\n", "t.jsonl", ":1: not JSON"),
        ("{}\n", "t.jsonl", "no columns"),
        ("\n", "t.jsonl", "no rows"),
        ("a,b\n1,2\n", "t.xlsx", "a table is a .csv, .txt, .tsv, .tab, .summary or .jsonl file"),
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
        ("NaN", "'NaN', or empty, where a number is needed; leave such rows out with --where 'n > 0'"),
        ("N/A", "'N/A', or empty, where a number is needed"),
        ("--", "'--', or empty, where a number is needed"),
        ("inf", "'inf' is not a finite number; leave such rows out with --where 'n < 1e300'"),
        ("-Infinity", "'-Infinity' is not a finite number"),
        ("1e999", "'1e999' is not a finite number"),
        ("+-inf", "'+-inf' is not a number"),
        ("nAn", "'nAn' is not a number"),
        ("0", "0 is not above zero; leave such rows out with --where 'n > 0'"),
        ("1e-400", "1e-400 is not above zero"),
        ("-3", "-3 is not above zero; leave such rows out with --where 'n > 0'"),
        ("", "empty where a number is needed"),
        ('"1,5"', "'1,5' is not a number (write a decimal point, not a comma"),
        (
            '"1,000"',
            "'1,000' is not a number (write a decimal point, not a comma, and no thousands separators)",
        ),
        ("1_000", "'1_000' is not a number (write the digits without _)"),
        ("0x10", "'0x10' is not a number (write it in decimal digits)"),
        ("50%", "'50%' is not a number (write the number without %)"),
        ("1.5B", "'1.5B' is not a number (write it out, for example 1.5e9"),
        ("1 000", "'1 000' is not a number (write the digits without spaces)"),
        ("\u0661\u0662", "is not a number (write it in the digits 0 to 9 and a plain minus)"),
        ("\u22123", "is not a number (write it in the digits 0 to 9 and a plain minus)"),
        ("x" * 10_000, "'" + "x" * 40 + "...' is not a number"),
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


def test_derived_cells_are_empty_where_an_operand_is():
    table = table_of("t", {"flop": ["12", "NA", "24"], "n": [1, 2, ""], "loss": [1, 2, 3]})
    derived = table.derive("tokens = flop / n").derive("half = tokens / 2")
    np.testing.assert_array_equal(derived.numbers("half"), [6.0, np.nan, np.nan])
    assert list(derived.text("half")) == ["6.0", "", ""]
    assert derived.drop_missing(["half"]).dropped == {"no value in column 'half'": 2}


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("flop / (6 * n)", "flop / (6 * n) is not a finite number here; leave such rows out with --where"),
        ("0 * flop / n", "is not a finite number here"),
        ("log(n - 1)", "log(n - 1) is not a finite number here"),
        ("10 ** (400 * flop)", "10 ** (400 * flop) is not a finite number here"),
    ],
)
def test_a_derived_cell_that_is_not_finite_is_refused_when_it_is_used(expression, problem):
    table = table_of("t", {"flop": [1, 2, 3], "n": [2, 0, 3]})
    derived = table.derive(f"x = {expression}").derive("y = x + 1")
    for column in ("x", "y"):
        with pytest.raises(InputError, match=f"^t:[23]: column '{column}': "):
            derived.numbers(column)
    with pytest.raises(InputError) as error:
        derived.positive("x")
    assert problem in str(error.value)
    # Not missing: it is not dropped as if it had not been measured.
    assert derived.drop_missing(["x"]).dropped == {}


def test_rows_without_a_finite_derived_value_can_be_left_out():
    table = table_of("t", {"flop": [12, 2, 18], "n": [2, 0, 3]}).derive("x = flop / n")
    np.testing.assert_array_equal(table.where("n > 0").positive("x"), [6.0, 6.0])
    np.testing.assert_array_equal(table.where("x < 1e300").positive("x"), [6.0, 6.0])


def test_a_lost_row_too_broken_for_an_expression_stays_counted(tmp_path):
    text = "loss,n,status\n1,1,done\noops,2,failed\noops,3,failed\n"
    table = read_table(write(tmp_path, text)).derive("twice = 2 * loss")
    assert table.where("loss < 2 and n < 3").dropped == {"failed": 2}
    assert table.where("n < 3").dropped == {"failed": 1}


def test_a_lost_row_that_a_condition_does_not_rule_out_stays_counted(tmp_path):
    text = "loss,n,status\n,1,diverged\n1,2,done\n,3,done\n,4,diverged\n"
    table = read_table(write(tmp_path, text))
    # Its loss is unknown since it diverged; that is why it must be counted.
    assert table.where("loss < 10").dropped == {"diverged": 2, "no value for 'loss < 10'": 1}
    assert table.where("loss < 10 and n < 4").dropped == {
        "diverged": 1,
        "no value for 'loss < 10 and n < 4'": 1,
    }
    assert list(table.drop_missing(["loss"]).lost.lines) == [2, 4, 5]


def test_messages_name_the_file_the_line_and_the_cell(tmp_path):
    path = write(tmp_path, "n,loss\n1,1\n2,1\nmany,1\n")
    with pytest.raises(InputError) as error:
        read_table(path).where("n > 1")
    assert str(error.value) == (
        f"{path}: expression 'n > 1' needs a number where there is text; column 'n' is text (line 4: 'many')"
    )
    with pytest.raises(InputError) as error:
        read_table(path).derive("n" + "x" * 5000 + " == n")
    assert len(str(error.value)) < 200


def test_json_numbers_stay_as_written(tmp_path):
    digits = "1" * 5000
    text = f'{{"a": 1e400, "b": {digits}, "c": NaN, "d": true, "e": null}}\n{{"a": 0.10, "f": "x"}}\r\n'
    table = read_table(write(tmp_path, text, "t.jsonl"))
    assert list(table.text("a")) == ["1e400", "0.10"]
    assert list(table.text("d")) == ["True", ""]
    assert np.isnan(table.numbers("c")).all()
    assert list(table.text("f")) == ["", "x"]
    for column in ("a", "b"):
        with pytest.raises(InputError, match=f":1: column '{column}': .* is not a finite number"):
            table.numbers(column)


def test_json_columns_may_come_late_and_in_any_order(tmp_path):
    rows = [{"a": k, "b": -k} if k % 2 else {"b": -k, "a": k} for k in range(2500)]
    rows[0] = {}
    rows[2100]["late"] = "x"
    del rows[2200]["a"]
    table = read_table(write(tmp_path, "\n".join(map(json.dumps, rows)), "t.jsonl"))
    assert list(table.lines) == list(range(1, 2501))
    for name in ("a", "b", "late"):
        assert list(table.text(name)) == [str(row.get(name, "")) for row in rows]


def test_published_tables_are_read():
    folder = os.environ.get("SCALING_JAX_DATA")
    if not folder:
        pytest.skip("SCALING_JAX_DATA is not set to a folder with published tables")
    laws = Path(folder) / "laws"
    chinchilla = read_table(laws / "chinchilla_epoch" / "svg_extracted_data.csv")
    assert len(chinchilla) == 245
    assert len(chinchilla.where("`Model Size` > 1e9")) == np.sum(chinchilla.positive("Model Size") > 1e9)
    assert len(read_table(laws / "rectified_gigaword" / "gigaword.csv")) == 30
    scores = read_table(laws / "nmt_gordon2021" / "sacrebleu.0121.summary")
    assert (len(scores), scores.notes) == (468, ())
    both = scores.drop_missing(["bleu_dev"])
    assert both.dropped == {"no value in column 'bleu_dev'": 468 - len(both)}
    sizes = both.derive("n = 2 * Layers * (4 * ModelSize ** 2 + 2 * ModelSize * FeedForward)")
    assert sizes.positive("n").min() > 1e5


@pytest.mark.slow
def test_a_million_rows(tmp_path):
    rng = np.random.default_rng(0)
    columns = {
        "task": rng.choice(["mt", "sum"], 1_000_000).tolist(),
        "method": rng.choice(["full", "lora", "prompt"], 1_000_000).tolist(),
        "n": (rng.integers(1, 1000, 1_000_000) * 1_000_000).tolist(),
        "d": rng.integers(1, 100_000, 1_000_000).tolist(),
        "seed": rng.integers(0, 5, 1_000_000).tolist(),
        "loss": (1 + rng.random(1_000_000)).tolist(),
    }
    rows = (f"{t},{m},{n},{d},{s},{x!r}" for t, m, n, d, s, x in zip(*columns.values(), strict=True))
    path = write(tmp_path, "\n".join([",".join(columns), *rows]))
    begin = time.process_time()
    table = read_table(path)
    assert time.process_time() - begin < 6
    begin = time.process_time()
    np.testing.assert_array_equal(table.positive("loss"), columns["loss"])
    assert time.process_time() - begin < 0.6
    begin = time.process_time()
    chosen = table.derive("size = n * d").where("d > 10 and method == 'lora'").drop_missing(["loss", "size"])
    parts = chosen.groups(("task", "n"))
    assert sum(len(part) for _, part in parts) == len(chosen) > 300_000
    assert time.process_time() - begin < 6


def test_rows_that_a_condition_decides_without_the_missing_value_are_kept():
    table = table_of("t", {"method": ["full", "full", "lora", "lora"], "rank": ["", "", 4, 16]})
    guarded = 'method == "lora" and rank == 16'
    assert len(table.drop_undecided(guarded)) == len(table.drop_undecided(None)) == 4
    assert list(table.matches(guarded)) == [False, False, False, True]
    plain = table.drop_undecided("rank == 16")
    assert list(plain.text("method")) == ["lora", "lora"]
    assert plain.dropped == {"no value for 'rank == 16'": 2}
