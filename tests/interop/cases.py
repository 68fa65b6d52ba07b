"""One small model of every family and option, its random weights and a batch; no torch needed."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.model import arguments, model_of
from tests.models import tiny

GOLDEN = Path(__file__).with_name("golden_logits.json")
LLAMA = ModelConfig(
    "llama",
    layers=3,
    heads=4,
    head_dim=8,
    model_dim=24,
    feed_forward_dim=40,
    vocabulary_size=48,
    key_value_heads=4,
    activation="silu",
    norm_epsilon=1e-5,
    embedding_scale="none",
    output="untied",
)
T5 = ModelConfig(
    "t5",
    layers=2,
    encoder_layers=3,
    heads=4,
    head_dim=8,
    model_dim=24,
    feed_forward_dim=40,
    vocabulary_size=48,
    key_value_heads=4,
    positions="relative",
    relative_buckets=8,
    relative_distance=16,
    attention_scale="none",
    embedding_scale="none",
    output="untied",
)
CASES = {
    "llama_multi_head": LLAMA,
    "llama_grouped_query": dataclasses.replace(LLAMA, key_value_heads=2),
    "llama_tied": dataclasses.replace(LLAMA, output="tied", rotary_base=500.0),
    "llama_rotary_scaling": dataclasses.replace(
        LLAMA, key_value_heads=2, rotary_base=5000.0, rotary_factor=8.0, rotary_original_length=16
    ),
    "llama_biases": dataclasses.replace(
        LLAMA, biases=("query", "key", "value", "out", "gate", "up", "down"), norm_epsilon=1e-6
    ),
    "own_decoder": ModelConfig("own", 3, 4, 8, 24, 40, 48),
    "t5_gated": T5,
    "t5_plain": dataclasses.replace(T5, feed_forward="plain", activation="relu", output="tied_scaled"),
    "t5_tied": dataclasses.replace(T5, output="tied", layers=3, encoder_layers=2),
}


def parameters(name):
    """Our tree of random weights, the same on every machine; the golden logits are of these."""
    generator = np.random.default_rng(sorted(CASES).index(name))

    def drawn(path, leaf):
        kind = path[-1].key
        if kind == "scale":
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = leaf.shape[-2] if kind == "kernel" else leaf.shape[-1]
        return (generator.normal(size=leaf.shape) / fan_in**0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(drawn, counts.abstract_parameters(CASES[name]))


def batch(config, seed=5):
    """Rows of unequal length; the weights leave out the padding and, in a decoder, the first tokens."""
    inputs, targets = tiny.tokens(rows=2, length=22, seed=seed)
    weights = np.ones(inputs.shape, np.float32)
    weights[0, :4], weights[1, 17:] = 0, 0
    found = {"inputs": inputs, "targets": targets, "weights": weights}
    if config.encoder_layers:
        mask = np.ones((2, 30), bool)
        mask[1, 19:] = False
        found |= {"encoder_inputs": tiny.tokens(rows=2, length=30, seed=seed + 1)[0], "encoder_mask": mask}
    return found


def logits(config, params, given):
    """Ours: float32 [rows, length, vocabulary]."""
    given = {name: array for name, array in arguments(given).items() if name != "targets"}
    model = model_of(config, Hook())
    found = jax.jit(lambda p, b: model.apply({"params": p}, **b, method="logits"))(params, given)
    return np.asarray(found)


def seen(found):
    """What the golden file keeps of logits: some late positions of both rows."""
    return found[:, [5, 13, 16]]


def golden():
    """Logits that transformers gave for every case: {name: float32 [2, 3, vocabulary]}."""
    recorded = json.loads(GOLDEN.read_text("utf-8"))
    return {name: np.asarray(values, np.float32) for name, values in recorded["logits"].items()}
