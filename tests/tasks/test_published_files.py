"""E2E NLG and CoLA from their published files: what is read, cut and refused."""

import os
from pathlib import Path

import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry

E2E = (
    'mr,ref\n"name[A], food[Thai]","A, a ""Thai"" place."\nname[B],B is\tnice.\n'
    '"name[A], food[Thai]",Eat at A.\n'
)
COLA = "gj04\t1\t\tBill sang.\ngj04\t0\t*\tSang Bill the.\n"


def _rows(name, split="train", **settings):
    source = registry.find(name).call(**settings)
    return [row for block in source.splits[split]() for row in zip(*block.values(), strict=True)]


def _write(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def test_e2e_rows_with_quotes_commas_and_further_columns(tmp_path):
    file = _write(tmp_path, "e2e.csv", E2E)
    rows = _rows("e2e_nlg", train=file, cut_dev=0, cut_test=0, template="Describe: {source}")
    assert rows == [
        ("Describe: name[A], food[Thai]", 'A, a "Thai" place.'),
        ("Describe: name[B]", "B is\tnice."),
        ("Describe: name[A], food[Thai]", "Eat at A."),
    ]
    cleaned = _write(tmp_path, "cleaned.csv", "fixed,ref,mr,orig_mr\r\n0,One.,name[C],name[D]\r\n\r\n")
    assert _rows("e2e_nlg", train=cleaned, cut_dev=0, cut_test=0) == [("name[C]", "One.")]


def test_e2e_cut_takes_whole_meaning_representations(tmp_path):
    text = "mr,ref\n" + "".join(f"m{number % 20},r{number}\n" for number in range(100))
    settings = {"train": _write(tmp_path, "e2e.csv", text), "cut_dev": 4, "cut_test": 2}
    splits = {split: _rows("e2e_nlg", split, **settings) for split in ("train", "dev", "test")}
    assert {split: len(rows) for split, rows in splits.items()} == {"train": 70, "dev": 20, "test": 10}
    meanings = [{source for source, _ in rows} for rows in splits.values()]
    assert sum(map(len, meanings)) == len(set.union(*meanings)) == 20
    given = settings | {"test": _write(tmp_path, "test.csv", "mr,ref\nm0,r\n")}
    assert _rows("e2e_nlg", "test", **given) == [("m0", "r")]
    assert len(_rows("e2e_nlg", "train", **given)) == 80
    notes = registry.find("e2e_nlg").call(**settings).notes
    assert notes[0] == "dev: 4 evenly spaced meaning representations of train"


def test_cola_labels_are_words(tmp_path):
    file = _write(tmp_path, "cola.tsv", COLA)
    cut = {"cut_dev": 0, "cut_test": 0}
    rows = _rows("cola", train=file, **cut)
    assert rows == [("Bill sang.", "acceptable"), ("Sang Bill the.", "unacceptable")]
    rows = _rows("cola", train=file, labels=("no", "yes"), template="Good? {source}", **cut)
    assert rows == [("Good? Bill sang.", "yes"), ("Good? Sang Bill the.", "no")]
    assert len(_rows("cola", train=file, test=[file, file], split="test", cut_dev=0)) == 4


@pytest.mark.parametrize(
    ("task", "text", "said"),
    [
        ("e2e_nlg", "mr;ref\na;b\n", r"bad:1: no column 'mr'"),
        ("e2e_nlg", "mr,reff\na,b\n", r"bad:1: no column 'ref'; did you mean 'reff'"),
        ("e2e_nlg", "mr,ref\na,b\na,b,c\n", "bad:3: 3 cells, the header has 2 columns"),
        ("e2e_nlg", 'mr,ref\na,b\na,"b\n', "bad:3: not CSV"),
        ("e2e_nlg", "", "bad: the file is empty"),
        ("cola", "gj04\t1\tBill sang.\n", r"bad:1: 3 tab-separated column\(s\), CoLA's files have 4"),
        ("cola", COLA + "gj04\tyes\t\tA.\n", "bad:3: label 'yes' in column 2, 0 or 1"),
    ],
)
def test_bad_lines_are_named(tmp_path, task, text, said):
    with pytest.raises(InputError, match=said):
        _rows(task, train=_write(tmp_path, "bad", text), cut_dev=0, cut_test=0)


def test_a_cut_of_too_many_meanings_is_refused(tmp_path):
    said = "cannot take 2 meaning representations for dev and test out of 2 training meaning representations"
    with pytest.raises(InputError, match=said):
        _rows("e2e_nlg", train=_write(tmp_path, "e2e.csv", E2E), cut_dev=1, cut_test=1)


@pytest.mark.skipif(
    "SCALING_JAX_DATA" not in os.environ, reason="SCALING_JAX_DATA (the folder of real data) is not set"
)
def test_the_published_files():
    folder = Path(os.environ["SCALING_JAX_DATA"])
    e2e = {"train": str(folder / "e2e_nlg/devset.csv"), "test": str(folder / "e2e_nlg/testset_w_refs.csv")}
    sizes = {split: len(_rows("e2e_nlg", split, **e2e)) for split in ("train", "dev", "test")}
    assert sizes == {"train": 4241, "dev": 431, "test": 4693}
    dev = [str(folder / f"cola/{name}_dev.tsv") for name in ("in_domain", "out_of_domain")]
    rows = _rows("cola", train=str(folder / "cola/in_domain_train.tsv"), dev=dev, cut_test=0)
    assert len(rows) == 8551 and sum(label == "acceptable" for _, label in rows) == 6023
