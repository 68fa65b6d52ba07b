"""The token store: tokenised examples as plain NumPy files that training memory-maps.

    STORE/manifest.json
    STORE/vocabulary.model                    (absent for bytes)
    STORE/SPLIT/NNNNN.FEATURE.tokens.npy      all examples of the shard end to end
    STORE/SPLIT/NNNNN.FEATURE.offsets.npy     int64 [examples + 1], where each begins
    STORE/SPLIT/text.jsonl                    dev and test of pairs: one JSON object for each example

A store is written by `scaling-jax prepare` and needs neither seqio nor TensorFlow to be read.
Features are `inputs` and `targets` for finetuning, `targets` alone for pretraining windows.
`text.jsonl` holds the texts as the task gave them, before the vocabulary, which scores need.
"""

import dataclasses
import functools
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import scaling_jax
from scaling_jax import files
from scaling_jax.errors import InputError, did_you_mean

FORMAT = "scaling_jax.token_store/1"
TOKENS_PER_SHARD = 1 << 24


@dataclasses.dataclass(frozen=True)
class VocabularyFile:
    """A vocabulary as the store records it; `path` is None for bytes.

    `size` counts all ids. The highest `extra_ids` of them stand for no text: pretraining objectives take
    sentinels from the top, as T5 does, and modes from the bottom. `unk_id` is -1 where nothing is unknown.
    `other_ends` end what a model writes as EOS does (LLaMA 3 Instruct has three such ids).
    """

    kind: str
    size: int
    path: Path | None = None
    pad_id: int = 0
    eos_id: int = 1
    unk_id: int = 2
    extra_ids: int = 0
    other_ends: tuple[int, ...] = ()

    def sentinel(self, number: Any) -> Any:
        """Id of sentinel 0, 1, ...; an integer or an array of them."""
        return self.size - 1 - number

    def mode(self, number: int) -> int:
        """Id of mode 0, 1, ..."""
        return self.size - self.extra_ids + number

    def sha256(self) -> str:
        """Identity of the vocabulary: the hash of its file, or its kind and ids; whatever its extra ids are.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            return files.sha256(self.path) if self.path else f"{self.kind}-{self.size - self.extra_ids}"
        except OSError as error:
            raise InputError(f"cannot read the vocabulary {self.path}: {error.strerror}") from error


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split, memory-mapped. `tokens[feature]` and `offsets[feature]` are lists over shards."""

    name: str
    tokens: Mapping[str, list[np.ndarray]]
    offsets: Mapping[str, list[np.ndarray]]
    shard_starts: np.ndarray  # int64 [shards + 1], examples before each shard
    path: Path  # of the store
    text: Mapping[str, Any] | None = None  # the manifest's entry of text.jsonl
    groups: Mapping[str, int] = dataclasses.field(default_factory=dict)  # examples of each part, in order

    def __len__(self) -> int:
        return int(self.shard_starts[-1])

    @functools.cached_property
    def features(self) -> tuple[str, ...]:
        """Feature names, `inputs` before `targets`."""
        return tuple(sorted(self.tokens))

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """The example at `index`: {feature: 1-D token ids}."""
        if not 0 <= index < len(self):
            raise IndexError(f"example {index} of a split with {len(self)}")
        shard = int(np.searchsorted(self.shard_starts, index, side="right")) - 1
        row = index - int(self.shard_starts[shard])
        example = {}
        for feature in self.features:
            begin, end = self.offsets[feature][shard][row : row + 2]
            example[feature] = self.tokens[feature][shard][begin:end]
        return example

    def lengths(self, feature: str) -> np.ndarray:
        """Tokens of `feature` in every example: int64 [examples]."""
        return np.concatenate([np.diff(offsets) for offsets in self.offsets[feature]])

    @functools.cached_property
    def total_lengths(self) -> np.ndarray:
        """Tokens of all features together in every example: int64 [examples]."""
        return sum(self.lengths(feature) for feature in self.features)

    def texts(self) -> tuple[Mapping[str, str], ...]:
        """The texts of every example, in order: {"inputs", "targets" and the task's columns: string}.

        They are the texts as the task gave them, whole where tokens were cut.

        Raises:
            InputError: the store holds none for this split, or the file is not what was written.
        """
        if self.text is None:
            raise InputError(
                f"{self.path}: split {self.name!r} has no texts; prepare keeps those of dev and test of "
                "tasks with inputs and targets. If an earlier version made this store, remove the folder and "
                "prepare it again"
            )
        path = self.path / self.text["file"]
        try:
            content = path.read_bytes()
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        if hashlib.sha256(content).hexdigest() != self.text["sha256"]:
            raise InputError(f"{path}: not the bytes that were written: prepare the store again")
        # Only \n ends a line: str.splitlines would also split at characters such as U+2028.
        return tuple(json.loads(line) for line in content.decode("utf-8").split("\n")[:-1])


