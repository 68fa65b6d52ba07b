"""Translation tasks: raw files, TFDS data, WMT's test sets, Flores-200."""

import gzip
import os
import urllib.error
from pathlib import Path

import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry, tfds_data
from tests.tasks.written import write_sacrebleu_cache, write_sacrebleu_xml, write_tfds

PROMPT = "translate English to German: "
SENTENCES = {
    "de": ["Eins.", "Zwei.", "Drei."],
    "en": ["One.", "Two.", "Three."],
    "zh": ["一。", "二。", "三。"],
}
real_data = pytest.mark.skipif(
    "SCALING_JAX_DATA" not in os.environ, reason="SCALING_JAX_DATA (the folder of real data) is not set"
)


def _source(name, **settings):
    return registry.find(name).call(**settings)


def _rows(source, split="train"):
    return [row for block in source.splits[split]() for row in zip(*block.values(), strict=True)]


def _lines(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def _test_set(folder, name, pair, lines=2):
    for side, language in zip(("src", "ref"), pair.split("-"), strict=True):
        _lines(folder / f"{name}.{pair}.{side}", [f"{name} {line}" for line in SENTENCES[language][:lines]])


@pytest.fixture
def sets(tmp_path):
    """Dev and test sets of the English-German and English-Chinese tasks under sacrebleu's names."""
    folder = tmp_path / "sets"
    for pair in ("en-de", "de-en", "en-zh"):
        for name in ("wmt13", "wmt17_dev", "wmt20", "wmt21", "wmt22"):
            _test_set(folder, name, pair)
    return str(folder)


@pytest.fixture
def no_network(tmp_path, monkeypatch):
    """sacrebleu with an empty cache and no network."""
    dataset = pytest.importorskip("sacrebleu.dataset", reason="needs the extra: scores")
    for name in ("wmt13", "wmt20", "wmt21", "wmt22"):
        monkeypatch.setattr(dataset.DATASETS[name], "_outdir", str(tmp_path / "cache" / name))
        monkeypatch.setattr(dataset.DATASETS[name], "_rawdir", str(tmp_path / "cache" / name / "raw"))

    def fails(*_):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", fails)
    return tmp_path / "cache"


def test_raw_files_of_both_directions(tmp_path, sets):
    raw = tmp_path / "raw"
    _lines(raw / "training/europarl-v7.de-en.de", ["Eins.", "", "Drei."])
    _lines(raw / "training/europarl-v7.de-en.en", ["One.", "Two.", "Three."])
    _lines(raw / "commoncrawl.de-en.de.gz", ["Vier."])
    _lines(raw / "commoncrawl.de-en.en.gz", ["Four."])
    _lines(raw / "news-commentary-v9.de-en.de", ["Fünf."])
    _lines(raw / "news-commentary-v9.de-en.en", ["Five."])
    there = _source("wmt14_en_de", folder=str(raw), test_folder=sets)
    back = _source("wmt14_de_en", folder=str(raw), test_folder=sets)
    assert _rows(there) == [
        (f"{PROMPT}One.", "Eins."),
        (f"{PROMPT}Three.", "Drei."),
        (f"{PROMPT}Four.", "Vier."),
        (f"{PROMPT}Five.", "Fünf."),
    ]
    assert _rows(back)[0] == ("translate German to English: Eins.", "One.")
    assert (there.target_language, back.target_language) == ("de", "en")
    assert "1 of 5 pairs have an empty side" in there.notes[0]
    assert _rows(there, "dev") == [
        (f"{PROMPT}wmt13 One.", "wmt13 Eins."),
        (f"{PROMPT}wmt13 Two.", "wmt13 Zwei."),
    ]
    names = [target.split()[0] for _, target in _rows(there, "test")]
    assert names == ["wmt20", "wmt20", "wmt21", "wmt21", "wmt22", "wmt22"]
    assert there.examples == {"train": 4, "dev": 2, "test": 6}
    moved = tmp_path / "elsewhere"
    raw.rename(moved)
    assert _source("wmt14_en_de", folder=str(moved), test_folder=sets).identity == there.identity


def test_chinese_raw_files_in_all_their_forms(tmp_path, sets):
    raw = tmp_path / "raw"
    _lines(raw / "news-commentary-v14.en-zh.tsv.gz", ["One.\t一。", "", "no tab", "Two.\t二。"])
    _lines(raw / "wikititles-v1.zh-en.tsv", ["三\tThree"])
    for letter, number in (("A", "4"), ("B", "5")):
        _lines(raw / f"casict2011/casict-{letter}_ch.txt", [f"中{number}"])
        _lines(raw / f"casict2011/casict-{letter}_en.txt", [f"en{number}"])
    corpora = ("news-commentary-v14.en-zh.tsv", "wikititles-v1.zh-en.tsv", "casict2011/*_{lang}.txt")
    source = _source("wmt19_en_zh", folder=str(raw), corpora=corpora, test_folder=sets, template="{source}")
    assert _rows(source) == [
        ("One.", "一。"),
        ("Two.", "二。"),
        ("Three", "三"),
        ("en4", "中4"),
        ("en5", "中5"),
    ]
    assert _rows(source, "dev")[0] == ("wmt17_dev One.", "wmt17_dev 一。")
    assert source.target_language == "zh"


def test_training_pairs_of_tfds(tmp_path, sets):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    features = tfds.features.Translation(languages=("de", "en"))
    examples = [{"de": f"Satz {number} — „ä“", "en": f"Sentence {number}"} for number in range(20)]
    path = write_tfds(
        tmp_path / "tfds", "wmt14_translate", features, {"train": examples, "test": examples[:3]}, "de-en"
    )
    assert path == tmp_path / "tfds/wmt14_translate/de-en/1.0.0"
    source = _source("wmt14_en_de", data_dir=str(tmp_path / "tfds"), test_folder=sets)
    found = _rows(source)
    # The library's own builder of that name reads the same, in the same order.
    loaded = tfds.load("wmt14_translate/de-en", data_dir=tmp_path / "tfds", split="train", download=False)
    expected = [
        (f"{PROMPT}{pair['en'].decode()}", pair["de"].decode()) for pair in loaded.as_numpy_iterator()
    ]
    assert found == expected and sorted(found) == sorted(
        (f"{PROMPT}{example['en']}", example["de"]) for example in examples
    )
    assert source.identity["train"][0] == "wmt14_translate/de-en:1.0.0 train"
    with pytest.raises(InputError, match="no split 'dev'; known: test, train"):
        tfds_data.find("wmt14_translate/de-en", str(tmp_path / "tfds"), []).identity("dev")


def test_data_of_tfds_that_cannot_be_read(tmp_path, sets):
    tfds = pytest.importorskip("tensorflow_datasets", reason="needs the extra: tasks")
    features = tfds.features.Translation(languages=("de", "en"))
    examples = [{"de": f"Satz {number}", "en": f"Sentence {number}"} for number in range(20)]
    settings = {"data_dir": str(tmp_path), "test_folder": sets}
    path = write_tfds(tmp_path, "wmt14_translate", features, {"train": examples}, "de-en")
    (shard,) = path.glob("*.tfrecord*")
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"de-en/1.0.0: cannot be read \(truncated record"):
        _source("wmt14_en_de", **settings)
    shard.unlink()
    with pytest.raises(InputError, match="de-en/1.0.0: cannot be read .*No such file"):
        _source("wmt14_en_de", **settings)
    (path / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match="dataset_info.json: cannot be read"):
        _source("wmt14_en_de", **settings)
    newer = write_tfds(
        tmp_path, "wmt14_translate", features, {"train": examples}, "de-en", "1.0.10", "array_record"
    )
    with pytest.raises(InputError, match=f"{newer}: written as array_record"):
        _source("wmt14_en_de", **settings)


