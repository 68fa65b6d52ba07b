"""The gin files of the papers' tasks, run from end to end on small files in the published formats."""

import gzip
import json
from pathlib import Path

import pytest

from scaling_jax import configuration
from scaling_jax.data.store import open_store
from scaling_jax.tasks import prepare, registry
from scaling_jax.tasks.languages import FLORES as CODES

ROOT = Path(__file__).parents[2]
WORDS = {
    "de": "der Hund läuft",
    "en": "the dog runs",
    "fr": "le chien court",
    "ro": "câinele aleargă",
}
FEW = {"inputs": 64, "targets": 48}


def _prepare(name, out, bindings):
    registry.load_all()
    configuration.parse([str(ROOT / f"gin_configs/tasks/{name}.gin")], bindings)
    paths = prepare.prepare(out, say=lambda line: None)
    return {name: open_store(path) for name, path in paths.items()}


def _sentences(language, count, salt=""):
    return [f"{WORDS[language]} {salt}{number}." for number in range(count)]


def _lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


# Our own, twice as long as such sentences are on average.
HINDI = (
    "राष्ट्रपति ने अपने भाषण में कहा कि सरकार अगले साल के बजट में शिक्षा और स्वास्थ्य सेवाओं पर "
    "अधिक धन खर्च करेगी, लेकिन विपक्ष के नेताओं ने इस योजना की आलोचना करते हुए कहा कि इसमें "
    "गाँवों के किसानों और छोटे व्यापारियों के लिए कुछ भी नया नहीं है और करों का बोझ पहले से "
    "अधिक बढ़ जाएगा।"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Files of mC4, WMT, Flores-200, MLSUM and CNN/DailyMail under their published names."""
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    folder = tmp_path_factory.mktemp("data")
    (folder / "mc4").mkdir()
    for language in WORDS:
        for part, count in (("", 300), ("-validation", 120)):
            pages = [json.dumps({"text": f"{text} {text}"}) for text in _sentences(language, count, part)]
            name = f"c4-{language}{part}.tfrecord-00000-of-00001.json.gz"
            (folder / "mc4" / name).write_bytes(gzip.compress("\n".join(pages).encode()))
    corpora = {
        "wmt14": ("de", ["europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v9.de-en"]),
        "wmt17": (
            "de",
            ["europarl-v7.de-en", "commoncrawl.de-en", "news-commentary-v12.de-en", "rapid2016.de-en"],
        ),
        "wmt15": (
            "fr",
            ["europarl-v7.fr-en", "commoncrawl.fr-en", "undoc.2000.fr-en", "news-commentary-v10.fr-en"]
            + ["giga-fren.release2.fixed"],
        ),
        "wmt16": ("ro", ["europarl-v8.ro-en", "SETIMES.en-ro"]),
    }
    for year, (other, stems) in corpora.items():
        for stem in stems:
            for language in (other, "en"):
                _lines(folder / year / f"{stem}.{language}", _sentences(language, 40, stem))
    sets = {"de": ("wmt13", "wmt16", "wmt17", "wmt20", "wmt21", "wmt22"), "fr": ("wmt14_full", "wmt15")}
    for other, names in (sets | {"ro": ("wmt16_dev", "wmt16")}).items():
        for name in names:
            _lines(folder / f"sets/{name}.en-{other}.src", _sentences("en", 5, name))
            _lines(folder / f"sets/{name}.en-{other}.ref", _sentences(other, 5, name))
    for part in ("dev", "devtest"):
        for language in ("de", "fr", "hi", "tr", "pl", "zh"):
            _lines(folder / f"flores200_dataset/{part}/{CODES[language]}.{part}", ["the dog runs."] * 4)
        _lines(folder / f"flores200_dataset/{part}/hin_Deva.{part}", [HINDI] * 4)
    for code in ("de", "es", "fr"):
        for part, count in (("train", 20), ("val", 4), ("test", 4)):
            rows = [json.dumps({"text": f"der Hund {number}", "summary": "Hund"}) for number in range(count)]
            _lines(folder / f"mlsum/{code}_{part}.jsonl", rows)
    for part, count in (("train", 20), ("validation", 4), ("test", 4)):
        rows = [json.dumps({"article": f"the dog {number}", "highlights": "dog"}) for number in range(count)]
        _lines(folder / f"cnn/{part}.jsonl", rows)
    return folder


@pytest.fixture(scope="module")
def english_german(data, tmp_path_factory):
    bindings = [
        f"MC4 = '{data}/mc4'",
        f"WMT = '{data}/wmt14'",
        f"WMT_SETS = '{data}/sets'",
        "mono_en/task_store.window = 32",
        "mono_de/task_store.window = 32",
        f"finetune/task_store.feature_lengths = {FEW}",
        "sentencepiece.size = 400",
    ]
    return _prepare("wmt14_en_de", tmp_path_factory.mktemp("en_de"), bindings)


def test_wmt14_and_its_pretraining_text(english_german):
    counts = {
        name: {split: entry["examples"] for split, entry in store.manifest["splits"].items()}
        for name, store in english_german.items()
    }
    assert counts["finetune"] == {"train": 120, "dev": 5, "test": 15}
    assert set(counts["mono_en"]) == set(counts["mono_de"]) == {"train", "dev"}
    manifest = english_german["finetune"].manifest
    assert (manifest["target_language"], manifest["scores"]) == ("de", ["bleu", "chrf"])
    text = english_german["finetune"].split("test").texts()[5]
    assert text == {
        "inputs": "translate English to German: the dog runs wmt210.",
        "targets": "der Hund läuft wmt210.",
    }
    assert english_german["mono_en"].vocabulary.extra_ids == 256


def test_flores_and_mlsum_in_that_vocabulary(data, english_german, tmp_path):
    model = english_german["mono_en"].vocabulary.path
    # Three of the ten.
    stores = "[@flores_fr_de/task_store(), @flores_pl_zh/task_store(), @flores_hi_de/task_store()]"
    stores = f"prepare.stores = {stores}"
    bindings = [f"FLORES = '{data}'", f"VOCABULARY = '{model}'", stores]
    stores = _prepare("flores", tmp_path / "flores", bindings)
    assert set(stores) == {"flores_fr_de", "flores_pl_zh", "flores_hi_de"}
    hindi = stores["flores_hi_de"].split("test").lengths("inputs")
    assert 2.5 * len(HINDI) < hindi.max() < 800, "in bytes, and whole"
    for name, store in stores.items():
        assert list(store.manifest["splits"]) == ["dev", "test"]
        assert store.manifest["target_language"] == name.split("_")[2]
        assert store.vocabulary.sha256() == english_german["finetune"].vocabulary.sha256()
        assert store.vocabulary.size == english_german["finetune"].vocabulary.size
    bindings = [f"MLSUM = '{data}/mlsum'", f"CNN_DAILYMAIL = '{data}/cnn'", f"VOCABULARY = '{model}'"]
    store = _prepare("mlsum", tmp_path / "mlsum", bindings)["finetune"]
    assert store.split("train").groups == dict.fromkeys(
        ("mlsum_de", "mlsum_es", "mlsum_fr", "cnn_dailymail"), 20
    )
    assert (
        store.split("test").texts()[-1]["inputs"] == "Summarize the following document in English: the dog 3"
    )


@pytest.mark.slow
def test_isik2024(data, english_german, tmp_path):
    folders = [f"WMT{year} = '{data}/wmt{year}'" for year in (15, 16, 17)]
    bindings = [
        f"MC4 = '{data}/mc4'",
        f"WMT_SETS = '{data}/sets'",
        f"VOCABULARY = '{english_german['mono_en'].vocabulary.path}'",
        *folders,
        *(f"mono_{language}/task_store.window = 32" for language in ("en", "de", "fr", "ro")),
    ]
    stores = _prepare("isik2024", tmp_path, bindings)
    examples = {
        name: [entry["examples"] for entry in stores[name].manifest["splits"].values()]
        for name in ("en_de", "en_fr", "en_ro")
    }
    assert examples == {"en_de": [160, 5, 5], "en_fr": [200, 5, 5], "en_ro": [80, 5, 5]}
    assert len(stores) == 7


@pytest.mark.parametrize("name", ["wmt19_en_zh", "wmt14_en_de", "mlsum", "flores", "isik2024"])
def test_without_data_the_error_says_what_to_bind(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match="data not found. Looked for .*To get it: "):
        _prepare(name, tmp_path / "out", ["prepare.vocabulary = @byte_vocabulary()"])
