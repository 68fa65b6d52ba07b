"""The stores of a pretraining run: opened, checked to go together, as batches and evaluation sets."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path

from scaling_jax.data.objectives.objective import Objective
from scaling_jax.data.store import TokenStore, VocabularyFile
from scaling_jax.data.windows import WindowBatches, WindowSequences, window_sequences, windows_before
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.models.config import ModelConfig
from scaling_jax.training import data_sets
from scaling_jax.training.evaluate import EvaluationSet, SharedSet


@dataclasses.dataclass(frozen=True)
class PretrainingData:
    """Stores of windows that one run reads, by name; `shares` add up to 1."""

    stores: Mapping[str, TokenStore]
    shares: Mapping[str, float]

    @property
    def window(self) -> int:
        """Tokens in a window."""
        return window_of(self._first)

    @property
    def vocabulary(self) -> VocabularyFile:
        """The vocabulary of all."""
        return self._first.vocabulary

    @property
    def _first(self) -> TokenStore:
        return next(iter(self.stores.values()))

    def manifest_hash(self) -> str | dict[str, str]:
        """Hash of the one store's manifest, or of those of a mixture by name."""
        hashes = {name: store.manifest_hash() for name, store in self.stores.items()}
        return next(iter(hashes.values())) if len(hashes) == 1 else hashes

    def sequences(self, objective: Objective, config: ModelConfig) -> WindowSequences:
        """How a model reads the windows.

        Raises:
            InputError: see `window_sequences`.
        """
        return window_sequences(objective, self.vocabulary, self.window, config.encoder_layers > 0)

    def batches(
        self, rows: int, sequences: WindowSequences, seed: int, own: tuple[int, ...] | None = None
    ) -> WindowBatches:
        """The training data; of every batch this process builds its `own` rows, None is all."""
        splits = tuple(data_sets.split_at(str(store.path), "train") for store in self.stores.values())
        return WindowBatches(splits, tuple(self.shares.values()), rows, sequences, seed, own)

    def dev(self, windows: int | None, rows: int, sequences: WindowSequences) -> EvaluationSet:
        """The first `windows` of every store's dev split, None all."""
        sets = {
            name: data_sets.evaluation_at(str(store.path), "dev", windows, rows, sequences)
            for name, store in self.stores.items()
        }
        return SharedSet(sets, self.shares) if len(sets) > 1 else next(iter(sets.values()))

    def windows_read(self, windows: int) -> dict[str, int]:
        """How many of the first `windows` of a run are of each store."""
        counts = windows_before(tuple(self.shares.values()), [windows])[0]
        return dict(zip(self.stores, counts.tolist(), strict=True))


def open_data(
    stores: str | Path | TokenStore | Mapping[str, str | Path | TokenStore], mixture: Mapping[str, float]
) -> PretrainingData:
    """Opens the stores that a mixture names; the one there is where it names none.

    Args:
        stores: a store, which has its folder's name, or name -> store; paths or opened.
        mixture: `PretrainSettings.mixture`.

    Raises:
        InputError: a name that is not there, shares that do not add up to 1, stores of pairs, of another
            window or of another vocabulary than the first.
    """
    if not isinstance(stores, Mapping):
        stores = {Path(stores.path if isinstance(stores, TokenStore) else stores).name: stores}
    shares = _shares(stores, mixture)
    opened = {name: _opened(stores[name]) for name in shares}
    first = next(iter(opened.values()))
    for store in opened.values():
        if set(store.manifest["feature_lengths"]) != {"targets"}:
            raise InputError(
                f"{store.path} holds examples for finetuning, pretraining needs a store of windows"
            )
        if store.vocabulary.sha256() != first.vocabulary.sha256():
            raise InputError(
                f"{store.path} was made with another vocabulary than {first.path}: "
                "prepare the stores of a mixture together"
            )
        for what, of_this, of_first in (
            ("windows", window_of(store), window_of(first)),
            ("a vocabulary with ids", store.vocabulary.size, first.vocabulary.size),
        ):
            if of_this != of_first:
                raise InputError(
                    f"{store.path} has {what} of {of_this:,}, {first.path} of {of_first:,}: "
                    "the stores of a mixture have the same"
                )
    return PretrainingData(opened, shares)


def check_enough(data: PretrainingData, windows: int, epochs: int) -> None:
    """
    Raises:
        InputError: a store's training split does not hold its share of so many windows over the epochs.
    """
    for name, wanted in data.windows_read(windows).items():
        store = data.stores[name]
        there = store.manifest["splits"]["train"]["examples"]
        if wanted > there * epochs:
            of_whole = f" of {name!r}, {data.shares[name]:g} of all" if len(data.stores) > 1 else ""
            raise InputError(
                f"pretraining asks for {wanted * data.window:,} tokens{of_whole}, {store.path} has "
                f"{there * data.window:,} and PretrainSettings.epochs = {epochs} allows "
                f"{there * data.window * epochs:,}: ask for fewer, prepare more text, or allow more epochs"
            )


def window_of(store: TokenStore) -> int:
    """Tokens in a window of a store."""
    return int(store.manifest["feature_lengths"]["targets"])


def _opened(store: str | Path | TokenStore) -> TokenStore:
    return store if isinstance(store, TokenStore) else data_sets.store_at(str(store))


def _shares(names: Iterable[str], mixture: Mapping[str, float]) -> dict[str, float]:
    """The mixture in the order of its names, which is part of no result that way; checked."""
    names, binding = list(names), "PretrainSettings.mixture"
    if not isinstance(mixture, Mapping):
        raise InputError(f"{binding} = {mixture!r}: a share for each store, such as {{'en': 0.3, 'de': 0.7}}")
    if not mixture:
        if len(names) != 1:
            raise InputError(
                f"there are {len(names)} stores to pretrain on ({', '.join(names)}): bind {binding} to "
                f"shares such as {dict.fromkeys(names, round(1 / max(len(names), 1), 2))}"
            )
        return {names[0]: 1.0}
    for name, share in mixture.items():
        if name not in names:
            raise InputError(f"{binding}: no store {name!r}{did_you_mean(name, names)}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share <= 1:
            raise InputError(f"{binding}[{name!r}] = {share!r}: a share above 0, at most 1")
    if abs(sum(mixture.values()) - 1) > 1e-6:
        raise InputError(f"{binding}: the shares add up to {sum(mixture.values()):g}, not to 1")
    return {name: float(mixture[name]) for name in sorted(mixture)}
