"""Summarization tasks: MLSUM by language and mixed, CNN/DailyMail, OrangeSum, SAMSum."""

import json
import os
import zipfile
from pathlib import Path

import gin
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry
from tests.tasks.written import write_tfds


def _source(name, **settings):
    return registry.find(name).call(**settings)


def _rows(source, split="train"):
    return [row for block in source.splits[split]() for row in zip(*block.values(), strict=True)]


def _mlsum_lines(code, part, count):
    return "".join(
        json.dumps(
            {"text": f"{code} {part} Text {number}", "summary": f"Kurz {number}", "topic": "x", "url": "u"}
        )
        + "\n"
        for number in range(count)
    )


def _write_mlsum(folder, code, train=6, zipped=False):
    folder.mkdir(exist_ok=True)
    for part, count in (("train", train), ("val", 2), ("test", 3)):
        text = _mlsum_lines(code, part, count)
        if zipped:
            with zipfile.ZipFile(folder / f"{code}_{part}.zip", "w") as archive:
                archive.writestr(f"{code}_{part}.jsonl", text)
        else:
            (folder / f"{code}_{part}.jsonl").write_text(text)
    return str(folder)


@pytest.mark.parametrize(("code", "language", "name"), [("de", "de", "German"), ("tu", "tr", "Turkish")])
def test_mlsum_files_zipped_or_not(tmp_path, code, language, name):
    plain = _source(f"mlsum_{code}", folder=_write_mlsum(tmp_path / "plain", code))
    zipped = _source(f"mlsum_{code}", folder=_write_mlsum(tmp_path / "zipped", code, zipped=True))
    prompt = f"Summarize the following document in {name}: {code} train Text 0"
    assert _rows(plain)[0] == (prompt, "Kurz 0") and plain.target_language == language
    assert plain.examples == {"train": 6, "dev": 2, "test": 3}
    assert [_rows(zipped, split) for split in zipped.splits] == [
        _rows(plain, split) for split in plain.splits
    ]


def test_mlsum_of_gem_in_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    fields = ("gem_id", "gem_parent_id", "text", "topic", "url", "title", "date", "target")
    features = tfds.features.FeaturesDict(
        {**dict.fromkeys(fields, tfds.features.Text()), "references": tfds.features.Sequence(np.str_)}
    )
    example = {field: f"{field} ñ" for field in fields} | {"references": ["target ñ"]}
    splits = {name: [example] * count for name, count in (("train", 4), ("validation", 2), ("test", 1))}
    write_tfds(tmp_path, "gem", features, splits, "mlsum_es", "1.1.0")
    source = _source("mlsum_es", data_dir=str(tmp_path))
    assert _rows(source, "dev") == [("Summarize the following document in Spanish: text ñ", "target ñ")] * 2
    assert source.examples == {"train": 4, "dev": 2, "test": 1}
    with pytest.raises(InputError, match="mlsum_fr: data not found.*mlsum_fr.folder.*fr_train.zip"):
        _source("mlsum_fr", data_dir=str(tmp_path))