def test_a_set_in_sacrebleus_cache_is_read_through_it(tmp_path, sets, no_network):
    write_sacrebleu_cache(no_network, "wmt13", "en-de", SENTENCES["en"], SENTENCES["de"])
    raw = tmp_path / "raw"
    _lines(raw / "own.de", ["Eins."])
    _lines(raw / "own.en", ["One."])
    for name in ("wmt20", "wmt21", "wmt22"):
        for side in ("src", "ref"):
            (raw / f"{name}.en-de.{side}").write_bytes((Path(sets) / f"{name}.en-de.{side}").read_bytes())
    source = _source("wmt14_en_de", folder=str(raw), corpora=["own.{lang}"])
    assert _rows(source, "dev") == [
        (PROMPT + english, german) for english, german in zip(SENTENCES["en"], SENTENCES["de"], strict=True)
    ]


def test_of_several_references_sacrebleus_first_is_the_target(tmp_path, no_network):
    references = {"B": ["b1", "b2", "b3"], "A": SENTENCES["de"], "C": ["c1", "c2", "c3"]}
    write_sacrebleu_xml(no_network, "wmt21", "en-de", SENTENCES["en"], references)
    for language in ("de", "en"):
        _lines(tmp_path / f"raw/own.{language}", SENTENCES[language])
    settings = {"corpora": ["own.{lang}"], "dev_sets": (), "test_sets": ["wmt21"]}
    source = _source("wmt14_en_de", folder=str(tmp_path / "raw"), **settings)
    assert _rows(source, "test") == _rows(source)


