"""Finetuning runs that share everything compiled and their frozen base, made at the same time.

Each is evaluated at its own steps, stops and diverges by itself, and leaves what it leaves when it is
made alone. There is no state to resume from: a cohort that was interrupted is made again.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.training import cohort, records
from scaling_jax.training.cohort import Member
from scaling_jax.training.finetune import (
    AtBest,
    FinetuneRun,
    OpenRun,
    no_evaluations,
    open_run,
    write_run,
)
from scaling_jax.training.loop import LoopSettings, Outcome, Progress, note_evaluation


def finetune_cohort(
    runs: Sequence[FinetuneRun], folders: Sequence[Path], at_best: AtBest = no_evaluations
) -> list[dict[str, Any]]:
    """Makes the runs; returns their records, also written to each folder's `record.json`.

    Seconds of a run are its share of the cohort's, memory is that of all together. `at_best` is called for
    one run after the other, once all are trained.

    Raises:
        InputError: what `finetune` raises of each, or runs that differ in more than data, seed, learning
            rate and length.
    """
    opened = [open_run(run) for run in runs]
    _check_alike(opened)
    program, settings = opened[0].program, opened[0].settings
    states, frozen = cohort.start(program, opened[0].base, [run.seed for run in runs])
    members = [Member(one.batches(), one.rates, one.run.seed) for one in opened]
    progresses = [Progress() for _ in runs]
    best = _train(opened, members, states, frozen, progresses)
    environment = records.environment(settings.layout)
    peak = records.peak_memory_bytes(program.train_memory_bytes(cohort.TRAINING))
    names = tuple(folder.name for folder in folders)
    found = []
    for index, (one, progress, folder) in enumerate(zip(opened, progresses, folders, strict=True)):
        outcome = Outcome(progress, cohort.one(best, index), None)
        found.append(write_run(one, frozen, outcome, folder, environment, peak, at_best, names))
    return found


def _check_alike(opened: Sequence[OpenRun]) -> None:
    first = opened[0]
    for other in opened[1:]:
        same = (
            other.program == first.program
            and other.run.store == first.run.store
            and other.about["hash"] == first.about["hash"]
            and _shared(other) == _shared(first)
        )
        if not same:
            raise InputError(
                f"runs {first.run} and {other.run} differ in more than data, seed, learning rate and length"
            )


def _shared(opened: OpenRun) -> tuple:
    settings = opened.settings
    evaluation = (settings.dev_examples, settings.test_examples, settings.eval_batch_size)
    training = (settings.batch_size, settings.eval_interval, settings.steps_per_call, settings.patience)
    return settings.base_dtype, training, evaluation


def _train(
    opened: Sequence[OpenRun], members: Sequence[Member], states: Any, frozen: Any, progresses: list[Progress]
) -> Any:
    """Trains all to their ends; returns the trees [runs, ...] of the best steps."""
    program, settings = opened[0].program, opened[0].settings
    lengths = [one.steps for one in opened]
    dev = opened[0].evaluation("dev")
    bounds = LoopSettings(
        max(lengths), settings.eval_interval, settings.steps_per_call, stop_steps=tuple(lengths)
    ).call_bounds(0)
    best = jax.tree.map(lambda leaf: leaf.copy(), states.tuned)
    best = _note(opened, states, frozen, dev, progresses, [np.zeros((len(opened), 0))], best)
    pending: list[Any] = []
    began = time.perf_counter() - program.compile_seconds()
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(cohort.stacked, members, *bounds[0])
        for call, (_, end) in enumerate(bounds):
            if all(progress.status != "running" for progress in progresses):
                break
            batches, rates = coming.result()
            if call + 1 < len(bounds):
                coming = ahead.submit(cohort.stacked, members, *bounds[call + 1])
            states, metrics = cohort.train(program, states, frozen, batches, rates)
            pending.append(metrics["loss"])
            for progress, length in zip(progresses, lengths, strict=True):
                if progress.status == "running":
                    progress.step = min(end, length)
            if end % settings.eval_interval == 0 or end in lengths:
                jax.block_until_ready(states)
                _add_seconds(progresses, time.perf_counter() - program.compile_seconds() - began)
                best = _note(opened, states, frozen, dev, progresses, pending, best)
                pending = []
                began = time.perf_counter() - program.compile_seconds()
    return best


def _add_seconds(progresses: list[Progress], seconds: float) -> None:
    running = [progress for progress in progresses if progress.status == "running"]
    for progress in running:
        progress.train_seconds += seconds / len(running)


def _note(
    opened: Sequence[OpenRun],
    states: Any,
    frozen: Any,
    dev: Any,
    progresses: list[Progress],
    pending: list[Any],
    best: Any,
) -> Any:
    """Notes an evaluation of the runs that are due, and returns the best trees so far."""
    program, settings = opened[0].program, opened[0].settings
    losses = cohort.mean_losses(program, states.tuned, frozen, dev)
    since = np.concatenate([np.asarray(part) for part in pending], axis=1)
    better = np.zeros(len(opened), bool)
    for index, (one, progress) in enumerate(zip(opened, progresses, strict=True)):
        progress.losses_since_evaluation += since[index].tolist()
        at_own_step = progress.step % settings.eval_interval == 0 or progress.step == one.steps
        if progress.status != "running" or not at_own_step:
            continue
        train_losses = np.asarray(progress.losses_since_evaluation, np.float32)
        better[index] = note_evaluation(progress, float(losses[index]), train_losses, settings.patience)
        progress.losses_since_evaluation = []
        if progress.step == one.steps and progress.status == "running":
            progress.status = "done"
    return cohort.keep_better(program, better, states.tuned, best)
