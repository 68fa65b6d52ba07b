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
imported at all when the stores are there already.
"""

import dataclasses
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gin
import numpy as np

from scaling_jax.data.store import VocabularyFile, open_store, write_store
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import registry
from scaling_jax.tasks.registry import DOCUMENTS, TextSource, TextTask
from scaling_jax.tasks.vocabularies import Vocabulary, sentencepiece

if TYPE_CHECKING:
    from scaling_jax.tasks.seqio_tasks import Ragged

_SECONDS_BETWEEN_LINES = 5.0


@dataclasses.dataclass(frozen=True)
class StoreRequest:
    """One store to be made: its sub-folder, its task and text, and the shape of its examples.

    `feature_lengths` are the greatest lengths in tokens. Pretraining text has `window` set instead:
    all documents end to end, each followed by EOS, cut into windows of exactly that many tokens.
    """

    name: str
    task: TextTask
    source: TextSource
    feature_lengths: Mapping[str, int]
    window: int | None


@gin.configurable(module="tasks")
def task_store(
    name: str | None = None,
    task: str | None = None,
    window: int | None = None,
    feature_lengths: Mapping[str, int] | None = None,
) -> StoreRequest:
    """One store of `prepare.stores`; give each its own gin scope.

    Args:
        name: sub-folder of the output folder; the task's name where None.
        task: registered task.
        window: tokens of a pretraining window.
        feature_lengths: for tasks with inputs and targets, the greatest length of each in tokens;
            longer ones are cut (targets still end in EOS) and counted.

    Raises:
        InputError: no such task, or lengths that do not fit its features.
    """
    scope = f"{gin.current_scope_str()}/" if gin.current_scope_str() else ""
    if not task:
        raise InputError(f"{scope}task_store.task is not set; tasks: {', '.join(registry.all_tasks())}")
    found = registry.find(task)
    if found.features == DOCUMENTS:
        if not isinstance(window, int) or window < 2 or feature_lengths:
            raise InputError(
                f"{scope}task_store: {task} is pretraining text, bind window (2 tokens or more) alone"
            )
        lengths = {"targets": window}
    else:
        lengths = dict(feature_lengths or {})
        if window or set(lengths) != set(found.features) or min(lengths.values()) < 2:
            wanted = {feature: 128 for feature in found.features}
            raise InputError(
                f"{scope}task_store: {task} needs feature_lengths such as {wanted}, and no window"
            )
    return StoreRequest(name or task, found, found.call(), lengths, window)


@gin.configurable(module="tasks", denylist=("out", "say"))
def prepare(
    out: Path,
    say: Callable[[str], None] = print,
    stores: Sequence[StoreRequest] = (),
    vocabulary: Vocabulary | None = None,
) -> dict[str, Path]:
    """Makes every store that is not there yet.

    Args:
        out: folder of the stores.
        say: gets a line for the screen.
        stores: gin binding `prepare.stores`.
        vocabulary: gin binding `prepare.vocabulary`; a SentencePiece vocabulary of 512 where None.

    Returns:
        The folder of each store by its name.

    Raises:
        InputError: text that cannot be read or used, or a store there that was made with other settings.
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
    missing = [
        request for request in stores if not _up_to_date(paths[request.name], settings[request.name], say)
    ]
    if not missing:
        return paths
    for note in itertools.chain.from_iterable(request.source.notes for request in missing):
        say(note)
    with tempfile.TemporaryDirectory() as folder:
        there = [paths[name] for name in names if (paths[name] / "manifest.json").exists()]
        if there:
            # What an interrupted prepare left holds the vocabulary that these settings gave.
            file = open_store(there[0]).vocabulary
        else:
            say(f"making the vocabulary ({vocabulary.settings['kind']})")
            file = vocabulary.make(_lines(learned_from), Path(folder))
        say(f"vocabulary: {file.kind}, {file.size} pieces; loading seqio and TensorFlow")
        for request in missing:
            _make_store(request, paths[request.name], file, settings[request.name], say)
    return paths


def _learned_from(vocabulary: Vocabulary, stores: Sequence[StoreRequest]) -> list[StoreRequest]:
    names = [request.name for request in stores]
    for name in vocabulary.text or ():
        if name not in names:
            raise InputError(f"sentencepiece.text: no store {name!r}{did_you_mean(name, names)}")
    return [request for request in stores if vocabulary.text is None or request.name in vocabulary.text]


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


def _up_to_date(path: Path, settings: Mapping[str, Any], say: Callable[[str], None]) -> bool:
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return False
    there = open_store(path).manifest["settings"]
    if there != settings:
        raise InputError(
            f"{path} was prepared with other settings ({_first_difference(there, settings)}): "
            "give another --out, or remove that folder"
        )
    say(f"{path}: up to date")
    return True


def _first_difference(there: Any, wanted: Any, name: str = "") -> str:
    if isinstance(there, dict) and isinstance(wanted, dict):
        for key in sorted({*there, *wanted}):
            if there.get(key) != wanted.get(key):
                return _first_difference(there.get(key), wanted.get(key), f"{name}.{key}" if name else key)
    return f"{name}: there {there!r}, now {wanted!r}"


