"""A store, a program and a run small enough to compile in a second; settings as gin bindings."""

import numpy as np

from scaling_jax import configuration
from scaling_jax.data.store import VocabularyFile, write_store

CONFIGURABLES = ["scaling_jax.studies.configurables"]
VOCABULARY = VocabularyFile("bytes", 48)
MODEL = (
    "tiny/decoder_config.layers=2",
    "tiny/decoder_config.heads=2",
    "tiny/decoder_config.head_dim=8",
    "tiny/decoder_config.model_dim=16",
    "tiny/decoder_config.feed_forward_dim=24",
)
PRETRAIN = (
    "PretrainSettings.batch_size=4",
    "PretrainSettings.eval_interval=4",
    "PretrainSettings.steps_per_call=2",
    "PretrainSettings.learning_rate=0.05",
)
FINETUNE = (
    "FinetuneSettings.batch_size=4",
    "FinetuneSettings.eval_batch_size=4",
    "FinetuneSettings.eval_interval=4",
    "FinetuneSettings.max_steps=12",
    "FinetuneSettings.learning_rate=0.05",
    "lora.rank=2",
    "prompt.length=3",
)


def configure(*bindings):
    """Replaces gin's configuration by the tiny model's and these bindings."""
    configuration.parse([], [*MODEL, *PRETRAIN, *FINETUNE, *bindings], imports=CONFIGURABLES)


def copies(count, seed):
    """Pairs that can be learnt: the target is the input, then EOS."""
    generator = np.random.default_rng(seed)
    words = [generator.integers(3, 12, generator.integers(2, 7)).astype(np.int32) for _ in range(count)]
    return [{"inputs": word, "targets": np.append(word, 1).astype(np.int32)} for word in words]


def write_stores(folder, vocabulary=VOCABULARY):
    """(pretraining store, finetuning store) as paths."""
    generator = np.random.default_rng(0)

    def windows(count):
        return ({"targets": generator.integers(3, 12, 8).astype(np.int32)} for _ in range(count))

    shared = {"task": "tiny:1", "vocabulary": vocabulary, "facts": {}, "seed": 0, "settings": {}}
    write_store(
        folder / "pretrain",
        feature_lengths={"targets": 8},
        splits={"train": windows(64), "dev": windows(6)},
        **shared,
    )
    write_store(
        folder / "finetune",
        feature_lengths={"inputs": 8, "targets": 8},
        splits={"train": copies(40, 1), "dev": copies(9, 2), "test": copies(9, 3)},
        **shared,
    )
    return str(folder / "pretrain"), str(folder / "finetune")