def test_cnn_dailymail_from_tfds_and_from_files(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    names = ("article", "highlights", "publisher", "id")
    features = tfds.features.FeaturesDict(dict.fromkeys(names, tfds.features.Text()))
    examples = [
        {
            "article": f"News, {number}.",
            "highlights": 'A "quoted" one.\nTwo.',
            "publisher": "cnn",
            "id": str(number),
        }
        for number in range(3)
    ]
    splits = {name: examples for name in ("train", "validation", "test")}
    write_tfds(tmp_path / "tfds", "cnn_dailymail", features, splits, version="3.4.0")
    prepared = _source("cnn_dailymail", data_dir=str(tmp_path / "tfds"))
    assert sorted(_rows(prepared, "dev"))[0] == (
        "Summarize the following document in English: News, 0.",
        'A "quoted" one.\nTwo.',
    )
    for name in splits:
        lines = ['"News, 0.","A ""quoted"" one.\nTwo."', '"News, 1.","A ""quoted"" one.\nTwo."']
        (tmp_path / f"{name}.csv").write_text("article,highlights\n" + "\n".join(lines) + "\n")
    local = _source("cnn_dailymail", folder=str(tmp_path))
    assert _rows(local, "test") == sorted(_rows(prepared, "test"))[:2]
    with pytest.raises(InputError, match="train.jsonl or train.csv in .*tfds"):
        _source("cnn_dailymail", folder=str(tmp_path / "tfds"))


def test_the_mixture_is_its_parts_end_to_end(tmp_path):

    _write_mlsum(tmp_path / "all", "de", train=30)
    _write_mlsum(tmp_path / "all", "fr", train=10)
    with gin.unlock_config():
        gin.bind_parameter("mlsum_de.folder", str(tmp_path / "all"))
        gin.bind_parameter("mlsum_fr.folder", str(tmp_path / "all"))
    source = _source("mlsum", parts=("mlsum_de", "mlsum_fr"))
    rows = _rows(source)
    assert len(rows) == source.examples["train"] == 40
    assert [("German" in inputs) for inputs, _ in rows] == [True] * 30 + [False] * 10
    assert source.groups["train"] == {"mlsum_de": 30, "mlsum_fr": 10}
    assert source.target_language is None
    with pytest.raises(InputError, match="mlsum_es: data not found"):
        _source("mlsum")
    with pytest.raises(InputError, match="plain_text is no part of a mixture"):
        _source("mlsum", parts=("plain_text",))
    alone = _source("mlsum", parts="mlsum_de")
    assert _rows(alone, "test") == _rows(_source("mlsum", parts=["mlsum_de"]), "test")
    with pytest.raises(InputError, match="belle_eval is no part of a mixture"):
        _source("mlsum", parts=("belle_eval",))
    with pytest.raises(InputError, match="lab_headline does not say how many examples"):
        _source("mlsum", parts=("lab_headline",))


def test_orangesum_files_of_both_forms(tmp_path):
    for name in ("train", "valid", "test"):
        (tmp_path / f"{name}.source").write_text("Un article.\nUn autre.\n")
        (tmp_path / f"{name}.target").write_text("Un.\nDeux.\n")
    folder = _source("orangesum", folder=str(tmp_path))
    assert _rows(folder, "dev")[1] == ("Summarize the following document in French: Un autre.", "Deux.")
    (tmp_path / "mine.jsonl").write_text('{"article": "Un.", "heading": "1", "title": "t"}\n')
    mixed = _source(
        "orangesum", folder=str(tmp_path), train=str(tmp_path / "mine.jsonl"), template="{source}"
    )
    assert _rows(mixed) == [("Un.", "1")] and mixed.examples == {"train": 1, "dev": 2, "test": 2}
    (tmp_path / "test.target").unlink()
    with pytest.raises(InputError, match=r"test.source and test.target in .*abstract.tgz"):
        _source("orangesum", folder=str(tmp_path))
    with pytest.raises(InputError, match="orangesum.folder and .train, which are not set"):
        _source("orangesum")


def test_samsum_from_tfds_and_from_files(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    record = {"id": "1", "dialogue": "Ann: Hi!\r\nBob: Hey 😀", "summary": "They greet."}
    splits = {"train": [record], "validation": [record], "test": [record]}
    features = tfds.features.FeaturesDict(dict.fromkeys(record, tfds.features.Text()))
    write_tfds(tmp_path / "tfds", "samsum", features, splits)
    expected = [("Summarize the following dialogue: Ann: Hi!\nBob: Hey 😀", "They greet.")]
    assert _rows(_source("samsum", data_dir=str(tmp_path / "tfds")), "dev") == expected
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").write_text(json.dumps([record], indent=1))
    (tmp_path / "corpus.7z").touch()
    with pytest.raises(InputError, match=r"test.json in .*corpus.7z is there: unpack it"):
        _source("samsum", folder=str(tmp_path))
    with zipfile.ZipFile(tmp_path / "test.zip", "w") as archive:
        archive.writestr("test.json", json.dumps([record]))
    assert _rows(_source("samsum", folder=str(tmp_path)), "test") == expected


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a", "summary": "b"}\n{"text": "a"}\n', r"de_train.jsonl:2: no field 'summary'"),
        (
            '{"text": "a", "summary": 3}\n',
            r"de_train.jsonl:1: field 'summary' must be a string, this is a int",
        ),
        ('{"text": "a" "summary"}\n', r"de_train.jsonl:1:14: not JSON"),
    ],
)
def test_bad_lines_are_named(tmp_path, content, said):
    folder = _write_mlsum(tmp_path / "m", "de")
    (tmp_path / "m/de_train.jsonl").write_text(content)
    with pytest.raises(InputError, match=said):
        _source("mlsum_de", folder=folder)