@dataclasses.dataclass(frozen=True)
class TokenStore:
    """An opened store."""

    path: Path
    manifest: Mapping[str, Any]

    @property
    def vocabulary(self) -> VocabularyFile:
        """The vocabulary that the tokens belong to."""
        recorded = self.manifest["vocabulary"]
        path = self.path / recorded["file"] if recorded["file"] else None
        ids = {key: recorded[key] for key in ("pad_id", "eos_id", "unk_id")}
        # Stores of before there were any say nothing of these.
        extra_ids, other_ends = recorded.get("extra_ids", 0), tuple(recorded.get("other_ends", ()))
        return VocabularyFile(
            recorded["kind"], recorded["size"], path, **ids, extra_ids=extra_ids, other_ends=other_ends
        )

    @property
    def references(self) -> str:
        """What an input is scored against: "one", its own target, or "same_inputs".

        "same_inputs" means all targets of the split that have the same input.
        """
        return self.manifest.get("references", "one")

    def split(self, name: str) -> Split:
        """Opens one split.

        Raises:
            InputError: no such split, or a file of it that is missing or truncated.
        """
        splits = self.manifest["splits"]
        if name not in splits:
            raise InputError(f"{self.path}: no split {name!r}{did_you_mean(name, splits)}")
        tokens: dict[str, list] = {}
        offsets: dict[str, list] = {}
        for shard in splits[name]["shards"]:
            for feature, names in shard["files"].items():
                tokens.setdefault(feature, []).append(self._array(names["tokens"]))
                offsets.setdefault(feature, []).append(self._array(names["offsets"]))
        counts = [shard["examples"] for shard in splits[name]["shards"]]
        text = splits[name].get("text")
        if text:
            self._check_size(text)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return Split(name, tokens, offsets, starts, self.path, text, splits[name].get("groups", {}))

    def manifest_hash(self) -> str:
        """Hash of the manifest, which itself holds the hash of every other file."""
        return files.sha256(self.path / "manifest.json")

    def check_sizes(self) -> None:
        """Compares the size of every file with the recorded one; `verify` compares the bytes.

        Raises:
            InputError: naming the first file that is missing or has another size.
        """
        for entry in self._entries():
            self._check_size(entry)
        if self.vocabulary.path and not self.vocabulary.path.is_file():
            raise InputError(f"{self.vocabulary.path} is missing: prepare the store again")

    def _entries(self) -> Iterable[Mapping[str, Any]]:
        """The manifest's entries of shards and texts."""
        for split in self.manifest["splits"].values():
            for shard in split["shards"]:
                for names in shard["files"].values():
                    yield from names.values()
            if "text" in split:
                yield split["text"]

    def verify(self) -> None:
        """Compares the bytes of the vocabulary, of every shard and of the texts with their recorded hash.

        Raises:
            InputError: naming the first file that differs.
        """
        if self.vocabulary.sha256() != self.manifest["vocabulary"]["sha256"]:
            raise InputError(f"{self.vocabulary.path}: not the bytes that were written")
        for entry in self._entries():
            if files.sha256(self._check_size(entry)) != entry["sha256"]:
                raise InputError(f"{self.path / entry['file']}: not the bytes that were written")

    def _array(self, entry: Mapping[str, Any]) -> np.ndarray:
        # A plain view: slicing the memmap class itself costs several microseconds.
        return np.load(self._check_size(entry), mmap_mode="r", allow_pickle=False).view(np.ndarray)

    def _check_size(self, entry: Mapping[str, Any]) -> Path:
        path = self.path / entry["file"]
        size = path.stat().st_size if path.exists() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise InputError(f"{path} {found}, the manifest says {entry['bytes']}: prepare the store again")
        return path


