"""Safetensors files: found, checked, read one tensor at a time, and written as a stream.

A file is 8 bytes with the header's length (little endian), the header as JSON {name: {dtype, shape,
data_offsets}}, and the tensors' bytes end to end. We read and write it ourselves because the
`safetensors` package holds a whole file in memory to write one.
"""

import dataclasses
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

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
        """The tensor, in memory of its own."""
        content = np.fromfile(self.file, np.uint8, count=self.bytes, offset=self.begin)
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
        InputError: no safetensors file, a missing or truncated one, or an index that names tensors
            that its files do not hold.
    """
    if (folder / SINGLE).is_file():
        return open_file(folder / SINGLE)
    if (folder / INDEX).is_file():
        index = files.read_json(folder / INDEX)
        placed = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(placed, dict) or not all(isinstance(name, str) for name in placed.values()):
            raise InputError(f"{folder / INDEX}: no weight_map")
        found: dict[str, StoredTensor] = {}
        for name in sorted(set(placed.values())):
            found |= open_file(folder / name)
        if missing := sorted(placed.keys() - found.keys()):
            raise InputError(f"{folder / INDEX} names tensors that no file holds: {', '.join(missing)}")
        return found
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    advice = f"; {pickled[0]} is a pickle, which is never loaded: save it as safetensors" if pickled else ""
    raise InputError(f"{folder} holds neither {SINGLE} nor {INDEX}{advice}")


def open_file(path: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name.

    Raises:
        InputError: no such file, one that is truncated, or one that is no safetensors file.
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
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not a safetensors file (its header is not JSON)") from error
    try:
        header.pop("__metadata__", None)
        found = {name: _stored(path, name, entry, 8 + length) for name, entry in header.items()}
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a safetensors file (its header is damaged)") from error
    end = max((tensor.end for tensor in found.values()), default=0)
    if end > size:
        raise InputError(f"{path} is truncated: its tensors end at byte {end}, it has {size}")
    return found


def _stored(path: Path, name: str, entry: Mapping, data: int) -> StoredTensor:
    if entry["dtype"] not in DTYPES:
        raise InputError(f"{path}: {name} is {entry['dtype']}; known: {', '.join(DTYPES)}")
    dtype, shape, (begin, end) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if begin < 0 or end - begin != math.prod(shape) * dtype.itemsize:
        raise InputError(f"{path}: {name} has {end - begin} bytes for {entry['dtype']} {list(shape)}")
    return StoredTensor(name, path, dtype, shape, data + begin)


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
