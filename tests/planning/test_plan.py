"""Plans for the devices at hand: memory by kind, costs, what is tried where a step does not fit."""

import dataclasses
import math

import gin
import jax
import pytest

from scaling_jax.data.objectives.objective import Lengths
from scaling_jax.errors import InputError
from scaling_jax.evaluation.decoding import Decoding
from scaling_jax.models import counts
from scaling_jax.planning import nearby, text
from scaling_jax.planning.chips import Chip
from scaling_jax.planning.compiled import _needed, compiled_step
from scaling_jax.planning.cost import cost, flops_per_step
from scaling_jax.planning.memory import estimated
from scaling_jax.planning.plan import Options, as_record, make_plan
from scaling_jax.planning.topologies import Hardware, open_topology
from scaling_jax.planning.workload import Workload
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.lora import LoRA
from tests import eight_devices
from tests.models import tiny

LENGTHS = Lengths(8, 8, 16)
LORA = Workload(
    name="lora of tiny",
    kind="finetuning",
    model=tiny.CONFIG,
    method=LoRA(rank=2),
    optimizer=Optimizer("adamw"),
    layout=Layout(),
    rows=8,
    lengths=LENGTHS,
    mean_lengths=(6.0, 7.0),
    steps=(30, 70),
    base_dtype="bfloat16",
    evaluation_rows=8,
    decoding=Decoding(max_new_tokens=4, batch_size=8),
)
FULL = dataclasses.replace(LORA, name="full of tiny", method=Full(), decoding=None)


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def here():
    return open_topology("here")


@pytest.fixture(scope="module")
def planned(here):
    options = Options(compiled="all", peak=1e12)
    return make_plan([LORA, FULL], here, options), options


def test_every_step_is_compiled(planned):
    lora, full = planned[0]
    assert [step.name for step in lora.steps] == ["train", "evaluate", "decode"]
    assert [step.name for step in full.steps] == ["train", "evaluate"]
    assert all(step.status == "compiled" and step.memory.temporaries > 0 for step in lora.steps + full.steps)
    assert all(step.collectives == () for step in lora.steps) or jax.device_count() > 1
    assert lora.fits and lora.margin == lora.hardware.memory_bytes - lora.needed


@pytest.mark.skipif(jax.device_count() > 1, reason="sizes are those of one device")
def test_memory_by_kind_is_that_of_the_arrays(planned):
    lora, full = (one.steps[0].memory for one in planned[0])
    parameters = counts.model_parameters(tiny.CONFIG)
    assert full.trained == 4 * parameters and full.frozen == 0
    # AdamW has two moments for each parameter; counts, step and seed are a few numbers.
    assert 0 <= full.optimizer - 8 * parameters < 64
    assert 2 * parameters < lora.frozen < 4 * parameters and lora.trained < full.trained / 2
    assert lora.batch == 8 * 16 * 3 * 4
    kinds = dataclasses.asdict(lora)
    assert kinds.pop("total") == pytest.approx(sum(kinds.values()), abs=64)


def test_costs_follow_from_the_stated_efficiency(here):
    found = cost(LORA, here, 0.5, 1e12)
    assert found.tokens_per_step == 8 * 13 and found.steps == 100
    assert found.step_seconds == flops_per_step(LORA) / (here.count * 0.5e12)
    assert found.chip_hours == pytest.approx(found.step_seconds * 100 / 3600 * here.count)
    assert cost(LORA, here, 0.5, None).chip_hours is None
    assert flops_per_step(LORA) < flops_per_step(FULL)


def test_a_plan_as_text_and_as_json(planned, here):
    told = text.described(*planned[:1], here, planned[1], ["something"])
    assert "assumed: something" in told and "finetuning: 4 runs" in told
    assert "  train: " in told and "fits, " in told and "activations and temporaries" in told
    record = as_record(planned[0], here, planned[1], [])
    assert record["totals"]["finetuning"]["runs"] == 4 and record["workloads"][0]["fits"]
    assert record["workloads"][0]["steps"][0]["memory"]["trained"] > 0


