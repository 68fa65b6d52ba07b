"""The module of a config, and the batches that it takes."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models.config import ModelConfig
from scaling_jax.models.decoder import Decoder
from scaling_jax.models.encoder_decoder import EncoderDecoder
from scaling_jax.models.hooks import Hook


def model_of(config: ModelConfig, hook: Hook) -> nn.Module:
    """The decoder or encoder-decoder with a tuning method's hook in it.

    Its call takes what a batch holds beside `weights`, by name, and returns nats [batch, length].
    """
    return EncoderDecoder(config, hook) if config.encoder_layers else Decoder(config, hook)


def smallest_batch(config: ModelConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """Abstract arguments of one token, to initialise a model with."""
    tokens = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    batch = {"inputs": tokens, "targets": tokens}
    if config.encoder_layers:
        batch |= {"encoder_inputs": tokens, "encoder_mask": jax.ShapeDtypeStruct((1, 1), jnp.bool_)}
    return batch


def arguments(batch: Mapping[str, Any]) -> dict[str, Any]:
    """What of a batch the model's call takes."""
    return {name: array for name, array in batch.items() if name != "weights"}
