"""The training loop: calls of a few compiled steps, evaluations between them, exact resume."""

import dataclasses
import math
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax import files
from scaling_jax.data.pipeline import StackedBatches, training_calls
from scaling_jax.errors import InputError
from scaling_jax.training import checkpoints, processes
from scaling_jax.training.evaluate import EvaluationSet, dev_losses
from scaling_jax.training.program import Program, TrainState

NOTHING: Mapping[str, float] = {}


@dataclasses.dataclass(frozen=True)
class LoopSettings:
    """When things happen, in steps.

    Attributes:
        steps: length of the run.
        eval_interval: steps between dev evaluations; the last step is always evaluated.
        steps_per_call: steps that one compiled call takes; a divisor of `eval_interval`.
        patience: evaluations without a better dev loss after which the run stops; 0 never stops.
        checkpoint_interval: steps between states to resume from; 0 keeps none.
        stop_steps: further steps to evaluate and to hand to `at_step` (to keep a checkpoint of them).
    """

    steps: int
    eval_interval: int
    steps_per_call: int = 1
    patience: int = 0
    checkpoint_interval: int = 0
    stop_steps: tuple[int, ...] = ()

    def __post_init__(self):
        if self.steps < 1 or self.eval_interval < 1 or self.steps_per_call < 1:
            raise InputError(
                f"steps {self.steps}, eval_interval {self.eval_interval}, "
                f"steps_per_call {self.steps_per_call}: all at least 1"
            )

    def call_bounds(self, first: int) -> list[tuple[int, int]]:
        """(first step, end step) of every call from `first` on."""
        stops = {self.steps, *self.stop_steps, *range(0, self.steps, self.eval_interval)}
        if self.checkpoint_interval:
            stops.update(range(0, self.steps, self.checkpoint_interval))
        bounds = []
        while first < self.steps:
            next_stop = min(stop for stop in stops if stop > first)
            end = min(first + self.steps_per_call, next_stop)
            bounds.append((first, end))
            first = end
        return bounds


@dataclasses.dataclass
class Progress:
    """Where a run stands; together with the arrays, all that a resume needs.

    `moves` are the resumes on other devices: {"step", "from", "to"}.
    """

    step: int = 0
    best_step: int = 0
    best_dev_loss: float = math.inf
    evaluations_since_best: int = 0
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    losses_since_evaluation: list[float] = dataclasses.field(default_factory=list)
    # Of the steps up to each evaluation, for whoever watches; not in the history, whose numbers are fixed.
    speeds: list[dict[str, float]] = dataclasses.field(default_factory=list)
    train_seconds: float = 0.0
    status: str = "running"
    reason: str = ""
    moves: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a run: `best` is the trained tree of the best dev loss, `last` that of the last step."""

    progress: Progress
    best: Any
    last: Any


class Interrupted(SystemExit):
    """SIGTERM came: the state was saved and the same command goes on from it.

    Not an `Exception`, so that nobody takes it for a failed run; uncaught it ends the process with
    the exit code of a terminated one.
    """

    def __init__(self, message: str):
        super().__init__(message)
        self.code = 128 + signal.SIGTERM


def train(
    program: Program,
    start: TrainState,
    base: Any,
    batches: StackedBatches,
    rates: np.ndarray,
    dev: EvaluationSet,
    settings: LoopSettings,
    folder: Path,
    plan: dict[str, Any],
    at_step: Callable[[int, TrainState], None] = lambda step, state: None,
    on_evaluation: Callable[[Progress], None] = lambda progress: None,
    elsewhere: bool = False,
) -> Outcome:
    """Trains to the end, or on from `folder/resume` where an earlier process stopped.

    Args:
        program: what is compiled.
        start: the state at step 0.
        base: frozen parameters.
        batches: the training data.
        rates: learning rates float32 [steps].
        dev: evaluation set for choosing the best step.
        settings: intervals.
        folder: the run folder.
        plan: everything that fixes the run's numbers; a resume under another plan is refused. What
            devices have to do with it is in `environment` and in `settings.layout`.
        at_step: called at every `settings.stop_steps` with the state.
        on_evaluation: called after every dev evaluation.
        elsewhere: go on also from what was saved on other devices, in another mesh or by another number of
            processes. The same batches follow; the numbers are the same up to the order of sums.

    Raises:
        InputError: `folder/resume` is of another plan, or cannot be written.
        Interrupted: SIGTERM came, to any process.
    """
    kept = checkpoints.Kept(folder / "resume")
    try:
        outcome = _train(
            program,
            start,
            base,
            batches,
            rates,
            dev,
            settings,
            kept,
            plan,
            at_step,
            on_evaluation,
            elsewhere,
        )
    finally:
        if processes.count() == 1:  # of several, the others may not come any more
            kept.close()
    kept.close()
    return outcome


def _train(
    program: Program,
    start: TrainState,
    base: Any,
    batches: StackedBatches,
    rates: np.ndarray,
    dev: EvaluationSet,
    settings: LoopSettings,
    kept: checkpoints.Kept,
    plan: dict[str, Any],
    at_step: Callable[[int, TrainState], None],
    on_evaluation: Callable[[Progress], None],
    elsewhere: bool,
) -> Outcome:
    progress, state, best = _begin(program, start, base, dev, kept, plan, on_evaluation, elsewhere)
    bounds = settings.call_bounds(progress.step)
    calls = training_calls(batches, bounds)
    pending: list[Any] = [np.asarray(progress.losses_since_evaluation, np.float32)]
    began = time.perf_counter() - program.compile_seconds()
    with processes.termination_noted() as stopping:
        for first, end in bounds:
            if progress.status != "running":
                break
            state, metrics = program.train(state, base, next(calls), rates[first:end])
            pending.append(metrics["loss"])
            progress.step = end
            if end % settings.eval_interval == 0 or end == settings.steps or end in settings.stop_steps:
                jax.block_until_ready(state)
                progress.train_seconds += time.perf_counter() - program.compile_seconds() - began
                best = _evaluate(
                    program, state, base, dev, progress, np.concatenate(pending), best, settings.patience
                )
                pending.clear()
                on_evaluation(progress)
                began = time.perf_counter() - program.compile_seconds()
            if end in settings.stop_steps and progress.status != "diverged":
                at_step(end, state)
            due = (
                settings.checkpoint_interval
                and end % settings.checkpoint_interval == 0
                and end < settings.steps
            )
            asked = stopping.asked()
            if (due or asked) and progress.status == "running":
                jax.block_until_ready(state)
                progress.train_seconds += time.perf_counter() - program.compile_seconds() - began
                progress.losses_since_evaluation = [
                    float(loss) for losses in pending for loss in np.asarray(losses)
                ]
                about = {"plan": plan, "progress": dataclasses.asdict(progress)}
                kept.save(end, {"state": state, "best": best}, about)
                if asked:
                    kept.wait()
                    raise Interrupted(f"stopped at step {end}; the same command goes on from there")
                began = time.perf_counter() - program.compile_seconds()
    if progress.status == "running":
        progress.status = "done"
    return Outcome(progress, best, state.tuned)


def finish(folder: Path) -> None:
    """Removes the state to resume from, once the run's record is written."""
    processes.on_first(lambda: files.remove_folder(folder / "resume"))


