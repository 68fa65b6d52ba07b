"""Several tuning runs of one program at the same time: one vmapped step over one shared frozen base.

The runs may differ in data, seed, learning rate and length, not in anything that is compiled. The
frozen base is there once, and each of its matrices multiplies the rows of all runs in one product.
What each run computes is what it computes alone, up to the order of sums: over the first steps losses
agree within `TOLERANCE`, relative, in float32. (Optimizers that divide by the gradient's own size take
rounding for a direction where a gradient is zero; over many steps that grows, as it does between devices.)
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from scaling_jax.data.batches import TrainingBatches
from scaling_jax.data.sequences import Batch
from scaling_jax.errors import InputError
from scaling_jax.training import mesh as meshes
from scaling_jax.training.program import Program, TrainState, evaluation, state_shardings, training_steps

TOLERANCE = 1e-4
# Names of the compiled functions among those of the program.
TRAINING, EVALUATION = "train cohort", "evaluate cohort"


@dataclasses.dataclass(frozen=True)
class Member:
    """One run: its data, its learning rates [steps], and the seed of what is initialised."""

    batches: TrainingBatches
    rates: np.ndarray
    seed: int


def start(program: Program, base: Any, seeds: Sequence[int]) -> tuple[TrainState, Any]:
    """(states, frozen base) at step 0: arrays [runs, ...] of what training changes."""
    states, frozen = [], {}
    for seed in seeds:
        state, frozen = program.start(base, seed)
        states.append(state)
    return _stack(program)(*states), frozen


def one(states: Any, index: int) -> Any:
    """The part of arrays [runs, ...] that is one run's."""
    return jax.tree.map(lambda leaf: leaf[index], states)


def train(
    program: Program, states: TrainState, base: Any, batches: Batch, rates: Any
) -> tuple[TrainState, dict]:
    """Takes steps of all runs; `states` is consumed.

    Args:
        program: the one that every run would have alone.
        states: [runs, ...], from `start`.
        base: the frozen parameters, once.
        batches: arrays [runs, steps, rows of this process, length].
        rates: float32 [runs, steps].

    Returns:
        The states, and {loss, gradient_norm}: float32 [runs, steps].
    """
    placed = program.place(batches, leading=2)
    return program.call(TRAINING, _train, states, base, placed, jnp.asarray(rates, jnp.float32))


def evaluate(program: Program, tuned: Any, base: Any, batches: Batch) -> tuple[jax.Array, jax.Array]:
    """(sums of nats, sums of weights) of every run on the same batches: float32 [runs, batches]."""
    return program.call(EVALUATION, _evaluate, tuned, base, program.place(batches))


def stacked(members: Sequence[Member], first: int, end: int) -> tuple[Batch, np.ndarray]:
    """(batches [runs, steps, rows, length], rates [runs, steps]) of steps `first` to `end`.

    All are as long as the longest needs. A run that has ended is given the batches that would come and a
    rate of 0, which leaves what it trained as it is.
    """
    shapes = [member.batches.shape(first, end - first) for member in members]
    shape = tuple(max(sides) for sides in zip(*shapes, strict=True))
    own = [member.batches.stacked(first, end - first, shape) for member in members]
    rates = np.zeros((len(members), end - first), np.float32)
    for row, member in zip(rates, members, strict=True):
        here = member.rates[first:end]
        row[: len(here)] = here
    return {name: np.stack([batch[name] for batch in own]) for name in own[0]}, rates


def mean_losses(program: Program, tuned: Any, base: Any, batches: tuple[Batch, ...]) -> np.ndarray:
    """Mean nats per target token of every run on an evaluation set: float64 [runs]."""
    if jax.process_count() > 1:
        raise InputError("cohorts run in one process: make these runs one after another")
    nats = tokens = 0.0
    for stack in batches:
        sums, weights = evaluate(program, tuned, base, stack)
        nats = nats + np.asarray(sums, np.float64).sum(axis=1)
        tokens = tokens + np.asarray(weights, np.float64).sum(axis=1)
    return nats / tokens


def keep_better(program: Program, better: np.ndarray, tuned: Any, best: Any) -> Any:
    """The trees of the runs that are `better` (bool [runs]), and of the others what was best before."""
    return _choose(program)(jnp.asarray(better), tuned, best)


def _in_front(program: Program, shardings: Any) -> Any:
    """Shardings of arrays with an axis of runs in front, which is not split."""
    return jax.tree.map(
        lambda sharding: NamedSharding(program.mesh, PartitionSpec(None, *sharding.spec)), shardings
    )


@functools.cache
def _stack(program: Program) -> Any:
    def stack(*states: TrainState) -> TrainState:
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    return jax.jit(stack, out_shardings=_in_front(program, state_shardings(program)))


@functools.cache
def _train(program: Program) -> Any:
    whole = meshes.replicated(program.mesh)
    out = (_in_front(program, state_shardings(program)), {"loss": whole, "gradient_norm": whole})
    runs = jax.vmap(training_steps(program), in_axes=(0, None, 0, 0))
    return jax.jit(runs, donate_argnums=0, out_shardings=out)


@functools.cache
def _evaluate(program: Program) -> Any:
    runs = jax.vmap(evaluation(program), in_axes=(0, None, None))
    return jax.jit(runs, out_shardings=meshes.replicated(program.mesh))


@functools.cache
def _choose(program: Program) -> Any:
    def choose(better: jax.Array, tuned: Any, best: Any) -> Any:
        def of_leaf(new: jax.Array, old: jax.Array) -> jax.Array:
            return jnp.where(better.reshape(-1, *[1] * (new.ndim - 1)), new, old)

        return jax.tree.map(of_leaf, tuned, best)

    return jax.jit(choose, out_shardings=_in_front(program, state_shardings(program).tuned))
