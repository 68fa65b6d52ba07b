"""Parameter counts and FLOPs of a decoder, by abstract shapes and stated formulas."""

import functools
import math
from typing import Any

import flax.linen as nn
import jax

from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook
from scaling_jax.models.model import model_of, smallest_batch

NO_HOOK = Hook()


@functools.cache
def abstract_variables(config: ModelConfig, hook: Hook = NO_HOOK) -> Any:
    """Shapes of every variable, with logical axis names, without memory."""
    return jax.eval_shape(model_of(config, hook).init, jax.random.key(0), **smallest_batch(config))


def abstract_parameters(config: ModelConfig) -> Any:
    """Shapes of the base parameters."""
    return nn.unbox(abstract_variables(config)["params"])


def size(tree: Any) -> int:
    """Number of elements in all leaves."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def model_parameters(config: ModelConfig) -> int:
    """Parameters of the base model, embedding included."""
    return size(abstract_variables(config)["params"])


def non_embedding_parameters(config: ModelConfig) -> int:
    """Parameters of the base model without the token embedding and an untied output."""
    tables = 2 if config.output == "untied" else 1
    return model_parameters(config) - tables * config.vocabulary_size * config.model_dim


def forward_flops_per_token(config: ModelConfig, length: float, target_length: float | None = None) -> float:
    """2 FLOPs per multiply-add: every matrix, the output matrix, and attention's scores and values.

    Args:
        config: the model.
        length: tokens of an example, inputs and targets together.
        target_length: how many of them an encoder-decoder's decoder reads; None is half. A decoder
            alone reads all.
    """
    attention = attention_flops_per_token(config, length, target_length)
    if not config.encoder_layers:
        return 2 * (_matrices(config) + config.vocabulary_size * config.model_dim) + attention
    inputs, targets = _read(length, target_length)
    # Keys and values of the memory are computed once per input, not per target.
    of_memory = 2 * config.layers * config.model_dim * config.key_value_heads * config.head_dim
    encoder = _matrices(config, "encoder") + of_memory
    decoder = _matrices(config, "decoder") - of_memory + config.vocabulary_size * config.model_dim
    return 2 * (inputs * encoder + targets * decoder) / length + attention


def attention_flops_per_token(
    config: ModelConfig, length: float, target_length: float | None = None
) -> float:
    """The part of `forward_flops_per_token` that multiplies activations: attention's scores and values.

    A causal position sees (length + 1) / 2 keys on average, one of an encoder all.
    """
    width = config.heads * config.head_dim
    if not config.encoder_layers:
        return 2 * 2 * config.layers * width * (length + 1) / 2
    inputs, targets = _read(length, target_length)
    seen = config.encoder_layers * inputs**2 + config.layers * targets * ((targets + 1) / 2 + inputs)
    return 2 * 2 * width * seen / length


def _read(length: float, target_length: float | None) -> tuple[float, float]:
    """Tokens of an example that the encoder and the decoder read."""
    targets = length / 2 if target_length is None else target_length
    return length - targets, targets


def _matrices(config: ModelConfig, part: str = "") -> int:
    """Elements of all projections' matrices, of one stack alone if it is named."""
    flat = jax.tree_util.tree_leaves_with_path(abstract_parameters(config))
    named = {tuple(str(key.key) for key in path): leaf for path, leaf in flat}
    return size([leaf for path, leaf in named.items() if path[-1] == "kernel" and part in (path[0], "")])
