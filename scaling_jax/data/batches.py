"""Batches as pure functions of (seed, step), from nested subsets of a split.

Examples are never packed; a batch is as long as the smallest length bucket that holds it. What it
holds is said in `sequences.py`.
"""

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from scaling_jax.data.sequences import Batch, Sequences
from scaling_jax.data.store import Split
from scaling_jax.errors import InputError


def nested_subset(
    examples: int, size: int, subset_seed: int, groups: Mapping[str, int] | None = None
) -> np.ndarray:
    """Indices [size] of a subset: the first `size` of one permutation, so that smaller lie inside larger.

    Where the split is a concatenation of groups (the languages of a mixture, say), every subset keeps
    their shares to within one or two examples, as Zhang et al. 2024, section 3, do for MLSum.

    Args:
        examples: of the split.
        size: of the subset.
        subset_seed: another seed is another subset.
        groups: examples of each group, in the order of the split.

    Raises:
        InputError: more asked than exist.
    """
    if not 1 <= size <= examples:
        raise InputError(f"finetune_examples = {size}, but the training split has {examples} examples")
    if not groups:
        return np.random.default_rng([subset_seed, 0]).permutation(examples)[:size]
    counts = list(groups.values())
    begins = np.cumsum([0, *counts[:-1]])
    shuffled_groups = [
        begin + np.random.default_rng([subset_seed, 0, number]).permutation(count)
        for number, (begin, count) in enumerate(zip(begins, counts, strict=True))
    ]
    return np.concatenate(shuffled_groups)[_spread(counts)][:size]


def first_examples(split: Split, examples: int | None) -> np.ndarray:
    """Indices of the first `examples` of a split in their order, None of all.

    Where the split is a concatenation of groups, of every group the first in its share of the whole.
    """
    count = len(split) if examples is None else min(examples, len(split))
    if not split.groups:
        return np.arange(count)
    return np.sort(_spread(list(split.groups.values()))[:count])


def _spread(counts: Sequence[int]) -> np.ndarray:
    """Places of a concatenation in an order in which every group is spread evenly over the whole length:
    example j of n at (j + 1/2) / n."""
    places = np.concatenate([(np.arange(count) + 0.5) / count for count in counts])
    return np.argsort(places, kind="stable")


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
    """Batch `step` of an endless, reshuffled pass over chosen examples.

    The position of every example depends on `seed`, the step and the number of examples alone.

    Attributes:
        split: where the examples are.
        indices: int64 [examples], which of them.
        rows: examples per batch, over all processes.
        sequences: how examples are laid out and padded.
        seed: seed of the order.
        own: the rows that this process builds, ascending; None is all.
    """

    split: Split
    indices: np.ndarray
    rows: int
    sequences: Sequences
    seed: int
    own: tuple[int, ...] | None = None

    def example_indices(self, step: int) -> np.ndarray:
        """Indices [rows] into the split of the examples of batch `step`, for all processes."""
        positions = np.arange(step * self.rows, (step + 1) * self.rows)
        return self.indices[shuffled(positions, len(self.indices), self.seed)]

    def shape(self, first_step: int, steps: int) -> tuple[int, ...]:
        """The smallest shape, by the length buckets, that holds batches `first_step` onwards."""
        chosen = [self.example_indices(step) for step in range(first_step, first_step + steps)]
        # The length is that of the longest example of any process, so that all build the same shape.
        return self.sequences.shape(self.split, np.concatenate(chosen))

    def stacked(self, first_step: int, steps: int, shape: tuple[int, ...] | None = None) -> Batch:
        """Batches `first_step` onwards as one of arrays [steps, rows of this process, length].

        `shape` is one that holds them, None the smallest.
        """
        own = slice(None) if self.own is None else list(self.own)
        shape = shape or self.shape(first_step, steps)
        chosen = [self.example_indices(step) for step in range(first_step, first_step + steps)]
        batches = [self.sequences.batch(self.split, indices[own], shape) for indices in chosen]
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def evaluation_batches(
    split: Split, examples: int | None, rows: int, sequences: Sequences
) -> Iterator[Batch]:
    """The first `examples` of a split (see `first_examples`), each once, shortest first; the last batch is
    filled up with rows of weight 0.

    Raises:
        InputError: fewer than one example asked.
    """
    count = len(split) if examples is None else min(examples, len(split))
    if count < 1:
        raise InputError(
            f"an evaluation of {count} examples of split {split.name!r}: at least 1, or None for all"
        )
    indices = first_examples(split, examples)
    order = indices[np.argsort(split.total_lengths[indices], kind="stable")]
    for begin in range(0, count, rows):
        chosen = order[begin : begin + rows]
        batch = sequences.batch(split, chosen, sequences.shape(split, chosen))
        yield {name: np.pad(array, ((0, rows - len(chosen)), (0, 0))) for name, array in batch.items()}


def target_tokens(split: Split, indices: np.ndarray) -> int:
    """Tokens on which these examples have a loss."""
    return int(split.lengths(split.features[-1])[indices].sum())


def shuffled(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Which of `count` items is at these positions of an endless pass, every epoch in an order of its own."""
    epochs, places = positions // count, positions % count
    chosen = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = _epoch_order(seed, int(epoch), count)[places[here]]
    return chosen


@functools.lru_cache(maxsize=8)
def _epoch_order(seed: int, epoch: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, 1, epoch]).permutation(count)
