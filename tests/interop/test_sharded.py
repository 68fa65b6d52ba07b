"""A folder read onto eight simulated devices, in a process of their own, is the model of one device."""

from pathlib import Path

import jax
import numpy as np

from scaling_jax.interop import hugging_face, reading
from scaling_jax.training import checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.full import Full
from tests import eight_devices
from tests.interop import cases

NAME = "t5_gated"


def read_and_train(path, layout):
    """(hash of the arrays as read, losses of two steps, shape of a shard) on this process's devices."""
    folder = hugging_face.open_model(path)
    program = Program(folder.model, Full(), Optimizer("adamw", epsilon=1e-3), layout)
    params = reading.read_parameters(folder, program.shardings["params"])
    assert jax.tree.map(lambda leaf: leaf.sharding, params) == program.shardings["params"]
    found = checkpoints.tree_hash(params)
    shard = jax.tree.leaves(params)[-2].addressable_shards[0].data.shape
    state, base = program.start(params, 0)
    rows = {name: np.repeat(array, 2, 0) for name, array in cases.batch(folder.model).items()}
    steps = {name: np.stack([array, array]) for name, array in rows.items()}
    _, metrics = program.train(state, base, steps, np.full(2, 1e-3, np.float32))
    return found, np.asarray(metrics["loss"]).tolist(), shard


def on_eight_devices(room):
    assert jax.device_count() == 8
    return read_and_train(Path(room) / NAME, Layout(2, 2, 2))


def test_eight_devices_hold_and_train_what_one_does(tmp_path):
    hugging_face.write_model(tmp_path / NAME, cases.CASES[NAME], cases.parameters(NAME))
    code = (
        "import json, sys; from tests.interop import test_sharded; "
        "print(json.dumps(test_sharded.on_eight_devices(sys.argv[1])))"
    )
    on_eight = eight_devices.result(code, tmp_path)
    found, losses, shard = read_and_train(tmp_path / NAME, Layout())
    assert on_eight[0] == found == checkpoints.tree_hash(cases.parameters(NAME))
    np.testing.assert_allclose(on_eight[1], losses, rtol=1e-5)
    assert losses[1] < losses[0]
    assert np.prod(on_eight[2]) < np.prod(shard), "parameters are split"
