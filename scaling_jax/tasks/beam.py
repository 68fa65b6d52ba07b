"""Tokenising under Apache Beam: the work of `prepare` that takes long, by many workers, restartable.

    OUT/.STORE.blocks.HASH/vocabulary.model
    OUT/.STORE.blocks.HASH/SPLIT/NNNNNN.HASH.json      texts of a block
    OUT/.STORE.blocks.HASH/SPLIT/NNNNNN.HASH.npz       its token ids

The process that is started reads the text once and writes it in numbered blocks; workers tokenise
blocks, each a pure function of its texts and the vocabulary; the process lays them end to end in
their order, by the same functions as without Beam. Workers need to reach OUT and to have this package
with its extra `tasks`; nothing else is sent to them, no reader of a task and no settings.

A block's file appears whole, by one renaming. A call that was killed is completed by the next one:
it takes the blocks that are there. The first HASH is that of everything that token ids depend on.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import io
import json
import logging
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.tasks.encoded import (
    Encoded,
    Ragged,
    Texts,
    load_texts,
    load_tokens,
    pack_texts,
    save_tokens,
    text_blocks,
)
from scaling_jax.tasks.store_request import StoreRequest

# Blocks of the source are joined until they have this many characters: half a second of work.
BLOCK_CHARACTERS = 1 << 20
_SECONDS_BETWEEN_LINES = 5.0
_LIBRARIES = ("seqio", "tensorflow-text", "sentencepiece")


def check(runner: str, options: Sequence[str]) -> None:
    """Refuses what cannot be run, before anything is read.

    Raises:
        InputError: Beam is not installed, it has no such runner, or does not take these options.
    """
    _pipeline(runner, options)


@contextlib.contextmanager
def encoding(
    request: StoreRequest,
    vocabulary: VocabularyFile,
    path: Path,
    settings: Mapping[str, Any],
    runner: str,
    options: Sequence[str],
    say: Callable[[str], None],
) -> Iterator[Callable[[str], Iterator[Encoded]]]:
    """The encoded blocks of every split, in order. `remove_blocks` when the store is there.

    Args:
        request: the store to be made.
        vocabulary: copied to where the workers find it.
        path: folder of the store.
        settings: of the store.
        runner: name of Beam's runner.
        options: its options.
        say: gets a line for the screen.

    Raises:
        InputError: see `check` and `text_blocks`; a file that cannot be written; a runner that stops before
            all blocks are done.
    """
    folder = _folder(path, settings, vocabulary)
    remove_blocks(path, keep=folder)
    if vocabulary.path:
        files.write_bytes(folder / "vocabulary.model", vocabulary.path.read_bytes())
        vocabulary = dataclasses.replace(vocabulary, path=folder / "vocabulary.model")
    staged = {split: _stage(request, split, folder) for split in request.source.splits}
    everything = [block for blocks in staged.values() for block in blocks]
    waiting = [block for block in everything if not _tokens_of(block).exists()]
    say(f"{request.name}: {len(everything)} blocks, {len(everything) - len(waiting)} of them done before")
    if waiting:
        say(f"{request.name}: starting {runner}; its log is {folder / 'log'}")
        with _progress(request.name, everything, say), _stderr_to(folder / "log"):
            _run(waiting, request.task.features, request.task.ends, vocabulary, runner, options)
    left = [block for block in waiting if not _tokens_of(block).exists()]
    if left:
        raise InputError(
            f"{runner} ended without {len(left)} of {len(everything)} blocks ({_tokens_of(left[0])}): its "
            "workers must reach that folder under the same name; call prepare again to go on"
        )
    yield lambda split: (
        Encoded(load_texts(block), load_tokens(_tokens_of(block))) for block in staged[split]
    )


def _folder(path: Path, settings: Mapping[str, Any], vocabulary: VocabularyFile) -> Path:
    versions = {name: _version(name) for name in _LIBRARIES}
    identity = {"settings": settings, "vocabulary": vocabulary.sha256(), "versions": versions}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return path.absolute().parent / f".{path.name}.blocks.{digest[:16]}"


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None  # the workers have it


def remove_blocks(path: Path, keep: Path | None = None) -> None:
    """Removes the blocks of the store at `path`: of all settings, or of all but those in `keep`."""
    ours = re.compile(rf"\.{re.escape(path.name)}\.blocks\.[0-9a-f]{{16}}")
    for found in list(path.absolute().parent.iterdir()):
        if found != keep and ours.fullmatch(found.name):
            shutil.rmtree(found, ignore_errors=True)


def _stage(request: StoreRequest, split: str, folder: Path) -> list[Path]:
    """Writes the texts of a split in numbered blocks and returns their files in order."""
    staged = []
    for number, texts in enumerate(_joined(text_blocks(request, split))):
        content, digest = pack_texts(texts)
        path = folder / split / f"{number:06d}.{digest}.json"
        if not path.exists():
            files.write_bytes(path, content)
        staged.append(path)
    return staged


def _joined(blocks: Iterator[Texts]) -> Iterator[Texts]:
    pending: dict[str, list[str]] = {}
    characters = 0
    for block in blocks:
        for name, strings in block.items():
            pending.setdefault(name, []).extend(strings)
            characters += sum(map(len, strings))
        if characters >= BLOCK_CHARACTERS:
            yield pending
            pending, characters = {}, 0
    if pending:
        yield pending


def _tokens_of(texts: Path) -> Path:
    return texts.with_suffix(".npz")


def _pipeline(runner: str, options: Sequence[str]) -> Any:
    """A new pipeline.

    Raises:
        InputError: see `check`.
    """
    shown = logging.root.manager.disable
    logging.disable(logging.WARNING)  # Beam warns of libraries for stores of data that are not used here
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise InputError(f"--runner needs Apache Beam ({error}): pip install 'scaling-jax[beam]'") from error
    finally:
        logging.disable(shown)
    if runner.lower() in ("direct", "directrunner"):
        # What is called DirectRunner may hand the work to a program that it fetches from the network, and
        # that one does not know the options direct_num_workers and direct_running_mode.
        runner = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):  # argparse prints two hundred options before it says why
            pipeline_options = PipelineOptions(list(options))
            pipeline_options.get_all_options()
        return apache_beam.Pipeline(runner=runner, options=pipeline_options)
    except SystemExit as error:
        why = said.getvalue().strip().splitlines()[-1].rpartition("error: ")[2]
        raise InputError(f"--runner_options {' '.join(options)}: {why}") from error
    except (ValueError, ImportError, AttributeError, argparse.ArgumentError) as error:
        raise InputError(f"--runner {runner}: {' '.join(str(error).split())}") from error


def _run(
    waiting: Sequence[Path],
    features: tuple[str, ...],
    ends: tuple[str, ...],
    vocabulary: VocabularyFile,
    runner: str,
    options: Sequence[str],
) -> None:
    """Tokenises the blocks and returns when all are done."""
    beam = importlib.import_module("apache_beam")
    work = functools.partial(tokenise_file, features=features, ends=ends, vocabulary=vocabulary)
    try:
        pipeline = _pipeline(runner, options)
        paths = pipeline | "blocks" >> beam.Create([str(path) for path in waiting], reshuffle=False)
        paths | "spread" >> beam.Reshuffle() | "tokenise" >> beam.Map(work)
        pipeline.run().wait_until_finish()
    except Exception as error:
        # A worker's error comes back as it is, or as text with its traceback.
        name = f"{InputError.__name__}: "
        if not isinstance(error, InputError) and name not in str(error):
            raise
        said = str(error).rpartition(name)[2].splitlines()[0].partition(" [while running")[0]
        raise InputError(said) from error


@functools.lru_cache(maxsize=1)
def _encoder(
    features: tuple[str, ...], ends: tuple[str, ...], vocabulary: VocabularyFile
) -> Callable[[Texts], Mapping[str, Ragged]]:
    from scaling_jax.tasks import seqio_tasks

    return seqio_tasks.encoder(features, ends, vocabulary)


def tokenise_file(
    path: str, features: tuple[str, ...], ends: tuple[str, ...], vocabulary: VocabularyFile
) -> None:
    """What a worker does with a block of texts: its token ids go beside it.

    Raises:
        InputError: seqio or TensorFlow is missing there, or a file cannot be read or written.
    """
    encode = _encoder(features, ends, vocabulary)
    save_tokens(_tokens_of(Path(path)), encode(load_texts(Path(path))))


@contextlib.contextmanager
def _stderr_to(path: Path) -> Iterator[None]:
    """Sends what this process and those that it starts write to standard error into a file."""
    sys.stderr.flush()
    screen = os.dup(2)
    try:
        with open(path, "ab") as log:
            os.dup2(log.fileno(), 2)
        yield
    finally:
        sys.stderr.flush()
        os.dup2(screen, 2)
        os.close(screen)


@contextlib.contextmanager
def _progress(name: str, blocks: Sequence[Path], say: Callable[[str], None]) -> Iterator[None]:
    """Says how many blocks are done every few seconds while the block runs."""
    ended = threading.Event()

    def watch() -> None:
        said = 0
        while not ended.wait(_SECONDS_BETWEEN_LINES):
            done = sum(_tokens_of(block).exists() for block in blocks)
            if done > said:
                say(f"  {name}: {done} of {len(blocks)} blocks tokenised")
            said = done

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
