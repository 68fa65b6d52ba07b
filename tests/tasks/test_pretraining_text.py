"""mC4 and mixtures of pretraining text."""

import gzip
import itertools
import json
import os
from pathlib import Path

import gin
import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.tasks import registry
from tests.tasks.written import write_tfds


def _texts(source, split="train"):
    return [text for block in source.splits[split]() for text in block["targets"]]


def _write_mc4(folder, language, pages):
    folder.mkdir(exist_ok=True)
    shards = {f"c4-{language}.tfrecord-0000{number}-of-00002": pages[number::2] for number in range(2)}
    shards[f"c4-{language}-validation.tfrecord-00000-of-00001"] = pages[:2]
    for name, texts in shards.items():
        lines = "".join(json.dumps({"text": text, "timestamp": "t", "url": "u"}) + "\n" for text in texts)
        (folder / f"{name}.json.gz").write_bytes(gzip.compress(lines.encode()))
    return str(folder)


def test_mc4_files_of_one_language(tmp_path):
    folder = _write_mc4(tmp_path / "multilingual", "de", [f"Seite {number}\nZeile" for number in range(6)])
    _write_mc4(tmp_path / "multilingual", "en", ["page"] * 4)
    source = registry.find("mc4").call(language="de", folder=folder)
    assert _texts(source) == [f"Seite {number}\nZeile" for number in (0, 2, 4, 1, 3, 5)]
    assert _texts(source, "dev") == ["Seite 0\nZeile", "Seite 1\nZeile"]
    packed = tmp_path / "multilingual/c4-de.tfrecord-00000-of-00002.json.gz"
    packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    assert _texts(registry.find("mc4").call(language="de", folder=folder)) == _texts(source), "not twice"
    packed.with_suffix("").unlink()
    first = registry.find("mc4").call(language="de", folder=folder, train_documents=4, dev_documents=1)
    assert _texts(first) == _texts(source)[:4] and len(_texts(first, "dev")) == 1
    assert first.identity["train"] == source.identity["train"]
    assert first.identity["train_documents"] != source.identity["train_documents"]
    with pytest.raises(InputError, match=r"Looked for c4-fr\.\*\.json\* in .*allenai/c4"):
        registry.find("mc4").call(language="fr", folder=folder)
    with pytest.raises(InputError, match="train_documents = 0"):
        registry.find("mc4").call(folder=folder, train_documents=0)


def test_mc4_of_tfds(tmp_path):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    fields = ("text", "url", "content-type", "content-length", "timestamp")
    features = tfds.features.FeaturesDict(dict.fromkeys(fields, tfds.features.Text()))
    pages = [dict.fromkeys(fields, "x") | {"text": f"网页 {number}"} for number in range(5)]
    write_tfds(tmp_path, "c4", features, {"zh": pages, "zh-validation": pages[:2]}, "multilingual", "3.1.0")
    source = registry.find("mc4").call(language="zh", data_dir=str(tmp_path))
    assert sorted(_texts(source)) == [f"网页 {number}" for number in range(5)]
    assert len(_texts(source, "dev")) == 2
    with pytest.raises(InputError, match="no split 'de'"):
        registry.find("mc4").call(language="de", data_dir=str(tmp_path))


@pytest.fixture
def two_texts(tmp_path):
    """Two parts bound under their scopes: short lines and long ones."""
    files = {}
    for name, length, count in (("short", 10, 3000), ("long", 100, 400)):
        files[name] = tmp_path / name
        files[name].write_text("".join(f"{name[0]}{number:0{length - 1}}\n" for number in range(count)))
    configuration.parse([], [f"{name}/plain_text.train = '{path}'" for name, path in files.items()])
    return {"short": "plain_text", "long": "plain_text"}


def _amounts(texts, amount):
    return [
        {name: sum(amount(text) for text in texts[:end] if text[0] == name[0]) for name in ("short", "long")}
        for end in (200, len(texts))
    ]


@pytest.mark.parametrize(("measure", "amount"), [("characters", len), ("documents", lambda text: 1)])
def test_every_prefix_of_a_mixture_has_the_shares(two_texts, measure, amount):
    task = registry.find("text_mixture")
    shares = {"short": 0.3, "long": 0.7}
    with gin.config_scope("pretrain"):  # as inside a task_store
        source = task.call(parts=two_texts, shares=shares, measure=measure)
    texts = _texts(source)
    for amounts in _amounts(texts, amount):
        total = sum(amounts.values())
        for name, share in shares.items():
            assert abs(amounts[name] - share * total) <= amount("x" * 100)
    # The order of each part is its own, and one of them is used up.
    for name in two_texts:
        own = [text for text in texts if text[0] == name[0]]
        assert own == sorted(own)
    counts = {name: sum(text[0] == name[0] for text in texts) for name in two_texts}
    assert counts["long"] == 396 or counts["short"] == 2970
    assert _texts(source) == texts
    assert "short 0.3, long 0.7" in source.notes[-1]


def test_shares_of_tokens_by_the_vocabulary(two_texts, tmp_path):
    library = pytest.importorskip("sentencepiece", reason="needs the extra: tasks")
    from scaling_jax.tasks import vocabularies

    lines = (f"{letter}{number:09}" for number in range(500) for letter in "sl")
    file = vocabularies.sentencepiece(40).make(lines, tmp_path)
    processor = library.SentencePieceProcessor(model_file=str(file.path))
    source = registry.find("text_mixture").call(parts=two_texts, measure="tokens", model=str(file.path))
    amounts = _amounts(_texts(source), lambda text: len(processor.encode(text)) + 1)[0]
    assert abs(amounts["short"] - amounts["long"]) <= 101
    with pytest.raises(InputError, match="measure 'tokens' needs the vocabulary's .model"):
        registry.find("text_mixture").call(parts=two_texts, measure="tokens")


def test_bad_mixtures(two_texts):
    call = registry.find("text_mixture").call
    for settings, said in [
        ({}, "text_mixture.parts is not set"),
        ({"parts": two_texts, "shares": {"short": 1.0}}, "same names; 'long' is in one"),
        ({"parts": two_texts, "shares": {"short": 0.5, "long": 0.6}}, "each above 0, together 1"),
        ({"parts": two_texts, "measure": "words"}, "text_mixture.measure = 'words'"),
        ({"parts": {"a": "parallel_text"}}, "'parallel_text' is no text to pretrain on"),
        ({"parts": {"nobody": "plain_text"}}, "plain_text.train is not set"),
    ]:
        with pytest.raises(InputError, match=said):
            call(**settings)


@pytest.mark.skipif(
    "SCALING_JAX_DATA" not in os.environ, reason="SCALING_JAX_DATA (the folder of real data) is not set"
)
def test_a_mixture_of_real_text():
    data = Path(os.environ["SCALING_JAX_DATA"])
    english, german = data / "mono_en/wiki_demo.txt", data / "mono_de/corpus.de"
    configuration.parse([], [f"en/plain_text.train = '{english}'", f"de/plain_text.train = '{german}'"])
    parts = {"en": "plain_text", "de": "plain_text"}
    texts = _texts(registry.find("text_mixture").call(parts=parts, shares={"en": 0.3, "de": 0.7}))
    lines = set(english.read_text("utf-8").split("\n"))
    size = {True: 0, False: 0}
    for is_english, group in itertools.groupby(texts, lambda text: text in lines):
        size[is_english] += sum(map(len, group))
    longest = max(map(len, texts))
    assert abs(size[True] - 0.3 * sum(size.values())) <= longest
