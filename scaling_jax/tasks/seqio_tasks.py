"""Text as a seqio task, and a seqio task as token arrays. The one module that imports TensorFlow.

Import it inside a function, after everything that can be checked without it: it costs seconds and
half a gigabyte.
"""

import contextlib
import functools
import itertools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from scaling_jax.data.pieces import pieces_of
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.tasks import registry, vocabularies
from scaling_jax.tasks.encoded import Ragged, Texts
from scaling_jax.tasks.registry import Blocks, TextSource, TextTask


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the greetings of native code off the screen; they are shown if what is inside fails.

    TensorFlow prints lines about hardware that text does not need, before any setting of its log level
    is read.
    """
    sys.stderr.flush()
    screen = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(screen, kept.read())
            raise
        finally:
            os.dup2(screen, 2)
            os.close(screen)


try:
    with _quiet():
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        import seqio
        import tensorflow as tf

        # Text needs no accelerator, and TensorFlow would take all the memory of one.
        tf.config.set_visible_devices([], "GPU")
except ImportError as error:
    raise InputError(
        f"preparing a task needs seqio and TensorFlow ({error}): pip install 'scaling-jax[tasks]'"
    ) from error


def register(task: TextTask, source: TextSource, vocabulary: VocabularyFile) -> seqio.Task:
    """Puts the task under its versioned name into seqio's registry, in place of one of that name."""

    def dataset(split: str, shuffle_files: bool = False) -> tf.data.Dataset:
        return _examples(source.splits[split], task.features)

    seqio.TaskRegistry.remove(task.versioned_name)
    data = seqio.FunctionDataSource(dataset, splits=tuple(source.splits))
    return seqio.TaskRegistry.add(task.versioned_name, **_task(task.features, task.ends, vocabulary, data))


def add(name: str, model: str | None = None, **settings: Any) -> seqio.Task:
    """Puts a registered task into seqio's registry, to be named from T5X's side, say.

    Args:
        name: of the task; in seqio it goes by its versioned name (`wmt14_en_de_v1`).
        model: SentencePiece model of the vocabulary; None for bytes.
        **settings: of the task, such as `folder`, in place of those bound in gin.

    Raises:
        InputError: no such task or file, or whatever the task raises.
    """
    made = vocabularies.sentencepiece_model(model) if model else vocabularies.byte_vocabulary()
    task = registry.find(name)
    return register(task, task.call(**settings), made.make(iter(()), Path()))


def encoder(
    features: tuple[str, ...], ends: tuple[str, ...], vocabulary: VocabularyFile
) -> Callable[[Texts], dict[str, Ragged]]:
    """A function from a block of texts to token ids, in order and not trimmed.

    It gives what the seqio task of `register` gives, a block at a time instead of an example at a time,
    which takes a quarter of the time.
    """
    tokenise = _TOKENISE[vocabulary.kind](vocabulary)

    def encode(texts: Texts) -> dict[str, Ragged]:
        tokens = {feature: tokenise(texts[feature]) for feature in features}
        return tokens | {feature: _with_eos(tokens[feature], vocabulary.eos_id) for feature in ends}

    return encode


def _sentencepiece(vocabulary: VocabularyFile) -> Callable[[list[str]], Ragged]:
    pieces = _seqio_vocabulary(vocabulary)
    compiled = tf.function(pieces.encode_tf, input_signature=[tf.TensorSpec([None], tf.string)])

    def tokenise(strings: list[str]) -> Ragged:
        ids = compiled(tf.constant(strings, tf.string))
        return Ragged(ids.values.numpy(), ids.row_splits.numpy())

    return tokenise


def _bytes(vocabulary: VocabularyFile) -> Callable[[list[str]], Ragged]:
    def tokenise(strings: list[str]) -> Ragged:
        encoded = [string.encode("utf-8") for string in strings]
        # seqio's ids of bytes come after pad, end of sequence and unknown.
        ids = np.frombuffer(b"".join(encoded), np.uint8).astype(np.int32) + 3
        return Ragged(ids, np.cumsum([0, *map(len, encoded)]))

    return tokenise


def _hugging_face(vocabulary: VocabularyFile) -> Callable[[list[str]], Ragged]:
    pieces = pieces_of(vocabulary)

    def tokenise(strings: list[str]) -> Ragged:
        encoded = [pieces.encode(string) for string in strings]
        ids = np.fromiter(itertools.chain.from_iterable(encoded), np.int32)
        return Ragged(ids, np.cumsum([0, *map(len, encoded)]))

    return tokenise


_TOKENISE = {"sentencepiece": _sentencepiece, "bytes": _bytes, "hugging_face": _hugging_face}


def _with_eos(ragged: Ragged, eos_id: int) -> Ragged:
    tokens = np.insert(ragged.tokens, ragged.offsets[1:], eos_id)
    return Ragged(tokens, ragged.offsets + np.arange(len(ragged.offsets)))


def _task(
    features: tuple[str, ...], ends: tuple[str, ...], vocabulary: VocabularyFile, data: seqio.DataSource
) -> dict[str, Any]:
    """What a seqio task is made of, but for its name."""
    pieces = _seqio_vocabulary(vocabulary)
    return {
        "source": data,
        "preprocessors": [
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
            seqio.preprocessors.append_eos_after_trim,
        ],
        "output_features": {
            feature: seqio.Feature(vocabulary=pieces, add_eos=feature in ends, required=True)
            for feature in features
        },
    }


def _seqio_vocabulary(vocabulary: VocabularyFile) -> seqio.Vocabulary:
    if vocabulary.kind == "bytes":
        return seqio.ByteVocabulary(extra_ids=0)
    if vocabulary.kind == "hugging_face":
        return _HuggingFaceVocabulary(vocabulary)
    return seqio.SentencePieceVocabulary(str(vocabulary.path), extra_ids=0)


class _HuggingFaceVocabulary(seqio.Vocabulary):
    """A tokenizer.json, which TensorFlow calls back to Python for."""

    def __init__(self, vocabulary: VocabularyFile):
        super().__init__(extra_ids=0)
        self._file, self._pieces = vocabulary, pieces_of(vocabulary)

    @property
    def eos_id(self) -> int:
        return self._file.eos_id

    @property
    def unk_id(self) -> int | None:
        return self._file.unk_id if self._file.unk_id >= 0 else None

    @property
    def _base_vocab_size(self) -> int:
        return self._file.size

    def _encode(self, s: str) -> list[int]:
        return self._pieces.encode(s)

    def _decode(self, ids: list[int]) -> str:
        return self._pieces.decode(ids)

    def _encode_tf(self, s: tf.Tensor) -> tf.Tensor:
        def encode(text: bytes) -> np.ndarray:
            return np.asarray(self._pieces.encode(text.decode("utf-8")), np.int32)

        ids = tf.numpy_function(encode, [s], tf.int32, stateful=False)
        ids.set_shape([None])
        return ids

    def _decode_tf(self, ids: tf.Tensor) -> tf.Tensor:
        return tf.numpy_function(lambda held: self._pieces.decode(held), [ids], tf.string, stateful=False)


def _examples(read: Callable[[], Blocks], features: tuple[str, ...]) -> tf.data.Dataset:
    signature = {feature: tf.TensorSpec([None], tf.string) for feature in features}

    def generate() -> Blocks:
        for block in read():
            yield {feature: tf.constant(block[feature], tf.string) for feature in features}

    return tf.data.Dataset.from_generator(generate, output_signature=signature).unbatch()
