"""Ids that stand for no text: how many a vocabulary has, where they lie, and what they leave alone."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from scaling_jax import configuration, files
from scaling_jax.data.store import VocabularyFile, open_store
from scaling_jax.errors import InputError
from scaling_jax.interop import conversion, hugging_face
from scaling_jax.tasks import prepare, registry, vocabularies
from scaling_jax.training import checkpoints, data_sets
from tests.data.test_pieces import byte_level_tokenizer
from tests.interop import cases

LINES = [
    "the cat sat on the mat",
    "a dog ran after the cat",
    "where did the dog go",
    "the mat lay on the cat",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A file of 40 pieces."""
    pytest.importorskip("sentencepiece", reason="needs the extra: tasks")
    folder = tmp_path_factory.mktemp("trained")
    return vocabularies.sentencepiece(size=40).make(iter(LINES), folder)


def with_sentinels(trained, folder, count):
    """A model such as mT5's: its last pieces are <extra_id_COUNT - 1> to <extra_id_0>."""
    from sentencepiece import sentencepiece_model_pb2

    model = sentencepiece_model_pb2.ModelProto.FromString(trained.path.read_bytes())
    for number in reversed(range(count)):
        model.pieces.add(piece=f"▁<extra_id_{number}>", score=0.0, type=4)
    return files.write_bytes(folder / "own.model", model.SerializeToString())


def test_extra_ids_come_after_the_pieces(trained, tmp_path):
    file = vocabularies.sentencepiece(size=40, extra_ids=10).make(iter(LINES), tmp_path)
    assert (file.size, file.extra_ids, trained.size, trained.extra_ids) == (50, 10, 40, 0)
    assert [file.sentinel(number) for number in (0, 1, 9)] == [49, 48, 40]
    assert file.sentinel(np.arange(2)).tolist() == [49, 48]
    assert [file.mode(number) for number in (0, 1, 2)] == [40, 41, 42]
    assert file.sha256() == trained.sha256(), "text has the same tokens with and without them"
    assert vocabularies.byte_vocabulary(5).make(iter(()), tmp_path) == VocabularyFile(
        "bytes", 264, extra_ids=5
    )
    assert VocabularyFile("bytes", 264, extra_ids=5).sha256() == VocabularyFile("bytes", 259).sha256()
    assert VocabularyFile("bytes", 264).sha256() != VocabularyFile("bytes", 259).sha256()


def test_a_model_made_elsewhere_brings_its_own_or_gets_some(trained, tmp_path):
    def made(path, extra_ids=None):
        return vocabularies.sentencepiece_model(str(path), extra_ids).make(iter(()), tmp_path)

    assert (made(trained.path).size, made(trained.path).extra_ids) == (40, 0)
    assert (made(trained.path, 100).size, made(trained.path, 100).extra_ids) == (140, 100)
    own = with_sentinels(trained, tmp_path, 6)
    for given in (None, 6):
        file = made(own, given)
        assert (file.size, file.extra_ids, file.sentinel(0)) == (46, 6, 45)
    with pytest.raises(InputError, match="sentencepiece_model.extra_ids = 7: .*own.model has 6 itself"):
        made(own, 7)
    for wrong in (-1, 1.5, "3"):
        with pytest.raises(InputError, match="sentencepiece_model.extra_ids = .*0 or more"):
            made(trained.path, wrong)


def test_settings_say_so_only_where_there_are_some():
    assert "extra_ids" not in vocabularies.byte_vocabulary().settings
    assert vocabularies.byte_vocabulary(3).settings["extra_ids"] == 3
    assert "extra_ids" not in vocabularies.sentencepiece().settings
    assert vocabularies.sentencepiece(extra_ids=3).settings["extra_ids"] == 3


