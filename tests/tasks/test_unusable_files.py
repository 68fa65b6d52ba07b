"""Every task over files, against every way in which a file can be broken: one line that says where."""

import gzip
import json

import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry

LINES = {
    "plain_text": [f"A sentence, number {number}." for number in range(300)],
    "parallel_text": [f"one {number}\teins {number}" for number in range(300)],
    "jsonl": [json.dumps({"source": f"one {number}", "target": "ein 'ä'"}) for number in range(300)],
    "e2e_nlg": ["mr,ref", *(f'"name[{number}], food[Thai]",It is Thai.' for number in range(299))],
    "cola": [f"gj04\t{number % 2}\t\tSentence {number}." for number in range(300)],
}
NO_CUT = {"plain_text": {"dev_share": 0.0}}


def _read(task, path):
    """All rows of the train split."""
    settings = NO_CUT.get(task, {"cut_dev": 0, "cut_test": 0})
    source = registry.find(task).call(train=str(path), **settings)
    return sum(len(block["targets"]) for block in source.splits["train"]())


@pytest.fixture
def file(tmp_path):
    def write(task, lines=None, content=None, name="given.txt"):
        text = "\n".join(lines or LINES[task]) + "\n"
        path = tmp_path / name
        content = text.encode() if content is None else content
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return path

    return write


@pytest.mark.parametrize("name", ["given.txt", "given.gz"])
@pytest.mark.parametrize("task", LINES)
def test_the_files_are_good_before_they_are_broken(task, file, name):
    count = len(LINES[task]) - (task == "e2e_nlg")
    assert _read(task, file(task, name=name)) == count


@pytest.mark.parametrize("name", ["given.txt", "given.gz"])
@pytest.mark.parametrize("task", LINES)
def test_a_byte_that_is_not_utf8(task, file, name):
    lines = [line.encode() for line in LINES[task]]
    place = lines[200].index(b"n")
    lines[200] = lines[200][:place] + b"\xe4" + lines[200][place:]
    path = file(task, content=b"\n".join(lines), name=name)
    with pytest.raises(
        InputError, match=rf"{name}:201: not UTF-8 text \(byte {place + 1} of the line is 0xe4"
    ):
        _read(task, path)


@pytest.mark.parametrize("task", LINES)
def test_another_encoding_is_named_at_its_first_line(task, file):
    path = file(task, content="\n".join(LINES[task]).encode("utf-16"))
    with pytest.raises(InputError, match="given.txt:1: not UTF-8 text"):
        _read(task, path)


@pytest.mark.parametrize("name", ["given.txt", "given.gz"])
@pytest.mark.parametrize("task", LINES)
def test_utf16_without_a_mark_is_valid_utf8_and_no_text(task, file, name):
    lines = LINES["jsonl"][:1] if task == "jsonl" else LINES[task]
    path = file(task, content="\n".join(lines).replace("ä", "a").encode("utf-16-le"), name=name)
    with pytest.raises(InputError, match=rf"{name}:1: not text \(byte 2 of the line is NUL"):
        _read(task, path)


@pytest.mark.parametrize("task", LINES)
def test_compressed_files_that_are_broken(task, file):
    path = file(task, name="given.gz")
    whole = path.read_bytes()
    middle = len(whole) // 2
    for broken in (whole[:-5], whole[:middle], b"text"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"given.gz: cannot be read after line \d+ \("):
            _read(task, path)
    path.write_bytes(whole[:middle] + b"\0\xff\0\xff" + whole[middle + 4 :])  # what comes out is anything
    with pytest.raises(InputError, match="given.gz:"):
        _read(task, path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["given.txt", "given.gz"])
@pytest.mark.parametrize("task", LINES)
def test_empty_files(task, file, name, content):
    with pytest.raises(InputError, match=rf"{name}(: the file is empty|:1: )"):
        _read(task, file(task, content=content, name=name))


def test_a_header_alone_is_an_empty_file(file):
    path = file("e2e_nlg", ["mr,ref"])
    with pytest.raises(InputError, match="given.txt: the file is empty"):
        _read("e2e_nlg", path)
    with pytest.raises(InputError, match="given.txt: the file is empty"):
        registry.find("e2e_nlg").call(train=str(path))


