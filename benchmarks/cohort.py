"""Tuning runs at a time: K of them one by one, against K in one vmapped program over one shared base.

    python benchmarks/cohort.py --workers
    python benchmarks/cohort.py --model_dim 256 512 1024 2048 --layers 16 --head_dim 128 --dtype bfloat16

A row of a Markdown table for every width and K, then the width from which on the gain is below 2x, and at
last one JSON object with all of it. `--workers` adds what a study does on a CPU instead: one process on
every core, each with runs of its own. Every measurement is a process of its own under the flags that the
command line sets. Needs jax, flax, optax, numpy and gin-config, no more. The base is random: what is
measured is time.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
ENOUGH = 2.0


def arguments():
    """The flags; the defaults are models that a CPU trains in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--model_dim", type=int, nargs="+", default=[64, 128, 256], help="widths")
    parser.add_argument("--head_dim", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=8, help="examples per step of one run")
    parser.add_argument("--length", type=int, default=64, help="tokens per example")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8], help="runs at a time, K")
    parser.add_argument("--workers", action="store_true", help="a pinned process on every core as well")
    parser.add_argument("--dtype", default="float32", help="of activations and the frozen base")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--steps_per_call", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    return parser.parse_args()


def program_of(given, width):
    """LoRA on all projections of a decoder with four times as wide a feed-forward."""
    from scaling_jax.models.config import ModelConfig
    from scaling_jax.training.mesh import Layout
    from scaling_jax.training.optimizers import Optimizer
    from scaling_jax.training.program import Program
    from scaling_jax.tuning.lora import LoRA

    config = ModelConfig(
        "benchmark",
        layers=given.layers,
        heads=width // given.head_dim,
        head_dim=given.head_dim,
        model_dim=width,
        feed_forward_dim=4 * width,
        vocabulary_size=given.vocabulary,
        dtype=given.dtype,
        remat=given.remat,
    )
    return Program(config, LoRA(rank=given.rank), Optimizer("adamw"), Layout())


def batches_of(given, runs):
    """Random tokens [runs, steps, rows, length]."""
    import numpy as np

    shape = (runs, given.steps_per_call, given.rows, given.length + 1)
    whole = np.random.default_rng(0).integers(0, given.vocabulary, shape).astype(np.int32)
    return {
        "inputs": whole[..., :-1],
        "targets": whole[..., 1:],
        "weights": np.ones((*shape[:-1], given.length), np.float32),
    }


def seconds_per_call(train, state, calls):
    """Seconds of `train(state) -> (state, metrics)` after a first call that compiles it and a line from the
    process that asked, which lets several begin together."""
    import jax
    import numpy as np

    state, _ = train(state)
    jax.block_until_ready(state)
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for _ in range(calls):
        state, metrics = train(state)
    if not np.isfinite(np.asarray(metrics["loss"])).all():  # waits for the last step
        raise FloatingPointError("a loss of the benchmark is not finite")
    return (time.perf_counter() - began) / calls


def measure(given, width, runs, core):
    """Facts of so many runs at a time, 0 being one without a cohort, in this process."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    import jax
    import numpy as np

    from scaling_jax.models import counts
    from scaling_jax.training import cohort
    from scaling_jax.training.precision import stored_as

    program = program_of(given, width)
    base = stored_as(program.initial_parameters(0), given.dtype)
    batches = batches_of(given, runs or 1)
    rates = np.full((runs or 1, given.steps_per_call), 1e-3, np.float32)
    if runs:
        states, frozen = cohort.start(program, base, range(runs))
        seconds = seconds_per_call(
            lambda states: cohort.train(program, states, frozen, batches, rates), states, given.calls
        )
    else:
        state, frozen = program.start(base, 0)
        first = {name: array[0] for name, array in batches.items()}
        seconds = seconds_per_call(
            lambda state: program.train(state, frozen, first, rates[0]), state, given.calls
        )
    device = jax.devices()[0]
    return {
        "steps_per_second": (runs or 1) * given.steps_per_call / seconds,
        "parameters": counts.model_parameters(program.model),
        "trained": program.trained_parameters(),
        "device": f"{device.device_kind} ({device.platform}), jax {jax.__version__}",
        "peak_memory_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
    }


def measured(width, runs=0, cores=(None,)):
    """Facts of processes that run at the same time, steps per second added up."""
    from scaling_jax.training.platform import worker_environment

    environment = worker_environment()
    started = []
    for core in cores:
        command = [sys.executable, *sys.argv, "--measure", json.dumps([width, runs, core])]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    if any(process.stdout.readline().strip() != "ready" for process in started):
        sys.exit(f"width {width}, {runs or 1} runs at a time: failed, see above")
    for process in started:
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return found[0] | {"steps_per_second": sum(one["steps_per_second"] for one in found)}


def row_of(width, how, one, alone):
    """Cells of one measurement."""
    speed, peak = one["steps_per_second"], one["peak_memory_bytes"]
    times = speed / alone["steps_per_second"]
    peak = f"{peak / 2**30:.2f}" if peak else ""
    return f"| {width} | {one['parameters']:,} | {how} | {speed:.2f} | {times:.2f} | {peak} |"


def main():
    """Measures and prints."""
    given = arguments()
    if given.measure:
        print(json.dumps(measure(given, *json.loads(given.measure))))
        return
    found, gains, device = [], {}, None
    for width in given.model_dim:
        alone = measured(width)
        if device is None:
            device = alone["device"]
            print(
                f"{device}; {given.layers} layers, LoRA of rank {given.rank}, {given.rows} x {given.length} "
                f"tokens a step of each run, {given.dtype}\n\n"
                "| width | parameters | runs | steps/s of all | of one by one | peak GiB |\n"
                "|---|---|---|---|---|---|"
            )
        ways = {"one by one": alone}
        for runs in given.sizes:
            ways[f"{runs} in one program"] = measured(width, runs)
            gains[runs, width] = ways[f"{runs} in one program"]["steps_per_second"]
            gains[runs, width] /= alone["steps_per_second"]
        if given.workers:
            cores = sorted(os.sched_getaffinity(0))
            ways[f"a process on each of {len(cores)} cores"] = measured(width, cores=cores)
        for how, one in ways.items():
            print(row_of(width, how, one, alone), flush=True)
            found.append({"width": width, "runs": how} | one)
    print()
    for runs in given.sizes:
        below = [width for width in given.model_dim if gains[runs, width] < ENOUGH]
        print(f"K = {runs}: gain below {ENOUGH:g}x at width {', '.join(map(str, below)) or 'none of these'}")
    print("\n" + json.dumps({"device": device, "settings": vars(given), "rows": found}))


if __name__ == "__main__":
    main()
