"""LoRA: h = W x + (alpha / rank) B A x (Hu et al. 2021; Zhang et al. 2024, section 2).

A is kaiming-uniform with a = sqrt(5), B zero, as in loralib, so that step 0 is the base model.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.errors import InputError
from scaling_jax.models.hooks import tuned_variable
from scaling_jax.tuning.method import register
from scaling_jax.tuning.selection import Path
from scaling_jax.tuning.targeted import Targeted


@register("lora")
@dataclasses.dataclass(frozen=True)
class LoRA(Targeted):
    """A product of two thin matrices beside every target projection.

    Attributes:
        rank: columns of A, rows of B.
        alpha: scale times rank; None means alpha = rank, a scale of 1 (Zhang et al. state none).
        dropout: share of a projection's inputs that a training step hides from A.
    """

    rank: int = 4
    alpha: float | None = None
    dropout: float = 0.0

    name: ClassVar[str] = "lora"
    flops_per_number: ClassVar[int] = 2

    def __post_init__(self):
        super().__post_init__()
        if self.rank < 1:
            raise InputError(f"lora.rank = {self.rank}: at least 1")
        if not 0 <= self.dropout < 1:
            raise InputError(f"lora.dropout = {self.dropout}: a share, at least 0 and below 1")

    @property
    def tuning_size(self) -> int | None:
        return self.rank

    @property
    def draws(self) -> bool:
        return self.dropout > 0

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def resized(self, tuning_size: int) -> "LoRA":
        return dataclasses.replace(self, rank=tuning_size)

    def check_kernel(self, path: Path, shape: tuple[int, int]) -> None:
        if self.rank > min(shape):
            raise InputError(f"lora.rank = {self.rank} is above the smaller side of {path[-1]} {list(shape)}")

    def project(
        self, module: nn.Module, inputs: jax.Array, project: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        if not self.adds_to(module):
            return project(inputs)
        features_in, features_out = inputs.shape[-1], module.features
        axis_in, axis_out = module.axes
        # uniform(-1/sqrt(in), 1/sqrt(in)): kaiming-uniform with a = sqrt(5)
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        down = tuned_variable(module, "lora_a", uniform, (features_in, self.rank), (axis_in, None))
        up = tuned_variable(
            module, "lora_b", nn.initializers.zeros, (self.rank, features_out), (None, axis_out)
        )
        seen = self._seen(module, inputs)
        low_rank = jnp.dot(self.scale * jnp.dot(seen, down.astype(inputs.dtype)), up.astype(inputs.dtype))
        return project(inputs) + low_rank

    def _seen(self, module: nn.Module, inputs: jax.Array) -> jax.Array:
        # Only a training step hands in the stream of random numbers.
        if not self.dropout or not module.has_rng("dropout"):
            return inputs
        kept = jax.random.bernoulli(module.make_rng("dropout"), 1 - self.dropout, inputs.shape)
        return jnp.where(kept, inputs / (1 - self.dropout), 0)

    def merge_projection(self, added: Any, projection: Any) -> Any:
        update = jnp.matmul(added["lora_a"], added["lora_b"], precision=jax.lax.Precision.HIGHEST)
        kernel = projection["kernel"]
        return {"kernel": (kernel + self.scale * update).astype(kernel.dtype)}
