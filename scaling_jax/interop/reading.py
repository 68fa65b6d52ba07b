"""Parameters read straight into our tree, one tensor at a time, from whatever stores them by name.

A stacked array is made on its devices and filled layer by layer in place, so that the host holds one
tensor beside what the devices hold. Every process reads all tensors and places its part.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from scaling_jax.errors import InputError
from scaling_jax.interop.names import Entry
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig

DTYPES = {"float32": np.dtype(np.float32), "bfloat16": np.dtype(jnp.bfloat16)}


class Tensor(Protocol):
    """What a store holds under a name."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self) -> np.ndarray:
        """The tensor, in memory of its own."""
        ...


@dataclasses.dataclass(frozen=True)
class Source:
    """A model somewhere else, opened and not yet read.

    Attributes:
        path: its folder.
        model: its config.
        entries: where our arrays are.
        tensors: what is stored, by name.
        start_id: begins what a decoder reads; None is the pad.
        duplicates: names that may be there and repeat another's values.
        ignored: endings of names that hold no parameters.
        settings: its config.json; empty where there is none.
    """

    path: Path
    model: ModelConfig
    entries: Sequence[Entry]
    tensors: Mapping[str, Tensor]
    start_id: int | None = None
    duplicates: Mapping[str, str] = dataclasses.field(default_factory=dict)
    ignored: tuple[str, ...] = ()
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def check(
    source: Source, absent: Collection[str] = (), unreadable: Mapping[str, str] | None = None
) -> Source:
    """The source, if every parameter is there, in its shape, and nothing else.

    Args:
        source: opened.
        absent: names that the store lists and does not hold.
        unreadable: names of damaged tensors, with the reason.

    Raises:
        InputError: missing, unreadable, extra or misshapen tensors, all named.
    """
    need: dict[str, tuple[int, ...]] = {}
    abstract = by_path(counts.abstract_parameters(source.model))
    for entry in source.entries:
        ours = abstract[entry.ours].shape
        _check_depth(source, entry, ours)
        for layer in range(ours[0]) if entry.stacked else (None,):
            need[entry.theirs.format(layer=layer)] = their_shape(entry, ours)
    have = {
        name: tuple(tensor.shape)
        for name, tensor in source.tensors.items()
        if name not in source.duplicates and not name.endswith(source.ignored)
    }
    if named := differences(need, have, absent, unreadable):
        raise InputError(f"{source.path} does not hold the model that it says: {named}")
    return source


def differences(
    need: Mapping[str, tuple[int, ...]],
    have: Mapping[str, tuple[int, ...]],
    absent: Collection[str] = (),
    unreadable: Mapping[str, str] | None = None,
) -> str:
    """All names of missing, unreadable, extra and misshapen tensors; empty if there are none.

    Args:
        need, have: shapes by name.
        absent, unreadable: see `check`.
    """
    damaged = unreadable or {}
    wrong = {
        "missing": sorted((need.keys() | set(absent)) - have.keys() - damaged.keys()),
        "unreadable": [f"{name} ({damaged[name]})" for name in sorted(damaged)],
        "extra": sorted(have.keys() - need.keys()),
        "misshapen": [
            f"{name} {list(have[name])} for {list(need[name])}"
            for name in sorted(have.keys() & need.keys())
            if have[name] != need[name]
        ],
    }
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)


def read_parameters(source: Source, shardings: Any = None, dtype: str = "float32") -> Any:
    """The parameters as our tree.

    Args:
        source: opened and checked.
        shardings: a tree of them, such as `Program.shardings["params"]`; None is the first device.
        dtype: of the arrays, "float32" or "bfloat16".

    Raises:
        InputError: a name that should repeat another's values and does not, a tensor of whole numbers, or
            one with values that are not finite.
    """
    _check_duplicates(source)
    abstract = by_path(counts.abstract_parameters(source.model))
    one = SingleDeviceSharding(jax.devices()[0])
    placed = dict.fromkeys(abstract, one) if shardings is None else by_path(shardings)
    tree: dict[str, Any] = {}
    for entry in source.entries:
        array = _read_entry(source, entry, abstract[entry.ours].shape, placed[entry.ours], DTYPES[dtype])
        *above, last = entry.ours.split("/")
        functools.reduce(lambda part, key: part.setdefault(key, {}), above, tree)[last] = array
    return tree


def _check_depth(source: Source, entry: Entry, ours: tuple[int, ...]) -> None:
    """Settings may speak of any number of layers: before a name is made for each of them."""
    if entry.stacked and ours[0] > len(source.tensors):
        before, after = entry.theirs.split("{layer}")
        there = sum(name.startswith(before) and name.endswith(after) for name in source.tensors)
        raise InputError(
            f"{source.path} does not hold the model that it says: {ours[0]} layers by its settings, "
            f"{there} tensors {entry.theirs}"
        )


def check_values(where: Path, name: str, values: np.ndarray) -> None:
    """That they can be parameters: finite floats. Bits tell, infinity's and NaN's being the largest of either
    sign, so that no second array is made.

    Raises:
        InputError: whole numbers, or some that are NaN or infinite.
    """
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise InputError(f"{where}: {name} holds {values.dtype}, which are no parameters (quantised?)")
    signed, unsigned = f"i{values.dtype.itemsize}", f"u{values.dtype.itemsize}"
    infinity, below = (np.array(sign * np.inf, values.dtype) for sign in (1, -1))
    if values.view(signed).max(initial=0) >= infinity.view(signed) or values.view(unsigned).max(
        initial=0
    ) >= below.view(unsigned):
        raise InputError(f"{where}: {name} holds values that are not finite (NaN or infinite)")


def their_shape(entry: Entry, ours: tuple[int, ...]) -> tuple[int, ...]:
    """Shape there of (one layer of) our array of this shape."""
    one = ours[1:] if entry.stacked else ours
    return tuple(one[axis] for axis in np.argsort(entry.axes))


def by_path(tree: Any) -> dict[str, Any]:
    """Leaves by their path, joined by "/"."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): leaf for path, leaf in flat}


def _read_entry(
    source: Source, entry: Entry, shape: tuple[int, ...], sharding: Sharding, dtype: np.dtype
) -> jax.Array:
    if not entry.stacked:
        stored = _place(source, entry.theirs, _stored_sharding(entry, sharding))
        return _turned(entry.axes, dtype, sharding)(stored)
    own = _stored_sharding(entry, _sharding_of_a_layer(sharding))
    whole = _empty(shape, dtype, sharding)()
    for layer in range(shape[0]):
        stored = _place(source, entry.theirs.format(layer=layer), own)
        whole = _set_layer(entry.axes, sharding)(whole, stored, layer)
        whole.block_until_ready()  # else all layers would wait on the host
    return whole


def _place(source: Source, name: str, sharding: Sharding) -> jax.Array:
    """The tensor as it is stored: turning and casting it is the devices' work, who are faster at it."""
    tensor = source.tensors[name]
    values = tensor.read()
    check_values(source.path, name, values)
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


def _check_duplicates(source: Source) -> None:
    for name, other in source.duplicates.items():
        if name in source.tensors:
            repeated, first = source.tensors[name], source.tensors[other]
            if repeated.shape != first.shape or not np.array_equal(repeated.read(), first.read()):
                raise InputError(
                    f"{source.path}: by its config.json {name} is {other} again, but its values differ: "
                    "set tie_word_embeddings as the model was trained"
                )
