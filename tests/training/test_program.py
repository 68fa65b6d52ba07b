"""Compiled steps: what execution may not change, what is trained, and what the program holds."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.training.evaluate import mean_loss
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program, _compiled_programs
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.lora import LoRA
from tests.models import tiny

STEPS, ROWS, LENGTH = 4, 6, 10
ADAFACTOR = Program(tiny.CONFIG, Full(), Optimizer(), Layout())
ADAMW = Program(tiny.CONFIG, Full(), Optimizer("adamw"), Layout())


def batches(seed=0, rows=ROWS):
    generator = np.random.default_rng(seed)
    whole = generator.integers(0, 48, (STEPS, rows, LENGTH + 1)).astype(np.int32)
    weights = (generator.random((STEPS, rows, LENGTH)) < 0.6).astype(np.float32)
    return {"inputs": whole[..., :-1], "targets": whole[..., 1:], "weights": weights}


def trained(program, base=None, rate=1e-3):
    """(trained tree at the start, at the end, losses, state, frozen) after STEPS steps."""
    base = tiny.parameters(program.model) if base is None else base
    state, frozen = program.start(jax.device_put(base, program.shardings["params"]), seed=0)
    before = jax.tree.map(np.array, state.tuned)
    state, metrics = program.train(state, frozen, batches(), np.full(STEPS, rate, np.float32))
    return before, jax.tree.map(np.array, state.tuned), np.asarray(metrics["loss"]), state, frozen


@pytest.fixture(scope="module")
def reference():
    return {"adafactor": trained(ADAFACTOR), "adamw": trained(ADAMW)}


@pytest.mark.parametrize(
    ("optimizer", "changes", "microbatches"),
    [
        ("adafactor", {"unroll": 2}, 1),
        ("adamw", {"unroll": 2, "remat": "full"}, 1),
        ("adafactor", {"remat": "dots"}, 2),
    ],
)
def test_execution_changes_no_update(reference, optimizer, changes, microbatches):
    program = {"adafactor": ADAFACTOR, "adamw": ADAMW}[optimizer]
    model = dataclasses.replace(program.model, **changes)
    program = dataclasses.replace(program, model=model, microbatches=microbatches)
    before, after, losses, _, _ = trained(program)
    np.testing.assert_allclose(losses, reference[optimizer][2], rtol=1e-6)
    moved = 0.0
    wanted = jax.tree.leaves(reference[optimizer][1])
    for start, found, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), wanted, strict=True):
        np.testing.assert_allclose(found, other, atol=1e-6)
        moved = max(moved, np.abs(found - start).max())
    assert moved > 5e-4, "nothing was trained"


def test_the_same_start_gives_the_same_bits(reference):
    again = trained(ADAFACTOR)
    for found, other in zip(
        jax.tree.leaves(again[:3]), jax.tree.leaves(reference["adafactor"][:3]), strict=True
    ):
        np.testing.assert_array_equal(found, other)


def test_the_loss_is_the_mean_over_target_tokens(reference):
    first = {name: array[0] for name, array in batches().items()}
    losses = tiny.losses(tiny.CONFIG, tiny.parameters(), (first["inputs"], first["targets"]))
    wanted = (losses * first["weights"]).sum() / first["weights"].sum()
    np.testing.assert_allclose(reference["adafactor"][2][0], wanted, rtol=1e-6)


def test_an_evaluation_is_a_ratio_of_sums():
    stack = {name: array[:2] for name, array in batches(5).items()}
    stack["weights"][1, 2:] = 0  # one batch weighs less: a mean of means would differ
    params = tiny.parameters()
    nats = [
        tiny.losses(tiny.CONFIG, params, (stack["inputs"][i], stack["targets"][i])) * stack["weights"][i]
        for i in range(2)
    ]
    wanted = sum(part.sum(dtype=np.float64) for part in nats) / stack["weights"].sum()
    state = ADAFACTOR.restart(jax.device_put(params, ADAFACTOR.shardings["params"]))
    assert abs(mean_loss(ADAFACTOR, state.tuned, {}, (stack,)) - wanted) < 1e-6
    apart = tuple({name: array[i : i + 1] for name, array in stack.items()} for i in range(2))
    assert abs(mean_loss(ADAFACTOR, state.tuned, {}, apart) - wanted) < 1e-6


@pytest.fixture(scope="module")
def lora():
    program = Program(tiny.CONFIG, LoRA(rank=2), Optimizer(), Layout())
    return program, *trained(program, rate=0.1)


def test_lora_trains_what_it_added_and_leaves_the_base(lora):
    program, before, after, losses, state, frozen = lora
    for start, end in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        assert np.abs(end - start).max() > 0
    for leaf, other in zip(jax.tree.leaves(frozen), jax.tree.leaves(tiny.parameters()), strict=True):
        np.testing.assert_array_equal(leaf, other)
    assert program.trained_parameters() == counts.size(state.tuned) < counts.size(frozen) / 2


def test_the_optimizer_holds_adapters_only(lora):
    program, _, _, _, state, _ = lora
    assert counts.size(state.optimizer) < 2 * counts.size(state.tuned)
    adamw = jax.eval_shape(Optimizer("adamw").transformation().init, state.tuned)
    assert 2 * counts.size(state.tuned) <= counts.size(adamw) < 2 * counts.size(state.tuned) + 10


def products(program):
    """Shapes of the results of all matrix products of the compiled training step, sides sorted."""
    # Other tests of this process may have compiled the same program for other batch shapes.
    texts = [found.as_text() for (name, _), found in _compiled_programs(program).items() if name == "train"]
    shapes = re.findall(r"= f32\[([\d,]+)\]\S* (?:dot|custom-call)\(", "\n".join(texts))
    return {tuple(sorted(int(side) for side in shape.split(",") if side != "1")) for shape in shapes}


def test_no_gradient_product_for_a_frozen_matrix(lora, reference):
    kernels = {tuple(sorted(leaf.shape[-2:])) for leaf in jax.tree.leaves(tiny.parameters()) if leaf.ndim > 1}
    kernels = {shape for shape in kernels if shape != (2, 16)}  # stacked norm scales
    assert kernels == {(8, 16), (16, 16), (16, 24), (16, 48)}
    assert len(products(ADAFACTOR) & kernels) >= 3, "the check sees them in full tuning"
    assert not products(lora[0]) & kernels


def test_programs_are_shared_and_measured():
    same = Program(tiny.CONFIG, Full(), Optimizer(), Layout())
    assert _compiled_programs(same) is _compiled_programs(ADAFACTOR)
    trained(ADAFACTOR)
    assert same.train_memory_bytes() > 4 * counts.model_parameters(tiny.CONFIG)
    spent = same.compile_seconds()
    trained(same)
    assert same.compile_seconds() == spent > 0


def test_memory_is_that_of_the_largest_step_of_the_run(lora):
    program = lora[0]
    longer = {name: np.tile(array, 4) for name, array in batches().items()}
    state, frozen = program.start(tiny.parameters(), 0)
    needed = []
    for given in (batches(), longer, batches()):
        state, _ = program.train(state, frozen, given, np.zeros(STEPS, np.float32))
        needed.append(program.train_memory_bytes())
    assert needed[0] < needed[1] == needed[2]
    state, _ = program.start(tiny.parameters(), 1)
    assert program.train_memory_bytes() is None, "another run begins"
    program.train(state, frozen, batches(), np.zeros(STEPS, np.float32))
    assert program.train_memory_bytes() == needed[0]


def test_a_batch_that_microbatches_do_not_divide():
    with pytest.raises(InputError, match="6 rows is not divided by microbatches = 4"):
        trained(dataclasses.replace(ADAFACTOR, microbatches=4))