def open_store(path: str | os.PathLike) -> TokenStore:
    """Opens a store.

    Raises:
        InputError: no manifest there, or one of another format.
    """
    path = Path(path)
    if not (path / "manifest.json").is_file():
        raise InputError(f"{path} is not a token store (no manifest.json): make one with scaling-jax prepare")
    manifest = files.read_json(path / "manifest.json")
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path}/manifest.json: format {manifest.get('format')!r}, this version reads {FORMAT!r}"
        )
    return TokenStore(path, manifest)


def write_store(
    path: str | os.PathLike,
    *,
    task: str,
    vocabulary: VocabularyFile,
    feature_lengths: Mapping[str, int],
    splits: Mapping[str, Iterable[Mapping[str, np.ndarray]]],
    facts: Mapping[str, Any],
    seed: int | None,
    settings: Mapping[str, Any],
    texts: Mapping[str, Iterable[Mapping[str, str]]] | None = None,
    groups: Mapping[str, Mapping[str, int]] | None = None,
    scoring: Mapping[str, Any] | None = None,
) -> TokenStore:
    """Writes a store whole or not at all.

    Args:
        path: folder that does not exist yet, or is empty.
        task: versioned task name.
        vocabulary: copied into the store.
        feature_lengths: the greatest length of each feature in tokens.
        splits: examples of each split, {feature: 1-D token ids}; read once.
        facts: what is known of the data, such as its true entropy.
        seed: seed of the data, if it has one.
        settings: what the task was prepared with; written as given.
        texts: texts of the examples of some splits; each is read after the split's examples.
        groups: examples of each part of a split that is a concatenation, in order.
        scoring: what scores go by, written at the top of the manifest: `references` (see
            `TokenStore.references`), `target_language`, `scores`.

    Raises:
        InputError: an empty split, an example longer than its feature's length or with an id
            outside the vocabulary, more or fewer texts than examples, or a folder that cannot be written.
    """
    path = Path(path)
    with files.new_directory(path) as folder:
        if vocabulary.path:
            shutil.copyfile(vocabulary.path, folder / "vocabulary.model")
        written = {}
        for name in splits:
            written[name] = _write_split(folder, name, splits[name], feature_lengths, vocabulary.size)
            written[name]["groups"] = _checked_groups(name, written[name], (groups or {}).get(name, {}))
            if name in (texts or {}):
                written[name]["text"] = _write_texts(folder, name, texts[name], written[name]["examples"])
        manifest = {
            "format": FORMAT,
            "task": task,
            "seed": seed,
            "vocabulary": {
                "kind": vocabulary.kind,
                "size": vocabulary.size,
                "file": "vocabulary.model" if vocabulary.path else None,
                "sha256": vocabulary.sha256(),
                "pad_id": vocabulary.pad_id,
                "eos_id": vocabulary.eos_id,
                "unk_id": vocabulary.unk_id,
                "extra_ids": vocabulary.extra_ids,
                **({"other_ends": list(vocabulary.other_ends)} if vocabulary.other_ends else {}),
            },
            "feature_lengths": dict(feature_lengths),
            "splits": written,
            "references": "one",
            **(scoring or {}),
            "facts": dict(facts),
            "settings": dict(settings),
            "versions": {
                "scaling_jax": scaling_jax.__version__,
                "numpy": np.__version__,
                "python": platform.python_version(),
            },
        }
        files.write_json(folder / "manifest.json", manifest)
    return open_store(path)


