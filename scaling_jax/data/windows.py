"""Batches of pretraining: windows of one store or several in stated shares, made into examples.

Both are pure functions: which window stands at a place of the run follows from the shares, the seed and
the place, what an objective draws for it from (seed, step, row).
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from scaling_jax.data.batches import shuffled
from scaling_jax.data.objectives.objective import Objective, registered_name
from scaling_jax.data.sequences import Batch, OneSequence, Sequences, TwoSequences
from scaling_jax.data.store import Split, VocabularyFile
from scaling_jax.errors import InputError

# Second entries of seeds: the order of examples has 1 (batches.py).
_TRAINING, _EVALUATION = 2, 3


@dataclasses.dataclass(frozen=True)
class WindowSequences:
    """How windows are read; for an evaluation, where what is drawn depends on the window's index alone.

    Attributes:
        objective: makes inputs and targets of a window.
        vocabulary: of the store.
        sequences: lays them out for the model.
        fixed_shape: the one shape that holds every example.
    """

    objective: Objective
    vocabulary: VocabularyFile
    sequences: Sequences
    fixed_shape: tuple[int, ...]

    def shape(self, split: Split, indices: np.ndarray) -> tuple[int, ...]:
        """The shape, whatever the windows."""
        return self.fixed_shape

    def batch(self, split: Split, indices: np.ndarray, shape: tuple[int, ...]) -> Batch:
        """The windows at these indices of a split, corrupted the same way in every evaluation."""
        windows = [split[int(index)]["targets"] for index in indices]
        return self.drawn(windows, [(0, _EVALUATION, int(index)) for index in indices])

    def drawn(self, windows: Sequence[np.ndarray], seeds: Sequence[tuple[int, ...]]) -> Batch:
        """The examples that these seeds give of these windows."""
        examples = [
            self.objective.draw(window, self.vocabulary, seed)
            for window, seed in zip(windows, seeds, strict=True)
        ]
        return self.sequences.laid_out(examples, self.fixed_shape)


def window_sequences(
    objective: Objective, vocabulary: VocabularyFile, window: int, has_encoder: bool
) -> WindowSequences:
    """How a model reads windows of so many tokens.

    Raises:
        InputError: an objective without inputs for an encoder, or with more sentinels and modes than the
            vocabulary has.
    """
    name, lengths, ids = registered_name(objective), objective.lengths(window), vocabulary.pad_id
    if has_encoder and not lengths.inputs:
        raise InputError(
            f"PretrainSettings.objective = @{name}() leaves an encoder nothing to read: "
            "bind @span_corruption(), @prefix_lm() or @ul2()"
        )
    needed = objective.extra_ids(window)
    if needed > vocabulary.extra_ids:
        binding = "byte_vocabulary" if vocabulary.kind == "bytes" else "sentencepiece"
        raise InputError(
            f"PretrainSettings.objective = @{name}() needs {needed} extra ids (sentinels, modes) for windows "
            f"of {window} tokens, the store's vocabulary has {vocabulary.extra_ids}: prepare the stores "
            f"again with {binding}.extra_ids = {max(needed, 100)}"
        )
    if has_encoder:
        sequences = TwoSequences((lengths.inputs,), (lengths.targets,), ids, ids)
        return WindowSequences(objective, vocabulary, sequences, (lengths.inputs, lengths.targets))
    sequences = OneSequence((lengths.both,), ids, ids)
    return WindowSequences(objective, vocabulary, sequences, (lengths.both,))


@dataclasses.dataclass(frozen=True)
class WindowBatches:
    """Batch `step` of a run over the windows of several stores.

    A store's windows come in the order of the seed, the same in every mixture: a smaller share of it
    reads less of the same order.

    Attributes:
        splits: of each store, the windows.
        shares: of the windows of a run that each store gives; together 1.
        rows: windows in a batch, over all processes.
        sequences: how they are read.
        seed: of the order and of what the objective draws.
        own: the rows that this process builds, ascending; None is all.
    """

    splits: tuple[Split, ...]
    shares: tuple[float, ...]
    rows: int
    sequences: WindowSequences
    seed: int
    own: tuple[int, ...] | None = None

    def chosen(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(which store, which of its windows) of every row of batch `step`: int64 [rows] each."""
        before = windows_before(self.shares, np.arange(step * self.rows, (step + 1) * self.rows + 1))
        stores = np.argmax(np.diff(before, axis=0), axis=1)
        places = np.take_along_axis(before[:-1], stores[:, None], axis=1)[:, 0]
        indices = np.empty(self.rows, np.int64)
        for number, split in enumerate(self.splits):
            here = stores == number
            indices[here] = shuffled(places[here], len(split), self.seed)
        return stores, indices

    def stacked(self, first_step: int, steps: int) -> Batch:
        """Batches `first_step` onwards as one of arrays [steps, rows of this process, length]."""
        own = range(self.rows) if self.own is None else self.own
        batches = []
        for step in range(first_step, first_step + steps):
            stores, indices = self.chosen(step)
            windows = [self.splits[stores[row]][int(indices[row])]["targets"] for row in own]
            seeds = [(self.seed, _TRAINING, step, row) for row in own]
            batches.append(self.sequences.drawn(windows, seeds))
        return {name: np.stack([batch[name] for batch in batches]) for name in batches[0]}


def windows_before(shares: Sequence[float], positions: np.ndarray) -> np.ndarray:
    """Windows of each store among the first so many of a run: int64 [positions, stores].

    Every position adds one window, of one store. The counts are the shares to within (stores - 1) / 2
    windows, at every position: the first store is rounded against the rest, the second against what is
    left, and so on.
    """
    rest, left = np.asarray(positions, np.int64), 1.0
    columns = []
    for share in shares[:-1]:
        taken = np.floor(rest * min(share / left, 1.0) + 0.5).astype(np.int64)
        columns.append(taken)
        rest, left = rest - taken, left - share
    return np.stack([*columns, rest], axis=1)
