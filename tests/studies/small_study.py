"""A study small enough for tests: random pairs, two models, seconds of training."""

from pathlib import Path

import numpy as np

from scaling_jax.data.store import VocabularyFile, write_store

VOCABULARY = VocabularyFile("bytes", 48)


def write_stores(folder: Path, finetune_vocabulary: VocabularyFile = VOCABULARY) -> dict[str, str]:
    """A store of windows and one of pairs whose targets repeat their inputs, reversed."""
    generator = np.random.default_rng(0)

    def windows(count: int):
        return ({"targets": generator.integers(3, 48, 16)} for _ in range(count))

    def pairs(count: int):
        for _ in range(count):
            source = generator.integers(3, 48, generator.integers(2, 6))
            yield {"inputs": source, "targets": np.append(source[::-1], 1)}

    common = {"facts": {}, "seed": 0, "settings": {}}
    write_store(
        folder / "windows",
        task="windows_v1",
        vocabulary=VOCABULARY,
        feature_lengths={"targets": 16},
        splits={"train": windows(400), "dev": windows(16)},
        **common,
    )
    write_store(
        folder / "pairs",
        task="reversal_v1",
        vocabulary=finetune_vocabulary,
        feature_lengths={"inputs": 6, "targets": 7},
        splits={"train": pairs(64), "dev": pairs(16), "test": pairs(16)},
        **common,
    )
    return {"pretrain": str(folder / "windows"), "finetune": str(folder / "pairs")}


def write_gin(path: Path, stores: dict[str, str], name: str = "small") -> Path:
    """The study's gin file; values of its own come first, so that bindings can override them."""
    path.write_text(
        f"""
small_a/decoder_config.layers = 1
small_a/decoder_config.heads = 2
small_a/decoder_config.head_dim = 4
small_a/decoder_config.model_dim = 8
small_a/decoder_config.feed_forward_dim = 16
small_b/decoder_config.layers = 2
small_b/decoder_config.heads = 2
small_b/decoder_config.head_dim = 8
small_b/decoder_config.model_dim = 16
small_b/decoder_config.feed_forward_dim = 32

PretrainSettings.batch_size = 8
PretrainSettings.learning_rate = 0.02
PretrainSettings.eval_interval = 10
PretrainSettings.steps_per_call = 5
FinetuneSettings.batch_size = 4
FinetuneSettings.max_steps = 20
FinetuneSettings.max_epochs = 50
FinetuneSettings.eval_interval = 5
FinetuneSettings.steps_per_call = 5
FinetuneSettings.learning_rate = 0.02
lora.rank = 2
prompt.length = 3

Study.name = '{name}'
Study.pretrain_store = '{stores["pretrain"]}'
Study.finetune_store = '{stores["finetune"]}'
Study.grids = [@Grid()]
Study.learning_rates = @LearningRateSearch()
Study.hold_out = 'finetune_examples == 32'
Grid.models = ['small_a', 'small_b']
Grid.pretrain_tokens = [1280, 2560]
Grid.finetune_examples = [8, 16, 32]
Grid.methods = ['full', 'lora', 'prompt']
LearningRateSearch.model = 'small_a'
LearningRateSearch.pretrain_tokens = 2560
LearningRateSearch.finetune_examples = 16
LearningRateSearch.rates = {{'lora': [0.01, 0.1]}}
""",
        encoding="utf-8",
    )
    return path
