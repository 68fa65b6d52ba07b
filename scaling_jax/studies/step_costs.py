"""What a step, an evaluation and a compilation of each method take on this machine, measured briefly.

In a process of its own, as a worker would be: on CPU on one core, on a GPU that is free again afterwards. Of
each model and method some training steps are timed after the first call, which compiles, and the evaluations
of dev and test once each. Nothing that is trained is kept.
"""

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.studies.worker import CONFIGURABLES, STOPPED_BY_INPUT

# Timed for so long, or so many calls.
_SECONDS, _CALLS = 1.5, 6


@dataclasses.dataclass(frozen=True)
class StepCosts:
    """Of one model and method, on one device.

    Attributes:
        step_seconds: of a training step, at the mean length of the batches that were timed.
        dev_seconds, test_seconds: of one evaluation.
        compile_seconds: of all programs that were needed.
        start_loss: dev loss before tuning.
        flops_per_step: by `training.costs`.
        memory_bytes: that the step needs on one device by XLA's account; None where it gives none.
    """

    step_seconds: float
    dev_seconds: float
    test_seconds: float
    compile_seconds: float
    start_loss: float
    flops_per_step: float
    memory_bytes: int | None


def measure(base: str, store: str, method: str, examples: int) -> StepCosts:
    """Times a run of one method that has not begun."""
    import jax

    from scaling_jax.training.costs import flops_per_token
    from scaling_jax.training.evaluate import mean_loss
    from scaling_jax.training.finetune import FinetuneRun, open_run

    opened = open_run(FinetuneRun(base, store, method, examples=examples))
    program, settings, batches = opened.program, opened.settings, opened.batches()
    state, frozen = program.start(opened.base, 0)
    seconds, losses = {}, {}
    for split in ("dev", "test"):
        batches_of = opened.evaluation(split)
        losses[split] = mean_loss(program, state.tuned, frozen, batches_of)
        began = time.perf_counter()
        mean_loss(program, state.tuned, frozen, batches_of)
        seconds[split] = time.perf_counter() - began
    calls, took, steps, first = 0, 0.0, 0, 0
    per_call = settings.steps_per_call
    rate = settings.learning_rate * 1e-3  # the loss is of no interest, and must not overflow
    while calls < _CALLS and took < _SECONDS:
        stacked = batches.stacked(first, per_call)
        compiled = program.compile_seconds()
        began = time.perf_counter()
        state, metrics = program.train(state, frozen, stacked, [rate] * per_call)
        jax.block_until_ready(metrics)
        elapsed = time.perf_counter() - began
        if calls or program.compile_seconds() == compiled:
            took += max(elapsed - (program.compile_seconds() - compiled), 0.0)
            steps += per_call
        calls, first = calls + 1, first + per_call
    length = float(opened.split.total_lengths[opened.subset].mean())
    targets = float(opened.split.lengths("targets")[opened.subset].mean())
    flops = flops_per_token(program.model, program.method, program.abstract_tuned(), length, targets)
    return StepCosts(
        step_seconds=took / steps,
        dev_seconds=seconds["dev"],
        test_seconds=seconds["test"],
        compile_seconds=program.compile_seconds(),
        start_loss=losses["dev"],
        flops_per_step=(flops.forward + flops.backward) * settings.batch_size * length,
        memory_bytes=program.train_memory_bytes(),
    )


# What a run takes beside steps and evaluations: reading, starting, writing its record.
RUN_SECONDS = 0.3


def run_seconds(settings: Any, costs: StepCosts, examples: float, share: float = 1.0) -> float:
    """Seconds of one run, without compilation.

    Args:
        settings: `FinetuneSettings` of the method.
        costs: of the model and method.
        examples: of the run.
        share: of all steps that are made before it stops for want of progress.
    """
    steps = share * settings.steps(int(examples))
    evaluations = 1 + math.ceil(steps / settings.eval_interval)
    return steps * costs.step_seconds + evaluations * costs.dev_seconds + costs.test_seconds + RUN_SECONDS


def recorded_seconds(record: Mapping[str, Any], costs: StepCosts) -> float:
    """Seconds that a run took by its record, without compilation; 0 where it failed before it trained."""
    if "costs" not in record:
        return 0.0
    evaluations = len(record["metrics"]) * costs.dev_seconds + costs.test_seconds
    return record["costs"]["train_seconds"] + evaluations + RUN_SECONDS


def measured(
    config: Path,
    runs: Sequence[tuple[str, str, str, int]],
    environment: dict[str, str],
    imports: Sequence[str],
) -> list[StepCosts]:
    """Measures in a process of its own.

    Args:
        config: resolved gin file.
        runs: (base, store, method, examples) each.
        environment: of the process; see `platform.worker_environment`.
        imports: the user's own modules.

    Raises:
        InputError: what the process refused, such as a store of another vocabulary.
    """
    command = [sys.executable, "-m", "scaling_jax.studies.step_costs", str(config), json.dumps(list(runs))]
    command += [part for name in imports for part in ("--gin_import", name)]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment)
    if ended.returncode == STOPPED_BY_INPUT:
        raise InputError(ended.stderr.strip().splitlines()[-1])
    if ended.returncode:
        raise RuntimeError(f"measuring the cost of a step failed:\n{ended.stderr[-3000:]}")
    return [StepCosts(**entry) for entry in json.loads(ended.stdout.splitlines()[-1])]


def main() -> int:
    """Entry point of `python -m scaling_jax.studies.step_costs CONFIG RUNS`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("config")
    parser.add_argument("runs")
    parser.add_argument("--gin_import", action="append", default=[])
    arguments = parser.parse_args()
    from scaling_jax.training import platform

    platform.prepare_process()
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[0]})
    try:
        configuration.parse([arguments.config], imports=[CONFIGURABLES, *arguments.gin_import])
        runs = json.loads(arguments.runs)
        found: list[Any] = [dataclasses.asdict(measure(*run)) for run in runs]
    except InputError as error:
        print(configuration.message(error), file=sys.stderr)
        return STOPPED_BY_INPUT
    print(json.dumps(found))
    return 0


def read_costs(path: Path) -> dict[str, StepCosts]:
    """What `write_costs` wrote; {} where there is nothing yet."""
    if not path.exists():
        return {}
    return {name: StepCosts(**entry) for name, entry in files.read_json(path).items()}


def write_costs(path: Path, costs: dict[str, StepCosts]) -> None:
    """Keeps measurements, by a name of model and method."""
    files.write_json(path, {name: dataclasses.asdict(entry) for name, entry in costs.items()})


if __name__ == "__main__":
    sys.exit(main())
