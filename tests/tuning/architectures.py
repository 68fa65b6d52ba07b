"""The smallest model of every architecture, in one place: tests of tuning methods run over all of them."""

import dataclasses

import numpy as np

from scaling_jax.models.config import ModelConfig
from tests.models import tiny

# Two query heads share one key-value head, waves are stretched, the output is a matrix of its own,
# and some projections have biases.
LLAMA = ModelConfig(
    "tiny_llama",
    layers=2,
    heads=4,
    head_dim=4,
    model_dim=16,
    feed_forward_dim=24,
    vocabulary_size=48,
    key_value_heads=2,
    activation="silu",
    rotary_factor=8.0,
    embedding_scale="none",
    output="untied",
    biases=("query", "key", "up"),
)
T5 = ModelConfig(
    "tiny_t5",
    layers=2,
    heads=2,
    head_dim=8,
    model_dim=16,
    feed_forward_dim=24,
    vocabulary_size=48,
    key_value_heads=2,
    encoder_layers=2,
    positions="relative",
    relative_buckets=4,
    relative_distance=8,
    attention_scale="none",
    embedding_scale="none",
    output="untied",
)
ARCHITECTURES = {"decoder": tiny.CONFIG, "llama": LLAMA, "t5": T5}


def unrolled(config):
    """The same model without a scan over its layers."""
    return dataclasses.replace(config, unroll=config.layers)


def batches(config, steps, rows, length, seed=0):
    """What training takes, [steps, rows, length]; a third of the positions carry no loss."""
    generator = np.random.default_rng(seed)
    whole = generator.integers(0, config.vocabulary_size, (steps, rows, length + 1)).astype(np.int32)
    weights = (np.arange(steps * rows * length) % 3 > 0).astype(np.float32).reshape(steps, rows, length)
    made = {"inputs": whole[..., :-1], "targets": whole[..., 1:], "weights": weights}
    if config.encoder_layers:
        read = generator.integers(0, config.vocabulary_size, (steps, rows, length + 2)).astype(np.int32)
        made |= {"encoder_inputs": read, "encoder_mask": np.arange(length + 2) < length + (read[..., :1] % 3)}
    return made
