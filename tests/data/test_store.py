"""What is written into a token store is what comes back, and a broken store says so."""

import json

import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.data import store as stores
from scaling_jax.data.store import VocabularyFile, open_store, write_store
from scaling_jax.errors import InputError


def pairs(count, seed=0):
    generator = np.random.default_rng(seed)
    return [
        {
            "inputs": generator.integers(3, 50, generator.integers(1, 7)).astype(np.int32),
            "targets": np.append(generator.integers(3, 50, generator.integers(0, 6)), 1).astype(np.int32),
        }
        for _ in range(count)
    ]


def write(path, splits=None, **changes):
    arguments = {
        "task": "test_pairs:1",
        "vocabulary": VocabularyFile("bytes", 50),
        "feature_lengths": {"inputs": 8, "targets": 8},
        "splits": splits or {"train": pairs(40), "dev": pairs(5, 1), "test": pairs(6, 2)},
        "facts": {"entropy_per_target_token": {"test": 1.5}},
        "seed": 3,
        "settings": {"a": 1},
    }
    return write_store(path, **(arguments | changes))


def test_round_trip_over_several_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(stores, "TOKENS_PER_SHARD", 60)
    written = pairs(40)
    store = write(tmp_path / "store", {"train": iter(written), "dev": pairs(1)})
    split = open_store(tmp_path / "store").split("train")
    assert len(store.manifest["splits"]["train"]["shards"]) > 3
    assert len(split) == 40
    assert split.features == ("inputs", "targets")
    for index, example in enumerate(written):
        for feature in example:
            np.testing.assert_array_equal(split[index][feature], example[feature])
    assert split.lengths("inputs").tolist() == [len(example["inputs"]) for example in written]
    assert split.total_lengths.tolist() == [len(e["inputs"]) + len(e["targets"]) for e in written]
    for outside in (-1, 40):
        with pytest.raises(IndexError):
            split[outside]
    assert store.manifest["facts"] == {"entropy_per_target_token": {"test": 1.5}}
    assert store.manifest["splits"]["train"]["tokens"]["targets"] == sum(len(e["targets"]) for e in written)


@pytest.mark.parametrize(("size", "dtype"), [(65536, np.uint16), (65537, np.int32)])
def test_largest_id_survives(tmp_path, size, dtype):
    example = {"targets": np.array([size - 1, 0])}
    write(
        tmp_path / "s",
        {"train": [example]},
        vocabulary=VocabularyFile("bytes", size),
        feature_lengths={"targets": 2},
    )
    found = open_store(tmp_path / "s").split("train")[0]["targets"]
    assert found.dtype == dtype and found.tolist() == [size - 1, 0]


def test_a_feature_may_be_empty_everywhere(tmp_path):
    empty = {"inputs": np.zeros(0, np.int32), "targets": np.array([1])}
    split = write(tmp_path / "s", {"train": [empty, empty]}).split("train")
    assert len(split[1]["inputs"]) == 0 and split[1]["targets"].tolist() == [1]


@pytest.mark.parametrize(
    ("example", "says"),
    [
        ({"inputs": np.array([50]), "targets": np.array([1])}, "inputs.*below the vocabulary's size 50"),
        ({"inputs": np.array([3]), "targets": np.array([-1])}, "targets"),
        ({"inputs": np.arange(9), "targets": np.array([1])}, "inputs has 9 ids .at most 8."),
    ],
)
def test_bad_ids_are_refused_by_split_and_example(tmp_path, example, says):
    with pytest.raises(InputError, match="split 'dev', example 2.*" + says):
        write(tmp_path / "store", {"train": pairs(3), "dev": [*pairs(2), example]})
    assert list(tmp_path.iterdir()) == []


def test_empty_split(tmp_path):
    with pytest.raises(InputError, match="split 'dev' is empty"):
        write(tmp_path / "store", {"train": pairs(3), "dev": iter([])})
    assert list(tmp_path.iterdir()) == []


def test_an_iterator_that_fails_leaves_nothing(tmp_path):
    def failing():
        yield from pairs(3)
        raise RuntimeError("tokenizer died")

    with pytest.raises(RuntimeError, match="tokenizer died"):
        write(tmp_path / "store", {"train": failing()})
    assert list(tmp_path.iterdir()) == []


def test_a_used_folder_is_left_alone(tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(InputError, match="not an empty folder"):
        write(tmp_path)
    assert (tmp_path / "note.txt").read_text() == "mine"


def test_missing_and_truncated_shards(tmp_path):
    store = write(tmp_path / "store")
    shard = tmp_path / "store/train/00000.targets.tokens.npy"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4])
    with pytest.raises(InputError, match=rf"targets.tokens.npy has {len(whole) - 4} bytes.*{len(whole)}"):
        store.split("train")
    shard.unlink()
    with pytest.raises(InputError, match="targets.tokens.npy is missing"):
        store.split("train")
    assert len(store.split("dev")) == 5


