"""What every method does to every architecture, measured in a process with so many simulated devices.

    python -m tests.tuning.measure DEVICES FOLDER ARCHITECTURE/METHOD...

prints one JSON object, {architecture/method: facts}.

A process of its own, so that the devices can be simulated and the machine code be left unoptimised.
"""

import json
import os
import sys
from pathlib import Path

import jax
import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.training import checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.prompt import Prompt
from tests.models import tiny
from tests.tuning.architectures import ARCHITECTURES, batches, unrolled

METHODS = {
    "full": Full(),
    "lora": LoRA(rank=2, alpha=3.0),
    "ia3": IA3(layers="last 1"),
    "bitfit": BitFit(targets=("attention", "up"), layers=(0,)),
    "prompt": Prompt(length=3),
}
# Where there are two stacks, a prompt before each.
BOTH_STACKS = Prompt(length=3, stacks=("encoder", "decoder"))
STEPS, ROWS, LENGTH = 3, 8, 6
OPTIMIZER = Optimizer("adamw")
RATES = {"full": 0.01, "lora": 0.1, "ia3": 0.1, "bitfit": 0.1, "prompt": 0.3}


def method_of(config, name):
    """The method of that name for this model."""
    return BOTH_STACKS if name == "prompt" and config.encoder_layers else METHODS[name]


def trained(config, name, layout):
    """(program, state, frozen, facts) after STEPS steps of a method."""
    program = Program(config, method_of(config, name), OPTIMIZER, layout)
    base = jax.device_put(tiny.parameters(config), program.shardings["params"])
    state, frozen = program.start(base, 0)
    began = jax.tree.map(np.array, state.tuned)
    state, metrics = program.train(
        state, frozen, batches(config, STEPS, ROWS, LENGTH), np.full(STEPS, RATES[name], np.float32)
    )
    still = [
        jax.tree_util.keystr(path)
        for (path, leaf), before in zip(
            jax.tree_util.tree_leaves_with_path(state.tuned), jax.tree.leaves(began), strict=True
        )
        if np.array_equal(leaf, before)
    ]
    return program, state, frozen, {"losses": np.asarray(metrics["loss"]).tolist(), "still": still}


def nats(program, tuned, frozen):
    """Sums of nats of the batches."""
    return np.asarray(
        program.evaluate(tuned, frozen, batches(program.model, STEPS, ROWS, LENGTH))[0]
    ).tolist()


def measured(config, name, folder):
    """All that a test asks of one pair, on one device."""
    program, state, frozen, found = trained(config, name, Layout())
    base = tiny.parameters(config)
    plain = Program(config, Full(), OPTIMIZER, Layout())
    found["base_nats"] = nats(plain, base, {})
    found["start_nats"] = nats(program, program.start(base, 0)[0].tuned, frozen)
    found["end_nats"] = nats(program, state.tuned, frozen)
    found["base_is_as_it_was"] = all(
        np.array_equal(*leaves)
        for leaves in zip(jax.tree.leaves(frozen), jax.tree.leaves(base if frozen else {}), strict=True)
    )
    found["trained"] = counts.size(state.tuned)
    found["counted"] = program.trained_parameters()
    found["optimizer"] = counts.size(state.optimizer)
    try:
        method = program.method
        merged = method.merge(state.tuned, frozen)
        plain = Program(method.merged_model(config), Full(), OPTIMIZER, Layout())
        found["merged_nats"] = nats(plain, merged, {})
        shapes = jax.tree.map(np.shape, counts.abstract_parameters(plain.model))
        found["merged_shapes_agree"] = jax.tree.map(np.shape, merged) == shapes
    except InputError as error:
        found["merged_nats"], found["refused"] = None, str(error)
    found |= restored(program, state, frozen, folder / name)
    return found


def restored(program, state, frozen, folder):
    """Facts about a checkpoint of what was trained: arrays in it, and nats after it was read again."""
    checkpoints.save(folder, state.tuned, {})
    fresh = program.start(tiny.parameters(program.model), 1)[0].tuned
    like = checkpoints.like(fresh, jax.tree.map(lambda leaf: leaf.sharding, fresh))
    tuned = checkpoints.restore(folder, like)
    return {"stored": counts.size(tuned), "restored_nats": nats(program, tuned, frozen)}


def main():
    devices, folder, pairs = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    assert jax.device_count() == devices
    found = {}
    for pair in pairs:
        architecture, name = pair.split("/")
        config = ARCHITECTURES[architecture]
        if devices == 1:
            found[pair] = measured(config, name, folder / architecture)
        else:
            found[pair] = trained(unrolled(config), name, Layout(2, 2, 2))[-1]
    print(json.dumps(found))


def environment(devices):
    """Of a process with so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    root = str(Path(__file__).parents[2])
    return os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "PYTHONPATH": root}


if __name__ == "__main__":
    main()
