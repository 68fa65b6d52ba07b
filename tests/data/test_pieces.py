"""Text and ids as seqio makes them, without TensorFlow."""

import dataclasses
import json

import numpy as np
import pytest

from scaling_jax.data.pieces import pieces_of, vocabulary_in
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.tasks import vocabularies

TEXTS = ("the old men see a house", "grüß Gott, 你好!", "two  spaces and\ta tab", " ", "")
TRAINED_ON = ["the old men see a house and two spaces", "a house of old men", "grüß den alten Gott"] * 30


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return vocabularies.sentencepiece(size=60).make(iter(TRAINED_ON), tmp_path_factory.mktemp("vocabulary"))


def byte_level_tokenizer(path, unknown="<unk>"):
    """A tokenizer.json of 300 pieces, of bytes as LLaMA 3's, with ends 1 and 2."""
    tokenizers = pytest.importorskip("tokenizers", reason="the library tokenizers is not installed")
    made = tokenizers.Tokenizer(tokenizers.models.BPE(unk_token=unknown))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<unk>", "<s>", "</s>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(TRAINED_ON, trainer)
    made.save(str(path))
    return made


@pytest.mark.parametrize("kind", ["bytes", "sentencepiece"])
def test_as_seqio(kind, trained):
    seqio = pytest.importorskip("seqio", reason="the extra `tasks` is not installed")
    if kind == "bytes":
        ours, theirs = pieces_of(VocabularyFile("bytes", 259)), seqio.ByteVocabulary(extra_ids=0)
    else:
        ours = pieces_of(trained)
        theirs = seqio.SentencePieceVocabulary(str(trained.path), extra_ids=0)
    for text in TEXTS:
        ids = theirs.encode(text)
        assert list(ours.encode(text)) == list(ids)
        assert ours.decode(np.array(ids, np.int32)) == theirs.decode(ids)
    drawn = np.random.default_rng(0).integers(3, theirs.vocab_size, 40)
    assert ours.decode(drawn) == theirs.decode(drawn.tolist())
    assert ours.encode("a house") and ours.decode(ours.encode("a house")) == "a house"


def test_ids_beyond_the_pieces(trained):
    """A model's table may be larger than its vocabulary."""
    assert "⁇" in pieces_of(trained).decode([trained.size + 5])
    assert pieces_of(VocabularyFile("bytes", 259)).decode([0, 1, 2, 300, 68]) == "A"
    sentinels = dataclasses.replace(trained, size=trained.size + 10, extra_ids=10)
    ids = np.array([sentinels.sentinel(0), *pieces_of(trained).encode("a house"), sentinels.mode(0)])
    assert pieces_of(sentinels).decode(ids) == "a house"


@pytest.mark.parametrize("unknown", ["<unk>", None])
def test_tokenizer_of_hugging_face(tmp_path, unknown):
    made = byte_level_tokenizer(tmp_path / "tokenizer.json", unknown)
    found = vocabulary_in(tmp_path, {"eos_token_id": [2, 5], "pad_token_id": None})
    assert (found.kind, found.size, found.eos_id, found.pad_id) == (
        "hugging_face",
        made.get_vocab_size(),
        2,
        0,
    )
    assert found.other_ends == (5,) and found.unk_id == (0 if unknown else -1)
    pieces = pieces_of(found)
    for text in TEXTS:
        assert pieces.encode(text) == made.encode(text).ids
        assert pieces.decode([*pieces.encode(text), 2]) == text
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "?"}))
    with pytest.raises(InputError, match="not a tokenizer"):
        pieces_of(found)


def test_vocabulary_of_a_folder(trained, tmp_path):
    with pytest.raises(InputError, match="has no tokenizer"):
        vocabulary_in(tmp_path, {})
    (tmp_path / "spiece.model").write_bytes(trained.path.read_bytes())
    found = vocabulary_in(tmp_path, {})
    assert (found.kind, found.size, found.eos_id) == ("sentencepiece", trained.size, 1)
    assert found.sha256() == trained.sha256()


def test_what_cannot_be_opened(tmp_path):
    (tmp_path / "spiece.model").write_bytes(b"no model")
    with pytest.raises(InputError, match="not a SentencePiece model"):
        vocabulary_in(tmp_path, {})
    with pytest.raises(InputError, match="kind 'words'"):
        pieces_of(VocabularyFile("words", 10))
