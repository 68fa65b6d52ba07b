"""Where a T5X checkpoint holds its arrays, by name, on disk or in a bucket (gs://...), read without T5X.

A checkpoint is a folder `checkpoint_STEP`, in one of three forms. T5X's own: its file `checkpoint` is
a msgpack tree, and large arrays lie beside it as zarr folders of which the tree holds a TensorStore
spec, or, by older Orbax, a placeholder. By newer Orbax: all arrays are in one OCDBT store under
`state`. And models that were small or old enough are one msgpack file that holds all arrays.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorstore
from flax import serialization

from scaling_jax import files
from scaling_jax.errors import InputError

PLACEHOLDER = "PLACEHOLDER://"
OCDBT = "manifest.ocdbt"
TRAINED = "target"
# What describes an array, and TensorStore's driver for it.
DRIVERS = {".zarray": "zarr", "zarr.json": "zarr3"}
BUCKETS = {"gs": "gcs"}


@dataclasses.dataclass(frozen=True)
class ZarrTensor:
    """An array that TensorStore has opened and not read."""

    name: str
    opened: tensorstore.TensorStore

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return tuple(self.opened.shape)

    def read(self) -> np.ndarray:
        """The array.

        Raises:
            InputError: its files are missing or damaged.
        """
        try:
            return self.opened.read().result()
        except ValueError as error:
            raise InputError(f"array {self.name} cannot be read: {short(error)}") from error


@dataclasses.dataclass(frozen=True)
class HeldTensor:
    """An array that the tree itself holds."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""
        return self.array.shape

    def read(self) -> np.ndarray:
        """The array."""
        return self.array


@dataclasses.dataclass(frozen=True)
class Arrays:
    """What a checkpoint says that it holds, by names such as encoder.layers_0.mlp.wo.kernel.

    Attributes:
        tensors: those that are there.
        absent: those whose files are not there.
        unreadable: those that are damaged, with the reason.
    """

    tensors: Mapping[str, Any]
    absent: frozenset[str]
    unreadable: Mapping[str, str]

    @property
    def names(self) -> frozenset[str]:
        """Of all, those that cannot be read among them."""
        return self.absent | self.tensors.keys() | self.unreadable.keys()


def is_checkpoint(path: Any) -> bool:
    """Whether a path looks like a T5X checkpoint of any form."""
    held = "checkpoint" in path.name and path.is_file()
    return held or (path / "checkpoint").is_file() or (path / "state" / OCDBT).is_file()


def open_arrays(path: Any, part: str = TRAINED) -> Arrays:
    """Opens all arrays of a part of T5X's state at once; reads none that is stored apart.

    Args:
        path: `checkpoint_STEP`.
        part: their names without it and the dot after: "target" is what was trained, "flax_mutables.base"
            what our model classes kept frozen.

    Raises:
        InputError: the checkpoint itself is missing or damaged. It may hold nothing of the part.
    """
    if (path / "state" / OCDBT).is_file():
        held, apart = {}, _of_one_store(path / "state", part)
    else:
        file = path / "checkpoint" if path.is_dir() else path
        held, apart = {}, {}
        for name, value in _leaves(file, _part(file, part), ()):
            if isinstance(value, np.ndarray):
                held[name] = HeldTensor(value)
            else:
                apart[name] = {"driver": "zarr", "kvstore": store_of(path / _place(file, name, value))}
    return _opened(held, apart)


def store_of(folder: Any) -> dict[str, str]:
    """TensorStore's spec of the files of a folder, of this machine or of a bucket.

    Raises:
        InputError: a bucket of a kind that is not read.
    """
    written = str(files.absolute(folder))
    if not files.is_remote(written):
        return {"driver": "file", "path": f"{written}/"}
    kind, _, rest = written.partition("://")
    bucket, _, path = rest.partition("/")
    if kind not in BUCKETS:
        raise InputError(f"{written}: buckets that can be read are {', '.join(f'{k}://' for k in BUCKETS)}")
    return {"driver": BUCKETS[kind], "bucket": bucket, "path": f"{path.strip('/')}/"}


def short(error: Exception) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _opened(held: Mapping[str, HeldTensor], apart: Mapping[str, Mapping[str, Any]]) -> Arrays:
    # Otherwise a chunk whose file is missing would read as zeros.
    whole = {"fill_missing_data_reads": False}
    begun = {name: tensorstore.open({**spec, **whole}, read=True, open=True) for name, spec in apart.items()}
    tensors, absent, unreadable = dict(held), set(), {}
    for name, opening in begun.items():
        try:
            tensors[name] = ZarrTensor(name, opening.result())
        except ValueError as error:
            if "NOT_FOUND" in str(error):
                absent.add(name)
            else:
                unreadable[name] = short(error)
    return Arrays(tensors, frozenset(absent), unreadable)


def _of_one_store(folder: Any, part: str) -> dict[str, dict[str, Any]]:
    base = store_of(folder)
    try:
        store = tensorstore.KvStore.open({"driver": "ocdbt", "base": base}).result()
        keys = [key.decode() for key in store.list().result()]
    except ValueError as error:
        raise InputError(f"{folder} cannot be read: {short(error)}") from error
    found = {}
    for key in keys:
        name, _, file = key.rpartition("/")
        if file in DRIVERS and name.startswith(f"{part}."):
            place = {"driver": "ocdbt", "base": base, "path": f"{name}/"}
            found[name.removeprefix(f"{part}.")] = {"driver": DRIVERS[file], "kvstore": place}
    return found


def _part(file: Any, part: str) -> Mapping[Any, Any]:
    try:
        tree = serialization.msgpack_restore(file.read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or short(error)}") from error
    except Exception as error:  # msgpack raises its own kinds for damaged bytes
        raise InputError(f"{file}: not a T5X checkpoint, or truncated ({short(error)})") from error
    # Checkpoints of T5X's first months have what was trained inside the optimizer.
    older = tree.get("optimizer") if isinstance(tree, dict) else None
    if isinstance(older, dict) and TRAINED not in tree:
        tree = older
    for key in part.split("."):
        tree = tree.get(key) if isinstance(tree, dict) else None
    if part == TRAINED and not (tree and isinstance(tree, dict)):
        raise InputError(f"{file} holds no trained parameters (no target)")
    return tree if isinstance(tree, dict) else {}


def _leaves(file: Any, tree: Mapping[Any, Any], above: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    """(name, array, or what says where one is) of all below."""
    for key, value in tree.items():
        if not isinstance(key, str):
            raise InputError(f"{file}: {'.'.join((*above, repr(key)))}: {key!r} is no name of an array")
        inner = isinstance(value, Mapping) and value.get("driver") != "zarr"
        yield from _leaves(file, value, (*above, key)) if inner else [(".".join((*above, key)), value)]


def _place(file: Any, name: str, value: Any) -> str:
    """Folder of an array, from that of the checkpoint, wherever that was when it was written."""
    place = value
    if isinstance(value, str) and value.startswith(PLACEHOLDER):
        place = value.removeprefix(PLACEHOLDER)
    elif isinstance(value, Mapping):
        # The first as TensorStore wrote it before 0.1.14.
        store = value.get("kvstore")
        place = value.get("path") or (store.get("path") if isinstance(store, Mapping) else None)
        if not isinstance(place, str) or not place.strip("/"):
            raise InputError(f"{file}: {name}: its zarr spec has no path, the folder of the array is needed")
    else:
        raise InputError(f"{file}: {name} is neither an array nor says where one is")
    return re.sub(r"^/+|/+$", "", place)
