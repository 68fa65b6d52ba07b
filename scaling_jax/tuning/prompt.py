"""Prompt tuning: trained vectors before the input embeddings (Lester et al. 2021; Zhang et al. 2024).

Initialised from the embeddings of tokens sampled from the vocabulary, as Zhang et al. do.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.errors import InputError
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import tuned_variable
from scaling_jax.tuning.method import TuningMethod, register

STACKS = ("encoder", "decoder")


@register("prompt")
@dataclasses.dataclass(frozen=True)
class Prompt(TuningMethod):
    """`length` vectors of the model's width, the same before every example.

    Attributes:
        length: vectors in front of each stack that has some.
        stacks: "encoder", "decoder" or both, of an encoder-decoder; empty is where the input is read:
            the encoder, or the only stack of a decoder.
    """

    length: int = 100
    stacks: tuple[str, ...] = ()

    def __post_init__(self):
        stacks = (self.stacks,) if isinstance(self.stacks, str) else tuple(self.stacks)
        object.__setattr__(self, "stacks", stacks)
        if self.length < 1:
            raise InputError(f"prompt.length = {self.length}: at least 1")
        if set(stacks) - set(STACKS):
            raise InputError(f"prompt.stacks = {stacks}: 'encoder', 'decoder', both, or empty")

    @property
    def tuning_size(self) -> int | None:
        return self.length

    def resized(self, tuning_size: int) -> "Prompt":
        return dataclasses.replace(self, length=tuning_size)

    def check(self, parameters: Any) -> None:
        present = [stack for stack in STACKS if stack in parameters] or ["decoder"]
        missing = set(self.stacks) - set(present)
        if missing:
            raise InputError(
                f"prompt.stacks = {self.stacks}: this model has no {', '.join(sorted(missing))}; "
                f"it has {' and '.join(present)}"
            )

    def prefix(self, model: ModelConfig) -> tuple[int, int]:
        stacks = self.stacks or (("encoder",) if model.encoder_layers else ("decoder",))
        return tuple(self.length if stack in stacks else 0 for stack in STACKS)

    def merge(self, tuned: Any, base: Any) -> Any:
        raise InputError(
            "prompt cannot be merged into the base model's parameters: its vectors stand before every "
            "example; keep the tuned checkpoint and its base side by side"
        )

    def embed(self, module: nn.Module, embeddings: jax.Array, table: jax.Array) -> jax.Array:
        stack = next((name for name in module.path if name in STACKS), None)
        if stack is not None and stack not in (self.stacks or ("encoder",)):
            return embeddings

        def sampled(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
            return table[jax.random.randint(key, shape[:1], 0, table.shape[0])].astype(jnp.float32)

        shape = (self.length, embeddings.shape[-1])
        prompt = tuned_variable(module, "prompt", sampled, shape, (None, "embed"))
        repeated = jnp.broadcast_to(prompt.astype(embeddings.dtype), (embeddings.shape[0], *shape))
        return jnp.concatenate([repeated, embeddings], axis=1)