def test_verify_finds_a_changed_byte(tmp_path):
    store = write(tmp_path / "store")
    store.verify()
    shard = tmp_path / "store/dev/00000.inputs.tokens.npy"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    with pytest.raises(InputError, match="dev/00000.inputs.tokens.npy: not the bytes"):
        store.verify()


def test_vocabulary_is_copied_and_known_by_its_bytes(tmp_path):
    model = tmp_path / "some.model"
    model.write_bytes(b"pieces")
    vocabulary = VocabularyFile("sentencepiece", 50, model, 0, 1, 2)
    store = write(tmp_path / "store", vocabulary=vocabulary)
    assert store.vocabulary.path == tmp_path / "store/vocabulary.model"
    assert store.vocabulary.sha256() == vocabulary.sha256() == files.sha256(model)
    store.verify()
    store.vocabulary.path.write_bytes(b"others")
    with pytest.raises(InputError, match="vocabulary.model"):
        store.verify()
    store.vocabulary.path.unlink()
    with pytest.raises(InputError, match="vocabulary.model"):
        store.vocabulary.sha256()


def test_manifest_hash_follows_the_data_alone(tmp_path):
    hashes = [write(tmp_path / name).manifest_hash() for name in ("a", "b")]
    changed = pairs(40)
    changed[7]["targets"] = np.array([4, 1])
    other = write(tmp_path / "c", {"train": changed, "dev": pairs(5, 1), "test": pairs(6, 2)}).manifest_hash()
    assert hashes[0] == hashes[1] != other


def test_opening_what_is_no_store(tmp_path):
    with pytest.raises(InputError, match="not a token store"):
        open_store(tmp_path)
    files.write_json(tmp_path / "manifest.json", {"format": "other/9"})
    with pytest.raises(InputError, match="format 'other/9'"):
        open_store(tmp_path)
    store = write(tmp_path / "store")
    with pytest.raises(InputError, match="no split 'trian'; did you mean 'train'"):
        store.split("trian")


TEXTS = [
    {"inputs": "name[A]", "targets": "A, a \u2028 place.\n", "class": "x"},
    {"inputs": "name[A]", "targets": "\u4f60\u597d \U0001f600", "class": ""},
]


def with_texts(path, rows=TEXTS):
    scoring = {"references": "same_inputs", "scores": ["bleu"], "target_language": "zh"}
    splits = {"train": pairs(4), "dev": pairs(2, 1)}
    groups = {"train": {"de": 1, "es": 3}}
    return write(path, splits, texts={"dev": rows}, groups=groups, scoring=scoring)


def test_texts_come_back_as_they_were_given(tmp_path):
    store = with_texts(tmp_path / "store")
    assert open_store(store.path).split("dev").texts() == tuple(TEXTS)
    assert store.references == "same_inputs"
    assert store.manifest["scores"] == ["bleu"] and store.manifest["target_language"] == "zh"
    assert store.manifest["splits"]["train"]["groups"] == {"de": 1, "es": 3}
    lines = (store.path / "dev/text.jsonl").read_bytes().split(b"\n")
    assert json.loads(lines[1]) == TEXTS[1] and lines[2] == b"" and len(lines) == 3
    store.verify()
    with pytest.raises(InputError, match="split 'train' has no texts"):
        store.split("train").texts()


@pytest.mark.parametrize("rows", [TEXTS[:1], TEXTS + TEXTS[:1]])
def test_as_many_texts_as_examples(tmp_path, rows):
    with pytest.raises(InputError, match=rf"split 'dev': {len(rows)} texts for 2 examples"):
        with_texts(tmp_path / "store", rows)
    assert list(tmp_path.iterdir()) == []


def test_half_a_character_is_refused_by_split_and_example(tmp_path):
    with pytest.raises(InputError, match="split 'dev', example 1: not Unicode text"):
        with_texts(tmp_path / "store", [TEXTS[0], {"inputs": "a", "targets": "\ud83d"}])


def test_changed_texts_are_noticed(tmp_path):
    store = with_texts(tmp_path / "store")
    path = tmp_path / "store/dev/text.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"place", b"plate"))
    for check in (store.split("dev").texts, store.verify):
        with pytest.raises(InputError, match="dev/text.jsonl: not the bytes that were written"):
            check()
    path.write_bytes(whole[:-1])
    with pytest.raises(InputError, match=rf"text.jsonl has {len(whole) - 1} bytes, the manifest says"):
        store.split("dev")
    path.unlink()
    with pytest.raises(InputError, match="text.jsonl is missing"):
        store.split("dev")


def test_a_store_of_before_texts_were_kept_still_opens(tmp_path):
    store = with_texts(tmp_path / "store")
    manifest = json.loads((store.path / "manifest.json").read_text())
    for name in ("references", "scores", "target_language"):
        del manifest[name]
    for split in manifest["splits"].values():
        split.pop("text", None)
        del split["groups"]
    files.write_json(store.path / "manifest.json", manifest)
    (store.path / "dev/text.jsonl").unlink()
    old = open_store(store.path)
    old.verify()
    assert len(old.split("dev")) == 2 and old.references == "one"
    with pytest.raises(InputError, match="remove the folder and prepare it again"):
        old.split("dev").texts()
