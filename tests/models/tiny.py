"""The smallest decoder that has every part, and its parameters."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.decoder import Decoder

CONFIG = ModelConfig("tiny", 2, 2, 8, 16, 24, 48)


def initial_parameters(config):
    """What the model itself begins with."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    return nn.unbox(jax.jit(Decoder(config).init)(jax.random.key(0), tokens, tokens)["params"])


def parameters(config=CONFIG, seed=0):
    """Random parameters, with norm scales that differ from one; without compiling anything."""
    generator = np.random.default_rng(seed)

    def drawn(path, leaf):
        if "scale" in str(path[-1]) or "bias" in str(path[-1]):
            return generator.uniform(0.5, 1.5, leaf.shape).astype(np.float32)
        fan_in = leaf.shape[-1] if "table" in str(path[-1]) else leaf.shape[-2]
        return (generator.normal(size=leaf.shape) / fan_in**0.5).astype(np.float32)

    return jax.tree_util.tree_map_with_path(drawn, counts.abstract_parameters(config))


def tokens(rows=3, length=12, vocabulary=48, seed=1):
    """(inputs, targets), int32 [rows, length]."""
    whole = np.random.default_rng(seed).integers(0, vocabulary, (rows, length + 1)).astype(np.int32)
    return whole[:, :-1], whole[:, 1:]


def losses(config, params, batch):
    """[rows, length] from a compiled forward pass."""
    return np.asarray(jax.jit(Decoder(config).apply)({"params": params}, *batch))