def _lines(requests: Sequence[StoreRequest]) -> Iterator[str]:
    """Training text of the stores, a block of each in turn, so that a prefix holds all of them."""
    pending = [request.source.splits["train"]() for request in requests]
    while pending:
        for blocks in list(pending):
            block = next(blocks, None)
            if block is None:
                pending.remove(blocks)
                continue
            for texts in block.values():
                yield from texts


def _make_store(
    request: StoreRequest, path: Path, vocabulary: VocabularyFile, settings: dict, say: Callable[[str], None]
) -> None:
    from scaling_jax.tasks import seqio_tasks

    registered = seqio_tasks.register(request.task, request.source, vocabulary)
    facts: dict[str, Any] = {}
    truncated: dict[str, dict[str, int]] = {}
    tokens: dict[str, int] = {}

    def examples(split: str) -> Iterator[Mapping[str, np.ndarray]]:
        truncated[split], tokens[split] = dict.fromkeys(request.feature_lengths, 0), 0
        blocks = _with_progress(seqio_tasks.blocks(registered, split), f"{request.name} {split}", say)
        if request.window:
            yield from _windows(blocks, request.window, f"{request.name}: split {split!r}")
        else:
            for example in _pairs(blocks, request, vocabulary.eos_id, truncated[split]):
                tokens[split] += len(example["targets"])
                yield example
        if list(request.source.splits)[-1] == split:
            facts.update(_facts(request, tokens, truncated))

    store = write_store(
        path,
        task=request.task.versioned_name,
        vocabulary=vocabulary,
        feature_lengths=request.feature_lengths,
        splits={split: examples(split) for split in request.source.splits},
        facts=facts,  # filled while the splits are read; written after them
        seed=request.source.seed,
        settings=settings,
    )
    for line in _summary(path, store.manifest):
        say(line)


def _windows(
    blocks: Iterator[Mapping[str, "Ragged"]], window: int, name: str
) -> Iterator[Mapping[str, np.ndarray]]:
    """Cuts the stream of documents; what is left at its end, less than a window, is dropped."""
    rest = np.zeros(0, np.int32)
    cut = 0
    for block in blocks:
        stream = np.concatenate([rest, block["targets"].tokens])
        whole = len(stream) // window * window
        for row in stream[:whole].reshape(-1, window):
            yield {"targets": row}
        rest = stream[whole:]
        cut += whole
    if not cut:
        raise InputError(
            f"{name} has {len(rest)} tokens, less than one window of {window}: give it more text"
        )


def _pairs(
    blocks: Iterator[Mapping[str, "Ragged"]], request: StoreRequest, eos_id: int, truncated: dict[str, int]
) -> Iterator[Mapping[str, np.ndarray]]:
    """Examples cut to their feature lengths as seqio cuts them: what ends in EOS still does."""
    features = tuple(request.feature_lengths)
    for block in blocks:
        offsets = {feature: block[feature].offsets.tolist() for feature in features}
        for row in range(len(block[features[0]])):
            example = {}
            for feature, limit in request.feature_lengths.items():
                begin, end = offsets[feature][row : row + 2]
                ids = block[feature].tokens[begin:end]
                if len(ids) > limit:
                    truncated[feature] += 1
                    ids = ids[:limit].copy()
                    if feature in request.task.ends:
                        ids[-1] = eos_id
                example[feature] = ids
            yield example


def _facts(
    request: StoreRequest, tokens: Mapping[str, int], truncated: Mapping[str, Mapping[str, int]]
) -> dict[str, Any]:
    if request.window:
        return {}
    cut = {split: dict(counts) for split, counts in truncated.items()}
    # What is known of whole examples is not known of cut ones.
    whole = {split: count for split, count in tokens.items() if not sum(cut[split].values())}
    return {"truncated_examples": cut, **request.source.facts(whole)}


def _with_progress(blocks: Iterator, name: str, say: Callable[[str], None]) -> Iterator:
    """Passes the blocks on and says how far it is every few seconds."""
    last, examples = time.monotonic(), 0
    for block in blocks:
        yield block
        examples += len(next(iter(block.values())))
        if time.monotonic() - last > _SECONDS_BETWEEN_LINES:
            last = time.monotonic()
            say(f"  {name}: {examples:,} read so far")


def _summary(path: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    yield f"{path}: {manifest['task']}"
    for split, entry in manifest["splits"].items():
        tokens = ", ".join(f"{count:,} tokens of {feature}" for feature, count in entry["tokens"].items())
        yield f"  {split}: {entry['examples']:,} examples, {tokens}"
    for split, counts in manifest["facts"].get("truncated_examples", {}).items():
        for feature, count in counts.items():
            if count:
                limit = manifest["feature_lengths"][feature]
                yield f"  {split}: {count:,} {feature} were longer than {limit} tokens and are cut"
    entropy = manifest["facts"].get("entropy_per_target_token", {})
    if entropy:
        values = ", ".join(f"{split} {value:.4f}" for split, value in entropy.items())
        yield f"  true entropy given the source, nats per target token: {values}"
