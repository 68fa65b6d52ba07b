"""How an example becomes what a model reads: one sequence, or one for each half of an encoder-decoder.

A batch is {inputs, targets: int32 [rows, length]; weights: float32 [rows, length]}: `inputs` are
`targets` shifted right behind a start token, and a weight is 1 where the loss counts. For an
encoder-decoder there are also {encoder_inputs: int32, encoder_mask: bool [rows, encoder length]}.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from scaling_jax.data.store import Split
from scaling_jax.errors import InputError

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class OneSequence:
    """All features end to end, the loss on the last: for a decoder (Zhang et al. 2024, section 3).

    Attributes:
        buckets: lengths in tokens that a batch may have, ascending.
        pad_id: fills the right.
        start_id: begins the inputs.
    """

    buckets: tuple[int, ...]
    pad_id: int
    start_id: int

    def shape(self, split: Split, indices: np.ndarray) -> tuple[int, ...]:
        """The smallest shape that holds these examples.

        Raises:
            InputError: none does.
        """
        return (bucket_for(int(split.total_lengths[indices].max()), self.buckets),)

    def batch(self, split: Split, indices: np.ndarray, shape: tuple[int, ...]) -> Batch:
        """These examples in a shape that holds them."""
        examples = (split[int(index)] for index in indices)
        return self.laid_out([[example[name] for name in split.features] for example in examples], shape)

    def laid_out(self, examples: Sequence[Sequence[np.ndarray]], shape: tuple[int, ...]) -> Batch:
        """Examples, each its parts in order, in a shape that holds them; the loss is on each last part."""
        targets = np.full((len(examples), shape[0]), self.pad_id, np.int32)
        weights = np.zeros(targets.shape, np.float32)
        for row, parts in enumerate(examples):
            end = sum(len(part) for part in parts)
            targets[row, :end] = np.concatenate(parts)
            weights[row, end - len(parts[-1]) : end] = 1.0
        return {"inputs": _shifted(targets, self.start_id), "targets": targets, "weights": weights}


@dataclasses.dataclass(frozen=True)
class TwoSequences:
    """`inputs` for the encoder, `targets` for the decoder; attributes as those of `OneSequence`."""

    input_buckets: tuple[int, ...]
    target_buckets: tuple[int, ...]
    pad_id: int
    start_id: int

    def shape(self, split: Split, indices: np.ndarray) -> tuple[int, ...]:
        """The smallest (encoder length, decoder length) that holds these examples.

        Raises:
            InputError: none does.
        """
        longest = (int(split.lengths(feature)[indices].max()) for feature in ("inputs", "targets"))
        buckets = (self.input_buckets, self.target_buckets)
        return tuple(bucket_for(length, own) for length, own in zip(longest, buckets, strict=True))

    def batch(self, split: Split, indices: np.ndarray, shape: tuple[int, ...]) -> Batch:
        """These examples in a shape that holds them."""
        examples = (split[int(index)] for index in indices)
        return self.laid_out([(example["inputs"], example["targets"]) for example in examples], shape)

    def laid_out(self, examples: Sequence[Sequence[np.ndarray]], shape: tuple[int, ...]) -> Batch:
        """Examples, each (inputs, targets), in a shape that holds them."""
        inputs, outputs = zip(*examples, strict=True)
        read, mask = self._padded(inputs, shape[0])
        targets, weights = self._padded(outputs, shape[1])
        return {
            "inputs": _shifted(targets, self.start_id),
            "targets": targets,
            "weights": weights.astype(np.float32),
            "encoder_inputs": read,
            "encoder_mask": mask,
        }

    def _padded(self, parts: Sequence[np.ndarray], length: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.full((len(parts), length), self.pad_id, np.int32)
        held = np.zeros(tokens.shape, bool)
        for row, part in enumerate(parts):
            tokens[row, : len(part)], held[row, : len(part)] = part, True
        return tokens, held


Sequences = OneSequence | TwoSequences


def buckets_for(lengths: Iterable[np.ndarray], longest_allowed: int, step: int = 8) -> tuple[int, ...]:
    """Two lengths that serve splits of these lengths: that of 95% of the examples of a split and the longest
    of all, as multiples of `step`."""
    found = set()
    for of_split in lengths:
        for bound in (np.quantile(of_split, 0.95), of_split.max()):
            found.add(min(int(-(-bound // step) * step), -(-longest_allowed // step) * step))
    return tuple(sorted(found)[-2:])


def bucket_for(length: int, buckets: Sequence[int]) -> int:
    """The smallest bucket that holds `length` tokens.

    Raises:
        InputError: none does.
    """
    for bucket in buckets:
        if length <= bucket:
            return bucket
    raise InputError(f"an example has {length} tokens, the longest length bucket holds {max(buckets)}")


def _shifted(targets: np.ndarray, start_id: int) -> np.ndarray:
    inputs = np.full_like(targets, start_id)
    inputs[:, 1:] = targets[:, :-1]
    return inputs
