"""Hugging Face folders: read straight into our tree, one tensor at a time, and written from it.

A stacked array is made on its devices and filled layer by layer in place, so that the host holds one
tensor beside what the devices hold. Every process reads all tensors and places its part.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.interop import llama, t5
from scaling_jax.interop.names import Entry, Family
from scaling_jax.interop.tensor_files import NewTensor, StoredTensor, open_folder, write_folder
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig

FAMILIES: dict[str, Family] = {family.model_type: family for family in (llama.FAMILY, t5.FAMILY)}
DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}
BYTES_PER_FILE = 5_000_000_000


@dataclasses.dataclass(frozen=True)
class Folder:
    """A folder that was opened and checked: every parameter is there, in its shape, and nothing else."""

    path: Path
    family: Family
    model: ModelConfig
    settings: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


def open_model(path: Path, name: str | None = None) -> Folder:
    """Opens and checks a folder with config.json and safetensors files; reads no tensor.

    Args:
        path: the folder.
        name: of the model in our records; None is the folder's.

    Raises:
        InputError: no or a damaged config.json, a `model_type` that is not known, options that our
            models do not have, truncated files; missing, extra or misshapen tensors, all named.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"{path} is no Hugging Face model (no config.json)")
    settings = files.read_json(path / "config.json")
    family = FAMILIES.get(settings.get("model_type"))
    if family is None:
        raise InputError(
            f"{path}/config.json: model_type {settings.get('model_type')!r}; known are {', '.join(FAMILIES)}"
        )
    tensors = open_folder(path)
    try:
        model = family.read_config(settings, tensors, name or path.resolve().name)
    except KeyError as error:
        raise InputError(f"{path}/config.json: no {error.args[0]}") from error
    except InputError as error:
        raise InputError(f"{path}/config.json: {error}") from error
    _check(path, family, model, tensors)
    return Folder(path, family, model, settings, tensors)


def read_parameters(folder: Folder, shardings: Any = None, dtype: str = "float32") -> Any:
    """The parameters of a folder as our tree.

    Args:
        folder: from `open_model`.
        shardings: a tree of them, such as `Program.shardings["params"]`; None is the first device.
        dtype: of the arrays, "float32" or "bfloat16".

    Raises:
        InputError: a name that should repeat another's values and does not.
    """
    _check_duplicates(folder)
    abstract = _by_path(counts.abstract_parameters(folder.model))
    one = SingleDeviceSharding(jax.devices()[0])
    placed = dict.fromkeys(abstract, one) if shardings is None else _by_path(shardings)
    tree: dict[str, Any] = {}
    for entry in folder.family.entries(folder.model):
        array = _read_entry(folder, entry, abstract[entry.ours].shape, placed[entry.ours], DTYPES[dtype])
        *above, last = entry.ours.split("/")
        functools.reduce(lambda part, key: part.setdefault(key, {}), above, tree)[last] = array
    return tree


def write_model(
    path: Path,
    model: ModelConfig,
    parameters: Any,
    dtype: str = "float32",
    settings: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
    bytes_per_file: int = BYTES_PER_FILE,
) -> None:
    """Writes a plain model (nothing tuned beside it) as a Hugging Face folder, whole or not at all.

    Args:
        path: folder that does not exist yet, or is empty.
        model: its config; our own decoder becomes a LLaMA that computes the same.
        parameters: our tree.
        dtype: of the tensors in the file.
        settings: entries of config.json that ours does not hold (token ids, lengths), such as those of the
            folder that the model came from.
        tokenizer: folder with tokenizer files to lay beside it.
        bytes_per_file: from which size on files are split.

    Raises:
        InputError: a model that neither family can express, or a folder that cannot be written.
    """
    family = FAMILIES["t5" if model.encoder_layers else "llama"]
    own = family.write_config(model)
    kept = {key: value for key, value in (settings or {}).items() if key not in ("rope_parameters", "dtype")}
    with files.new_directory(path) as folder:
        write_folder(folder, _new_tensors(family, model, parameters, DTYPES[dtype]), bytes_per_file)
        for file in sorted(tokenizer.iterdir()) if tokenizer else ():
            files.write_bytes(folder / file.name, file.read_bytes())
        files.write_json(folder / "config.json", kept | own | {"torch_dtype": dtype})


