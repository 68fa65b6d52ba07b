"""Stores and evaluation sets that runs of one process share."""

import functools
from pathlib import Path

from scaling_jax.data.objectives.objective import Objective
from scaling_jax.data.sequences import Batch, OneSequence, Sequences, TwoSequences, buckets_for
from scaling_jax.data.store import Split, TokenStore, open_store
from scaling_jax.data.windows import WindowSequences, window_sequences
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
def sequences_at(
    path: str, model: ModelConfig, start_id: int | None = None, objective: Objective | None = None
) -> Sequences | WindowSequences:
    """How a model reads a store's examples, in length buckets that serve every split.

    `start_id` begins what a decoder reads; None is the vocabulary's pad. Windows are read as the
    pretraining objective says, without one from the left to the right.

    Raises:
        InputError: windows for an encoder-decoder without an objective, or see `window_sequences`.
    """
    store = store_at(path)
    allowed = store.manifest["feature_lengths"]
    if objective is not None and "inputs" not in allowed:
        has_encoder = model.encoder_layers > 0
        return window_sequences(objective, store.vocabulary, int(allowed["targets"]), has_encoder)
    splits = [split_at(path, name) for name in store.manifest["splits"]]
    pad_id = store.vocabulary.pad_id
    ids = (pad_id, pad_id if start_id is None else start_id)
    if not model.encoder_layers:
        lengths = [split.total_lengths for split in splits]
        return OneSequence(buckets_for(lengths, sum(allowed.values())), *ids)
    if "inputs" not in allowed:
        raise InputError(
            f"{path} holds windows; an encoder-decoder needs inputs and targets, or to be pretrained here"
        )
    buckets = (
        buckets_for([split.lengths(feature) for split in splits], allowed[feature])
        for feature in ("inputs", "targets")
    )
    return TwoSequences(*buckets, *ids)


def evaluation_at(
    path: str, name: str, examples: int | None, rows: int, sequences: Sequences | WindowSequences
) -> tuple[Batch, ...]:
    """The evaluation set of a split."""
    return evaluation_set(split_at(path, name), examples, rows, sequences)


def check_vocabulary(store: TokenStore, checkpoint: Path, about: dict) -> None:
    """
    Raises:
        InputError: it is no model's checkpoint; it was trained on tokens of another vocabulary, or does
            not say of which; or its model has fewer tokens than the store's vocabulary.
    """
    if about.get("kind") not in ("pretrained", "tuned"):
        raise InputError(f"{checkpoint} is no model: a pretrained or tuned checkpoint is needed")
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
    held, pieces = about["model"]["vocabulary_size"], store.vocabulary.size - store.vocabulary.extra_ids
    if pieces > held:  # no text is an extra id
        raise InputError(f"{store.path} has {pieces} tokens, {checkpoint} reads {held}")
