"""What every run writes down of itself: `record.json` and TensorBoard events."""

import dataclasses
import functools
import importlib.metadata
import os
import platform
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter

import scaling_jax
from scaling_jax import files
from scaling_jax.training import processes
from scaling_jax.training.loop import Progress
from scaling_jax.training.mesh import Layout

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "jaxopt", "numpy", "grain", "gin-config")


def environment(layout: Layout) -> dict[str, Any]:
    """Versions, devices, mesh, XLA flags and source commit of this process."""
    mesh = layout.mesh()
    return {
        "versions": {name: _version(name) for name in PACKAGES}
        | {"scaling_jax": scaling_jax.__version__, "python": platform.python_version()},
        "device": jax.devices()[0].device_kind,
        "platform": jax.default_backend(),
        "device_count": jax.device_count(),
        "process_count": jax.process_count(),
        "mesh": dict(mesh.shape),
        "xla_flags": " ".join(filter(None, map(os.environ.get, ("XLA_FLAGS", "LIBTPU_INIT_ARGS")))),
        "commit": _commit(),
    }


def fixed_by(environment_record: dict[str, Any]) -> dict[str, Any]:
    """The part of an environment that fixes a run's bits: a resume must have the same."""
    keys = ("device", "platform", "device_count", "process_count", "mesh", "xla_flags")
    return {key: environment_record[key] for key in keys}


def peak_memory_bytes(compiled_bytes: int | None) -> int | None:
    """What the compiled training step needs on one device, else the peak of bytes in use there.

    A device counts the peak of a process, which never falls again: of the second run in a process it says
    nothing, be it of another method or a smaller model.
    """
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics.get("peak_bytes_in_use") if compiled_bytes is None else compiled_bytes


def write(folder: Path, record: dict[str, Any]) -> None:
    """Writes `record.json`, the sign that the run has ended; process 0 does, for all."""
    processes.on_first(lambda: str(files.write_json(folder / "record.json", record)))


def write_events(folder: Path, progress: Progress) -> None:
    """Writes the history as TensorBoard scalars under `folder/tensorboard`, replacing older ones."""
    processes.on_first(lambda: _write_events(folder, progress))


def _write_events(folder: Path, progress: Progress) -> None:
    with tempfile.TemporaryDirectory() as written:
        with SummaryWriter(written, flush_secs=600) as writer:
            for row in [*progress.history, *progress.speeds]:
                for name in sorted(row.keys() - {"step"}):
                    writer.add_scalar(name, row[name], int(row["step"]))
        files.remove_folder(folder / "tensorboard")
        for file in Path(written).iterdir():
            files.write_bytes(folder / "tensorboard" / file.name, file.read_bytes())


def plain(value: Any) -> Any:
    """Dataclasses and tuples as the JSON that they come back as from a file."""
    if dataclasses.is_dataclass(value):
        value = dataclasses.asdict(value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def _commit() -> str | None:
    """The commit of the checkout that the package runs from, with "+" where files differ from it."""
    folder = Path(scaling_jax.__file__).parents[1]
    if not (folder / ".git").exists():
        return None
    described = subprocess.run(
        ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"],
        capture_output=True,
        text=True,
    )
    return described.stdout.strip() or None