def test_a_store_records_them_and_its_tokens_stay_the_same(tmp_path):
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    registry.load_all()

    def prepared(out, *bindings):
        shared = (
            "prepare.stores=[@task_store()]",
            "prepare.vocabulary=@byte_vocabulary()",
            "task_store.task=lab_text",
            "task_store.window=32",
            "lab.concepts=64",
            "lab_text.documents={'train': 20, 'dev': 4}",
        )
        configuration.parse([], [*shared, *bindings])
        return open_store(prepare.prepare(tmp_path / out, say=lambda line: None)["lab_text"])

    plain, extended = prepared("plain"), prepared("extended", "byte_vocabulary.extra_ids=7")
    assert (plain.vocabulary.size, plain.vocabulary.extra_ids) == (259, 0)
    assert extended.vocabulary == VocabularyFile("bytes", 266, extra_ids=7)
    assert extended.vocabulary.sha256() == plain.vocabulary.sha256()
    extended.verify()
    for name in ("train", "dev"):
        one, other = plain.split(name), extended.split(name)
        assert len(one) == len(other)
        for index in range(len(one)):
            np.testing.assert_array_equal(one[index]["targets"], other[index]["targets"])
    with pytest.raises(
        InputError, match="prepared with other settings .vocabulary.extra_ids: there 7, now None"
    ):
        prepared("extended")


def test_a_store_in_the_tokens_of_a_hugging_face_folder(tmp_path):
    """With a tokenizer.json alone, as LLaMA 3 has: prepared, recorded by convert, and taken for tuning."""
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    config = dataclasses.replace(cases.CASES["llama_tied"], vocabulary_size=304)
    generator = np.random.default_rng(0)
    shapes = jax.tree.map(np.shape, cases.parameters("llama_tied"))
    shapes["embedding"]["table"] = (304, config.model_dim)
    params = jax.tree.map(
        lambda shape: generator.normal(size=shape).astype(np.float32),
        shapes,
        is_leaf=lambda leaf: isinstance(leaf, tuple),
    )
    hugging_face.write_model(tmp_path / "llama", config, params, settings={"eos_token_id": [2, 1]})
    made = byte_level_tokenizer(tmp_path / "llama/tokenizer.json", unknown=None)
    rows = [{"source": f"the {word} men see", "target": f"a {word} house, 你好!"} for word in "abcdef"]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    registry.load_all()
    bindings = [
        f"TRAIN = '{tmp_path}/rows.jsonl'",
        "prepare.vocabulary = @hugging_face_vocabulary()",
        f"hugging_face_vocabulary.folder = '{tmp_path}/llama'",
        "jsonl.cut_dev = 1",
        "jsonl.cut_test = 1",
    ]
    configuration.parse(["gin_configs/tasks/jsonl.gin"], bindings)
    store = open_store(prepare.prepare(tmp_path / "stores", say=lambda line: None)["finetune"])
    assert (store.vocabulary.kind, store.vocabulary.size) == ("hugging_face", 300)
    assert (store.vocabulary.eos_id, store.vocabulary.other_ends, store.vocabulary.unk_id) == (2, (1,), -1)
    text, example = store.split("test").texts()[0], store.split("test")[0]
    for name in ("inputs", "targets"):
        assert example[name].tolist() == [*made.encode(text[name]).ids, 2]
    from scaling_jax.tasks.seqio_tasks import seqio

    by_seqio = seqio.get_mixture_or_task("jsonl_v1").get_dataset(None, "test", shuffle=False)
    (theirs,) = by_seqio.as_numpy_iterator()
    assert {name: theirs[name].tolist() for name in theirs} == {
        name: ids.tolist() for name, ids in example.items()
    }
    converted = conversion.to_checkpoint(tmp_path / "llama", tmp_path / "base")
    assert converted.vocabulary == store.vocabulary.sha256()
    data_sets.check_vocabulary(store, tmp_path / "base", checkpoints.about(tmp_path / "base"))
    with pytest.raises(InputError, match="hugging_face_vocabulary.folder is not set"):
        vocabularies.hugging_face_vocabulary("")
    (tmp_path / "llama/config.json").unlink()
    with pytest.raises(InputError, match="names no eos_token_id"):
        vocabularies.hugging_face_vocabulary(str(tmp_path / "llama"))
