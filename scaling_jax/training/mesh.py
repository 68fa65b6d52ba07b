"""Devices as a mesh, and where each logical axis goes on it.

One device is the simplest case of the same code. Meshes are (data, fsdp, tensor): `data` and
`fsdp` split the batch, `fsdp` also splits parameters along `embed`, `tensor` splits heads, the
feed-forward and the vocabulary. Where devices are in slices, between which the network is slow, `data`
alone goes across them: parameters and activations stay inside a slice, gradients are added up between.
"""

import bisect
import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import gin
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.models.config import ModelConfig

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
RULES = (
    ("batch", BATCH_AXES),
    ("length", None),
    ("embed_activation", None),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("key_value_heads", None),
    ("mlp", "tensor"),
    ("vocabulary", "tensor"),
    ("layers", None),
)
# Of parameters and activations; a rule for another name would do nothing.
LOGICAL_AXES = tuple(name for name, _ in RULES)


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class Layout:
    """Devices along each mesh axis, and what goes where.

    Attributes:
        data: 0 takes the devices that are left.
        fsdp, tensor: devices of one slice.
        slices: groups of devices with a fast network inside and a slow one between them; `data` is a
            multiple. 0 is what a TPU says of itself, and 1 elsewhere.
        rules: mesh axis, axes or None of each logical axis; of several for one name the first holds, and
            a name without any is not split. `Layout.override` changes some of them.
        override: rules that come before: `Layout.override = {'vocabulary': ('tensor', 'fsdp')}`.
    """

    data: int = 0
    fsdp: int = 1
    tensor: int = 1
    rules: tuple[tuple[str, Any], ...] = RULES
    slices: int = 0
    override: Any = ()

    def __post_init__(self):
        if self.data < 0 or self.fsdp < 1 or self.tensor < 1 or self.slices < 0:
            raise InputError(
                f"Layout data {self.data} x fsdp {self.fsdp} x tensor {self.tensor}, slices {self.slices}: "
                "all at least 1 (data, slices: or 0)"
            )
        override = self.override.items() if isinstance(self.override, Mapping) else self.override
        rules = _checked("override", override) + _checked("rules", self.rules)
        first = dict(reversed(rules))
        rules = tuple((name, first[name]) for name in LOGICAL_AXES if name in first)
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "override", ())

    def shape(self, count: int, slices: int = 1) -> tuple[int, int, int]:
        """Devices along (data, fsdp, tensor), of so many in so many slices.

        Raises:
            InputError: the axes do not multiply to them, or a slice is not whole along fsdp and tensor.
        """
        data = self.data or count // (self.fsdp * self.tensor)
        if data * self.fsdp * self.tensor != count:
            raise InputError(
                f"Layout data {self.data or 'rest'} x fsdp {self.fsdp} x tensor {self.tensor} "
                f"does not give the {count} devices here"
            )
        if data % slices:
            raise InputError(
                f"Layout data {data} is no multiple of the {slices} slices: data alone goes across slices, "
                f"which have {count // slices} devices each: lower fsdp {self.fsdp} or tensor {self.tensor}"
            )
        return data, self.fsdp, self.tensor

    def mesh(self, devices: Sequence[Any] | None = None) -> Mesh:
        """The mesh over all devices of all processes, or over those given: of hardware that is not here.

        Raises:
            InputError: see `shape`; devices that are in another number of slices.
        """
        devices = jax.devices() if devices is None else list(devices)
        slices = self._slices(devices)
        shape = self.shape(len(devices), slices)
        types = (AxisType.Auto,) * len(AXES)
        own = (shape[0] // slices, *shape[1:])
        # An axis may take a part of one of the hardware's own, as fsdp 64 x tensor 4 does of 16 x 16 chips.
        if slices == 1:
            grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        elif len(_slice_numbers(devices)) > 1:
            grid = mesh_utils.create_hybrid_device_mesh(
                own, (slices, 1, 1), devices, allow_split_physical_axes=True
            )
        else:  # simulated ones: as many devices in order
            grid = np.asarray(devices).reshape(shape)
        return Mesh(grid, AXES, axis_types=types)

    def _slices(self, devices: Sequence[Any]) -> int:
        found = len(_slice_numbers(devices))
        if self.slices == 0:
            return found if devices[0].platform == "tpu" else 1
        if found > 1 and self.slices not in (1, found):
            raise InputError(
                f"Layout.slices = {self.slices}: the {len(devices)} devices are in {found} slices"
            )
        return self.slices

    def check_model(self, model: ModelConfig) -> None:
        """
        Raises:
            InputError: a width of the model is not divided by the devices that the rules split it over.
        """
        devices = {"fsdp": self.fsdp, "tensor": self.tensor}
        rules, widths = dict(self.rules), _widths(model)
        for name, (what, size) in widths.items():
            axes = [axis for axis in _several(rules.get(name)) if axis in devices]
            split = math.prod(devices[axis] for axis in axes)
            if size % split == 0:
                continue
            alike = [size for other, (_, size) in widths.items() if _several(rules.get(other)) == (*axes,)]
            whole = math.gcd(*alike)
            fitting = [str(count) for count in range(1, min(whole, 4096) + 1) if whole % count == 0]
            would = f": {' x '.join(axes)} = {', '.join(fitting[-8:])} would do" if alike else ""
            raise InputError(
                f"model {model.name!r}: {what} {size:,} is not divided by Layout "
                f"{' x '.join(f'{axis} {devices[axis]}' for axis in axes)}{would}"
            )

    def parameter_shardings(self, boxed: Any, mesh: Mesh) -> Any:
        """Shardings of a tree of (abstract) parameters boxed with logical axis names.

        Raises:
            InputError: an axis of the mesh does not divide the dimension that the rules put on it, or is put
                on two dimensions of one parameter.
        """
        specs = nn.get_partition_spec(boxed)
        jax.tree_util.tree_map_with_path(
            self._check_collision, specs, is_leaf=lambda node: isinstance(node, PartitionSpec)
        )
        shardings = nn.logical_to_mesh_sharding(specs, mesh, self.rules)
        jax.tree_util.tree_map_with_path(_check_divides, nn.unbox(boxed), shardings)
        return shardings

    def _check_collision(self, path: Any, spec: PartitionSpec) -> None:
        rules, taken = dict(self.rules), {}
        for name in spec:
            for axis in _several(rules.get(name)):
                if axis in taken:
                    raise InputError(
                        f"Layout.rules put mesh axis {axis!r} on both {taken[axis]!r} and {name!r} of "
                        f"{'/'.join(_names(path))} {tuple(spec)}: one of them needs another axis, or None"
                    )
                taken[axis] = name


@contextlib.contextmanager
def constrained(mesh: Mesh, rules: tuple[tuple[str, Any], ...]) -> Iterator[None]:
    """Inside, while a function is traced, activations are held where the rules put their logical axes.

    Flax looks for the abstract mesh: under the mesh's own context alone its constraints are left out in
    silence, and XLA may split activations by width, over all rows, as it does where parameters are split.
    """
    with mesh, jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(rules):
        yield


def batch_sharding(mesh: Mesh, leading: int) -> NamedSharding:
    """Rows of a batch over `data` and `fsdp`, behind `leading` unsplit axes."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, BATCH_AXES))


def _widths(model: ModelConfig) -> dict[str, tuple[str, int]]:
    """What errors call each width of a model, and the width, by logical axis."""
    widths = {
        "heads": ("heads", model.heads),
        "mlp": ("feed_forward_dim", model.feed_forward_dim),
        "vocabulary": ("vocabulary", model.vocabulary_size),
        "embed": ("model_dim", model.model_dim),
    }
    if model.key_value_heads != model.heads:
        widths["key_value_heads"] = ("key_value_heads", model.key_value_heads)
    return widths


def parts(mesh: Mesh) -> int:
    """Into how many parts a batch is split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_rows(mesh: Mesh, rows: int) -> None:
    """
    Raises:
        InputError: a batch of so many rows is not divided by the devices that split them.
    """
    if rows % parts(mesh):
        near = rows // parts(mesh) * parts(mesh)
        would = " or ".join(f"{size:,}" for size in (near, near + parts(mesh)) if size)
        raise InputError(
            f"a batch of {rows} rows is not divided by the {parts(mesh)} devices of mesh axes data "
            f"{mesh.shape['data']} and fsdp {mesh.shape['fsdp']}: {would} would be"
        )


@functools.lru_cache(maxsize=64)
def own_rows(mesh: Mesh, rows: int) -> tuple[int, ...]:
    """Which rows of a batch of so many lie on devices of this process, ascending: those that it builds.

    Raises:
        InputError: see `check_rows`.
    """
    check_rows(mesh, rows)
    held = batch_sharding(mesh, 0).addressable_devices_indices_map((rows,)).values()
    return tuple(sorted({row for (part,) in held for row in range(rows)[part]}))


def placed(mesh: Mesh, own: np.ndarray, leading: int) -> jax.Array:
    """A batch over all devices, of the rows that this process builds (see `own_rows`), behind so many axes.

    Raises:
        InputError: see `own_rows`.
    """
    held = len(own_rows(mesh, parts(mesh)))  # parts of the batch that are here
    rows = own.shape[leading] * parts(mesh) // held
    mine = own_rows(mesh, rows)
    before = (slice(None),) * leading

    def part(index: Any) -> np.ndarray:
        first, end, _ = index[leading].indices(rows)
        begin = bisect.bisect_left(mine, first)
        return own[(*before, slice(begin, begin + end - first))]

    shape = (*own.shape[:leading], rows, *own.shape[leading + 1 :])
    return jax.make_array_from_callback(shape, batch_sharding(mesh, leading), part)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same on every device."""
    return NamedSharding(mesh, PartitionSpec())


def like_parameters(state: Any, parameters: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings of an optimizer state: that of the parameter of the same path and shape, else replicated."""
    known = {}
    flat, _ = jax.tree_util.tree_flatten_with_path(parameters)
    for (path, leaf), sharding in zip(flat, jax.tree.leaves(shardings), strict=True):
        known[_names(path), leaf.shape] = sharding

    def choose(path: Any, leaf: Any) -> NamedSharding:
        names = _names(path)
        tails = (known.get((names[begin:], leaf.shape)) for begin in range(len(names)))
        return next((sharding for sharding in tails if sharding is not None), replicated(mesh))

    return jax.tree_util.tree_map_with_path(choose, state)


def _names(path: Any) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def _check_divides(path: Any, leaf: Any, sharding: NamedSharding) -> None:
    for dimension, axes in zip(leaf.shape, sharding.spec, strict=False):
        axes = _several(axes)
        devices = math.prod(sharding.mesh.shape[axis] for axis in axes)
        if dimension % devices:
            raise InputError(
                f"{'/'.join(_names(path))} {tuple(leaf.shape)}: {dimension} is not divided by the {devices} "
                f"devices of mesh axis {axes}; choose another Layout"
            )


def _several(axes: Any) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else tuple(axes or ())


def _checked(binding: str, rules: Any) -> list[tuple[str, Any]]:
    """Rules that can be hashed (gin gives lists), of axes that there are."""
    found = []
    for rule in rules:
        if not isinstance(rule, list | tuple) or len(rule) != 2:
            raise InputError(f"Layout.{binding}: {rule!r} is no pair such as ('embed', 'fsdp')")
        name, axes = rule
        if name not in LOGICAL_AXES:
            raise InputError(
                f"Layout.{binding}: no logical axis {name!r}{did_you_mean(str(name), LOGICAL_AXES)}"
            )
        several = _several(axes)
        for axis in several:
            if axis not in AXES:
                near = did_you_mean(str(axis), AXES)
                raise InputError(f"Layout.{binding}: {name!r} on {axis!r}: no such mesh axis{near}")
        if len(set(several)) < len(several):
            raise InputError(f"Layout.{binding}: {name!r} on {several}: an axis is named twice")
        found.append((name, several if isinstance(axes, list | tuple) else axes))
    return found


def _slice_numbers(devices: Sequence[Any]) -> set[int]:
    return {getattr(device, "slice_index", None) or 0 for device in devices}
