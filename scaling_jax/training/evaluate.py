"""Mean nats per target token over a whole set: sums of nats over sums of tokens."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from scaling_jax.data.batches import evaluation_batches
from scaling_jax.data.sequences import Batch, Sequences
from scaling_jax.data.store import Split
from scaling_jax.training.mesh import own_rows
from scaling_jax.training.program import Program

# Batches that are handed to the device at one time.
BATCHES_PER_CALL = 16


@dataclasses.dataclass(frozen=True)
class SharedSet:
    """Evaluation sets of several stores; their loss is the mean of those of the stores, in these shares."""

    sets: Mapping[str, tuple[Batch, ...]]
    shares: Mapping[str, float]


EvaluationSet = tuple[Batch, ...] | SharedSet


@functools.lru_cache(maxsize=16)
def evaluation_set(split: Split, examples: int | None, rows: int, sequences: Sequences) -> tuple[Batch, ...]:
    """The evaluation batches of a split, stacked by shape: arrays [batches, rows, length]."""
    same_shape: dict[Any, list[Batch]] = {}
    for batch in evaluation_batches(split, examples, rows, sequences):
        shapes = tuple((name, array.shape) for name, array in batch.items())
        same_shape.setdefault(shapes, []).append(batch)
    return tuple(
        {
            name: np.stack([batch[name] for batch in alike[begin : begin + BATCHES_PER_CALL]])
            for name in alike[0]
        }
        for alike in same_shape.values()
        for begin in range(0, len(alike), BATCHES_PER_CALL)
    )


def mean_loss(program: Program, tuned: Any, base: Any, batches: tuple[Batch, ...]) -> float:
    """Mean nats per target token of an evaluation set."""
    nats = tokens = 0.0
    for stack in batches:
        own = own_rows(program.mesh, stack["targets"].shape[1])
        if len(own) < stack["targets"].shape[1]:
            stack = {name: array[:, own] for name, array in stack.items()}
        sums, weights = program.evaluate(tuned, base, stack)
        nats += float(np.asarray(sums, np.float64).sum())
        tokens += float(np.asarray(weights, np.float64).sum())
    return nats / tokens


def dev_losses(program: Program, tuned: Any, base: Any, evaluation: EvaluationSet) -> dict[str, float]:
    """{"dev_loss": mean nats per target token}; of several stores also "dev_loss_NAME" of each."""
    if not isinstance(evaluation, SharedSet):
        return {"dev_loss": mean_loss(program, tuned, base, evaluation)}
    of_store = {name: mean_loss(program, tuned, base, batches) for name, batches in evaluation.sets.items()}
    mean = sum(evaluation.shares[name] * loss for name, loss in of_store.items())
    return {"dev_loss": mean, **{f"dev_loss_{name}": loss for name, loss in of_store.items()}}
