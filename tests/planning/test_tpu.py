"""Steps compiled for TPUs that are not here, by libtpu; skipped where the extra `plan` is not installed."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scaling_jax.data.objectives.objective import Lengths
from scaling_jax.errors import InputError
from scaling_jax.models.config import ModelConfig
from scaling_jax.planning import topologies
from scaling_jax.planning.compiled import compiled_step
from scaling_jax.planning.workload import Workload
from scaling_jax.training import platform
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.lora import LoRA

WORKLOAD = Workload(
    name="full of small",
    kind="finetuning",
    model=ModelConfig("small", 2, 2, 128, 256, 512, 1024, dtype="bfloat16", remat="full"),
    method=Full(),
    optimizer=Optimizer(),
    layout=Layout(fsdp=4),
    rows=8,
    lengths=Lengths(256, 256, 512),
    mean_lengths=(256.0, 256.0),
    steps=(1,),
    evaluation_rows=8,
)


@pytest.fixture(scope="module")
def v5e(request):
    required = request.config.getoption("--require_extras").split(",")
    if importlib.util.find_spec("libtpu") is None and "plan" not in required:
        pytest.skip("extra 'plan' (libtpu) is not installed")
    return topologies.open_topology("v5e:2x2")


def test_a_step_with_its_kernel_for_chips_that_are_not_here(v5e):
    step = compiled_step(WORKLOAD, v5e, "train")
    assert step.status == "compiled" and v5e.count == 4
    # Parameters are split over all chips.
    parameters = sum(size for size in (256 * 1024, 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512)))
    assert step.memory.trained == pytest.approx(parameters, rel=0.01)
    assert step.collectives and step.kernels.get("tpu_custom_call", 0) > 0


def test_data_alone_goes_across_slices(v5e):
    from jax.experimental import topologies as of_jax

    with topologies.quiet():
        devices = of_jax.get_topology_desc("v5e:4x4", platform="tpu", num_slices=2).devices
    for layout, shape in ((Layout(fsdp=16), (2, 16, 1)), (Layout(fsdp=4, tensor=2), (4, 4, 2))):
        mesh = layout.mesh(devices)
        assert mesh.devices.shape == shape
        slices = [{device.slice_index for device in row.ravel()} for row in mesh.devices]
        assert slices == [{2 * place // shape[0]} for place in range(shape[0])]
    with pytest.raises(InputError, match="data 1 is no multiple of the 2 slices"):
        Layout(fsdp=32).mesh(devices)


def test_what_the_compiler_refuses_says_how_much_it_needs(v5e):
    model = dataclasses.replace(WORKLOAD.model, remat="none", layers=64, feed_forward_dim=8192)
    large = dataclasses.replace(
        WORKLOAD, model=model, rows=512, lengths=Lengths(512, 512, 1024), method=LoRA(rank=2)
    )
    step = compiled_step(large, v5e, "train")
    assert step.status == "too large" and step.needed > v5e.memory_bytes and step.memory is None


PROGRAM = """
import hashlib, json, os, sys
from scaling_jax.planning import topologies
from scaling_jax.training import platform
platform.BARE_TPU_FLAGS = json.loads(sys.argv[1])
topologies.prepare("v5e:2x2")
from scaling_jax.planning.workload import lowered
from tests.planning.test_tpu import WORKLOAD
with topologies.quiet():
    program = lowered(WORKLOAD, topologies.open_topology("v5e:2x2"), "train").compile()
memory = program.memory_analysis()
sizes = [memory.temp_size_in_bytes, memory.argument_size_in_bytes, memory.generated_code_size_in_bytes]
text = hashlib.sha256(program.as_text().encode()).hexdigest()
print(json.dumps([*sizes, text, os.environ["LIBTPU_INIT_ARGS"]]))
"""


@pytest.mark.slow
def test_the_program_is_the_same_without_what_the_compiler_keeps_beside_it(v5e):
    found = []
    for flags in (platform.BARE_TPU_FLAGS, ()):
        command = [sys.executable, "-c", PROGRAM, json.dumps(flags)]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        *program, set_flags = json.loads(done.stdout.splitlines()[-1])
        assert all((flag in set_flags) == bool(flags) for flag in platform.BARE_TPU_FLAGS)
        found.append(program)
    assert found[0] == found[1]
