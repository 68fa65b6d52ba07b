"""T5X's own T5 network, a checkpoint that T5X writes here and now, and what we read from it.

`test_t5x.py` holds the same for checkpoints that T5X wrote once, where T5X is not installed.
"""

import functools

import jax
import numpy as np
import pytest

from scaling_jax.interop import reading, t5x_checkpoints
from scaling_jax.models.hooks import Hook
from scaling_jax.models.model import model_of

pytest.importorskip("t5x", reason="T5X is not installed (it is on no package registry)")

import gin  # noqa: E402
from flax.core import freeze, unfreeze  # noqa: E402
from t5x import adafactor, checkpoints, partitioning, train_state, utils  # noqa: E402
from t5x.examples.t5 import network  # noqa: E402

# T5 1.1 as it is, and the older plain and tied one.
OVERRIDES = {
    "t5_1_1": (),
    "t5_1_0": ("network.T5Config.mlp_activations=('relu',)", "network.T5Config.logits_via_embedding=True"),
}
INPUTS = np.random.default_rng(0).integers(2, 96, (2, 140)).astype(np.int32) * (
    np.arange(140) < np.array([[140], [90]])
)
TARGETS = np.random.default_rng(1).integers(2, 96, (2, 150)).astype(np.int32)


def tiny_network(*overrides):
    """The network of T5X's `tiny.gin`, in float32 and with few tokens."""
    gin.clear_config()
    bound = ("DROPOUT_RATE=0.0", "network.T5Config.dtype='float32'", "network.T5Config.vocab_size=96")
    given = "tests_network = @network.Transformer()"
    files = ["t5x/examples/t5/t5_1_1/tiny.gin"]
    gin.add_config_file_search_path(network.__file__.split("/t5x/examples")[0])
    gin.parse_config_files_and_bindings(files, [*bound, *overrides, given])
    module = gin.query_parameter("%tests_network").scoped_configurable_fn()
    gin.clear_config()
    return module


def random_variables(module):
    """T5X's variables with parameters that are all random: its own norm scales begin as ones."""
    shapes = jax.eval_shape(
        functools.partial(module.init, enable_dropout=False), jax.random.key(0), INPUTS, TARGETS, TARGETS
    )
    generator = np.random.default_rng(2)

    def drawn(path, leaf):
        if path[-1].key == "scale":
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        width = leaf.shape[0] if path[-1].key == "kernel" else leaf.shape[1]
        return (generator.normal(size=leaf.shape) / width**0.5).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(drawn, unfreeze(shapes["params"]))
    return freeze({"params": params, "params_axes": shapes["params_axes"]})


def write_by_t5x(variables, folder):
    """A checkpoint by T5X's own writer."""
    state = train_state.FlaxOptimTrainState.create(adafactor.Adafactor(learning_rate=1e-3), variables)
    partitioner = partitioning.PjitPartitioner(num_partitions=1)
    checkpoints.Checkpointer(jax.eval_shape(lambda: state), partitioner, str(folder)).save(state)


def write_by_orbax(variables, folder):
    """A checkpoint by the manager that T5X's `train.py` uses today."""
    state = train_state.FlaxOptimTrainState.create(adafactor.Adafactor(learning_rate=1e-3), variables)
    manager = utils.create_orbax_checkpoint_manager(
        save_cfg=utils.SaveCheckpointConfig(save_dataset=False),
        train_state=jax.eval_shape(lambda: state),
        partitioner=partitioning.PjitPartitioner(num_partitions=1),
        model_dir=str(folder),
    )
    manager.save(state)
    manager.wait_until_finished()


@pytest.mark.parametrize("write", [write_by_t5x, write_by_orbax])
@pytest.mark.parametrize("kind", OVERRIDES)
def test_logits_are_those_of_t5x(tmp_path, kind, write):
    module = tiny_network(*OVERRIDES[kind])
    variables = random_variables(module)
    wanted = jax.jit(functools.partial(module.apply, enable_dropout=False))(
        variables, INPUTS, TARGETS, TARGETS
    )
    write(variables, tmp_path)
    source = t5x_checkpoints.open_checkpoint(tmp_path / "checkpoint_0")
    apply = jax.jit(functools.partial(model_of(source.model, Hook()).apply, method="logits"))
    found = apply({"params": reading.read_parameters(source)}, TARGETS, INPUTS, INPUTS > 0)
    assert np.ptp(wanted) > 1
    print(f"largest difference {np.abs(found - wanted).max():.1e}")
    np.testing.assert_allclose(found, wanted, atol=1e-4)
