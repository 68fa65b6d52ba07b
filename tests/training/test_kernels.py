"""A kernel for attention and a loss in parts inside the real training step, on eight simulated devices."""

import dataclasses

import jax
import numpy as np
import pytest

from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.prompt import Prompt
from tests import eight_devices
from tests.models import tiny
from tests.tuning.architectures import batches

STEPS, ROWS, LENGTH = 2, 8, 256
# One key-value head for all; two, fewer than the devices that share the heads; an encoder's padding.
CASES = {
    "multi_query": ({}, Full(), Layout(2, 2, 2)),
    "grouped_query": ({"key_value_heads": 2}, Prompt(3), Layout(1, 2, 4)),
    "encoder": ({"encoder_layers": 1, "key_value_heads": 4}, Full(), Layout(2, 2, 2)),
}


def losses(changes, method, layout, devices, attention, logits_chunk):
    """Of the steps, and sums of their evaluation."""
    config = dataclasses.replace(
        tiny.CONFIG, layers=1, heads=4, attention=attention, logits_chunk=logits_chunk, **changes
    )
    program = Program(config, method, Optimizer("adamw"), layout, devices=tuple(devices))
    base = jax.device_put(tiny.parameters(config), program.shardings["params"])
    state, frozen = program.start(base, 0)
    given = batches(config, STEPS, ROWS, LENGTH)
    state, metrics = program.train(state, frozen, given, np.full(STEPS, 0.01, np.float32))
    sums = program.evaluate(state.tuned, frozen, given)[0]
    return np.concatenate([metrics["loss"], sums]).tolist()


def on_eight_devices():
    """{case: (losses of eight devices with the kernel, of one without)}."""
    devices = jax.devices()
    found = {}
    for name, (changes, method, layout) in CASES.items():
        found[name] = (
            losses(changes, method, layout, devices, "splash_interpreted", logits_chunk=100),
            losses(changes, method, Layout(), devices[:1], "xla", logits_chunk=0),
        )
    return found


@pytest.fixture(scope="module")
def eight():
    code = (
        "import json; from tests.training import test_kernels as t; print(json.dumps(t.on_eight_devices()))"
    )
    return eight_devices.result(code)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_losses_are_those_of_plain_products_on_one_device(eight, case):
    found, wanted = eight[case]
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    assert len(set(wanted)) == len(wanted)
