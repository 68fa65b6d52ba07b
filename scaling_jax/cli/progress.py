"""What verbs share to show progress: a line per evaluation, a bar over jobs."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence

from scaling_jax.training import processes


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
