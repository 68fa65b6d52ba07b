"""A base that was not trained, and stores of bytes with texts, small enough to tune and decode in seconds."""

import numpy as np

from scaling_jax.data.store import VocabularyFile, write_store
from scaling_jax.training.pretrain import pretrain
from tests.training import tiny

VOCABULARY = VocabularyFile("bytes", 259)
LETTERS = "abcdef"


def words(count, seed):
    generator = np.random.default_rng(seed)
    return ["".join(generator.choice(list(LETTERS), generator.integers(2, 5))) for _ in range(count)]


def tokens(text):
    return np.array([byte + 3 for byte in text.encode()], np.int32)


def example(read, written):
    return {"inputs": tokens(read), "targets": np.append(tokens(written), 1).astype(np.int32)}


def write_stores(folder):
    """Stores: `windows`; `copies`, whose target is the input; `described`, several targets per input."""
    windows = ({"targets": tokens("".join(words(4, seed)).ljust(16, "a")[:8])} for seed in range(80))
    shared = {"vocabulary": VOCABULARY, "facts": {}, "seed": 0, "settings": {}}
    held = list(windows)
    write_store(
        folder / "windows",
        task="windows_v1",
        feature_lengths={"targets": 8},
        splits={"train": held[:64], "dev": held[64:]},
        **shared,
    )
    splits = {"train": words(40, 1), "dev": words(8, 2), "test": words(6, 3)}
    write_store(
        folder / "copies",
        task="copies_v1",
        feature_lengths={"inputs": 8, "targets": 8},
        splits={name: [example(word, word) for word in held] for name, held in splits.items()},
        texts={
            name: [{"inputs": word, "targets": word, "class": word[0]} for word in splits[name]]
            for name in ("dev", "test")
        },
        scoring={"scores": ["exact_match"]},
        **shared,
    )
    described = [("ab", "a b"), ("cd", "c"), ("ab", "b a"), ("ef", "e"), ("cd", "d"), ("ab", "ab")]
    write_store(
        folder / "described",
        task="described_v1",
        feature_lengths={"inputs": 8, "targets": 8},
        splits={name: [example(*pair) for pair in described] for name in ("train", "test")},
        texts={"test": [{"inputs": read, "targets": written} for read, written in described]},
        scoring={"references": "same_inputs", "target_language": "zh"},
        **shared,
    )
    return {name: str(folder / name) for name in ("windows", "copies", "described")}


def make(folder):
    """Writes the stores and a base in folder/base, initial parameters; returns the stores."""
    tiny.configure()
    stores = write_stores(folder)
    pretrain("tiny", stores["windows"], (0,), 0, folder / "base")
    return stores