def _new_tensors(family: Family, model: ModelConfig, parameters: Any, dtype: np.dtype) -> Iterator[NewTensor]:
    arrays = _by_path(parameters)

    def produced(entry: Entry, layer: int | None) -> np.ndarray:
        array = arrays[entry.ours] if layer is None else arrays[entry.ours][layer]
        values = np.asarray(array).transpose(np.argsort(entry.axes))
        if entry.factor != 1.0:
            values = values.astype(np.float32) * np.float32(entry.factor)
        return values.astype(dtype)

    for entry in family.entries(model):
        ours = arrays[entry.ours].shape
        for layer in range(ours[0]) if entry.stacked else (None,):
            shape = _their_shape(entry, ours)
            produce = functools.partial(produced, entry, layer)
            yield NewTensor(entry.theirs.format(layer=layer), dtype, shape, produce)


def _read_entry(
    folder: Folder, entry: Entry, shape: tuple[int, ...], sharding: Sharding, dtype: np.dtype
) -> jax.Array:
    if not entry.stacked:
        stored = _place(folder.tensors[entry.theirs], _stored_sharding(entry, sharding))
        return _turned(entry.axes, dtype, sharding)(stored)
    own = _stored_sharding(entry, _sharding_of_a_layer(sharding))
    whole = _empty(shape, dtype, sharding)()
    for layer in range(shape[0]):
        stored = _place(folder.tensors[entry.theirs.format(layer=layer)], own)
        whole = _set_layer(entry.axes, sharding)(whole, stored, layer)
        whole.block_until_ready()  # else all layers would wait on the host
    return whole


def _place(tensor: StoredTensor, sharding: Sharding) -> jax.Array:
    """The tensor as it is stored: turning and casting it is the devices' work, who are faster at it."""
    values = tensor.read()
    if values.dtype == np.float64:
        values = values.astype(np.float32)
    return jax.make_array_from_callback(tensor.shape, sharding, lambda index: values[index])


@functools.cache
def _turned(axes: tuple[int, ...], dtype: np.dtype, sharding: Sharding) -> Any:
    return jax.jit(lambda stored: stored.transpose(axes).astype(dtype), out_shardings=sharding)


@functools.cache
def _empty(shape: tuple[int, ...], dtype: np.dtype, sharding: Sharding) -> Any:
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


@functools.cache
def _set_layer(axes: tuple[int, ...], sharding: Sharding) -> Any:
    def put(whole: jax.Array, stored: jax.Array, index: int) -> jax.Array:
        layer = stored.transpose(axes).astype(whole.dtype)
        return jax.lax.dynamic_update_index_in_dim(whole, layer, index, 0)

    return jax.jit(put, donate_argnums=0, out_shardings=sharding)


def _sharding_of_a_layer(sharding: Sharding) -> Sharding:
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))


def _stored_sharding(entry: Entry, sharding: Sharding) -> Sharding:
    """Of an array with the axes in their order."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    spec = (*sharding.spec, *[None] * (len(entry.axes) - len(sharding.spec)))
    return NamedSharding(sharding.mesh, PartitionSpec(*(spec[axis] for axis in np.argsort(entry.axes))))


def _check(path: Path, family: Family, model: ModelConfig, tensors: Mapping[str, StoredTensor]) -> None:
    need: dict[str, tuple[int, ...]] = {}
    abstract = _by_path(counts.abstract_parameters(model))
    for entry in family.entries(model):
        ours = abstract[entry.ours].shape
        for layer in range(ours[0]) if entry.stacked else (None,):
            need[entry.theirs.format(layer=layer)] = _their_shape(entry, ours)
    allowed = family.duplicates(model)
    have = {
        name: tensor.shape
        for name, tensor in tensors.items()
        if name not in allowed and not name.endswith(family.ignored)
    }
    wrong = {
        "missing": sorted(need.keys() - have.keys()),
        "extra": sorted(have.keys() - need.keys()),
        "misshapen": [
            f"{name} {list(have[name])} for {list(need[name])}"
            for name in sorted(have.keys() & need.keys())
            if have[name] != need[name]
        ],
    }
    if any(wrong.values()):
        named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
        raise InputError(f"{path} does not hold what its config.json says: {named}")


def _check_duplicates(folder: Folder) -> None:
    for name, source in folder.family.duplicates(folder.model).items():
        if name in folder.tensors:
            if not np.array_equal(folder.tensors[name].read(), folder.tensors[source].read()):
                raise InputError(
                    f"{folder.path}: by its config.json {name} is {source} again, but its values differ: "
                    "set tie_word_embeddings as the model was trained"
                )


def _their_shape(entry: Entry, ours: tuple[int, ...]) -> tuple[int, ...]:
    one = ours[1:] if entry.stacked else ours
    return tuple(one[axis] for axis in np.argsort(entry.axes))


def _by_path(tree: Any) -> dict[str, Any]:
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}
