"""`prepare --show` of every task in the registry, offline, on small files in the published formats."""

import gzip
import inspect
import json
from pathlib import Path

import pytest

from scaling_jax.cli.main import main
from scaling_jax.tasks import registry

TASKS = registry.all_tasks()
WORDS = {
    "de": "Der Hund läuft.",
    "en": "The dog runs.",
    "fr": "Le chien court.",
    "ro": "Câinele.",
    "zh": "狗在跑。",
}
WMT = [name for name in TASKS if name.startswith("wmt")]
MLSUM = [name for name in TASKS if name.startswith("mlsum_")]
SUMMARY = {"text": "Text.", "summary": "Kurz."}
NEWS = {"article": "News.", "highlights": "Short."}
DIALOGUE = {"id": "1", "dialogue": "Ann: Hi!", "summary": "She greets."}
QUESTION = {"question": "一加一？", "std_answer": "二", "class": "math"}
SEQIO_TASK = """
import seqio
import tensorflow as tf

def pairs(split, shuffle_files=False):
    return tf.data.Dataset.from_tensor_slices({"inputs": ["Frage"], "targets": ["Antwort"]})

source = seqio.FunctionDataSource(pairs, splits=("train",))
features = {name: seqio.Feature(seqio.ByteVocabulary()) for name in ("inputs", "targets")}
steps = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
seqio.TaskRegistry.add("shown", source=source, preprocessors=steps, output_features=features)
"""


