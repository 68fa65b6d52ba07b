"""Text as a seqio task, and a seqio task as token arrays. The one module that imports TensorFlow.

Import it inside a function, after everything that can be checked without it: it costs seconds and
half a gigabyte.
"""

import contextlib
import dataclasses
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
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

_BATCH = 4096


@dataclasses.dataclass(frozen=True)
class Ragged:
    """A block of token sequences: `tokens` end to end, sequence i in `offsets[i]` to `offsets[i + 1]`."""

    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.offsets) - 1


@dataclasses.dataclass(frozen=True)
class Registered:
    """A seqio task made of a text source; `errors` collects what its readers raise inside TensorFlow."""

    task: seqio.Task
    errors: list[InputError]


def register(task: TextTask, source: TextSource, vocabulary: VocabularyFile) -> Registered:
    """Puts the task under its versioned name into seqio's registry, in place of one of that name."""
    pieces = _seqio_vocabulary(vocabulary)
    features = {
        feature: seqio.Feature(vocabulary=pieces, add_eos=feature in task.ends, required=True)
        for feature in task.features
    }
    errors: list[InputError] = []
    dataset = _dataset_function(source, task.features, errors)
    seqio.TaskRegistry.remove(task.versioned_name)
    seqio_task = seqio.TaskRegistry.add(
        task.versioned_name,
        source=seqio.FunctionDataSource(dataset, splits=tuple(source.splits)),
        preprocessors=[
            functools.partial(seqio.preprocessors.tokenize, copy_pretokenized=False),
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features=features,
    )
    return Registered(seqio_task, errors)


def blocks(registered: Registered, split: str) -> Iterator[Mapping[str, Ragged]]:
    """The split's examples in their order, not trimmed, a few thousand at a time.

    Raises:
        InputError: what the text's reader raised.
    """
    task = registered.task
    dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False, try_in_mem_cache=False)
    try:
        for batch in dataset.ragged_batch(_BATCH):
            yield {name: _ragged(batch[name]) for name in task.output_features}
    except tf.errors.OpError as error:
        if registered.errors:
            raise registered.errors[0] from error
        raise


def _ragged(sequences: tf.RaggedTensor) -> Ragged:
    return Ragged(sequences.values.numpy(), sequences.row_splits.numpy())


def _seqio_vocabulary(vocabulary: VocabularyFile) -> seqio.Vocabulary:
    if vocabulary.kind == "bytes":
        return seqio.ByteVocabulary(extra_ids=0)
    return seqio.SentencePieceVocabulary(str(vocabulary.path), extra_ids=0)


def _dataset_function(
    source: TextSource, features: tuple[str, ...], errors: list[InputError]
) -> Callable[[str, bool], tf.data.Dataset]:
    signature = {feature: tf.TensorSpec([None], tf.string) for feature in features}

    def dataset(split: str, shuffle_files: bool = False) -> tf.data.Dataset:
        def generate() -> Blocks:
            try:
                for block in source.splits[split]():
                    yield {feature: tf.constant(block[feature], tf.string) for feature in features}
            except InputError as error:
                errors.append(error)  # TensorFlow keeps only its text
                raise

        return tf.data.Dataset.from_generator(generate, output_signature=signature).unbatch()

    return dataset
