"""What a model's code knows of the devices it is traced for: their kind, and what is split over how many.

The abstract mesh and the rules from logical axes to its own are set around a trace (`training.mesh`), so
that devices need not be here; outside of it there is one device of JAX's default kind.
"""

import math

import flax.linen as nn
import jax
from jax.sharding import PartitionSpec


def platform() -> str:
    """Of the devices: "cpu", "gpu", "tpu"."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    if device is None:
        return kind(jax.default_backend())
    # JAX before 0.10 says the device's own name alone: "cpu", "TPU v4", "NVIDIA H100 80GB HBM3".
    name = device.device_kind.lower()
    otherwise = name if name == "cpu" else "tpu" if name.startswith("tpu") else "gpu"
    return kind(getattr(device, "platform", otherwise))


def kind(platform: str) -> str:
    """What "cpu", "cuda", "rocm" or "tpu" is: "cpu", "gpu" or "tpu"."""
    return {"cuda": "gpu", "rocm": "gpu"}.get(platform, platform)


def devices() -> int:
    """How many there are."""
    return max(jax.sharding.get_abstract_mesh().size, 1)


def split(*axes: str | None) -> PartitionSpec:
    """Mesh axes that the rules give to the logical axes of an array; None is not split."""
    return nn.logical_to_mesh_axes(axes)


def parts(axis: str) -> int:
    """Into how many parts a logical axis is split."""
    mesh = jax.sharding.get_abstract_mesh()
    over = split(axis)[0]
    names = (over,) if isinstance(over, str) else over or ()
    return math.prod(mesh.shape.get(name, 1) for name in names)


def constrained(array: jax.Array, *axes: str | None) -> jax.Array:
    """The array, split along its logical axes as the rules have it."""
    return nn.with_logical_constraint(array, axes)
