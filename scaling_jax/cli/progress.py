"""What verbs share to show progress: a run folder of one's own, a line per evaluation, a bar over jobs."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.training import processes


def claim_run(folder: Any, elsewhere: bool = False) -> bool:
    """Whether the run is still to be made; records its configuration in a new folder.

    Args:
        folder: of the run.
        elsewhere: its layout may be another one than when it was begun.

    Raises:
        InputError: the folder holds a run of another configuration, or something that is no run.
    """
    record, config = folder / "record.json", folder / "config.gin"
    if config.exists():
        before, now = config.read_text("utf-8"), configuration.resolved()
        moved = before != now and elsewhere and _without_layout(before) == _without_layout(now)
        if before != now and not moved:
            raise InputError(
                f"{folder} holds a run of another configuration (see {config}): give a new --out"
                + _layout_hint(before, now)
            )
        if record.exists() and files.read_json(record)["status"] == "done":
            return False
        if moved:
            files.write_text(config, now)
        return True
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run: give a new --out")
    files.write_text(config, configuration.resolved())
    return True


def _layout_hint(before: str, now: str) -> str:
    only_layout = _without_layout(before) == _without_layout(now)
    return ", or go on with the other Layout by --resume_elsewhere" if only_layout else ""


def _without_layout(config: str) -> list[str]:
    """The bindings of a configuration, but for those that say where arrays go."""
    kept, skipping = [], False
    for line in config.splitlines():
        if not line.startswith((" ", ")", "]", "}")):  # else it goes on with the line before
            skipping = re.match(r"(\S+/)?(training\.)?Layout\.|\S+\.layout = @", line) is not None
        if line.strip() and not line.startswith("#") and not skipping:
            kept.append(line)
    return kept


def run_once(arguments, make: Callable[[Any], dict[str, Any]]) -> dict[str, Any] | None:
    """Parses gin and makes the run in `--out`; None where it was finished before.

    Raises:
        InputError: see `claim_run`, and what gin or the run refuses.
    """
    folder = files.at(arguments.out)
    configuration.parse_arguments(arguments, ["scaling_jax.studies.configurables"])
    if not processes.on_first(lambda: claim_run(folder, arguments.resume_elsewhere)):
        if processes.is_first():
            print(f"{folder}: finished before, nothing redone")
        return None
    try:
        return make(folder)
    except InputError:
        # A run that was refused leaves no folder that would refuse the corrected command.
        if processes.is_first() and [path.name for path in folder.iterdir()] == ["config.gin"]:
            files.remove_folder(folder)
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
    """A callback that prints step, losses and seconds at every dev evaluation, in one process of several."""
    began = time.monotonic()

    def show(progress) -> None:
        if not progress.history or not processes.is_first():
            return
        row = progress.history[-1]
        train = f"  train {row['train_loss']:.4f}" if "train_loss" in row else ""
        best = "  *" if progress.best_step == row["step"] else ""
        speed = _speed(progress.speeds[-1]) if progress.speeds else ""
        print(
            f"step {row['step']:>7,}{train}  dev {row['dev_loss']:.4f}  "
            f"{time.monotonic() - began:6.1f} s{speed}{best}",
            flush=True,
        )

    return show


def _speed(speed: dict[str, float]) -> str:
    used = f", MFU {speed['mfu']:.1%}" if "mfu" in speed else ""
    return f"  {speed['tokens_per_second_per_device']:,.0f} tokens/s a device{used}"


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