def _lines(path: Path, *lines: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return str(path)


def _write_wmt(folder: Path, name: str) -> None:
    """The training files and test sets that the task itself names."""
    pair = name.split("_")[1:]
    settings = inspect.signature(TASKS[name].call).parameters
    for pattern in settings["corpora"].default:
        path = folder / pattern.replace("*", "book1")
        if "{lang}" not in pattern:
            order = path.stem[-5:].split("-")
            _lines(path, "\t".join(WORDS[language] for language in order))
            continue
        for language in pair:
            _lines(Path(str(path).format(lang=language)), WORDS[language])
    for test_set in (*settings["dev_sets"].default, *settings["test_sets"].default):
        for side, language in zip(("src", "ref"), pair, strict=True):
            _lines(folder / f"{test_set.replace('/', '_')}.{'-'.join(pair)}.{side}", WORDS[language])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    folder = tmp_path_factory.mktemp("published")
    for name in WMT:
        _write_wmt(folder / name, name)
    for part in ("dev", "devtest"):
        for code, language in (("eng_Latn", "en"), ("deu_Latn", "de")):
            _lines(folder / f"flores200_dataset/{part}/{code}.{part}", WORDS[language])
    for part in ("train", "val", "test"):
        for name in MLSUM:
            _lines(folder / f"mlsum/{name[-2:]}_{part}.jsonl", json.dumps(SUMMARY))
        (folder / f"{part}.json").write_text(json.dumps([DIALOGUE]))
    for part in ("train", "validation", "test"):
        _lines(folder / f"cnn/{part}.jsonl", json.dumps(NEWS))
    for part in ("train", "valid", "test"):
        _lines(folder / f"orangesum/{part}.source", WORDS["fr"])
        _lines(folder / f"orangesum/{part}.target", "Chien.")
    for part in ("train", "test"):
        _lines(folder / f"ag_news/{part}.csv", '"3","Wall St. Bears","Back, they say."', '"1","A","B"')
    for part in ("", "-validation"):
        name = f"c4-de{part}.tfrecord-00000-of-00001.json.gz"
        _lines(folder / f"mc4/{name}", json.dumps({"text": WORDS["de"]}))
    _lines(folder / "cola.tsv", "gj04\t1\t\tBill sang.", "gj04\t0\t*\tSang Bill.")
    _lines(folder / "e2e.csv", "mr,ref", "name[A],A is nice.", "name[B],B is nice.")
    _lines(folder / "instructions.json", json.dumps({"instruction": "Say one.", "output": "One."}))
    _lines(folder / "belle.json", json.dumps(QUESTION, ensure_ascii=False))
    _lines(folder / "own.jsonl", json.dumps({"source": WORDS["en"], "target": WORDS["de"]}))
    _lines(folder / "own.de", *[WORDS["de"]] * 4)
    _lines(folder / "own.en", *[WORDS["en"]] * 4)
    (folder / "shown_seqio_task.py").write_text(SEQIO_TASK)
    return folder


def _settings(name: str, folder: Path) -> dict[str, object]:
    """Bindings under which a task finds the files above, without what holds for all of a kind."""
    own = {"cut_dev": 0, "cut_test": 0}
    if name in WMT:
        return {"folder": str(folder / name)}
    if name in MLSUM:
        return {"folder": str(folder / "mlsum")}
    return {
        "ag_news": {"folder": str(folder / "ag_news"), "cut_dev": 1},
        "belle_eval": {"test": str(folder / "belle.json")},
        "cnn_dailymail": {"folder": str(folder / "cnn")},
        "cola": {"train": str(folder / "cola.tsv"), **own},
        "e2e_nlg": {"train": str(folder / "e2e.csv"), **own},
        "flores200": {"folder": str(folder), "source": "en", "target": "de"},
        "instructions": {"train": str(folder / "instructions.json"), **own},
        "jsonl": {"train": str(folder / "own.jsonl"), **own},
        "mc4": {"folder": str(folder / "mc4"), "language": "de"},
        "orangesum": {"folder": str(folder / "orangesum")},
        "parallel_text": {"train": (str(folder / "own.en"), str(folder / "own.de")), **own},
        "plain_text": {"train": str(folder / "own.de"), "dev_share": 0.0, "test_share": 0.0},
        "samsum": {"folder": str(folder)},
        "seqio_documents": {"task": "shown", "module": "shown_seqio_task"},
        "seqio_pairs": {"task": "shown", "module": "shown_seqio_task"},
        "text_mixture": {"parts": {"de": "mc4", "own": "plain_text"}, "shares": {"de": 0.5, "own": 0.5}},
    }.get(name, {})


def _bindings(name: str, folder: Path) -> list[str]:
    tasks = {name: name}
    if name == "mlsum":
        tasks |= {part: part for part in ("mlsum_de", "mlsum_es", "mlsum_fr", "cnn_dailymail")}
    if name == "text_mixture":
        tasks |= {"de/mc4": "mc4", "own/plain_text": "plain_text"}
    return [
        f"{selector}.{setting}={value!r}"
        for selector, task in tasks.items()
        for setting, value in _settings(task, folder).items()
    ]


# The first example, its features one after the other.
SHOWN = {
    "ag_news": ("Is this news about World, Sports, Business or Sci/Tech? A B", "World"),
    "belle_eval": ("Human: 一加一？\n\nAssistant: ", "二"),
    "cnn_dailymail": ("Summarize the following document in English: News.", "Short."),
    "cola": ("Bill sang.", "acceptable"),
    "e2e_nlg": ("name[A]", "A is nice."),
    "flores200": ("translate English to German: The dog runs.", "Der Hund läuft."),
    "instructions": ("Human: Say one.\n\nAssistant: ", "One."),
    "jsonl": (WORDS["en"], WORDS["de"]),
    "lab_headline": None,  # made up by a generator, whose text its own tests know
    "lab_text": None,
    "lab_translation": None,
    "mc4": (WORDS["de"],),
    "mlsum": ("Summarize the following document in German: Text.", "Kurz."),
    "mlsum_de": ("Summarize the following document in German: Text.", "Kurz."),
    "mlsum_es": ("Summarize the following document in Spanish: Text.", "Kurz."),
    "mlsum_fr": ("Summarize the following document in French: Text.", "Kurz."),
    "mlsum_ru": ("Summarize the following document in Russian: Text.", "Kurz."),
    "mlsum_tu": ("Summarize the following document in Turkish: Text.", "Kurz."),
    "orangesum": ("Summarize the following document in French: Le chien court.", "Chien."),
    "parallel_text": (WORDS["en"], WORDS["de"]),
    "plain_text": (WORDS["de"],),
    "samsum": ("Summarize the following dialogue: Ann: Hi!", "She greets."),
    "seqio_documents": ("Antwort",),
    "seqio_pairs": ("Frage", "Antwort"),
    "text_mixture": (WORDS["de"],),
    "wmt14_de_en": ("translate German to English: Der Hund läuft.", "The dog runs."),
    "wmt14_en_de": ("translate English to German: The dog runs.", "Der Hund läuft."),
    "wmt15_en_fr": ("translate English to French: The dog runs.", "Le chien court."),
    "wmt15_fr_en": ("translate French to English: Le chien court.", "The dog runs."),
    "wmt16_en_ro": ("translate English to Romanian: The dog runs.", "Câinele."),
    "wmt16_ro_en": ("translate Romanian to English: Câinele.", "The dog runs."),
    "wmt17_de_en": ("translate German to English: Der Hund läuft.", "The dog runs."),
    "wmt17_en_de": ("translate English to German: The dog runs.", "Der Hund läuft."),
    "wmt19_en_zh": ("translate English to Chinese: The dog runs.", "狗在跑。"),
    "wmt19_zh_en": ("translate Chinese to English: 狗在跑。", "The dog runs."),
}


def test_no_task_is_left_out():
    assert list(SHOWN) == list(TASKS)


@pytest.mark.parametrize("name", SHOWN)
def test_a_task_shows_what_it_is_and_an_example(name, folder, capsys, monkeypatch):
    monkeypatch.syspath_prepend(str(folder))
    flags = [part for binding in _bindings(name, folder) for part in ("--gin", binding)]
    assert main(["prepare", "--show", name, "--examples", "1", *flags]) == 0
    printed = capsys.readouterr().out
    task = TASKS[name]
    for said in (f"task      {name}_v{task.version} (", "\nsource    ", "\nfeatures  ", "\nfound     "):
        assert said in printed
    example = printed.split("\n\n", 1)[1]
    assert all(f"{feature:9s} " in example for feature in task.features)
    if SHOWN[name]:
        shown = zip(task.features, SHOWN[name], strict=True)
        assert example.startswith("".join(f"{feature:9s} {text}\n" for feature, text in shown))
