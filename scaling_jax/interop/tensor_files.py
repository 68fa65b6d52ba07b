"""Safetensors files: found, checked, read one tensor at a time, and written as a stream.

A file is 8 bytes with the header's length (little endian), the header as JSON {name: {dtype, shape,
data_offsets}}, and the tensors' bytes end to end: without a hole, and no two on the same bytes. We read
and write it ourselves because the `safetensors` package holds a whole file in memory to write one.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from scaling_jax import files
from scaling_jax.errors import InputError

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_LONGEST_HEADER = 100_000_000  # as the format's own library has it


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """Where a tensor's bytes are."""

    name: str
    file: Path
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def end(self) -> int:
        """The byte after its last one."""
        return self.begin + self.bytes

    def read(self) -> np.ndarray:
        """The tensor, in memory of its own.

        Raises:
            InputError: the file is no longer as it was when it was opened.
        """
        try:
            content = np.fromfile(self.file, np.uint8, count=self.bytes, offset=self.begin)
        except OSError as error:
            raise InputError(f"cannot read {self.file}: {error.strerror or error}") from error
        if content.size != self.bytes:
            raise InputError(f"{self.file} is truncated: of {self.name} it has {content.size} bytes")
        return content.view(self.dtype).reshape(self.shape)


@dataclasses.dataclass(frozen=True)
class NewTensor:
    """A tensor to be written; `produce` is called when its turn comes."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    produce: Callable[[], np.ndarray]

    @property
    def bytes(self) -> int:
        """Its size in the file."""
        return math.prod(self.shape) * self.dtype.itemsize


def open_folder(folder: Path) -> dict[str, StoredTensor]:
    """Every tensor of a Hugging Face folder by name, of one file or of all that the index names.

    Where both are there it is the one file, as in transformers.

    Raises:
        InputError: no safetensors file, missing (all named) or truncated ones, an index that names a file
            outside the folder or tensors that its files do not hold, or two files with the same tensor.
    """
    if (folder / SINGLE).is_file():
        return open_file(folder / SINGLE)
    if (folder / INDEX).is_file():
        return _open_indexed(folder)
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    advice = f"; {pickled[0]} is a pickle, which is never loaded: save it as safetensors" if pickled else ""
    raise InputError(f"{folder} holds neither {SINGLE} nor {INDEX}{advice}")


def _open_indexed(folder: Path) -> dict[str, StoredTensor]:
    index = files.read_json(folder / INDEX)
    placed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
        raise InputError(f"{folder / INDEX}: no weight_map")
    names = sorted(set(placed.values()))
    # The files may be links to elsewhere, as in the hub's cache; their names may not lead there.
    if outside := [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]:
        raise InputError(f"{folder / INDEX} names files outside its folder: {', '.join(outside)}")
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise InputError(f"{folder / INDEX} names files that are not there: {', '.join(map(repr, absent))}")
    found: dict[str, StoredTensor] = {}
    for name in names:
        held = open_file(folder / name)
        if twice := sorted(held.keys() & found.keys()):
            raise InputError(f"{folder / name} and {found[twice[0]].file.name} both hold {', '.join(twice)}")
        found |= held
    if missing := sorted(placed.keys() - found.keys()):
        raise InputError(f"{folder / INDEX} names tensors that no file holds: {', '.join(missing)}")
    return found


def open_file(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name.

    Raises:
        InputError: no such file, one that is truncated, one that is no safetensors file, or one whose
            tensors do not lie end to end.
    """
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            length = struct.unpack("<Q", file.read(8).ljust(8, b"\0"))[0]
            if not 2 <= length <= _LONGEST_HEADER:
                raise InputError(f"{path}: not a safetensors file, or an empty one ({size} bytes)")
            if 8 + length > size:
                raise InputError(f"{path} is truncated: its header ends at byte {8 + length}, it has {size}")
            header = json.loads(file.read(length))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a safetensors file (its header is not JSON)") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: not a safetensors file (its header is damaged)")
    header.pop("__metadata__", None)
    found = {name: _stored(path, name, entry, 8 + length) for name, entry in header.items()}
    _check_end_to_end(path, found, 8 + length, size)
    return found


def _stored(path: Path, name: str, entry: Any, data: int) -> StoredTensor:
    if not isinstance(entry, dict):
        entry = {}
    kind, shape, offsets = (entry.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or not _whole_numbers(shape) or not _whole_numbers(offsets, 2):
        raise InputError(
            f"{path}: not a safetensors file (its header is damaged: {name} needs a dtype, a shape of whole "
            "numbers from 0 on, and two of them as data_offsets)"
        )
    if kind not in DTYPES:
        raise InputError(f"{path}: {name} is {kind}; known: {', '.join(DTYPES)}")
    dtype, (begin, end) = DTYPES[kind], offsets
    if end - begin != math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path}: {name} has {end - begin} bytes for {kind} {shape}")
    return StoredTensor(name, path, dtype, tuple(shape), data + begin)


def _whole_numbers(value: Any, count: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and count in (None, len(value))
        and all(type(part) is int and part >= 0 for part in value)
    )


def _check_end_to_end(path: Path, found: Mapping[str, StoredTensor], data: int, size: int) -> None:
    """A file in which tensors share bytes would give wrong weights in silence."""
    end = max((tensor.end for tensor in found.values()), default=data)
    if end > size:
        raise InputError(f"{path} is truncated: its tensors end at byte {end}, it has {size}")
    end, before = data, "the header"
    for tensor in sorted(found.values(), key=lambda tensor: (tensor.begin, tensor.end)):
        if tensor.begin != end:
            where = "on bytes of" if tensor.begin < end else f"{tensor.begin - end} bytes after"
            raise InputError(
                f"{path}: {tensor.name} begins {where} {before}; tensors lie end to end in a safetensors file"
            )
        end, before = tensor.end, tensor.name
    if end != size:
        raise InputError(f"{path}: {size - end} bytes after its last tensor, which belong to none")


def write_folder(folder: Path, tensors: Iterable[NewTensor], bytes_per_file: int) -> None:
    """Writes one file, or as many as are needed and their index, into an existing folder.

    One tensor is in memory at a time. The caller makes the folder appear whole
    (`files.new_directory`).
    """
    parts: list[list[NewTensor]] = [[]]
    for tensor in tensors:
        if parts[-1] and sum(other.bytes for other in parts[-1]) + tensor.bytes > bytes_per_file:
            parts.append([])
        parts[-1].append(tensor)
    if len(parts) == 1:
        write_file(folder / SINGLE, parts[0])
        return
    placed = {}
    for number, part in enumerate(parts, 1):
        name = f"model-{number:05}-of-{len(parts):05}.safetensors"
        write_file(folder / name, part)
        placed |= {tensor.name: name for tensor in part}
    total = sum(tensor.bytes for part in parts for tensor in part)
    files.write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": placed})


def write_file(path: Path, tensors: list[NewTensor]) -> None:
    """Writes one file, one tensor in memory at a time."""
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}  # what transformers asks for
    begin = 0
    for tensor in tensors:
        end = begin + tensor.bytes
        header[tensor.name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin on a multiple of 8 bytes
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            array = tensor.produce()
            if array.shape != tensor.shape or array.dtype != tensor.dtype:
                raise AssertionError(f"{tensor.name}: {array.dtype} {array.shape} was not announced")
            file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