def test_too_little_memory_says_by_how_much_and_what_fits(here):
    long = dataclasses.replace(FULL, rows=64, lengths=Lengths(64, 64, 128))
    options = Options(steps=("train",), compiled="all")
    needed = make_plan([long], here, options)[0].needed
    small = dataclasses.replace(here, memory_bytes=needed // 2)
    one = make_plan([long], small, options)[0]
    assert not one.fits and one.margin == needed // 2 - needed
    last = one.tried[-1]
    assert last.step.needed <= small.memory_bytes < one.steps[0].needed
    told = text.described([one], small, options, [])
    assert f"does not fit: {text.gib(-one.margin)} too much" in told
    assert f"with {last.change.words}: fits with" in told


def test_what_changes_least_is_tried_first():
    many = dataclasses.replace(FULL, rows=64, lengths=Lengths(1024, 1024, 2048))
    hardware = Hardware("here", tuple(jax.devices()[:1]), Chip("x", "x", None), 2**20)
    assert nearby.changes(many, hardware)[-1].estimate >= nearby.changes(many, hardware)[0].estimate
    roomy = dataclasses.replace(hardware, memory_bytes=2**40)
    assert nearby.changes(many, roomy)[0].words == "microbatches = 2"
    assert all(change.workload != many for change in nearby.changes(many, roomy))
    assert estimated(many, roomy).total > 0


def test_meshes_divide_rows_heads_and_widths():
    shapes = [(one.data, one.fsdp, one.tensor) for one in nearby.layouts(FULL, 8)]
    assert shapes and all(math.prod(shape) == 8 for shape in shapes)
    for data, fsdp, tensor in shapes:
        assert FULL.rows % (data * fsdp) == 0 and tiny.CONFIG.model_dim % fsdp == 0
        assert tiny.CONFIG.heads % tensor == 0 and tiny.CONFIG.vocabulary_size % tensor == 0
    assert not list(nearby.layouts(dataclasses.replace(FULL, rows=3), 8))


WIDE = dataclasses.replace(FULL, model=dataclasses.replace(tiny.CONFIG, model_dim=512))


def chosen_on_eight_devices():
    """Meshes that are chosen where there is room, and where there is too little for that one."""
    here = dataclasses.replace(open_topology("here"), memory_bytes=2**40)
    roomy, _ = nearby.chosen(WIDE, here)
    tight = dataclasses.replace(here, memory_bytes=estimated(roomy, here).total)
    narrow, _ = nearby.chosen(WIDE, tight)
    return [(one.layout.data, one.layout.fsdp, one.layout.tensor) for one in (roomy, narrow)]


def test_parameters_keep_whole_lanes_where_that_fits():
    shapes = [(one.data, one.fsdp, one.tensor) for one in nearby.layouts(WIDE, 8)]
    assert shapes[:2] == [(2, 4, 1), (1, 8, 1)]
    odd = dataclasses.replace(FULL, model=dataclasses.replace(tiny.CONFIG, model_dim=640))
    assert next(nearby.layouts(odd, 8)).fsdp == 4
    code = (
        "import json; from tests.planning import test_plan; "
        "print(json.dumps(test_plan.chosen_on_eight_devices()))"
    )
    assert eight_devices.result(code) == [[2, 4, 1], [1, 8, 1]]


def test_a_mesh_that_does_not_divide_says_which_would(here):
    wrong = dataclasses.replace(FULL, layout=Layout(fsdp=3))
    with pytest.raises(InputError, match=r"full of tiny on here: .*devices.*--mesh auto chooses one"):
        make_plan([wrong], here, Options(compiled="none"))
    heads = dataclasses.replace(FULL, layout=Layout(tensor=4))
    with pytest.raises(InputError, match="Layout.tensor = 4 does not divide its 2 heads"):
        make_plan([heads], here, Options(compiled="none"))
    auto = make_plan([wrong], here, Options("auto", compiled="none"))[0]
    assert auto.hardware.count <= here.count and auto.workload.layout.fsdp != 3


def test_a_program_without_text_is_compiled_all_the_same(here, monkeypatch):
    def refuse(self):
        raise jax.errors.JaxRuntimeError("INTERNAL: RET_CHECK failure ... operands but sees 3\nmore")

    monkeypatch.setattr(jax.stages.Compiled, "as_text", refuse)
    step = compiled_step(FULL, here, "evaluate")
    assert step.status == "compiled" and step.memory.total > 0
    assert step.collectives is None and step.link_seconds(here.chip) is None
    assert "collectives unavailable: the compiler gives no text" in step.note and "sees 3" in step.note
    assert "more" not in step.note


@pytest.mark.parametrize(
    "message, needed",
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory "
            "required for HLO temporaries (28.5G) exceeds available HBM (15.75G). HLO module: jit_train.",
            int(28.5 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Used 512.00M of 15.75G hbm.", 2**29),
        ("INTERNAL: something else", None),
    ],
)
def test_what_a_refused_program_needs(message, needed):
    assert _needed(message) == needed


def test_options_that_are_none():
    with pytest.raises(InputError, match="--steps trian: of train, evaluate, decode"):
        Options(steps=("trian",))
    with pytest.raises(InputError, match="--mfu 40"):
        Options(efficiency=40)
