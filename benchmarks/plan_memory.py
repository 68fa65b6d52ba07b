"""What `scaling-jax plan` says a training step needs, against the memory that a real run takes.

    python benchmarks/plan_memory.py
    python benchmarks/plan_memory.py --layers 16 --model_dim 1024 --rows 16 --length 512 --method lora

The run is a process of its own: it makes parameters and optimizer state, trains, and reports the peak in use.
Where the device counts its memory (GPU, TPU) that is `peak_bytes_in_use`; on CPU it is the process's peak
resident memory beyond what it had when JAX was ready, everything imported and a small program run. The plan
is `--topology here` in another process, so that nothing of either is in the other's.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
MIB = 2**20


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--model_dim", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--method", choices=("full", "lora"), default="full")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--part", choices=("plan", "run"), help=argparse.SUPPRESS)
    return parser.parse_args()


def workload(given):
    """What both halves make."""
    from scaling_jax.data.objectives.objective import Lengths
    from scaling_jax.models.config import ModelConfig
    from scaling_jax.planning.workload import Workload
    from scaling_jax.training.mesh import Layout
    from scaling_jax.training.optimizers import Optimizer
    from scaling_jax.tuning.full import Full
    from scaling_jax.tuning.lora import LoRA

    model = ModelConfig(
        "benchmark",
        given.layers,
        given.heads,
        given.model_dim // given.heads,
        given.model_dim,
        4 * given.model_dim,
        given.vocabulary,
        dtype=given.dtype,
        remat=given.remat,
    )
    return Workload(
        name=f"{given.method} of benchmark",
        kind="finetuning",
        model=model,
        method=Full() if given.method == "full" else LoRA(rank=4),
        optimizer=Optimizer("adamw"),
        layout=Layout(),
        rows=given.rows,
        lengths=Lengths(given.length, 0, given.length),
        mean_lengths=(given.length, 0.0),
        steps=(given.steps,),
        base_dtype=given.dtype,
    )


def plan(given):
    """Bytes by the plan."""
    from scaling_jax.planning import topologies
    from scaling_jax.planning.compiled import compiled_step

    topologies.prepare(topologies.HERE)
    step = compiled_step(workload(given), topologies.open_topology(topologies.HERE), "train")
    return {"bytes": step.needed}


def run(given):
    """Bytes that a real run took at its peak."""
    from scaling_jax.training import platform

    platform.prepare_process()
    import jax
    import numpy as np

    from scaling_jax.planning.workload import abstract_base, abstract_batches

    wanted = workload(given)
    program = wanted.on(_here())
    shapes = abstract_batches(wanted, 1, given.rows)
    batches = {name: np.ones(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    rates = np.full(1, 1e-3, np.float32)

    def start():
        # In place of a checkpoint; not zeros, whose pages the system does not count.
        base = jax.tree.map(
            lambda leaf, place: jax.device_put(np.full(leaf.shape, 0.01, leaf.dtype), place),
            abstract_base(wanted),
            program.shardings["params"],
        )
        return program.start(base, 0)

    # Everything is compiled before anything is measured: the compiler's own memory is not the run's.
    program.lower_train(abstract_base(wanted), batches).compile()
    start()
    before = _resident()
    state, frozen = start()
    _reset_peak()
    for _ in range(given.steps):
        state, metrics = program.train(state, frozen, batches, rates)
        float(metrics["loss"][0])
    statistics = jax.local_devices()[0].memory_stats() or {}
    found = statistics.get("peak_bytes_in_use")
    return {"bytes": _peak() - before if found is None else found, "device": jax.devices()[0].device_kind}


def _here():
    from scaling_jax.planning import topologies

    return topologies.open_topology(topologies.HERE)


def _resident():
    return _status("VmRSS")


def _peak():
    return _status("VmHWM")


def _reset_peak():
    """The kernel counts the peak of resident memory from here."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def main():
    """Prints both and their ratio."""
    given = arguments()
    sys.path.insert(0, str(ROOT))
    if given.part:
        print(json.dumps({"plan": plan, "run": run}[given.part](given)))
        return
    found = {}
    for part in ("plan", "run"):
        command = [sys.executable, __file__, *sys.argv[1:], "--part", part]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{part}: {done.stderr[-2000:]}")
        found[part] = json.loads(done.stdout.splitlines()[-1])
    planned, measured = found["plan"]["bytes"], found["run"]["bytes"]
    size = f"{given.layers} layers of {given.model_dim}, {given.rows} x {given.length} tokens"
    print(f"{given.method}, {size}, remat {given.remat}, on {found['run']['device']}")
    print(
        f"planned {planned / MIB:,.0f} MiB, measured {measured / MIB:,.0f} MiB, "
        f"planned is {planned / measured - 1:+.1%} of the measured"
    )


if __name__ == "__main__":
    main()