def _begin(
    program: Program,
    start: TrainState,
    base: Any,
    dev: EvaluationSet,
    kept: checkpoints.Kept,
    plan: dict[str, Any],
    on_evaluation: Callable[[Progress], None],
    elsewhere: bool,
) -> tuple[Progress, TrainState, Any]:
    folder = kept.latest()
    if folder is None:
        progress = Progress()
        best = _evaluate(program, start, base, dev, progress, np.zeros(0), start.tuned, patience=0)
        on_evaluation(progress)
        return progress, start, best
    saved = checkpoints.about(folder)
    progress = Progress(**saved["progress"])
    here, there = _devices(plan), _devices(saved["plan"])
    _check_same_run(folder, _without_devices(plan), _without_devices(saved["plan"]))
    if here != there:
        if not elsewhere:
            raise InputError(
                f"{folder} was saved under another plan of devices ({_told_apart(there, here)}): go on "
                "there, or here with --resume_elsewhere, where numbers are the same up to rounding"
            )
        progress.moves.append({"step": progress.step, "from": there, "to": here})
    tree = {"state": start, "best": start.tuned}
    shardings = jax.tree.map(lambda leaf: leaf.sharding, tree)
    restored = checkpoints.restore(folder, checkpoints.like(tree, shardings))
    return progress, TrainState(*restored["state"]), restored["best"]


def _devices(plan: dict[str, Any]) -> dict[str, Any]:
    """What of a plan has to do with the devices."""
    environment = {"process_count": 1} | plan["environment"]  # earlier ones did not say it
    return environment | {"layout": plan["settings"].get("layout")}


def _without_devices(plan: dict[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in plan["settings"].items() if name != "layout"}
    return {name: value for name, value in plan.items() if name != "environment"} | {"settings": settings}


def _check_same_run(folder: Any, plan: dict[str, Any], saved: dict[str, Any]) -> None:
    differing = sorted(key for key in plan.keys() | saved.keys() if plan.get(key) != saved.get(key))
    if differing:
        raise InputError(
            f"{folder} was saved under another plan ({', '.join(differing)} differ): "
            "run it as before, or remove the folder to start again"
        )


def _told_apart(there: dict[str, Any], here: dict[str, Any]) -> str:
    names = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    return (
        "; ".join(f"{name} was {there.get(name)}, is {here.get(name)}" for name in names if name != "layout")
        or "another layout"
    )


def note_evaluation(
    progress: Progress,
    dev_loss: float,
    train_losses: np.ndarray,
    patience: int,
    further: Mapping[str, float] = NOTHING,
) -> bool:
    """Appends an evaluation at `progress.step` to the history; whether it is the best so far.

    `further` losses are noted too and decide nothing. A loss that is not finite ends the run as diverged,
    `patience` evaluations without a better one as done.
    """
    if not math.isfinite(dev_loss) or not np.isfinite(train_losses).all():
        progress.status = "diverged"
        progress.reason = f"loss is not finite by step {progress.step}"
        return False
    row = {"step": progress.step, "dev_loss": dev_loss, **further}
    if len(train_losses):
        row["train_loss"] = float(np.mean(train_losses, dtype=np.float64))
    progress.history.append(row)
    if dev_loss < progress.best_dev_loss:
        progress.best_dev_loss, progress.best_step, progress.evaluations_since_best = (
            dev_loss,
            progress.step,
            0,
        )
        return True
    progress.evaluations_since_best += 1
    if patience and progress.evaluations_since_best >= patience:
        progress.status = "done"
    return False


def _evaluate(
    program: Program,
    state: TrainState,
    base: Any,
    dev: EvaluationSet,
    progress: Progress,
    train_losses: np.ndarray,
    best: Any,
    patience: int,
) -> Any:
    """Appends to the history and returns the best tree so far."""
    losses = dev_losses(program, state.tuned, base, dev)
    if note_evaluation(progress, losses.pop("dev_loss"), train_losses, patience, losses):
        # A copy: the state itself is donated to the next call.
        return jax.tree.map(jnp.copy, state.tuned)
    return best
