"""Stores and evaluation sets that runs of one process share."""

import functools
from pathlib import Path

from scaling_jax.data.batches import Batch, buckets_for
from scaling_jax.data.store import Split, TokenStore, open_store
from scaling_jax.errors import InputError
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
def buckets_at(path: str) -> tuple[int, ...]:
    """Length buckets that serve every split of a store."""
    store = store_at(path)
    longest = sum(store.manifest["feature_lengths"].values())
    splits = [split_at(path, name) for name in store.manifest["splits"]]
    found = sorted({bucket for split in splits for bucket in buckets_for(split, longest)})
    return tuple(found[-2:])


def evaluation_at(path: str, name: str, examples: int | None, rows: int) -> tuple[Batch, ...]:
    """The evaluation set of a split."""
    split = split_at(path, name)
    return evaluation_set(split, examples, rows, buckets_at(path), store_at(path).vocabulary.pad_id)


def check_vocabulary(store: TokenStore, checkpoint: Path, about: dict) -> None:
    """
    Raises:
        InputError: the checkpoint was trained on tokens of another vocabulary.
    """
    recorded, present = about["vocabulary_sha256"], store.vocabulary.sha256()
    if recorded != present:
        raise InputError(
            f"{store.path} was made with another vocabulary ({present[:12]}) than checkpoint {checkpoint} "
            f"({recorded[:12]}): prepare the store with the checkpoint's vocabulary.model"
        )
