"""AG News, and CoLA and E2E NLG from TFDS (their files are in test_published_files.py)."""

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry
from tests.tasks.written import write_tfds

AG = '"3","Wall St. Bears","Short-sellers, ""ultra-cynics"", are back."\n"1","A","B"\n'


def _source(name, **settings):
    return registry.find(name).call(**settings)


def _rows(source, split="train"):
    return [row for block in source.splits[split]() for row in zip(*block.values(), strict=True)]


def test_ag_news_from_csv_and_from_tfds(tmp_path):
    for name in ("train", "test"):
        (tmp_path / f"{name}.csv").write_text(AG)
    local = _source("ag_news", folder=str(tmp_path), cut_dev=0)
    prompt = "Is this news about World, Sports, Business or Sci/Tech? "
    expected = [
        (f'{prompt}Wall St. Bears Short-sellers, "ultra-cynics", are back.', "Business"),
        (f"{prompt}A B", "World"),
    ]
    assert _rows(local) == _rows(local, "test") == expected and local.examples == {"train": 2, "test": 2}
    assert len(_rows(_source("ag_news", folder=str(tmp_path), cut_dev=1), "dev")) == 1
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    features = tfds.features.FeaturesDict(
        {
            "label": tfds.features.ClassLabel(names=["World", "Sports", "Business", "Sci/Tech"]),
            "title": tfds.features.Text(),
            "description": tfds.features.Text(),
        }
    )
    examples = [
        {"label": 2, "title": "Wall St. Bears", "description": 'Short-sellers, "ultra-cynics", are back.'},
        {"label": 0, "title": "A", "description": "B"},
    ]
    write_tfds(tmp_path / "tfds", "ag_news_subset", features, {"train": examples, "test": examples})
    prepared = _source("ag_news", data_dir=str(tmp_path / "tfds"), cut_dev=0)
    assert sorted(_rows(prepared)) == sorted(expected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('"5","a","b"\n', r"train.csv:1: class '5', 1 to 4 is needed"),
        (AG + '"1","a"\n', r"train.csv:3: 2 cells, AG News has 3"),
        (AG + '"1","a","b\n', r"train.csv:3: not CSV"),
    ],
)
def test_bad_lines_are_named(tmp_path, text, said):
    (tmp_path / "train.csv").write_text(text)
    (tmp_path / "test.csv").write_text(AG)
    with pytest.raises(InputError, match=said):
        _source("ag_news", folder=str(tmp_path), cut_dev=0)


def test_what_is_missing_is_said(tmp_path):
    with pytest.raises(InputError, match="ag_news: data not found. Looked for train.csv in .*tfds build"):
        _source("ag_news", folder=str(tmp_path))
    with pytest.raises(InputError, match="3 words, there are 4 classes"):
        _source("ag_news", folder=str(tmp_path), labels=("a", "b", "c"))
    for name in ("cola", "e2e_nlg"):
        with pytest.raises(InputError, match=rf"{name}: data not found. Looked for {name}.train.*{tmp_path}"):
            _source(name, data_dir=str(tmp_path))


def test_cola_of_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    features = tfds.features.FeaturesDict(
        {
            "sentence": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["unacceptable", "acceptable"]),
            "idx": np.int32,
        }
    )
    examples = [{"sentence": f"S{number}.", "label": number % 2, "idx": number} for number in range(10)]
    unlabelled = [{**example, "label": -1} for example in examples]
    splits = {"train": examples, "validation": examples[:4], "test": unlabelled}
    write_tfds(tmp_path, "glue", features, splits, "cola", "2.0.0")
    source = _source("cola", data_dir=str(tmp_path), cut_dev=2)
    assert source.examples == {"train": 8, "dev": 2, "test": 4}
    assert sorted(_rows(source, "test")) == [
        ("S0.", "unacceptable"),
        ("S1.", "acceptable"),
        ("S2.", "unacceptable"),
        ("S3.", "acceptable"),
    ]


def test_e2e_of_tfds_has_the_files_meaning_representations(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    from tensorflow_datasets.datasets.e2e_cleaned import e2e_cleaned_dataset_builder as builder

    cell = {"column_header": np.str_, "row_number": np.int16, "content": np.str_}
    features = tfds.features.FeaturesDict(
        {"input_text": {"table": tfds.features.Sequence(cell)}, "target_text": np.str_}
    )
    meanings = [
        "name[Blue Spice], near[Café Sicilia]",
        "name[The Eagle], priceRange[£20-25], area[riverside]",
    ]
    examples = [
        {"input_text": {"table": builder._get_table_from_mr(meaning)}, "target_text": f"{number} {meaning}"}
        for meaning in meanings
        for number in range(2)
    ]
    splits = dict.fromkeys(("train", "validation", "test"), examples)
    write_tfds(tmp_path, "e2e_cleaned", features, splits, version="0.1.0")
    source = _source("e2e_nlg", data_dir=str(tmp_path))
    expected = sorted((meaning, f"{number} {meaning}") for meaning in meanings for number in range(2))
    assert sorted(_rows(source, "dev")) == expected
    assert registry.find("e2e_nlg").references == "same_inputs"
