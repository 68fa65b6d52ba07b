"""Batches built ahead of the step that needs them, through Grain's random-access data sets."""

import dataclasses
from collections.abc import Iterator, Sequence

import grain

from scaling_jax.data.batches import TrainingBatches
from scaling_jax.data.sequences import Batch


@dataclasses.dataclass(frozen=True)
class _Calls(Sequence):
    """Item i is the stacked batches of the i-th call: a pure function of i, whoever asks."""

    batches: TrainingBatches
    bounds: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.bounds)

    def __getitem__(self, call: int) -> Batch:
        first, end = self.bounds[call]
        return self.batches.stacked(first, end - first)


def training_calls(batches: TrainingBatches, bounds: Sequence[tuple[int, int]]) -> Iterator[Batch]:
    """Stacked batches [steps, rows, length] for each (first step, end step), two of them ready ahead."""
    dataset = grain.MapDataset.source(_Calls(batches, tuple(bounds)))
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(dataset.to_iter_dataset(options))
