"""Runs of one vmapped program equal the same runs one by one."""

import jax
import numpy as np
import pytest

from scaling_jax.models import counts
from scaling_jax.training import cohort
from scaling_jax.training.cohort import TOLERANCE
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.program import Program
from scaling_jax.tuning.lora import LoRA
from tests.models import tiny
from tests.tuning.architectures import T5, batches

STEPS, ROWS, LENGTH = 3, 4, 8
SEEDS, RATES = (0, 1, 2), (0.03, 0.01, 0.05)
CASES = {
    "adafactor": Program(tiny.CONFIG, LoRA(rank=2), Optimizer(), Layout()),
    "dropout and microbatches": Program(
        tiny.CONFIG,
        LoRA(rank=2, dropout=0.2, layers="last 1"),
        Optimizer("adamw", clip_norm=0.5),
        Layout(),
        2,
    ),
    "encoder-decoder": Program(T5, LoRA(rank=2, targets=("attention",)), Optimizer("adamw"), Layout()),
}


@pytest.mark.parametrize(
    "case", [case if case == "adafactor" else pytest.param(case, marks=pytest.mark.slow) for case in CASES]
)
def test_a_cohort_equals_its_runs_alone(case):
    program = CASES[case]
    base = tiny.parameters(program.model)
    own = [batches(program.model, STEPS, ROWS, LENGTH, seed) for seed in SEEDS]
    rates = np.repeat(np.float32(RATES)[:, None], STEPS, axis=1)
    states, frozen = cohort.start(program, base, SEEDS)
    together = {name: np.stack([batch[name] for batch in own]) for name in own[0]}
    states, metrics = cohort.train(program, states, frozen, together, rates)
    sums, weights = cohort.evaluate(program, states.tuned, frozen, own[0])
    for index, seed in enumerate(SEEDS):
        state, _ = program.start(base, seed)
        state, alone = program.train(state, frozen, own[index], rates[index])
        np.testing.assert_allclose(metrics["loss"][index], alone["loss"], rtol=TOLERANCE)
        nats, tokens = program.evaluate(state.tuned, frozen, own[0])
        np.testing.assert_allclose(sums[index], nats, rtol=TOLERANCE)
        np.testing.assert_array_equal(weights[index], tokens)
        assert cohort.one(states, index).step == state.step == STEPS
    assert len(set(np.asarray(metrics["loss"]).ravel().tolist())) == len(SEEDS) * STEPS


def test_the_base_is_there_once_and_multiplies_all_rows_at_once():
    program = CASES["adafactor"]
    base = jax.tree.map(jax.numpy.asarray, tiny.parameters())
    states, frozen = cohort.start(program, base, SEEDS)
    assert frozen is base
    assert counts.size(states.tuned) == len(SEEDS) * program.trained_parameters()
    own = [batches(program.model, STEPS, ROWS, LENGTH, seed) for seed in SEEDS]
    together = {name: np.stack([batch[name] for batch in own]) for name in own[0]}
    function = jax.vmap(cohort.training_steps(program), in_axes=(0, None, 0, 0))
    text = jax.jit(function).lower(states, frozen, together, np.zeros((3, STEPS), np.float32)).as_text()
    gate = f"tensor<{program.model.model_dim}x{program.model.feed_forward_dim}xf32>"
    shared = [line for line in text.splitlines() if "dot_general" in line and gate in line]
    assert shared and not any("batching_dims" in line for line in shared)


def test_the_better_trees_are_kept():
    program = CASES["adafactor"]
    states, _ = cohort.start(program, tiny.parameters(), SEEDS)
    other = jax.tree.map(lambda leaf: leaf + 1, states.tuned)
    kept = cohort.keep_better(program, np.array([True, False, True]), other, states.tuned)
    for index, source in enumerate((other, states.tuned, other)):
        for found, wanted in zip(
            jax.tree.leaves(cohort.one(kept, index)), jax.tree.leaves(cohort.one(source, index)), strict=True
        ):
            np.testing.assert_array_equal(found, wanted)