def test_a_long_cell_is_csv(file):
    lines = [*LINES["e2e_nlg"], 'a,"' + "b" * 140_000 + '"']
    assert _read("e2e_nlg", file("e2e_nlg", lines)) == 300


def test_two_columns_of_one_name(file):
    for header in ("mr,ref,mr", "ref,mr,ref"):
        twice = header.split(",")[0]
        with pytest.raises(InputError, match=f"given.txt:1: two columns are called '{twice}'"):
            _read("e2e_nlg", file("e2e_nlg", [header, "a,b,c"]))
    assert _read("e2e_nlg", file("e2e_nlg", ["mr,ref,x,x", "a,b,c,d"])) == 1


def test_a_repeated_key_in_an_array(file):
    lines = ["[", '{"source": "a", "target": "b"},', '{"source": "a", "target": "b", "source": "c"}]']
    with pytest.raises(InputError, match="given.txt:3: the key 'source' is there twice"):
        _read("jsonl", file("jsonl", lines))


@pytest.mark.parametrize(
    ("task", "line", "message"),
    [
        ("parallel_text", "one only", r":150: 1 tab-separated column\(s\), column 2 is needed"),
        ("jsonl", '{"source": "a"', r":150:\d+: not JSON"),
        ("jsonl", '{"source": "a", "target": "b"} {}', r":150:\d+: not JSON"),
        ("jsonl", '{"source": "a"}', r":150: no field 'target'"),
        ("jsonl", '{"source": "a", "target": ["b"]}', r":150: field 'target' must be a string.*list"),
        ("jsonl", '{"source": "a", "target": "\\ud83d"}', r":150: field 'target' is not Unicode text"),
        ("jsonl", '{"source": "a", "target": %s}' % ("1" * 5000), r":150.*: not JSON"),
        ("jsonl", "[" * 100_000, r":150.*: not JSON"),
        ("jsonl", '"just a string"', r":150: a JSON object is needed, this is a str"),
        ("e2e_nlg", "one cell", r":150: 1 cells, the header has 2 columns"),
        ("e2e_nlg", 'a,"b" c', r":150: not CSV"),
        ("e2e_nlg", 'a,"' + "b" * (1 << 24) + 'b"', r":150: not CSV .*field limit"),
        ("jsonl", '{"source": "a", "target": "b", "source": "c"}', r":150: the key 'source' is there twice"),
        ("cola", "gj04\t1\tA sentence.", r":150: 3 tab-separated column\(s\), CoLA's files have 4"),
        ("cola", "gj04\t2\t\tA sentence.", r":150: label '2' in column 2, 0 or 1 is needed"),
    ],
)
def test_a_line_that_cannot_be_used(task, line, message, file):
    lines = list(LINES[task])
    lines[149] = line
    with pytest.raises(InputError, match=f"given.txt{message}"):
        _read(task, file(task, lines))


def test_an_open_quote_swallows_the_rest_and_is_named(file):
    lines = list(LINES["e2e_nlg"])
    lines[149] = 'a,"It never ends'
    with pytest.raises(InputError, match=r"given.txt:\d+: not CSV"):
        _read("e2e_nlg", file("e2e_nlg", lines))


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        ("parallel_text", {"columns": (0,)}, "parallel_text.columns = .*two"),
        ("parallel_text", {"columns": (0, -1)}, "parallel_text.columns = .*two"),
        ("parallel_text", {"cut_dev": 2.5}, "cut_dev and cut_test must be whole numbers"),
        ("jsonl", {"cut_test": None}, "cut_dev and cut_test must be whole numbers"),
        ("jsonl", {"template": 3}, "jsonl.template = 3: must contain {source}"),
        ("jsonl", {"train": 3}, "jsonl.train = 3: a path or several"),
        ("plain_text", {"train": ["a", 3]}, r"plain_text.train = .*: a path or several"),
        ("plain_text", {"dev_share": "0.1"}, "plain_text.dev_share and plain_text.test_share: numbers"),
        ("cola", {"labels": ("bad",)}, "cola.labels = .*: two words"),
    ],
)
def test_settings_that_cannot_be_used(task, settings, message, file):
    with pytest.raises(InputError, match=message):
        registry.find(task).call(**{"train": str(file(task)), **settings})
