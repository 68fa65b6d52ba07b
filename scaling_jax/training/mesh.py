"""Devices as a mesh, and where each logical axis goes on it.

One device is the simplest case of the same code. Meshes are (data, fsdp, tensor): `data` and
`fsdp` split the batch, `fsdp` also splits parameters along `embed`, `tensor` splits heads, the
feed-forward and the vocabulary.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import gin
import jax
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from scaling_jax.errors import InputError

AXES = ("data", "fsdp", "tensor")
RULES = (
    ("batch", ("data", "fsdp")),
    ("length", None),
    ("embed_activation", None),
    ("embed", "fsdp"),
    ("heads", "tensor"),
    ("key_value_heads", None),
    ("mlp", "tensor"),
    ("vocabulary", "tensor"),
    ("layers", None),
)


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class Layout:
    """Devices along each mesh axis (`data` 0 takes those that are left) and the logical axis rules."""

    data: int = 0
    fsdp: int = 1
    tensor: int = 1
    rules: tuple[tuple[str, Any], ...] = RULES

    def __post_init__(self):
        if self.data < 0 or self.fsdp < 1 or self.tensor < 1:
            raise InputError(
                f"Layout data {self.data} x fsdp {self.fsdp} x tensor {self.tensor}: "
                "all at least 1 (data: or 0)"
            )
        # gin gives lists, jit's cache needs what can be hashed
        rules = tuple((name, tuple(axes) if isinstance(axes, list) else axes) for name, axes in self.rules)
        object.__setattr__(self, "rules", rules)

    def mesh(self, devices: Sequence[jax.Device] | None = None) -> Mesh:
        """The mesh over all devices, or over those given: of hardware that is not here.

        Raises:
            InputError: the axes do not multiply to the number of devices.
        """
        devices = jax.devices() if devices is None else devices
        count = len(devices)
        data = self.data or count // (self.fsdp * self.tensor)
        if data * self.fsdp * self.tensor != count:
            raise InputError(
                f"Layout data {self.data or 'rest'} x fsdp {self.fsdp} x tensor {self.tensor} "
                f"does not give the {count} devices here"
            )
        # An axis may take a part of one of the hardware's own, as fsdp 64 x tensor 4 does of 16 x 16 chips.
        shape = (data, self.fsdp, self.tensor)
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
        return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))

    def parameter_shardings(self, boxed: Any, mesh: Mesh) -> Any:
        """Shardings of a tree of (abstract) parameters boxed with logical axis names.

        Raises:
            InputError: an axis of the mesh does not divide the dimension that the rules put on it.
        """
        shardings = nn.logical_to_mesh_sharding(nn.get_partition_spec(boxed), mesh, self.rules)
        jax.tree_util.tree_map_with_path(_check_divides, nn.unbox(boxed), shardings)
        return shardings


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
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, ("data", "fsdp")))


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
        axes = (axes,) if isinstance(axes, str) else axes or ()
        devices = 1
        for axis in axes:
            devices *= sharding.mesh.shape[axis]
        if dimension % devices:
            raise InputError(
                f"{'/'.join(_names(path))} {tuple(leaf.shape)}: {dimension} is not divided by the {devices} "
                f"devices of mesh axis {axes}; choose another Layout"
            )
