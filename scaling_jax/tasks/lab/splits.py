"""Splits of the lab's tasks: blocks of example numbers, and the checks of their sizes."""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks.lab import draws

SPLITS = ("train", "dev", "test")
_BLOCK = 8192


def check_sizes(binding: str, sizes: Mapping[str, int]) -> None:
    """Raises InputError unless `sizes` maps known split names to positive whole numbers."""
    for split, size in sizes.items():
        if split not in SPLITS:
            raise InputError(f"{binding}: no split {split!r}{did_you_mean(split, SPLITS)}")
        if not isinstance(size, int) or size < 1:
            raise InputError(f"{binding}[{split!r}] = {size!r}: must be a whole number of at least 1")
    if "train" not in sizes:
        raise InputError(f"{binding} = {dict(sizes)}: must name 'train'")


def check_lengths(binding: str, lengths: tuple[int, int]) -> None:
    """Raises InputError unless `lengths` is (shortest, longest) in sentences."""
    if len(lengths) != 2 or not 1 <= lengths[0] <= lengths[1]:
        raise InputError(f"{binding} = {lengths!r}: must be (shortest, longest) in sentences, from 1 on")


def key_blocks(seed: int, stream: str, split: str, size: int) -> Iterator[np.ndarray]:
    """Keys of the examples 0 to size - 1 of a split, in blocks: each uint64 [at most 8192]."""
    root = draws.stream_key(seed, stream, split)
    for begin in range(0, size, _BLOCK):
        yield draws.child_keys(root, np.arange(begin, min(begin + _BLOCK, size)))


def readers(
    sizes: Mapping[str, int], read: Callable[[str, int], Iterator]
) -> dict[str, Callable[[], Iterator]]:
    """A reader for each split, in the order train, dev, test."""

    def reader(split: str) -> Callable[[], Iterator]:
        return lambda: read(split, sizes[split])

    return {split: reader(split) for split in SPLITS if split in sizes}
