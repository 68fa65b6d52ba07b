"""Answers as files: what is written is read again, and what cannot be read is named by its line."""

import pytest

from scaling_jax.errors import InputError
from scaling_jax.evaluation import answers
from scaling_jax.evaluation.score import Answer

WRITTEN = (
    Answer("Say hi.\n", "嗨 \u2028 there\r", ("hi", "嗨"), {"class": "chat"}, "zh"),
    Answer("", "", ()),
)


def test_what_is_written_is_read(tmp_path):
    answers.write(tmp_path / "a.jsonl", WRITTEN)
    assert answers.read(tmp_path / "a.jsonl") == WRITTEN
    assert (tmp_path / "a.jsonl").read_bytes().count(b"\n") == 2
    answers.write(tmp_path / "b.jsonl", [Answer("", "half \ud83d", ("x",))])
    assert answers.read(tmp_path / "b.jsonl")[0].hypothesis == "half ?"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "a.jsonl:2:2: not JSON"),
        ('["a"]', "a.jsonl:2: not an object"),
        ('{"hypotesis": "a"}', "a.jsonl:2: no key 'hypothesis'.*did you mean 'hypotesis'"),
        ('{"hypothesis": "a", "hypothesis": "b"}', "a.jsonl:2: the key 'hypothesis' is there twice"),
        ('{"hypothesis": "\0"}', "a.jsonl:2: not text .byte 17 of the line is NUL"),
        ('{"hypothesis": 3}', "a.jsonl:2: hypothesis is 3: must be a text"),
        ('{"hypothesis": "a", "references": "b"}', "a.jsonl:2: references is 'b': must be a list of texts"),
        ('{"hypothesis": "a", "columns": {"n": 1}}', "a.jsonl:2: columns is .*: must be an object of texts"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    (tmp_path / "a.jsonl").write_text('{"hypothesis": "a", "references": ["b"]}\n' + line + "\n")
    with pytest.raises(InputError, match=message):
        answers.read(tmp_path / "a.jsonl")


def test_no_file_and_no_answers(tmp_path):
    with pytest.raises(InputError, match="no such file: .*none.jsonl"):
        answers.read(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no answers"):
        answers.read(tmp_path / "empty.jsonl")


def write(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path


def test_lines_and_several_references(tmp_path):
    hypotheses = write(tmp_path / "out", "eins", "", "drei")
    first, second = write(tmp_path / "ref1", "eins", "zwei", ""), write(tmp_path / "ref2", "", "2", "drei")
    found = answers.read_lines(hypotheses, [first, second], "de")
    assert [answer.references for answer in found] == [("eins",), ("zwei", "2"), ("", "drei")]
    assert [answer.hypothesis for answer in found] == ["eins", "", "drei"]
    assert {answer.language for answer in found} == {"de"}


@pytest.mark.parametrize("name", ["out.txt", "out.jsonl", "out"])
def test_what_infer_writes_is_known_by_its_first_line(tmp_path, name):
    hypotheses = write(tmp_path / name, '{"inputs": "1", "output": "eins"}', '{"inputs": "2", "output": ""}')
    found = answers.read_lines(hypotheses, [write(tmp_path / "ref", "eins", "zwei")])
    assert [(answer.inputs, answer.hypothesis) for answer in found] == [("1", "eins"), ("2", "")]


@pytest.mark.parametrize("first", ['{"a": 1}', "{curly", "{}"])
def test_a_text_that_begins_with_a_brace_is_a_text(tmp_path, first):
    found = answers.read_lines(write(tmp_path / "out", first, "b"), [write(tmp_path / "ref", "c", "d")])
    assert [answer.hypothesis for answer in found] == [first, "b"]


def test_files_that_do_not_align_name_both_counts(tmp_path):
    hypotheses, whole = write(tmp_path / "out", *"abcd"), write(tmp_path / "whole", *"abcd")
    short = write(tmp_path / "short", *"abc")
    with pytest.raises(InputError, match="short has 3 lines, .*out has 4: a reference file has one line for"):
        answers.read_lines(hypotheses, [whole, short])
    with pytest.raises(InputError, match="no references"):
        answers.read_lines(hypotheses, [])
    with pytest.raises(InputError, match="out2: the file is empty"):
        answers.read_lines(write(tmp_path / "out2"), [whole])
    with pytest.raises(InputError, match="no such file: .*gone"):
        answers.read_lines(hypotheses, [tmp_path / "gone"])
