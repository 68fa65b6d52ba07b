"""Text as a seqio task, and a seqio task as token arrays. The one module that imports TensorFlow.

Import it inside a function, after everything that can be checked without it: it costs seconds and
half a gigabyte.
"""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping

import numpy as np

from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.tasks.registry import Blocks, TextSource, TextTask

# TensorFlow greets every user with warnings about hardware that a text pipeline does not use.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
try:
    import seqio
    import tensorflow as tf
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
        return len(self.offsets) - 1


def register(task: TextTask, source: TextSource, vocabulary: VocabularyFile) -> seqio.Task:
    """Puts the task under its versioned name into seqio's registry, in place of one of that name."""
    pieces = _seqio_vocabulary(vocabulary)
    features = {
        feature: seqio.Feature(vocabulary=pieces, add_eos=feature in task.ends, required=True)
        for feature in task.features
    }
    seqio.TaskRegistry.remove(task.versioned_name)
    return seqio.TaskRegistry.add(
        task.versioned_name,
        source=seqio.FunctionDataSource(_dataset_function(source, task.features), splits=tuple(source.splits)),
        preprocessors=[
            _tokenize,
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features=features,
    )


def blocks(task: seqio.Task, split: str) -> Iterator[Mapping[str, Ragged]]:
    """The split's examples in their order, not trimmed, a few thousand at a time."""
    dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False, try_in_mem_cache=False)
    names = list(task.output_features)
    dataset = dataset.map(lambda example: {name: example[name] for name in names}).ragged_batch(_BATCH)
    with _input_errors():
        for batch in dataset:
            yield {name: Ragged(batch[name].values.numpy(), batch[name].row_splits.numpy()) for name in names}


def _seqio_vocabulary(vocabulary: VocabularyFile) -> seqio.Vocabulary:
    if vocabulary.kind == "bytes":
        return seqio.ByteVocabulary(extra_ids=0)
    return seqio.SentencePieceVocabulary(str(vocabulary.path), extra_ids=0)


def _dataset_function(source: TextSource, features: tuple[str, ...]):
    signature = {feature: tf.TensorSpec([None], tf.string) for feature in features}

    def dataset(split: str, shuffle_files: bool = False) -> tf.data.Dataset:
        def generate() -> Blocks:
            for block in source.splits[split]():
                yield {feature: tf.constant(block[feature], tf.string) for feature in features}

        return tf.data.Dataset.from_generator(generate, output_signature=signature).unbatch()

    return dataset


def _tokenize(dataset: tf.data.Dataset, output_features: Mapping[str, seqio.Feature]) -> tf.data.Dataset:
    # seqio's own `tokenize` also carries the text along, which nobody reads here.
    return seqio.preprocessors.tokenize(dataset, output_features, copy_pretokenized=False)


@contextlib.contextmanager
def _input_errors() -> Iterator[None]:
    """Gives back the InputError that a reader raised inside TensorFlow."""
    yield
