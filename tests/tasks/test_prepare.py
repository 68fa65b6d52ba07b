"""Stores against the seqio tasks that they are made of."""

import dataclasses
import fcntl
import filecmp
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling_jax import configuration
from scaling_jax.data.store import VocabularyFile, open_store
from scaling_jax.errors import InputError
from scaling_jax.tasks import prepare, registry, vocabularies
from scaling_jax.tasks.lab import entropy, lexicon
from scaling_jax.tasks.store_request import StoreRequest

ROOT = Path(__file__).parents[2]
GIN = "gin_configs/tasks/lab_translation.gin"
# Fifteen tokens cut some sentences, so that cutting is compared too.
SMALL = [
    "lab.concepts = 256",
    "lab_text.documents = {'train': 600, 'dev': 40}",
    "lab_translation.examples = {'train': 500, 'dev': 60, 'test': 70}",
    "finetune/task_store.feature_lengths = {'inputs': 11, 'targets': 48}",
    "pretrain/task_store.window = 32",
    "sentencepiece.size = 300",
]


def _prepare(out, bindings=(), gin_file=GIN):
    registry.load_all()
    configuration.parse([str(ROOT / gin_file)], bindings)
    lines = []
    paths = prepare.prepare(out, say=lines.append)
    return paths, lines


@pytest.fixture(scope="module")
def seqio_tasks():
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    from scaling_jax.tasks import seqio_tasks

    return seqio_tasks


@pytest.fixture(scope="module")
def made(tmp_path_factory, seqio_tasks):
    out = tmp_path_factory.mktemp("stores")
    paths, lines = _prepare(out, SMALL)
    return {name: open_store(path) for name, path in paths.items()}, lines, out


def _same_bytes(one: Path, other: Path) -> bool:
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert files and files == sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    return all(filecmp.cmp(one / file, other / file, shallow=False) for file in files)


def test_finetuning_store_equals_the_seqio_task(made, seqio_tasks):
    store = made[0]["finetune"]
    task = seqio_tasks.seqio.get_mixture_or_task("lab_translation_v1")
    for split, size in {"train": 500, "dev": 60, "test": 70}.items():
        dataset = task.get_dataset({"inputs": 11, "targets": 48}, split=split, shuffle=False)
        expected = list(dataset.as_numpy_iterator())
        found = store.split(split)
        assert len(found) == len(expected) == size
        for index, example in enumerate(expected):
            assert found.features == ("inputs", "targets")
            for feature in found.features:
                np.testing.assert_array_equal(found[index][feature], example[feature])
            assert found[index]["targets"][-1] == 1 and 1 not in found[index]["inputs"]
    cut = store.manifest["facts"]["truncated_examples"]
    assert cut["train"]["inputs"] > 0 and cut["train"]["targets"] == 0
    assert any(
        f"train: {cut['train']['inputs']} inputs were longer than 11 tokens" in line for line in made[1]
    )


TRICKY = [
    "",
    " ",
    "a",
    "  two  spaces ",
    "\t\n",
    "\u2028",
    "\u00e4\u0308 ﬁ",
    "\U0001f600",
    "\0",
    "x" * 5000,
    "",
]


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_blocks_are_encoded_as_the_seqio_task_encodes_examples(made, seqio_tasks, kind):
    vocabulary = VocabularyFile("bytes", 259) if kind == "bytes" else made[0]["finetune"].vocabulary
    block = {"inputs": TRICKY, "targets": TRICKY[::-1]}
    task = dataclasses.replace(registry.find("lab_headline"), name=f"tricky_{kind}", ends=("targets",))
    source = registry.TextSource({"train": lambda: iter([block])})
    expected = seqio_tasks.register(task, source, vocabulary).get_dataset(None, split="train", shuffle=False)
    found = seqio_tasks.encoder(task.features, task.ends, vocabulary)(block)
    rows = list(expected.as_numpy_iterator())
    assert len(rows) == len(TRICKY)
    for feature, ragged in found.items():
        assert ragged.tokens.dtype == np.int32 and len(ragged) == len(TRICKY)
        for index, row in enumerate(rows):
            begin, end = ragged.offsets[index : index + 2]
            np.testing.assert_array_equal(ragged.tokens[begin:end], row[feature])
    none = seqio_tasks.encoder(task.features, task.ends, vocabulary)({"inputs": [], "targets": []})
    assert [len(ragged) for ragged in none.values()] == [0, 0]