def test_sets_under_wmts_own_file_names(tmp_path):
    raw = tmp_path / "raw"
    for language in ("de", "en"):
        _lines(raw / f"own.{language}", SENTENCES[language])
        _lines(raw / f"newstest2013.{language}.gz", SENTENCES[language])
    for side, language in (("src", "en"), ("ref", "de")):
        segments = [f'<seg id="{number}"> {line} </seg>' for number, line in enumerate(SENTENCES[language])]
        _lines(raw / f"newstest2020-ende-{side}.{language}.sgm", ["<refset>", *segments, "</refset>"])
    source = _source("wmt14_en_de", folder=str(raw), corpora=["own.{lang}"], test_sets=["wmt20"])
    texts = _source("wmt14_en_de", folder=str(raw), corpora="own.{lang}", dev_sets="wmt13", test_sets="wmt20")
    for split in ("train", "dev", "test"):
        assert _rows(texts, split) == _rows(source, split), "a text alone is a list of one"
    assert _rows(source, "dev") == _rows(source, "test") == _rows(source, "train")
    _lines(raw / "newstest2020-ende-ref.de.sgm", ['<seg id="1">Eins.</seg>'])
    with pytest.raises(InputError, match=r"src.en.sgm has 3 segments and .*ref.de.sgm has 1"):
        _source("wmt14_en_de", folder=str(raw), corpora=["own.{lang}"], test_sets=["wmt20"])


def test_data_that_is_nowhere(tmp_path, sets, no_network):
    with pytest.raises(InputError) as error:
        _source("wmt19_en_zh", data_dir=str(tmp_path / "empty"))
    for said in (f"{tmp_path}/empty/wmt19_translate/zh-en", "tfds build wmt19_translate/zh-en", "statmt"):
        assert said in str(error.value) + registry.find("wmt19_en_zh").data.source
    raw = tmp_path / "raw"
    _lines(raw / "own.de", ["Eins."])
    with pytest.raises(InputError, match=r"own.\{lang\}: 0 files of en and 1 of de"):
        _source("wmt14_en_de", folder=str(raw), corpora=["own.{lang}"], test_folder=sets)
    with pytest.raises(InputError, match=r"have no europarl-v7.de-en.\{lang\}.*bind wmt14_en_de.corpora"):
        _source("wmt14_en_de", folder=str(raw), test_folder=sets)
    with pytest.raises(InputError, match=r"'own.tsv' has neither \{lang\} nor a name that ends in en-de.tsv"):
        _source("wmt14_en_de", folder=str(raw), corpora=["own.tsv"], test_folder=sets)
    with pytest.raises(InputError, match="wmt14_en_de.folder: no folder"):
        _source("wmt14_en_de", folder=str(tmp_path / "nowhere"))
    _lines(raw / "own.en", ["One."])
    with pytest.raises(InputError) as error:
        _source("wmt14_en_de", folder=str(raw), corpora=["own.{lang}"])
    for said in (
        "wmt13.en-de.src with wmt13.en-de.ref",
        "newstest2013.en",
        "no network",
        "sacrebleu -t wmt13",
    ):
        assert said in str(error.value)
    with pytest.raises(InputError, match=r"no test set 'wmt30' of en-de; it has .*wmt20"):
        _source("wmt14_en_de", folder=str(raw), corpora=["own.{lang}"], dev_sets=["wmt30"])


def test_an_unknown_pair_is_named():
    with pytest.raises(InputError, match=r"no task 'wmt14_en_xx'; did you mean 'wmt14_en_de'"):
        registry.find("wmt14_en_xx")
    pairs = ["wmt14_de_en", "wmt14_en_de", "wmt15_en_fr", "wmt15_fr_en", "wmt16_en_ro", "wmt16_ro_en"]
    pairs += ["wmt17_de_en", "wmt17_en_de", "wmt19_en_zh", "wmt19_zh_en"]
    assert [name for name in registry.all_tasks() if name.startswith("wmt")] == pairs
    assert registry.find("wmt19_zh_en_v1").scores == ("bleu", "chrf")


