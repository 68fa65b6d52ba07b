"""Stores and evaluation sets that runs of one process share."""

import functools
from pathlib import Path

from scaling_jax.data.sequences import Batch, OneSequence, Sequences, TwoSequences, buckets_for
from scaling_jax.data.store import Split, TokenStore, open_store
from scaling_jax.errors import InputError
from scaling_jax.models.config import ModelConfig
from scaling_jax.training.evaluate import evaluation_set


@functools.lru_cache(maxsize=8)
def store_at(path: str) -> TokenStore:
    """Opens a store once per process."""
    return open_store(path)


@functools.lru_cache(maxsize=32)
def split_at(path: str, name: str) -> Split:
    """Opens a split once per process."""
    return store_at(path).split(name)


@functools.lru_cache(maxsize=8)
def sequences_at(path: str, model: ModelConfig, start_id: int | None = None) -> Sequences:
    """How a model reads a store's examples, in length buckets that serve every split.

    `start_id` begins what a decoder reads; None is the vocabulary's pad.

    Raises:
        InputError: windows for an encoder-decoder.
    """
    store = store_at(path)
    allowed = store.manifest["feature_lengths"]
    splits = [split_at(path, name) for name in store.manifest["splits"]]
    pad_id = store.vocabulary.pad_id
    ids = (pad_id, pad_id if start_id is None else start_id)
    if not model.encoder_layers:
        lengths = [split.total_lengths for split in splits]
        return OneSequence(buckets_for(lengths, sum(allowed.values())), *ids)
    if "inputs" not in allowed:
        raise InputError(f"{path} holds windows, an encoder-decoder needs inputs and targets")
    buckets = (
        buckets_for([split.lengths(feature) for split in splits], allowed[feature])
        for feature in ("inputs", "targets")
    )
    return TwoSequences(*buckets, *ids)


def evaluation_at(
    path: str, name: str, examples: int | None, rows: int, sequences: Sequences
) -> tuple[Batch, ...]:
    """The evaluation set of a split."""
    return evaluation_set(split_at(path, name), examples, rows, sequences)


def check_vocabulary(store: TokenStore, checkpoint: Path, about: dict) -> None:
    """
    Raises:
        InputError: the checkpoint was trained on tokens of another vocabulary, or does not say of which.
    """
    recorded, present = about["vocabulary_sha256"], store.vocabulary.sha256()
    if recorded is None:
        raise InputError(
            f"{checkpoint} does not say which vocabulary its tokens belong to: "
            "convert it again with --vocabulary"
        )
    if recorded != present:
        raise InputError(
            f"{store.path} was made with another vocabulary ({present[:12]}) than checkpoint {checkpoint} "
            f"({recorded[:12]}): prepare the store with the checkpoint's vocabulary.model"
        )
