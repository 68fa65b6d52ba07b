"""Tasks over people's own files: what they read, and what they say of files that cannot be read."""

import gzip

import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry


def _rows(name, split="train", **settings):
    source = registry.find(name).call(**settings)
    return [row for block in source.splits[split]() for row in zip(*block.values(), strict=True)]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        content = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(path)

    return write


def test_pairs_from_two_files_gzip_and_template(write):
    files = (write("a.en", "one\ntwo\r\n\nfour\n"), write("a.de.gz", "eins\nzwei\ndrei\nvier"))
    source = registry.find("parallel_text").call(
        train=files, cut_dev=0, cut_test=0, template="translate: {source}"
    )
    rows = [row for block in source.splits["train"]() for row in zip(*block.values(), strict=True)]
    assert rows == [("translate: one", "eins"), ("translate: two", "zwei"), ("translate: four", "vier")]
    assert "1 of 4 pairs have an empty side" in source.notes[0]
    assert list(source.splits) == ["train"]


def test_pairs_from_one_tab_separated_file(write):
    file = write("a.tsv", "id1\tone\teins\nid2\ttwo\tzwei\n")
    assert _rows("parallel_text", train=file, columns=(1, 2), cut_dev=0, cut_test=0) == [
        ("one", "eins"),
        ("two", "zwei"),
    ]


def test_line_separators_of_unicode_do_not_end_lines(write):
    files = (write("a", "one\u2028still one\ntwo\n"), write("b", "1\n2\n"))
    assert _rows("parallel_text", train=files, cut_dev=0, cut_test=0)[0] == ("one\u2028still one", "1")


def test_pairs_from_json_lines(write):
    file = write("a.jsonl", '{"en": "one", "de": "eins"}\n\n{"en": "two", "de": "zwei", "more": 3}\n')
    rows = _rows(
        "jsonl", train=file, source="en", target="de", template="To German: {source}", cut_dev=0, cut_test=0
    )
    assert rows == [("To German: one", "eins"), ("To German: two", "zwei")]


@pytest.mark.parametrize(("dev", "test"), [(10, 30), (7, 0), (0, 5)])
def test_cut_is_disjoint_complete_spread_and_stays(write, dev, test):
    files = (
        write("a", "".join(f"s{i}\n" for i in range(100))),
        write("b", "".join(f"t{i}\n" for i in range(100))),
    )
    settings = {"train": files, "cut_dev": dev, "cut_test": test}
    sizes = {"train": 100 - dev - test, "dev": dev, "test": test}
    splits = {split: _rows("parallel_text", split, **settings) for split, size in sizes.items() if size}
    assert {split: len(rows) for split, rows in splits.items()} == {
        split: size for split, size in sizes.items() if size
    }
    assert len(set().union(*splits.values())) == 100
    for split in set(splits) - {"train"}:
        places = [int(source[1:]) for source, _ in splits[split]]
        assert max(places) - min(places) > 50
        assert _rows("parallel_text", split, **settings) == splits[split]


def test_given_dev_file_leaves_training_whole(write):
    pair = (write("a", "1\n2\n3\n4\n"), write("b", "1\n2\n3\n4\n"))
    dev = (write("c", "5\n"), write("d", "5\n"))
    assert len(_rows("parallel_text", train=pair, dev=dev, cut_test=1)) == 3
    assert _rows("parallel_text", "dev", train=pair, dev=dev, cut_test=1) == [("5", "5")]


def test_plain_text_cuts_the_end_of_each_file(write):
    files = [
        write("a.txt", "".join(f"a{i}\n\n" for i in range(10))),
        write("b.txt.gz", "".join(f"b{i}\n" for i in range(20))),
    ]
    settings = {"train": files, "dev_share": 0.1, "test_share": 0.05}
    assert _rows("plain_text", "dev", **settings) == [("a9",), ("b18",), ("b19",)]
    assert _rows("plain_text", "test", **settings) == [("a8",), ("b17",)]
    train = _rows("plain_text", **settings)
    assert len(train) == 25 and train[0] == ("a0",) and train[-1] == ("b16",)


def test_identity_is_the_text_not_its_path(write):
    first, same, other = write("a", "x\ny\n"), write("b", "x\ny\n"), write("c", "x\nz\n")
    identities = [registry.find("plain_text").call(train=path).identity for path in (first, same, other)]
    assert identities[0] == identities[1] != identities[2]


GOOD = "1\n2\n3\n"


@pytest.mark.parametrize(
    ("left", "right", "message"),
    [
        (GOOD, "1\n2\n", r"b has 2 lines and .*a has 3"),
        ("1\n2\n", GOOD, r"a has 2 lines and .*b has 3"),
        ("", "", r"a: the file is empty"),
        ("\n\n", "1\n2\n", r"every pair has an empty side"),
        (GOOD, b"1\nab\xff\n3\n", r"b:2: not UTF-8 text \(byte 3 of the line is 0xff\)"),
        (GOOD, GOOD, r"cannot take 4 pairs"),
    ],
)
def test_bad_parallel_files(write, left, right, message):
    with pytest.raises(InputError, match=message):
        registry.find("parallel_text").call(
            train=(write("a", left), write("b", right)), cut_dev=2, cut_test=2
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"source": "a", "target": "b"}\n{"source": \n', r"a.jsonl:2:\d+: not JSON"),
        ('{"source": "a", "targets": "b"}\n', r"a.jsonl:1: no field 'target'; did you mean 'targets'"),
        ('{"source": "a", "target": null}\n', r"a.jsonl:1: field 'target' must be a string"),
        ('["a"]\n', r"a.jsonl:1: a JSON object is needed"),
        ("\n", r"a.jsonl: the file is empty"),
    ],
)
def test_bad_json_lines(write, content, message):
    with pytest.raises(InputError, match=message):
        registry.find("jsonl").call(train=write("a.jsonl", content))


def test_other_bad_files_and_settings(write, tmp_path):
    good = write("a", GOOD)
    cases = [
        ("plain_text", {"train": str(tmp_path / "nowhere")}, "plain_text.train: no file"),
        ("plain_text", {"train": write("empty", "\n")}, "empty: the file is empty"),
        ("plain_text", {"train": write("short", "one\n")}, "too few"),
        ("plain_text", {"train": good, "dev_share": 0.8}, "at most 0.5"),
        ("plain_text", {}, "plain_text.train is not set"),
        ("parallel_text", {}, "parallel_text.train is not set"),
        ("parallel_text", {"train": (good,)}, "one tab-separated file, not 1"),
        ("parallel_text", {"train": good}, "a:1: 1 tab-separated column"),
        ("parallel_text", {"train": (good, good), "template": "no place"}, "must contain {source}"),
        ("jsonl", {"train": str(tmp_path / "nowhere")}, "jsonl.train: no file"),
    ]
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(b"line\n" * 5000)[:-20])
    cases.append(("plain_text", {"train": str(broken)}, "broken.gz: cannot be read after line"))
    for name, settings, message in cases:
        with pytest.raises(InputError, match=message):
            registry.find(name).call(**settings)


def test_unknown_task_names_the_nearest():
    with pytest.raises(InputError, match="did you mean 'parallel_text'"):
        registry.find("paralel_text")
    assert registry.find("parallel_text_v1") is registry.find("parallel_text")


def test_two_files_cannot_register_one_name():
    def jsonl():
        return None

    with pytest.raises(InputError, match="jsonl.*give yours another name"):
        registry.text_task(version=1, features=registry.PAIRS, summary="mine")(jsonl)
