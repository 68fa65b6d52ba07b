"""Tasks to token stores: one vocabulary, one folder for each store.

    prepare.stores = [@pretrain/task_store(), @finetune/task_store()]
    prepare.vocabulary = @sentencepiece()
    pretrain/task_store.name = 'pretrain'
    pretrain/task_store.task = 'lab_text'
    pretrain/task_store.window = 64
    finetune/task_store.name = 'finetune'
    finetune/task_store.task = 'lab_translation'
    finetune/task_store.feature_lengths = {'inputs': 32, 'targets': 32}

Everything that can be checked without TensorFlow is checked before it is imported, and it is not
imported at all when the stores are there already. One call at a time works in an output folder; a
store appears there whole, by one renaming, and what a call that was killed left is removed.
"""

import contextlib
import fcntl
import itertools
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from scaling_jax.data.store import VocabularyFile, open_store
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import assembly, beam
from scaling_jax.tasks.encoded import Encoded, text_blocks
from scaling_jax.tasks.registry import PAIRS
from scaling_jax.tasks.store_request import StoreRequest
from scaling_jax.tasks.vocabularies import Vocabulary, sentencepiece


@gin.configurable(module="tasks", denylist=("out", "say", "runner", "runner_options"))
def prepare(
    out: Path,
    say: Callable[[str], None] = print,
    stores: Sequence[StoreRequest] = (),
    vocabulary: Vocabulary | None = None,
    runner: str | None = None,
    runner_options: Sequence[str] = (),
) -> dict[str, Path]:
    """Makes every store that is not there yet.

    Args:
        out: folder of the stores.
        say: gets a line for the screen.
        stores: gin binding `prepare.stores`.
        vocabulary: gin binding `prepare.vocabulary`; a SentencePiece vocabulary of 512 where None.
        runner: a runner of Apache Beam that tokenises, such as "DirectRunner"; this process where None.
            The stores are the same, byte for byte.
        runner_options: Beam's pipeline options, such as "--direct_num_workers=4".

    Returns:
        The folder of each store by its name.

    Raises:
        InputError: text that cannot be read or used, a store there that was made with other settings,
            or another call that is at work in `out`.
    """
    if not stores:
        raise InputError("prepare.stores is not set: bind it to a list such as [@finetune/task_store()]")
    names = [request.name for request in stores]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InputError(
            f"prepare.stores: two stores are called {repeated[0]!r}; give each its own task_store.name"
        )
    vocabulary = vocabulary or sentencepiece()
    learned_from = _learned_from(vocabulary, stores)
    settings = {request.name: _settings(request, vocabulary, learned_from) for request in stores}
    paths = {request.name: Path(out) / request.name for request in stores}
    missing = []
    for request in stores:
        if _up_to_date(request, paths[request.name], settings[request.name], say):
            beam.remove_blocks(paths[request.name])
        else:
            missing.append(request)
    if not missing:
        return paths
    if runner:
        beam.check(runner, runner_options)
    for note in itertools.chain.from_iterable(request.source.notes for request in missing):
        say(note)
    with _alone_in(Path(out)), tempfile.TemporaryDirectory() as folder:
        _remove_leftovers(Path(out), names)
        there = [paths[name] for name in names if (paths[name] / "manifest.json").exists()]
        if there:
            # What an interrupted prepare left holds the vocabulary that these settings gave.
            file = open_store(there[0]).vocabulary
        else:
            say(f"making the vocabulary ({vocabulary.settings['kind']})")
            file = vocabulary.make(_lines(learned_from), Path(folder))
        say(f"vocabulary: {file.kind}, {file.size} pieces; loading {runner or 'seqio and TensorFlow'}")
        for request in missing:
            path, wanted = paths[request.name], settings[request.name]
            if runner:
                encoding = beam.encoding(request, file, path, wanted, runner, runner_options, say)
            else:
                encoding = _in_process(request, file)
            with encoding as encoded:
                store = assembly.assemble(request, path, file, wanted, encoded, say)
            beam.remove_blocks(path)
            for line in assembly.summary(path, store.manifest):
                say(line)
    return paths


@contextlib.contextmanager
def _in_process(
    request: StoreRequest, vocabulary: VocabularyFile
) -> Iterator[Callable[[str], Iterator[Encoded]]]:
    from scaling_jax.tasks import seqio_tasks

    seqio_tasks.register(request.task, request.source, vocabulary)
    encode = seqio_tasks.encoder(request.task.features, request.task.ends, vocabulary)
    yield lambda split: (Encoded(texts, encode(texts)) for texts in text_blocks(request, split))


