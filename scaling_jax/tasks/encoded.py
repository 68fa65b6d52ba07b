"""Blocks of a split: texts as the task reads them, and their token ids; both can be kept in files.

A block's file name holds the hash of its text, so that what is found there is never taken for the
tokens of another text.
"""

import dataclasses
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.tasks.store_request import StoreRequest

# A block of texts: {feature or column: one string for each example}.
Texts = Mapping[str, list[str]]


@dataclasses.dataclass(frozen=True)
class Ragged:
    """A block of token sequences: `tokens` end to end, sequence i in `offsets[i]` to `offsets[i + 1]`."""

    tokens: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.offsets) - 1


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A block of examples: its texts, and by feature its token ids, not trimmed."""

    texts: Texts
    tokens: Mapping[str, Ragged]


def text_blocks(request: StoreRequest, split: str) -> Iterator[Texts]:
    """The blocks of a split as its task reads them: features and columns, nothing else.

    Raises:
        InputError: whatever the reader raises; a block without one of them, or with fewer strings of one
            than of another; a string that is no Unicode text.
    """
    wanted = (*request.task.features, *request.task.columns)
    before = 0
    for block in request.source.splits[split]():
        place = f"{request.task.name}: split {split!r}, examples from {before}"
        missing = [name for name in wanted if name not in block]
        if missing:
            raise InputError(f"{place}: the task's block has no {missing[0]!r}, only {', '.join(block)}")
        texts = {name: list(block[name]) for name in wanted}
        sizes = {name: len(strings) for name, strings in texts.items()}
        if len(set(sizes.values())) > 1:
            raise InputError(f"{place}: as many strings are needed of each, these are {sizes}")
        for name, strings in texts.items():
            try:
                "".join(strings).encode("utf-8")
            except UnicodeEncodeError as error:
                raise InputError(f"{place}: {name} is not Unicode text ({error.reason})") from error
        before += sizes[wanted[0]]
        yield texts


def pack_texts(texts: Texts) -> tuple[bytes, str]:
    """The content of a file of texts, and the hash that names it."""
    content = json.dumps(texts, ensure_ascii=False).encode("utf-8")
    return content, hashlib.sha256(content).hexdigest()[:24]


def load_texts(path: Path) -> Texts:
    """What `pack_texts` packed.

    Raises:
        InputError: no such file.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error


def save_tokens(path: Path, tokens: Mapping[str, Ragged]) -> None:
    """Writes token ids whole or not at all.

    Raises:
        InputError: the file cannot be written.
    """
    arrays = {}
    for feature, ragged in tokens.items():
        arrays |= {f"{feature}.tokens": ragged.tokens, f"{feature}.offsets": ragged.offsets}
    content = io.BytesIO()
    np.savez(content, **arrays)
    files.write_bytes(path, content.getvalue())


def load_tokens(path: Path) -> dict[str, Ragged]:
    """What `save_tokens` wrote.

    Raises:
        InputError: no such file, or not one of ours.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features = [name.removesuffix(".tokens") for name in arrays.files if name.endswith(".tokens")]
            return {name: Ragged(arrays[f"{name}.tokens"], arrays[f"{name}.offsets"]) for name in features}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: cannot be read ({error}); remove its folder and prepare again") from error
