"""Eight simulated devices in a process of their own give what one device gives."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.training import checkpoints
from scaling_jax.training.mesh import RULES, Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.lora import LoRA
from tests import eight_devices
from tests.models import tiny

STEPS, ROWS, LENGTH = 3, 8, 10
FULL, ADAPTED = ("full", Full()), ("lora", LoRA(rank=2))
# (layout, method, microbatches)
CASES = (
    ((8, 1, 1), FULL, 1),
    ((2, 4, 1), FULL, 1),
    ((2, 2, 2), FULL, 2),
    ((2, 2, 2), ADAPTED, 1),
)


def steps(method, layout, microbatches=1, rows=ROWS):
    """(losses of the steps and sums of their evaluation, program, state) on the devices of this process."""
    program = Program(tiny.CONFIG, method, Optimizer(factored_size=8), layout, microbatches)
    whole = np.random.default_rng(0).integers(0, 48, (STEPS, rows, LENGTH + 1)).astype(np.int32)
    weights = (np.arange(STEPS * rows * LENGTH) % 3 > 0).astype(np.float32).reshape(STEPS, rows, LENGTH)
    batches = {"inputs": whole[..., :-1], "targets": whole[..., 1:], "weights": weights}
    base = jax.device_put(tiny.parameters(), program.shardings["params"])
    state, frozen = program.start(base, 0)
    state, metrics = program.train(state, frozen, batches, np.full(STEPS, 0.03, np.float32))
    losses = np.asarray(metrics["loss"]).tolist()
    if method == FULL[1]:
        losses += np.asarray(program.evaluate(state.tuned, frozen, batches)[0]).tolist()
    return losses, program, state


def on_eight_devices(folder):
    """What the subprocess prints: losses of every case, and what was refused."""
    assert jax.device_count() == 8
    found = []
    for shape, (_, method), microbatches in CASES:
        losses, _, state = steps(method, Layout(*shape), microbatches)
        found.append(losses)
        if shape == (2, 2, 2) and method == FULL[1]:
            kernel = state.tuned["layers"]["layer"]["feed_forward"]["up"]["kernel"]
            shard = kernel.addressable_shards[0].data.shape
            checkpoints.save(folder / "sharded", state.tuned, {})
    refused = []
    narrow = dataclasses.replace(tiny.CONFIG, model_dim=12)
    for attempt in (
        lambda: Layout(3).mesh(),
        lambda: Layout(1, 16).mesh(),
        lambda: Program(narrow, Full(), Optimizer(), Layout(1, 8)).shardings,
        lambda: steps(Full(), Layout(), rows=4),
    ):
        try:
            attempt()
            refused.append("")
        except InputError as error:
            refused.append(str(error))
    return {"losses": found, "shard": shard, "refused": refused}


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eight")
    code = (
        "import json, pathlib, sys; from tests.training import test_mesh; "
        "print(json.dumps(test_mesh.on_eight_devices(pathlib.Path(sys.argv[1]))))"
    )
    return folder, eight_devices.result(code, folder)


@pytest.fixture(scope="module")
def one():
    return {name: steps(method, Layout()) for name, method in (FULL, ADAPTED)}


@pytest.mark.parametrize(
    "case", range(len(CASES)), ids=[f"{case[0]}-{case[1][0]}-{case[2]}" for case in CASES]
)
def test_losses_are_those_of_one_device(eight, one, case):
    wanted = one[CASES[case][1][0]][0]
    np.testing.assert_allclose(eight[1]["losses"][case], wanted, rtol=1e-5)
    assert len(set(wanted)) == len(wanted)


def test_parameters_are_split_as_the_rules_say(eight):
    assert eight[1]["shard"] == [2, 16 // 2, 24 // 2]


def test_a_checkpoint_of_eight_devices_is_read_on_one(eight, one):
    _, program, state = one["full"]
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state.tuned)
    restored = checkpoints.restore(eight[0] / "sharded", checkpoints.like(state.tuned, shardings))
    for found, wanted in zip(jax.tree.leaves(restored), jax.tree.leaves(state.tuned), strict=True):
        np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_layouts_that_do_not_fit(eight):
    says = eight[1]["refused"]
    assert "data 3 x fsdp 1 x tensor 1 does not give the 8 devices" in says[0]
    assert "fsdp 16" in says[1] and "8 devices" in says[1]
    assert "model_dim 12 is not divided by Layout fsdp 8: fsdp = 1, 2, 3, 4, 6, 12 would do" in says[2]
    assert (
        "a batch of 4 rows is not divided by the 8 devices of mesh axes data 8 and fsdp 1: 8 would" in says[3]
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"fsdp": 0}, "all at least 1"),
        ({"override": {"hedas": "tensor"}}, "Layout.override: no logical axis 'hedas'; did you mean 'heads'"),
        ({"override": {"mlp": "tensr"}}, "'mlp' on 'tensr': no such mesh axis; did you mean 'tensor'"),
        ({"override": {"mlp": ("fsdp", "fsdp")}}, "an axis is named twice"),
        ({"rules": ("embed",)}, "'embed' is no pair such as"),
    ],
)
def test_layouts_that_never_fit(fields, message):
    with pytest.raises(InputError, match=message):
        Layout(**fields)


def test_a_mesh_axis_on_two_axes_of_one_parameter_is_refused():
    one = Layout(override={"embed": "tensor"})
    with pytest.raises(InputError, match="'tensor' on both 'vocabulary' and 'embed' of .*embedding"):
        _ = Program(tiny.CONFIG, Full(), Optimizer(), one).shardings


@pytest.mark.parametrize(
    ("name", "heads", "would"),
    [
        ("1b", 8, "1, 2, 4, 8"),
        ("2b", 10, "1, 2, 5, 10"),
        ("4b", 12, "1, 2, 4"),
        ("8b", 16, "1, 2, 4, 8, 16"),
        ("16b", 20, "1, 2, 4, 5, 10, 20"),
    ],
)
def test_heads_that_a_tensor_axis_does_not_divide(name, heads, would):
    sizes = {8: (2048, 8192), 10: (2560, 10240), 12: (3072, 12288), 16: (4096, 16384), 20: (5120, 20480)}
    model = ModelConfig(f"decoder_{name}", 2, heads, 256, *sizes[heads], 128_000)
    with pytest.raises(
        InputError, match=rf"heads {heads} is not divided by Layout tensor 32: tensor = {would} would"
    ):
        Layout(tensor=32).check_model(model)
    Layout(tensor=2, fsdp=256).check_model(model)
    with pytest.raises(InputError, match="key_value_heads 1 is not divided by Layout tensor 2"):
        Layout(tensor=2, override={"key_value_heads": "tensor"}).check_model(model)


class Device:
    """As much of a device as a mesh is made of."""

    platform = "tpu"
    process_index = 0

    def __init__(self, number, slices):
        self.id, self.slice_index = number, number * slices // 16
        self.device_kind = "TPU v5"


def test_data_alone_goes_across_slices():
    assert Layout(fsdp=4, tensor=2).shape(16, slices=2) == (2, 4, 2)
    with pytest.raises(InputError, match="data 1 is no multiple of the 2 slices.*8 devices each"):
        Layout(fsdp=8, tensor=2).shape(16, slices=2)
    with pytest.raises(InputError, match="slices = 4: the 16 devices are in 2 slices"):
        Layout(slices=4).mesh([Device(number, 2) for number in range(16)])


def test_layouts_are_equal_however_gin_writes_them():
    assert hash(Layout(rules=[["batch", ["data", "fsdp"]]])) == hash(
        Layout(rules=(("batch", ("data", "fsdp")),))
    )
    changed = Layout(override={"vocabulary": ["tensor", "fsdp"]})
    assert dict(changed.rules) == dict(RULES) | {"vocabulary": ("tensor", "fsdp")}
    assert dataclasses.replace(changed, fsdp=2).rules == changed.rules
    assert Layout().rules == RULES


def test_activations_are_held_by_rows():
    """Without a constraint XLA may split them by width, all rows on every device."""
    program = Program(tiny.CONFIG, Full(), Optimizer(), Layout())
    tokens = jax.ShapeDtypeStruct((1, ROWS, LENGTH), np.int32)
    batches = {
        "inputs": tokens,
        "targets": tokens,
        "weights": jax.ShapeDtypeStruct(tokens.shape, np.float32),
    }
    base = counts.abstract_parameters(tiny.CONFIG)
    for lowered in (program.lower_train(base, batches), program.lower_evaluate(base, batches)):
        assert 'sharding_constraint %0 <@mesh, [{"data", "fsdp"}, {}, {}]>' in re.sub(
            r"%\S+ <", "%0 <", lowered.as_text()
        )


def test_a_mesh_of_given_devices():
    devices = jax.devices()
    assert Layout().mesh(devices).devices.shape == (len(devices), 1, 1)
    with pytest.raises(InputError, match=f"does not give the {2 * len(devices)} devices"):
        Layout(fsdp=3).mesh(devices * 2)
