"""What is known of accelerator chips: memory, speed, and how their topologies are named."""

import dataclasses

from scaling_jax.training import peaks

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One kind of chip.

    Attributes:
        name: as topologies are named: `NAME:4x4x4`.
        kind: as JAX names its devices.
        memory_gib: HBM that the compiler gives a program on one device; None is not known.
        link_bytes: a second, that its links to other chips bring it, all together; None is not known.
        axes: numbers in a topology's name.
        example: a topology that exists.
        options: of the topology, beside its name.
    """

    name: str
    kind: str
    memory_gib: float | None
    link_bytes: float | None = None
    axes: int = 0
    example: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def peak_flops(self) -> float | None:
        """Of dense bfloat16 products; None is not known."""
        return peaks.peak_flops(self.kind)


# Links: half of the "bidirectional inter-chip interconnect bandwidth per chip" on Google Cloud's pages
# "TPU v4", "TPU v5p", "TPU v5e", "TPU v6e" (600, 1,200, 400 and 800 GB/s). Memory: what libtpu 0.0.42 names
# as available when it refuses a program.
TPUS = (
    # Two cores that share their memory are one device (megacore), as v4 is used.
    Chip("v4", "TPU v4", 30.75, 300e9, 3, "v4:4x4x4", (("chip_config_name", "megacore"),)),
    Chip("v5p", "TPU v5", 95.73, 600e9, 3, "v5p:4x4x8"),
    Chip("v5e", "TPU v5 lite", 15.75, 200e9, 2, "v5e:16x16"),
    Chip("v6e", "TPU v6 lite", 31.24, 400e9, 2, "v6e:16x16"),
)


def chip_of(kind: str) -> Chip:
    """The chip of a device kind as JAX names it."""
    return next((chip for chip in TPUS if chip.kind == kind), Chip(kind, kind, None))
