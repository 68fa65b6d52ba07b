"""The token store: tokenised examples as plain NumPy files that training memory-maps.

    STORE/manifest.json
    STORE/vocabulary.model                    (absent for bytes)
    STORE/SPLIT/NNNNN.FEATURE.tokens.npy      all examples of the shard end to end
    STORE/SPLIT/NNNNN.FEATURE.offsets.npy     int64 [examples + 1], where each begins

A store is written by `scaling-jax prepare` and needs neither seqio nor TensorFlow to be read.
Features are `inputs` and `targets` for finetuning, `targets` alone for pretraining windows.
"""

import dataclasses
import functools
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
    """A vocabulary as the store records it; `path` is None for bytes."""

    kind: str
    size: int
    path: Path | None = None
    pad_id: int = 0
    eos_id: int = 1
    unk_id: int = 2

    def sha256(self) -> str:
        """Identity of the vocabulary: the hash of its file, or of its kind and size.

        Raises:
            InputError: the file cannot be read.
        """
        try:
            return files.sha256(self.path) if self.path else f"{self.kind}-{self.size}"
        except OSError as error:
            raise InputError(f"cannot read the vocabulary {self.path}: {error.strerror}") from error


@dataclasses.dataclass(frozen=True, eq=False)
class Split:
    """One split, memory-mapped. `tokens[feature]` and `offsets[feature]` are lists over shards."""

    name: str
    tokens: Mapping[str, list[np.ndarray]]
    offsets: Mapping[str, list[np.ndarray]]
    shard_starts: np.ndarray  # int64 [shards + 1], examples before each shard

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
        return VocabularyFile(recorded["kind"], recorded["size"], path, **ids)

    def split(self, name: str) -> Split:
        """Opens one split.

        Raises:
            InputError: no such split, or a shard that is missing or truncated.
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
        return Split(name, tokens, offsets, np.concatenate([[0], np.cumsum(counts)]))

    def manifest_hash(self) -> str:
        """Hash of the manifest, which itself holds the hash of every shard."""
        return files.sha256(self.path / "manifest.json")

    def verify(self) -> None:
        """Compares the bytes of the vocabulary and of every shard with their recorded hash.

        Raises:
            InputError: naming the first file that differs.
        """
        if self.vocabulary.sha256() != self.manifest["vocabulary"]["sha256"]:
            raise InputError(f"{self.vocabulary.path}: not the bytes that were written")
        for split in self.manifest["splits"].values():
            for shard in split["shards"]:
                for names in shard["files"].values():
                    for entry in names.values():
                        self._array(entry)
                        if files.sha256(self.path / entry["file"]) != entry["sha256"]:
                            raise InputError(f"{self.path / entry['file']}: not the bytes that were written")

    def _array(self, entry: Mapping[str, Any]) -> np.ndarray:
        path = self.path / entry["file"]
        size = path.stat().st_size if path.exists() else None
        if size != entry["bytes"]:
            found = "is missing" if size is None else f"has {size} bytes"
            raise InputError(f"{path} {found}, the manifest says {entry['bytes']}: prepare the store again")
        # A plain view: slicing the memmap class itself costs several microseconds.
        return np.load(path, mmap_mode="r", allow_pickle=False).view(np.ndarray)


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

    Raises:
        InputError: an empty split, an example longer than its feature's length or with an id
            outside the vocabulary, or a folder that cannot be written.
    """
    path = Path(path)
    with files.new_directory(path) as folder:
        if vocabulary.path:
            shutil.copyfile(vocabulary.path, folder / "vocabulary.model")
        written = {
            name: _write_split(folder, name, splits[name], feature_lengths, vocabulary.size)
            for name in splits
        }
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
            },
            "feature_lengths": dict(feature_lengths),
            "splits": written,
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
