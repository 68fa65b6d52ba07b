"""Runs by the command line, in one process or in several, on simulated devices, as a user starts them."""

import contextlib
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

from tests.training import tiny

# After which a run counts as one that hangs, on a busy machine too.
SECONDS = 1500
MODEL = {"layers": 2, "heads": 8, "head_dim": 2, "model_dim": 16, "feed_forward_dim": 24}
BINDINGS = (
    *(f"tiny/decoder_config.{name}={value}" for name, value in MODEL.items()),
    "PretrainSettings.batch_size=8",
    "PretrainSettings.eval_interval=1",
    "PretrainSettings.epochs=10",
    "PretrainSettings.learning_rate=0.03",
    "PretrainSettings.checkpoint_interval=3",
    "PretrainRun.model=tiny",
    "PretrainRun.tokens=(1280,)",  # 20 steps of 8 windows of 8 tokens
    "FinetuneSettings.batch_size=8",
    "FinetuneSettings.eval_batch_size=8",
    "FinetuneSettings.eval_interval=1",
    "FinetuneSettings.max_steps=20",
    "FinetuneSettings.learning_rate=0.03",
    "FinetuneRun.method=lora",
    "lora.rank=2",
)


def layout(data, fsdp, tensor):
    """Bindings of a mesh."""
    return [f"Layout.data={data}", f"Layout.fsdp={fsdp}", f"Layout.tensor={tensor}"]


def pretraining(room, out, *bindings):
    """A command line of `pretrain` with the stores of `room`."""
    return _command("pretrain", out, [*BINDINGS, f"PretrainRun.store={room}/pretrain", *bindings])


def finetuning(room, out, base, *bindings):
    """A command line of `finetune` by LoRA."""
    own = [f"FinetuneRun.store={room}/finetune", f"FinetuneRun.base={base}"]
    return _command("finetune", out, [*BINDINGS, *own, *bindings])


def _command(verb, out, bindings):
    return [verb, *(f"--gin.{binding}" for binding in bindings), "--out", str(out)]


def free_port():
    """A port that nobody listens at, of those that the system gives nobody in between."""
    for port in random.sample(range(20000, 30000), 100):
        with contextlib.suppress(OSError), socket.create_server(("", port)):
            return port
    raise AssertionError("no free port from 20000 to 30000")


def start(arguments, processes=1, devices=8, differing=(), **environment):
    """The processes of one run. `differing[i]` are further arguments of process i."""
    port = free_port()
    started = []
    for index in range(processes):
        own = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(Path(__file__).parents[2]),
            # Less optimised machine code: what is tested is how arrays are split.
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices} "
            "--xla_backend_optimization_level=0",
        }
        if processes > 1:
            own |= {
                "SCALING_JAX_COORDINATOR": f"localhost:{port}",
                "SCALING_JAX_PROCESSES": str(processes),
                "SCALING_JAX_PROCESS": str(index),
            }
        command = [sys.executable, "-m", "scaling_jax.cli.main", *arguments]
        command += differing[index] if differing else []
        started.append(
            subprocess.Popen(
                command,
                env=own | environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def launched(arguments, processes, devices):
    """The launcher of this machine with such processes."""
    flags = ["--processes", str(processes), "--cpu_devices", str(devices)]
    command = [sys.executable, "-m", "scaling_jax.cli.main", *arguments]
    root = Path(__file__).parents[2]
    return subprocess.Popen(
        [str(root / "launch" / "local.sh"), *flags, "--", *command],
        env=os.environ | {"PYTHONPATH": str(root), "XLA_FLAGS": "--xla_backend_optimization_level=0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(processes):
    """[(exit code, standard output, standard error)] of all; none may hang."""
    try:
        texts = [process.communicate(timeout=SECONDS) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, *text) for process, text in zip(processes, texts, strict=True)]


def run(arguments, processes=1, devices=8, **more):
    """Runs to the end, which must be a good one; the record."""
    for code, out, error in ended(start(arguments, processes, devices, **more)):
        assert code == 0, f"{out[-1500:]}\n{error[-3000:]}"
    return record(Path(arguments[-1]))


def record(folder):
    """The record of a run."""
    return json.loads((folder / "record.json").read_text())


def losses(found):
    """Losses of training and dev by step."""
    return [[row.get("train_loss", 0.0), row["dev_loss"]] for row in found["metrics"]]


def write_stores(folder):
    """Writes the stores that the commands read."""
    return tiny.write_stores(folder)