@pytest.fixture
def flores(tmp_path):
    for part in ("dev", "devtest"):
        for language, code in (("de", "deu_Latn"), ("en", "eng_Latn"), ("zh", "zho_Hans")):
            _lines(tmp_path / f"flores200_dataset/{part}/{code}.{part}", SENTENCES[language])
        for code in ("ast_Latn", "swh_Latn", "zho_Hant", "qqq_Latn"):
            _lines(tmp_path / f"flores200_dataset/{part}/{code}.{part}", ["Ún.", "Dos.", "Tres."])
    return str(tmp_path)


def test_flores_directions(flores):
    source = _source("flores200", folder=flores, source="de", target="zh")
    assert list(source.splits) == ["dev", "test"] and source.target_language == "zh"
    assert _rows(source, "test")[1] == ("translate German to Chinese: Zwei.", "二。")
    same = _source("flores200", folder=f"{flores}/flores200_dataset", source="deu_Latn", target="zho_Hans")
    assert _rows(same, "dev") == _rows(source, "dev")
    other = _source("flores200", folder=flores, source="ast_Latn", target="de", template="{source}")
    assert _rows(other, "test")[0] == ("Ún.", "Eins.")
    with pytest.raises(InputError, match="'qqq_Latn': not a language that is known here"):
        _source("flores200", folder=flores, source="qqq_Latn", target="de")
    with pytest.raises(InputError, match=r"flores200.source = 'xx': .*no such language; known: ast_Latn"):
        _source("flores200", folder=flores, source="xx", target="de")
    with pytest.raises(InputError, match=r"data not found. Looked for .*devtest.*flores200_dataset.tar.gz"):
        _source("flores200", folder=f"{flores}/flores200_dataset/dev")
    with pytest.raises(InputError, match="flores200.folder, which is not set"):
        _source("flores200")


@pytest.mark.parametrize(
    ("source", "target", "prompt", "language"),
    [
        ("ast_Latn", "de", "translate Asturian to German: Ún.", "de"),
        ("swh_Latn", "zho_Hant", "translate Swahili to Chinese (Traditional): Ún.", "zh"),
        ("sw", "ast_Latn", "translate Swahili to Asturian: Ún.", "ast"),
        ("zho_Hant", "zh", "translate Chinese (Traditional) to Chinese: Ún.", "zh"),
    ],
)
def test_every_language_of_flores(flores, source, target, prompt, language):
    found = _source("flores200", folder=flores, source=source, target=target)
    assert _rows(found, "test")[0][0] == prompt and found.target_language == language


@pytest.mark.parametrize(("source", "target"), [("de", "de"), ("zh", "zho_Hans"), ("swh_Latn", "sw")])
def test_flores_of_one_language_is_refused(flores, source, target):
    with pytest.raises(InputError, match="are one language: name two"):
        _source("flores200", folder=flores, source=source, target=target)


@real_data
def test_real_files(tmp_path):
    data = Path(os.environ["SCALING_JAX_DATA"])
    multi30k = _source(
        "wmt17_en_de", folder=str(data / "multi30k"), corpora=["train.{lang}"], dev_sets=(), test_sets=()
    )
    assert multi30k.examples == {"train": 29000}
    assert _rows(multi30k)[0] == (
        f"{PROMPT}Two young, White males are outside near many bushes.",
        "Zwei junge weiße Männer sind im Freien in der Nähe vieler Büsche.",
    )
    newsdev = str(data / "wmt16_enro_newsdev")
    romanian = _source("wmt16_en_ro", folder=newsdev, corpora=["newsdev2016.{lang}"], test_sets=())
    assert romanian.examples == {"train": 1999, "dev": 1999}
    assert _rows(romanian, "dev") == _rows(romanian)
    assert _rows(romanian)[0][1].startswith("Fostul șef al cabinetului prezidențial brazilian")
    (tmp_path / "tatoeba.en-zh.tsv").symlink_to(data / "tatoeba_enzh/cmn.txt")
    chinese = _source(
        "wmt19_zh_en", folder=str(tmp_path), corpora=["tatoeba.en-zh.tsv"], dev_sets=(), test_sets=()
    )
    assert (
        _rows(chinese)[0] == ("translate Chinese to English: 嗨。", "Hi.")
        and chinese.examples["train"] == 21116
    )
