"""Prompt tuning: trained vectors before the input embeddings (Lester et al. 2021; Zhang et al. 2024).

Initialised from the embeddings of tokens sampled from the vocabulary, as Zhang et al. do.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.errors import InputError
from scaling_jax.models.hooks import tuned_variable
from scaling_jax.tuning.method import TuningMethod, register


@register("prompt")
@dataclasses.dataclass(frozen=True)
class Prompt(TuningMethod):
    """`length` vectors of the model's width, the same before every example."""

    length: int = 100

    def __post_init__(self):
        if self.length < 1:
            raise InputError(f"prompt.length = {self.length}: at least 1")

    @property
    def tuning_size(self) -> int | None:
        return self.length

    def resized(self, tuning_size: int) -> "Prompt":
        return dataclasses.replace(self, length=tuning_size)

    def embed(self, module: nn.Module, embeddings: jax.Array, table: jax.Array) -> jax.Array:
        def sampled(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return table[jax.random.randint(key, shape[:1], 0, table.shape[0])].astype(jnp.float32)

        shape = (self.length, embeddings.shape[-1])
        prompt = tuned_variable(module, "prompt", sampled, shape, (None, "embed"))
        repeated = jnp.broadcast_to(prompt.astype(embeddings.dtype), (embeddings.shape[0], *shape))
        return jnp.concatenate([repeated, embeddings], axis=1)
