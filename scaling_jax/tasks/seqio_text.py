"""`seqio_pairs` and `seqio_documents`: the text of a task of your own that seqio knows.

    seqio_pairs.task = 'glue_cola_v002'
    seqio_pairs.module = 't5.data.tasks'

The task's own preprocessing is run as it is; what is taken is the text before its vocabulary, which
`seqio.preprocessors.tokenize` leaves under `inputs_pretokenized` and `targets_pretokenized`. The store's
vocabulary and lengths are those that `prepare` is told.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import text_files
from scaling_jax.tasks.registry import DOCUMENTS, PAIRS, DataSet, TextSource, text_task

# seqio's name of a split by ours; `dev` may be called either.
_NAMES = {"train": ("train",), "dev": ("validation", "dev"), "test": ("test",)}
_DATA = DataSet(
    "a task in seqio's registry, https://github.com/google/seqio",
    "bind the name of the task, and the module whose import registers it",
    "the task's train, validation (or dev) and test, those that it has",
    "as the task preprocesses it",
)


@text_task(version=1, features=PAIRS, summary="inputs and targets of a seqio task of yours", data=_DATA)
def seqio_pairs(task: str | None = None, module: str | None = None) -> TextSource:
    """Pairs of a registered seqio task.

    Args:
        task: its name in seqio's registry.
        module: module whose import registers it; None where it is registered already.
    """
    return _source("seqio_pairs", PAIRS, task, module)


@text_task(version=1, features=DOCUMENTS, summary="targets of a seqio task of yours", data=_DATA)
def seqio_documents(task: str | None = None, module: str | None = None) -> TextSource:
    """Documents of a registered seqio task: its targets.

    Args:
        task: its name in seqio's registry.
        module: module whose import registers it; None where it is registered already.
    """
    return _source("seqio_documents", DOCUMENTS, task, module)


def _source(binding: str, features: tuple[str, ...], task: str | None, module: str | None) -> TextSource:
    if not task:
        raise InputError(f"{binding}.task is not set: bind it to a task in seqio's registry")
    from scaling_jax.tasks.seqio_tasks import seqio

    if module:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(f"{binding}.module = {module!r}: cannot be imported ({error})") from error
    names = seqio.TaskRegistry.names()
    if task not in names:
        raise InputError(f"{binding}.task: seqio's registry has no {task!r}{did_you_mean(task, names)}")
    found = seqio.TaskRegistry.get(task)
    there = {
        split: next(name for name in names if name in found.splits)
        for split, names in _NAMES.items()
        if any(name in found.splits for name in names)
    }
    if not there:
        raise InputError(
            f"{binding}.task = {task!r}: its splits are {', '.join(found.splits)}, not train, "
            "validation or test"
        )
    return TextSource(
        {split: _reader(binding, found, name, features) for split, name in there.items()},
        notes=(f"{task}: seqio does not say when its data changes, so a store of it counts as up to date",),
    )


def _reader(
    binding: str, task: Any, split: str, features: tuple[str, ...]
) -> Callable[[], Iterator[Mapping[str, list[str]]]]:
    keys = [f"{feature}_pretokenized" for feature in features]

    def rows() -> Iterator[tuple[str, ...]]:
        dataset = task.get_dataset(sequence_length=None, split=split, shuffle=False, try_in_mem_cache=False)
        missing = [key for key in keys if key not in dataset.element_spec]
        if missing:
            raise InputError(
                f"{binding}.task = {task.name!r}: its examples have no {missing[0]!r}; it must tokenise with "
                "seqio.preprocessors.tokenize, which keeps the text"
            )
        for example in dataset.as_numpy_iterator():
            yield tuple(example[key].decode("utf-8") for key in keys)

    return lambda: text_files.in_blocks(rows(), features)
