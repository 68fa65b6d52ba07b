"""Mean nats per target token over a whole set: sums of nats over sums of tokens."""

import functools
from typing import Any

import jax
import numpy as np

from scaling_jax.data.batches import Batch, evaluation_batches
from scaling_jax.data.store import Split
from scaling_jax.errors import InputError
from scaling_jax.training.program import Program

# Batches that are handed to the device at one time.
BATCHES_PER_CALL = 16


@functools.lru_cache(maxsize=16)
def evaluation_set(
    split: Split, examples: int | None, rows: int, buckets: tuple[int, ...], pad_id: int
) -> tuple[Batch, ...]:
    """The evaluation batches of a split, stacked by shape: arrays [batches, rows, length]."""
    stacks: list[Batch] = []
    waiting: list[Batch] = []

    def flush() -> None:
        if waiting:
            stacks.append({name: np.stack([batch[name] for batch in waiting]) for name in waiting[0]})
            waiting.clear()

    for batch in evaluation_batches(split, examples, rows, buckets, pad_id):
        if len(waiting) == BATCHES_PER_CALL or (
            waiting and waiting[0]["inputs"].shape != batch["inputs"].shape
        ):
            flush()
        waiting.append(batch)
    flush()
    return tuple(stacks)


def mean_loss(program: Program, tuned: Any, base: Any, batches: tuple[Batch, ...]) -> float:
    """Mean nats per target token of an evaluation set."""
    nats = tokens = 0.0
    process, processes = jax.process_index(), jax.process_count()
    for stack in batches:
        rows, left = divmod(stack["targets"].shape[1], processes)
        if left:
            raise InputError(
                f"an evaluation batch does not divide over {processes} processes: {left} rows would be lost"
            )
        stack = {name: array[:, process * rows : (process + 1) * rows] for name, array in stack.items()}
        sums, weights = program.evaluate(tuned, base, stack)
        nats += float(np.asarray(sums, np.float64).sum())
        tokens += float(np.asarray(weights, np.float64).sum())
    return nats / tokens