def test_pretraining_windows_are_the_seqio_tasks_stream(made, seqio_tasks):
    store = made[0]["pretrain"]
    task = seqio_tasks.seqio.get_mixture_or_task("lab_text_v1")
    dataset = task.get_dataset(None, split="train", shuffle=False)
    stream = np.concatenate([example["targets"] for example in dataset.as_numpy_iterator()])
    windows = store.split("train")
    assert set(windows.lengths("targets")) == {32} and len(windows) == len(stream) // 32
    found = np.concatenate([windows[index]["targets"] for index in range(len(windows))])
    np.testing.assert_array_equal(found, stream[: len(found)])
    assert (stream == 1).sum() == 600  # one EOS for each document


def test_vocabulary_is_shared_and_has_t5s_ids(made):
    stores = made[0]
    one, other = stores["pretrain"].vocabulary, stores["finetune"].vocabulary
    assert one.sha256() == other.sha256() and one.size == other.size == 300
    assert (one.pad_id, one.eos_id, one.unk_id) == (0, 1, 2)
    tokens = np.concatenate(stores["finetune"].split("train").tokens["targets"])
    assert 2 not in tokens and 0 not in tokens


def test_facts_are_the_entropy_over_the_tokens(tmp_path, seqio_tasks):
    paths, _ = _prepare(
        tmp_path, [*SMALL, "finetune/task_store.feature_lengths = {'inputs': 64, 'targets': 64}"]
    )
    store = open_store(paths["finetune"])
    words = lexicon.build(lexicon.plain(lexicon.lab()))
    source = registry.find("lab_translation").call()
    for split in ("dev", "test"):
        (block,) = source.splits[split]()
        pairs = list(zip(block["inputs"], block["targets"], strict=True))
        tokens = store.split(split).lengths("targets").sum()
        oracle = -sum(entropy.oracle_log_probability(words, *pair) for pair in pairs)
        exact = sum(-p * np.log(p) for text, _ in pairs for _, p in entropy.every_target(words, text))
        facts = store.manifest["facts"]
        assert facts["oracle_loss"][split] == pytest.approx(oracle / tokens)
        assert facts["entropy_per_target_token"][split] == pytest.approx(exact / tokens)
        assert facts["entropy_per_target_token"][split] < facts["entropy_without_source_lower_bound"][split]
    assert store.manifest["seed"] == 0


def test_dev_and_test_texts_are_kept_as_the_task_gave_them(made):
    store = made[0]["finetune"]
    source = registry.find("lab_translation").call(examples={"train": 500, "dev": 60, "test": 70})
    for split, size in {"dev": 60, "test": 70}.items():
        (block,) = source.splits[split]()
        texts = store.split(split).texts()
        assert len(texts) == size and texts == tuple(
            {"inputs": left, "targets": right}
            for left, right in zip(block["inputs"], block["targets"], strict=True)
        )
    assert "text" not in store.manifest["splits"]["train"]
    assert "text" not in made[0]["pretrain"].manifest["splits"]["dev"]


def test_a_store_without_texts_is_up_to_date_and_says_what_it_lacks(made, tmp_path):
    shutil.copytree(made[2], tmp_path / "old")
    path = tmp_path / "old/finetune/manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("references", "scores", "target_language"):
        del manifest[name]
    for split in manifest["splits"].values():
        split.pop("text", None)
    manifest["settings"]["arguments"]["a_later_parameter"] = None
    path.write_text(json.dumps(manifest))
    before = path.read_bytes()
    _, lines = _prepare(tmp_path / "old", SMALL)
    assert lines[0].endswith("pretrain: up to date")
    assert "finetune: up to date, but an earlier version made it without the texts" in lines[1]
    assert path.read_bytes() == before


