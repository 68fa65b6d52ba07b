"""Devices to plan for: those of a named TPU topology, which need not be here, or those at hand."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
import tempfile
from collections.abc import Iterator
from typing import Any

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.planning.chips import GIB, TPUS, Chip, chip_of
from scaling_jax.training import platform

HERE = "here"
# Of a process that only compiles: no accelerator is looked for, none is held, nothing is logged.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    "TPU_LOG_DIR": "disabled",
}


@dataclasses.dataclass(frozen=True)
class Hardware:
    """Devices to plan for.

    Attributes:
        name: of the topology, or "here".
        devices: as JAX sees them; a chip is one.
        chip: what is known of them.
        memory_bytes: of one device that a program may take; None is not known.
    """

    name: str
    devices: tuple[Any, ...]
    chip: Chip
    memory_bytes: int | None

    @property
    def count(self) -> int:
        """Number of devices."""
        return len(self.devices)

    def part(self, count: int) -> "Hardware":
        """Hardware of so many devices, as one would ask for a smaller slice.

        Raises:
            InputError: no slice has so many.
        """
        if count == self.count:
            return self
        if self.name == HERE:
            return dataclasses.replace(self, devices=self.devices[:count])
        return open_topology(smaller(self.name, count))


def known_topologies() -> str:
    """What may be asked for, in words."""
    return ", ".join(f"{chip.name} such as {chip.example}" for chip in TPUS) + f", or {HERE!r}"


def parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    """(chip, its topology's sides) of a name such as v5e:16x16.

    Raises:
        InputError: a name that is none.
    """
    chip_name, _, sides = name.partition(":")
    chip = next((chip for chip in TPUS if chip.name == chip_name.lower()), None)
    if chip is None:
        known = [chip.name for chip in TPUS]
        raise InputError(
            f"--topology {name}: no chip {chip_name!r}{did_you_mean(chip_name, known)} ({known_topologies()})"
        )
    if not re.fullmatch(r"[1-9]\d*(x[1-9]\d*)*", sides) or sides.count("x") + 1 != chip.axes:
        raise InputError(
            f"--topology {name}: {chip.name} has {chip.axes} sides, as in {chip.example} "
            f"({known_topologies()})"
        )
    return chip, tuple(map(int, sides.split("x")))


def smaller(name: str, count: int) -> str:
    """The topology of `count` chips that is left when the longest sides are halved.

    Raises:
        InputError: halving does not give so many.
    """
    chip, sides = parse(name)
    sides = list(sides)
    while math.prod(sides) > count:
        longest = max(range(len(sides)), key=lambda axis: (sides[axis], -axis))
        if sides[longest] % 2:
            break
        sides[longest] //= 2
    if math.prod(sides) != count:
        raise InputError(f"no part of {name} has {count} chips")
    return f"{chip.name}:{'x'.join(map(str, sorted(sides)))}"


def prepare(name: str) -> None:
    """Sets this process up to plan for a topology; call before JAX starts.

    Raises:
        InputError: an unknown topology, or libtpu is not installed.
    """
    if name == HERE:
        platform.prepare_process()
        return
    parse(name)
    if importlib.util.find_spec("libtpu") is None:
        raise InputError(
            f"--topology {name} needs libtpu, TPU's compiler, which runs without a TPU: "
            "pip install 'scaling-jax[plan]' (in a checkout: pip install -e '.[plan]' -c constraints.txt)"
        )
    os.environ.update(ENVIRONMENT)
    platform.prepare_compiler()


def open_topology(name: str) -> Hardware:
    """The devices of a topology.

    Raises:
        InputError: see `prepare`; or a topology that the chip does not come in.
    """
    import jax

    if name == HERE:
        devices = tuple(jax.devices())
        return Hardware(name, devices, chip_of(devices[0].device_kind), _memory_here(devices))
    from jax.experimental import topologies

    chip, _ = parse(name)
    try:
        with quiet():
            found = topologies.get_topology_desc(name, platform="tpu", **dict(chip.options))
    except jax.errors.JaxRuntimeError as error:
        raise InputError(f"--topology {name}: {str(error).splitlines()[0]} ({known_topologies()})") from error
    return Hardware(name, tuple(found.devices), chip, int(chip.memory_gib * GIB))


def _memory_here(devices: tuple[Any, ...]) -> int | None:
    """What a device reports as its limit; of CPU devices, an equal part of the machine's memory."""
    statistics = devices[0].memory_stats() or {}
    if "bytes_limit" in statistics:
        return int(statistics["bytes_limit"])
    if devices[0].platform != "cpu":
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(devices)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libraries write to standard error themselves (libtpu's notes) out of sight."""
    with tempfile.TemporaryFile() as aside:
        before = os.dup(2)
        os.dup2(aside.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)
