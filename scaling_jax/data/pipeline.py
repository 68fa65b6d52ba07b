"""Batches built ahead of the step that needs them, through Grain's random-access data sets."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Protocol

import grain

from scaling_jax.data.sequences import Batch


class StackedBatches(Protocol):
    """Training data: batches as pure functions of the step."""

    def stacked(self, first_step: int, steps: int) -> Batch:
        """Batches `first_step` onwards as one of arrays [steps, rows of this process, length]."""


@dataclasses.dataclass(frozen=True)
class _Calls(Sequence):
    """Item i is the stacked batches of the i-th call: a pure function of i, whoever asks."""

    batches: StackedBatches
    bounds: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, call: int) -> Batch:
        first, end = self.bounds[call]
        return self.batches.stacked(first, end - first)


def training_calls(batches: StackedBatches, bounds: Sequence[tuple[int, int]]) -> Iterator[Batch]:
    """Stacked batches [steps, rows, length] for each (first step, end step), two of them ready ahead."""
    dataset = grain.MapDataset.source(_Calls(batches, tuple(bounds)))
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(dataset.to_iter_dataset(options))