def test_cut_examples_have_no_known_entropy(made):
    facts = made[0]["finetune"].manifest["facts"]
    assert "train" not in facts["entropy_per_target_token"]


def test_same_settings_same_bytes_in_another_process(made, tmp_path):
    flags = [part for binding in SMALL for part in ("--gin", binding)]
    command = [
        sys.executable,
        "-m",
        "scaling_jax.cli.main",
        "prepare",
        "--gin_file",
        GIN,
        "--out",
        str(tmp_path),
        *flags,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "77"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert _same_bytes(made[2], tmp_path)
    assert done.stderr == ""  # TensorFlow's greetings are kept off the screen


@pytest.mark.parametrize("name", ["train/00000.targets.tokens.npy", "dev/text.jsonl", "vocabulary.model"])
def test_a_store_with_a_file_that_was_cut_is_not_up_to_date(made, tmp_path, name):
    shutil.copytree(made[2], tmp_path / "stores")
    path = tmp_path / "stores" / "finetune" / name
    if name == "vocabulary.model":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=f"{name} (has|is missing).*removing the folder .*finetune"):
        _prepare(tmp_path / "stores", SMALL)


def test_up_to_date_stores_are_kept_and_others_refused(made):
    out = made[2]
    before = (out / "finetune" / "manifest.json").stat().st_mtime_ns
    _, lines = _prepare(out, SMALL)
    assert lines == [f"{out / name}: up to date" for name in ("pretrain", "finetune")]
    with pytest.raises(
        InputError, match=r"pretrain was prepared with other settings \(.*lab.seed: there 0, now 5\)"
    ):
        _prepare(out, [*SMALL, "lab.seed = 5"])
    assert (out / "finetune" / "manifest.json").stat().st_mtime_ns == before


def test_a_missing_store_is_made_with_the_vocabulary_that_is_there(made, tmp_path):
    shutil.copytree(made[2] / "pretrain", tmp_path / "pretrain")
    _prepare(tmp_path, SMALL)
    assert _same_bytes(made[2], tmp_path)