def _checked_groups(split: str, written: Mapping[str, Any], groups: Mapping[str, int]) -> dict[str, int]:
    if groups and sum(groups.values()) != written["examples"]:
        raise InputError(
            f"split {split!r} has {written['examples']} examples, its parts {sum(groups.values())}: "
            "its files have changed while they were read"
        )
    return dict(groups)


def _write_split(
    folder: Path,
    name: str,
    examples: Iterable[Mapping[str, np.ndarray]],
    feature_lengths: Mapping[str, int],
    vocabulary_size: int,
) -> dict[str, Any]:
    dtype = np.dtype(np.uint16 if vocabulary_size <= 1 << 16 else np.int32)
    shards: list[dict[str, Any]] = []
    pending: list[Mapping[str, np.ndarray]] = []
    pending_tokens = 0
    totals = dict.fromkeys(feature_lengths, 0)
    for index, example in enumerate(examples):
        for feature, limit in feature_lengths.items():
            ids = example[feature]
            if len(ids) > limit or (len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary_size):
                raise InputError(
                    f"split {name!r}, example {index}: {feature} has {len(ids)} ids (at most {limit}), "
                    f"each must be below the vocabulary's size {vocabulary_size}"
                )
            totals[feature] += len(ids)
            pending_tokens += len(ids)
        pending.append(example)
        if pending_tokens >= TOKENS_PER_SHARD:
            shards.append(_write_shard(folder, name, len(shards), pending, feature_lengths, dtype))
            pending, pending_tokens = [], 0
    if pending:
        shards.append(_write_shard(folder, name, len(shards), pending, feature_lengths, dtype))
    if not shards:
        raise InputError(f"split {name!r} is empty")
    return {"examples": sum(shard["examples"] for shard in shards), "tokens": totals, "shards": shards}


def _write_texts(
    folder: Path, split: str, rows: Iterable[Mapping[str, str]], examples: int
) -> dict[str, Any]:
    relative, count = f"{split}/text.jsonl", 0
    try:
        with open(folder / relative, "wb") as file:
            for row in rows:
                file.write(json.dumps(dict(row), ensure_ascii=False).encode("utf-8") + b"\n")
                count += 1
    except UnicodeEncodeError as error:
        raise InputError(f"split {split!r}, example {count}: not Unicode text ({error.reason})") from error
    except OSError as error:
        raise InputError(f"cannot write {relative} of the store: {error.strerror or error}") from error
    if count != examples:
        raise InputError(f"split {split!r}: {count} texts for {examples} examples")
    size = (folder / relative).stat().st_size
    return {"file": relative, "bytes": size, "sha256": files.sha256(folder / relative)}


def _write_shard(
    folder: Path,
    split: str,
    number: int,
    examples: list[Mapping[str, np.ndarray]],
    features: Iterable[str],
    dtype: np.dtype,
) -> dict[str, Any]:
    (folder / split).mkdir(exist_ok=True)
    shard: dict[str, Any] = {"examples": len(examples), "files": {}}
    for feature in features:
        lengths = [len(example[feature]) for example in examples]
        arrays = {
            "tokens": np.concatenate([np.asarray(example[feature], dtype) for example in examples]),
            "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        }
        entries = {}
        for kind, array in arrays.items():
            relative = f"{split}/{number:05d}.{feature}.{kind}.npy"
            try:
                np.save(folder / relative, array, allow_pickle=False)
            except OSError as error:
                raise InputError(
                    f"cannot write {relative} of the store: {error.strerror or error}"
                ) from error
            size = (folder / relative).stat().st_size
            entries[kind] = {"file": relative, "bytes": size, "sha256": files.sha256(folder / relative)}
        shard["files"][feature] = entries
    return shard