@contextlib.contextmanager
def _alone_in(out: Path) -> Iterator[None]:
    """Holds a lock on the folder, which the kernel releases when the process dies.

    Raises:
        InputError: the folder cannot be made, or another process holds the lock.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise InputError(f"cannot make {out}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise InputError(f"{out}: another prepare is at work there; wait for it, or end it") from error
    except OSError:
        pass  # a file system without locks
    try:
        yield
    finally:
        os.close(descriptor)


def _remove_leftovers(out: Path, names: Sequence[str]) -> None:
    """Removes the unfinished folders of calls that were killed (`files.new_directory` names them)."""
    unfinished = re.compile(rf"\.({'|'.join(map(re.escape, names))})\.[a-z0-9_]{{8}}")
    for path in list(out.iterdir()):
        if unfinished.fullmatch(path.name) and path.is_dir():
            shutil.rmtree(path, ignore_errors=True)


def _learned_from(vocabulary: Vocabulary, stores: Sequence[StoreRequest]) -> list[StoreRequest]:
    names = [request.name for request in stores]
    for name in vocabulary.text or ():
        if name not in names:
            raise InputError(f"sentencepiece.text: no store {name!r}{did_you_mean(name, names)}")
    trained = [request for request in stores if "train" in request.source.splits]
    without = sorted({*(vocabulary.text or ())} - {request.name for request in trained})
    if without:
        raise InputError(f"sentencepiece.text: store {without[0]!r} has no train split to learn from")
    if vocabulary.text is None and not trained:
        raise InputError(
            "prepare.vocabulary learns from train splits, and none of the stores has one: add a store that "
            "has, or bind prepare.vocabulary = @sentencepiece_model(), the model that it is scored with"
        )
    return [request for request in trained if vocabulary.text is None or request.name in vocabulary.text]


def _settings(
    request: StoreRequest, vocabulary: Vocabulary, learned_from: Sequence[StoreRequest]
) -> dict[str, Any]:
    settings = {
        "task": request.task.versioned_name,
        "arguments": request.source.identity,
        "feature_lengths": request.feature_lengths,
        "window": request.window,
        "vocabulary": vocabulary.settings,
        "vocabulary_text": {other.name: other.source.identity for other in learned_from},
    }
    return json.loads(json.dumps(settings, default=list))  # as it will be read back: tuples are lists


def _up_to_date(
    request: StoreRequest, path: Path, settings: Mapping[str, Any], say: Callable[[str], None]
) -> bool:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    store = open_store(path)
    manifest = store.manifest
    if _set(manifest["settings"]) != _set(settings):
        raise InputError(
            f"{path} was prepared with other settings "
            f"({_first_difference(_set(manifest['settings']), _set(settings))}): "
            "give another --out, or remove that folder"
        )
    try:
        store.check_sizes()
    except InputError as error:
        raise InputError(f"{error}, after removing the folder {path}") from error
    held_out = [split for name, split in manifest["splits"].items() if name != "train"]
    if request.task.features == PAIRS and not all("text" in split for split in held_out):
        say(
            f"{path}: up to date, but an earlier version made it without the texts that scores need; "
            "remove the folder to have it made again"
        )
    else:
        say(f"{path}: up to date")
    return True


def _set(settings: Any) -> Any:
    """The settings without those that are None: a task that learns a new parameter keeps its stores."""
    if not isinstance(settings, dict):
        return settings
    return {name: _set(value) for name, value in settings.items() if value is not None}


def _first_difference(there: Any, wanted: Any, name: str = "") -> str:
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in sorted({*there, *wanted}):
            if there.get(key) != wanted.get(key):
                return _first_difference(there.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    return f"{name}: there {there!r}, now {wanted!r}"


def _lines(requests: Sequence[StoreRequest]) -> Iterator[str]:
    """Training text of the stores, a block of each in turn, so that a prefix holds all of them."""
    pending = [(request, request.source.splits["train"]()) for request in requests]
    while pending:
        for request, blocks in list(pending):
            block = next(blocks, None)
            if block is None:
                pending.remove((request, blocks))
                continue
            for name, texts in block.items():
                if name in request.task.features:
                    yield from texts