def test_nothing_but_prepare_imports_tensorflow():
    code = (
        "import sys; from scaling_jax.tasks import prepare, registry; from scaling_jax.cli import main;"
        "registry.load_all(); main.parser(); print([m for m in ('tensorflow', 'seqio') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


OWN_TASK = """
from scaling_jax.errors import InputError
from scaling_jax.tasks.registry import PAIRS, TextSource, text_task

@text_task(version=3, features=PAIRS, summary="mine")
def my_own_task(word="hund", broken=False):
    def read():
        yield {"inputs": ["dog", "two dogs"], "targets": [word, "zwei hunde \\N{SNOWMAN}"]}
        if broken:
            raise InputError("my file, line 7: cannot be read")
    return TextSource({"train": read, "dev": read})
"""
OWN_BINDINGS = [
    "prepare.stores = [@task_store()]",
    "prepare.vocabulary = @byte_vocabulary()",
    "task_store.task = 'my_own_task'",
    "task_store.feature_lengths = {'inputs': 9, 'targets': 9}",
]


def test_a_users_own_file_and_bytes(tmp_path, seqio_tasks):
    file = tmp_path / "mine.py"
    file.write_text(OWN_TASK)
    configuration.parse([], [*OWN_BINDINGS, "my_own_task.word = 'katze'"], imports=[str(file)])
    store = open_store(prepare.prepare(tmp_path / "out", say=lambda line: None)["my_own_task"])
    assert store.manifest["task"] == "my_own_task_v3" and store.vocabulary.size == 259
    first, second = store.split("train")[0], store.split("train")[1]
    assert bytes(first["targets"][:-1].astype(np.uint8) - 3) == b"katze" and first["targets"][-1] == 1
    assert first["inputs"][-1] == 1 and len(second["targets"]) == 9 and second["targets"][-1] == 1
    assert store.manifest["settings"]["arguments"] == {"word": "katze", "broken": False}


def test_an_error_inside_the_pipeline_is_the_readers(tmp_path, seqio_tasks):
    file = tmp_path / "mine.py"
    file.write_text(OWN_TASK)
    configuration.parse([], [*OWN_BINDINGS, "my_own_task.broken = True"], imports=[str(file)])
    with pytest.raises(InputError, match="my file, line 7"):
        prepare.prepare(tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out" / "my_own_task").exists()


OWN_COLUMNS = """
from scaling_jax.tasks.registry import PAIRS, TextSource, text_task

@text_task(version=1, features=PAIRS, columns=("class",), references="same_inputs", summary="for scores")
def my_evaluation(column="class", more=()):
    def read():
        yield {"inputs": ["a", "a"], "targets": ["b", "c" * 20], column: ["x", "y", *more], "other": ["", ""]}
    return TextSource({"test": read})
"""


def _columns(tmp_path, *bindings):
    (tmp_path / "mine.py").write_text(OWN_COLUMNS)
    own = [line.replace("my_own_task", "my_evaluation") for line in OWN_BINDINGS]
    configuration.parse([], [*own, *bindings], imports=[str(tmp_path / "mine.py")])
    return prepare.prepare(tmp_path / "out", say=lambda line: None)["my_evaluation"]


def test_columns_and_references_of_a_task_without_a_train_split(tmp_path, seqio_tasks):
    store = open_store(_columns(tmp_path))
    assert list(store.manifest["splits"]) == ["test"] and store.references == "same_inputs"
    assert store.split("test").texts() == (
        {"inputs": "a", "targets": "b", "class": "x"},
        {"inputs": "a", "targets": "c" * 20, "class": "y"},  # its tokens are cut, its text is not
    )
    assert store.split("test")[1]["targets"].tolist() == [ord("c") + 3] * 8 + [1]
    with pytest.raises(InputError, match="no split 'train'"):
        store.split("train")


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        (
            "my_evaluation.column = 'clas'",
            "my_evaluation: split 'test'.*no 'class', only inputs, targets, clas",
        ),
        ("my_evaluation.more = ('z',)", "as many strings are needed of each.*'class': 3"),
        ("prepare.vocabulary = @sentencepiece()", "none of the stores has one"),
    ],
)
def test_a_task_that_gives_what_cannot_be_used(tmp_path, binding, message, seqio_tasks):
    with pytest.raises(InputError, match=message):
        _columns(tmp_path, binding)


def test_a_vocabulary_learns_nothing_from_columns(tmp_path, seqio_tasks):
    def read():
        yield {"class": ["neither"], "targets": ["ein wort"], "inputs": ["a word"]}

    task = dataclasses.replace(registry.find("jsonl"), columns=("class",))
    request = StoreRequest("a", task, registry.TextSource({"train": read}), {"inputs": 9, "targets": 9}, None)
    seen = []
    vocabulary = vocabularies.Vocabulary(
        {"kind": "bytes"}, None, lambda lines, _: seen.extend(lines) or VocabularyFile("bytes", 259)
    )
    prepare.prepare(tmp_path, say=lambda line: None, stores=[request], vocabulary=vocabulary)
    assert seen == ["ein wort", "a word"]


def test_vocabulary_of_a_named_store_without_a_train_split(tmp_path):
    with pytest.raises(InputError, match="'my_evaluation' has no train split"):
        _columns(tmp_path, "prepare.vocabulary = @sentencepiece()", "sentencepiece.text = ('my_evaluation',)")


def test_no_such_references():
    with pytest.raises(InputError, match="references = 'many'"):
        registry.text_task(version=1, features=registry.PAIRS, summary="mine", references="many")


def test_one_call_at_a_time_works_in_a_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/.my_evaluation.abcdefgh").mkdir()
    held = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    try:
        with pytest.raises(InputError, match="another prepare is at work there"):
            _columns(tmp_path)
        assert (tmp_path / "out/.my_evaluation.abcdefgh").exists()
    finally:
        os.close(held)