def test_an_archive_of_two_files_is_refused(tmp_path):
    folder = _write_mlsum(tmp_path / "m", "de", zipped=True)
    with zipfile.ZipFile(tmp_path / "m/de_train.zip", "a") as archive:
        archive.writestr("README", "x")
    with pytest.raises(InputError, match="de_train.zip: holds 2 files, one is needed"):
        _source("mlsum_de", folder=folder)
    _write_mlsum(tmp_path / "locked", "de", zipped=True)
    whole = bytearray((tmp_path / "locked/de_train.zip").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        whole[whole.index(header) + flags] |= 1
    (tmp_path / "m/de_train.zip").write_bytes(whole)
    with pytest.raises(InputError, match="de_train.zip: cannot be read after line 0 .*encrypted"):
        _source("mlsum_de", folder=folder)
    (tmp_path / "m/de_train.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match="de_train.zip: cannot be read"):
        _source("mlsum_de", folder=folder)


@pytest.mark.skipif(
    "SCALING_JAX_DATA" not in os.environ, reason="SCALING_JAX_DATA (the folder of real data) is not set"
)
def test_real_orangesum():
    folder = Path(os.environ["SCALING_JAX_DATA"]) / "orangesum_fr"
    test = tuple(str(folder / f"test.abstracts.{side}.txt") for side in ("source_documents", "gold"))
    source = _source(
        "orangesum",
        train=str(folder / "train.first2000.jsonl"),
        dev=str(folder / "valid.first500.jsonl"),
        test=test,
    )
    assert source.examples == {"train": 2000, "dev": 500, "test": 1500}
    assert _rows(source)[0][0].startswith(
        "Summarize the following document in French: Thierry Mariani sur la"
    )
    assert _rows(source, "test")[0][1].startswith("En janvier dernier, l'animateur de D8")


def test_a_store_of_a_mixture_keeps_its_parts_for_nested_subsets(tmp_path):
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    from scaling_jax import configuration
    from scaling_jax.data.batches import nested_subset
    from scaling_jax.data.store import open_store
    from scaling_jax.tasks import prepare

    sizes = {"de": 30, "fr": 10}
    folders = {code: _write_mlsum(tmp_path / "all", code, train=size) for code, size in sizes.items()}
    registry.load_all()
    bindings = [
        "prepare.stores = [@task_store()]",
        "prepare.vocabulary = @byte_vocabulary()",
        "task_store.task = 'mlsum'",
        "task_store.feature_lengths = {'inputs': 90, 'targets': 20}",
        "mlsum.parts = ('mlsum_de', 'mlsum_fr')",
        *(f"mlsum_{code}.folder = '{folder}'" for code, folder in folders.items()),
    ]
    configuration.parse([], bindings)
    store = open_store(prepare.prepare(tmp_path / "stores", say=lambda line: None)["mlsum"])
    train = store.split("train")
    assert train.groups == {"mlsum_de": 30, "mlsum_fr": 10}
    assert (store.manifest["scores"], store.manifest["target_language"]) == (["rouge"], None)
    chosen = nested_subset(len(train), 8, 0, train.groups)
    texts = [bytes(train[index]["inputs"][:-1].astype("uint8") - 3).decode() for index in chosen]
    assert sum("in German: de train" in text for text in texts) == 6
    assert sum("in French: fr train" in text for text in texts) == 2
