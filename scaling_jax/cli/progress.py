"""What verbs share to show progress: a run folder of one's own, a line per evaluation, a bar over jobs."""

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.errors import InputError


def claim_run(folder: Path) -> bool:
    """Whether the run is still to be made; records its configuration in a new folder.

    Raises:
        InputError: the folder holds a run of another configuration, or something that is no run.
    """
    record, config = folder / "record.json", folder / "config.gin"
    if config.exists():
        if config.read_text("utf-8") != configuration.resolved():
            raise InputError(
                f"{folder} holds a run of another configuration (see {config}): give a new --out"
            )
        return not (record.exists() and files.read_json(record)["status"] == "done")
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run: give a new --out")
    files.write_text(config, configuration.resolved())
    return True


def run_once(arguments, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any] | None:
    """Parses gin and makes the run in `--out`; None where it was finished before.

    Raises:
        InputError: see `claim_run`, and what gin or the run refuses.
    """
    folder = Path(arguments.out)
    configuration.parse_arguments(arguments, ["scaling_jax.studies.configurables"])
    if not claim_run(folder):
        print(f"{folder}: finished before, nothing redone")
        return None
    try:
        return make(folder)
    except InputError:
        # A run that was refused leaves no folder that would refuse the corrected command.
        if [path.name for path in folder.iterdir()] == ["config.gin"]:
            shutil.rmtree(folder)
        raise


def watched(label: str) -> Callable[[Sequence], Iterable]:
    """Wraps a list of jobs in a bar with the time left, on a terminal and for more than one job."""

    def watch(jobs: Sequence) -> Iterable:
        if len(jobs) < 2 or not sys.stderr.isatty():
            return jobs
        from rich.console import Console
        from rich.progress import track

        return track(jobs, label, console=Console(stderr=True), transient=True)

    return watch


def evaluation_printer() -> Callable:
    """A callback that prints step, losses and seconds at every dev evaluation."""
    began = time.monotonic()

    def show(progress) -> None:
        if not progress.history:
            return
        row = progress.history[-1]
        train = f"  train {row['train_loss']:.4f}" if "train_loss" in row else ""
        best = "  *" if progress.best_step == row["step"] else ""
        print(
            f"step {row['step']:>7,}{train}  dev {row['dev_loss']:.4f}  "
            f"{time.monotonic() - began:6.1f} s{best}",
            flush=True,
        )

    return show


def counted(things: str, total: int | None) -> Callable[[int], None]:
    """A callback for work of more than five seconds: every five it says how much is done, and how long the
    rest takes where the total is known."""
    began = said = time.monotonic()
    done = 0

    def add(count: int) -> None:
        nonlocal said, done
        done += count
        now = time.monotonic()
        if now - said < 5 or done == total:
            return
        said = now
        if total is None:
            print(f"{done:,} {things} so far", file=sys.stderr, flush=True)
        else:
            left = (now - began) * (total - done) / done
            print(f"{done:,} of {total:,} {things}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return add