def test_what_a_killed_call_left_is_removed(tmp_path, seqio_tasks):
    for name in (".my_evaluation.abcdefgh", ".my_evaluation.blocks.0123456789abcdef", ".other.abcdefgh"):
        (tmp_path / "out" / name / "train").mkdir(parents=True)
    _columns(tmp_path)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".other.abcdefgh", "my_evaluation"]


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("sentencepiece.size = 5000", r"too small for it, \d+ is the largest"),
        ("sentencepiece.size = 10", r"give at least \d+"),
        ("sentencepiece.algorithm = 'words'", "must be 'unigram' or 'bpe'"),
        ("sentencepiece.text = ('pretrian',)", "no store 'pretrian'; did you mean 'pretrain'"),
        ("finetune/task_store.name = 'pretrain'", "two stores are called 'pretrain'"),
        ("finetune/task_store.task = 'lab_translatoin'", "did you mean 'lab_translation'"),
        (
            "finetune/task_store.feature_lengths = {'inputs': 8}",
            "finetune/task_store: lab_translation needs feature_lengths",
        ),
        ("finetune/task_store.window = 8", "and no window"),
        ("pretrain/task_store.window = None", "pretraining text, bind window"),
        (
            "pretrain/task_store.window = 100000",
            r"pretrain: split 'train' has \d+ tokens, less than one window",
        ),
        ("prepare.stores = []", "prepare.stores is not set"),
    ],
)
def test_bad_settings(tmp_path, binding, message, seqio_tasks):
    with pytest.raises(InputError, match=message):
        _prepare(tmp_path / "out", [*SMALL, binding])
    assert not any((tmp_path / "out").glob("*/manifest.json"))


def test_given_model(made, tmp_path):
    path = made[2] / "finetune" / "vocabulary.model"
    vocabulary = vocabularies.sentencepiece_model(str(path))
    assert vocabulary.make(iter(()), tmp_path).sha256() == made[0]["finetune"].vocabulary.sha256()
    wrong = tmp_path / "wrong.model"
    wrong.write_bytes(b"not a model")
    for given, message in (
        (str(wrong), "not a SentencePiece model"),
        ("nowhere", "no file"),
        (None, "is not set"),
    ):
        with pytest.raises(InputError, match=message):
            vocabularies.sentencepiece_model(given)


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_training_a_vocabulary_twice_gives_the_same_file(tmp_path, algorithm):
    rows = next(registry.find("lab_text").call(documents={"train": 500}).splits["train"]())["targets"]
    # Every line twice, as when one corpus is in two stores.
    made = [
        vocabularies.sentencepiece(300, algorithm).make(iter(rows + rows), tmp_path / name) for name in "ab"
    ]
    assert made[0].sha256() == made[1].sha256()


@pytest.mark.slow
def test_real_text(tmp_path, seqio_tasks):
    folder = os.environ.get("SCALING_JAX_DATA")
    if not folder:
        pytest.skip("SCALING_JAX_DATA is not set: name a folder that holds multi30k/train.en.gz and its kin")
    pair = {
        split: tuple(f"{folder}/multi30k/{name}.{side}.gz" for side in ("en", "de"))
        for split, name in {"TRAIN": "train", "DEV": "val", "TEST": "test_2016_flickr"}.items()
    }
    bindings = [f"{name} = {value}" for name, value in pair.items()]
    paths, _ = _prepare(
        tmp_path, [*bindings, f"PRETRAIN = {pair['TRAIN']}"], "gin_configs/tasks/parallel_text.gin"
    )
    store = open_store(paths["finetune"])
    assert [len(store.split(split)) for split in ("train", "dev", "test")] == [29000, 1014, 1000]
    cut = store.manifest["facts"]["truncated_examples"]
    assert sum(cut["train"].values()) < 30
    unknown = sum(int((tokens == 2).sum()) for tokens in store.split("train").tokens["targets"])
    assert unknown < 0.001 * store.manifest["splits"]["train"]["tokens"]["targets"]
