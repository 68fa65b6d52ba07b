"""Parameter counts and FLOPs of a decoder, by abstract shapes and stated formulas."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models.config import DecoderConfig
from scaling_jax.models.decoder import Decoder
from scaling_jax.models.hooks import Hook

NO_HOOK = Hook()


@functools.cache
def abstract_variables(config: DecoderConfig, hook: Hook = NO_HOOK) -> Any:
    """Shapes of every variable, with logical axis names, without memory."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    return jax.eval_shape(Decoder(config, hook).init, jax.random.key(0), tokens, tokens)


def abstract_parameters(config: DecoderConfig) -> Any:
    """Shapes of the base parameters."""
    return nn.unbox(abstract_variables(config)["params"])


def size(tree: Any) -> int:
    """Number of elements in all leaves."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def model_parameters(config: DecoderConfig) -> int:
    """Parameters of the base model, embedding included."""
    return size(abstract_variables(config)["params"])


def non_embedding_parameters(config: DecoderConfig) -> int:
    """Parameters of the base model without the tied embedding."""
    return model_parameters(config) - config.vocabulary_size * config.model_dim


def forward_flops_per_token(config: DecoderConfig, length: int) -> float:
    """2 FLOPs per multiply-add: every matrix, the output embedding, and causal attention.

    Attention counts the (length + 1) / 2 keys that a position sees on average, for scores and
    for values.
    """
    matrices = non_embedding_parameters(config) - (2 * config.layers + 1) * config.model_dim
    attention = 2 * 2 * config.layers * config.heads * config.head_dim * (length + 1) / 2
    return 2 * matrices + 2 * config.vocabulary_size * config.model_dim + attention
