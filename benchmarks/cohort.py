"""Tuning runs at a time: K of them one by one, against K in one vmapped program over one shared base.

    python benchmarks/cohort.py
    python benchmarks/cohort.py --model_dim 2048 --layers 16 --rows 16 --length 256 --dtype bfloat16

Needs jax, flax, optax, numpy and gin-config, no more. The base is random: what is measured is time.
Prints one line per size of the cohort, and at last one JSON object with all of them.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.training import cohort
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.precision import stored_as
from scaling_jax.training.program import Program
from scaling_jax.tuning.lora import LoRA


def arguments():
    """The flags; the defaults are a model that a CPU trains in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--model_dim", type=int, default=128)
    parser.add_argument("--head_dim", type=int, default=32)
    parser.add_argument("--vocabulary", type=int, default=1024)
    parser.add_argument("--rows", type=int, default=8, help="examples per step of one run")
    parser.add_argument("--length", type=int, default=64, help="tokens per example")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs="+", default=[8], help="runs at a time, K")
    parser.add_argument("--dtype", default="float32", help="of activations and the frozen base")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--steps_per_call", type=int, default=5)
    parser.add_argument("--calls", type=int, default=4)
    parser.add_argument("--run_steps", type=int, default=1000, help="steps of a run, for runs per hour")
    return parser.parse_args()


def program_of(given):
    """LoRA on all projections of a decoder with four times as wide a feed-forward."""
    config = ModelConfig(
        "benchmark",
        layers=given.layers,
        heads=given.model_dim // given.head_dim,
        head_dim=given.head_dim,
        model_dim=given.model_dim,
        feed_forward_dim=4 * given.model_dim,
        vocabulary_size=given.vocabulary,
        dtype=given.dtype,
        remat=given.remat,
    )
    return Program(config, LoRA(rank=given.rank), Optimizer("adamw"), Layout())


def batches_of(given, runs):
    """Random tokens [runs, steps, rows, length]."""
    shape = (runs, given.steps_per_call, given.rows, given.length + 1)
    whole = np.random.default_rng(0).integers(0, given.vocabulary, shape).astype(np.int32)
    return {
        "inputs": whole[..., :-1],
        "targets": whole[..., 1:],
        "weights": np.ones((*shape[:-1], given.length), np.float32),
    }


def seconds_per_call(train, state, calls):
    """Seconds of `train(state) -> (state, metrics)` after a first call that compiles it."""
    state, _ = train(state)
    jax.block_until_ready(state)
    began = time.perf_counter()
    for _ in range(calls):
        state, metrics = train(state)
    if not np.isfinite(np.asarray(metrics["loss"])).all():  # waits for the last step
        raise FloatingPointError("a loss of the benchmark is not finite")
    return (time.perf_counter() - began) / calls


def one_by_one(program, base, given):
    """Steps per second of a run that has the device for itself."""
    state, frozen = program.start(base, 0)
    batches = {name: array[0] for name, array in batches_of(given, 1).items()}
    rates = np.full(given.steps_per_call, 1e-3, np.float32)

    def train(state):
        return program.train(state, frozen, batches, rates)

    return given.steps_per_call / seconds_per_call(train, state, given.calls)


def together(program, base, given, runs):
    """Steps of all runs per second, of a cohort of so many."""
    states, frozen = cohort.start(program, base, range(runs))
    batches = batches_of(given, runs)
    rates = np.full((runs, given.steps_per_call), 1e-3, np.float32)

    def train(states):
        return cohort.train(program, states, frozen, batches, rates)

    return runs * given.steps_per_call / seconds_per_call(train, states, given.calls)


def main():
    """Measures and prints."""
    given = arguments()
    program = program_of(given)
    base = stored_as(program.initial_parameters(0), given.dtype)
    device = jax.devices()[0]
    parameters = counts.model_parameters(program.model)
    print(
        f"{device.device_kind} ({device.platform}), jax {jax.__version__}; {parameters:,} parameters, LoRA "
        f"of rank {given.rank}: {program.trained_parameters():,}; "
        f"{given.rows} x {given.length} tokens a step, {given.dtype}"
    )
    alone = one_by_one(program, base, given)
    print(
        f"one by one: {alone:.2f} steps/s, "
        f"{3600 * alone / given.run_steps:.1f} runs of {given.run_steps} steps an hour"
    )
    found = []
    for runs in given.sizes:
        speed = together(program, base, given, runs)
        found.append({"runs": runs, "run_steps_per_second": speed, "times": speed / alone})
        print(
            f"K = {runs}: {speed:.2f} steps/s of all runs, "
            f"{3600 * speed / given.run_steps:.1f} runs an hour, {speed / alone:.2f} times one by one"
        )
    print(
        json.dumps(
            {
                "device": device.device_kind,
                "model_parameters": parameters,
                "one_by_one_steps_per_second": alone,
                "peak_memory_bytes": (device.memory_stats() or {}).get("peak_bytes_in_use"),
                "cohorts": found,
                "settings": vars(given),
            }
        )
    )


if __name__ == "__main__":
    main()
