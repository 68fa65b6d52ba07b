"""LoRA: h = W x + (alpha / rank) B A x (Hu et al. 2021; Zhang et al. 2024, section 2).

A is kaiming-uniform with a = sqrt(5), B zero, as in loralib, so that step 0 is the base model.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.errors import InputError
from scaling_jax.models.hooks import tuned_variable
from scaling_jax.tuning.method import TuningMethod, register

ATTENTION_AND_FEED_FORWARD = ("query", "key", "value", "out", "gate", "up", "down")


@register("lora")
@dataclasses.dataclass(frozen=True)
class LoRA(TuningMethod):
    """A product of two thin matrices beside every target projection.

    `alpha` None means alpha = rank, a scale of 1 (Zhang et al. state none).
    """

    rank: int = 4
    alpha: float | None = None
    targets: tuple[str, ...] = ATTENTION_AND_FEED_FORWARD

    def __post_init__(self):
        if self.rank < 1:
            raise InputError(f"lora.rank = {self.rank}: at least 1")
        if not isinstance(self.targets, str):  # gin gives a list, jit's cache needs what can be hashed
            object.__setattr__(self, "targets", tuple(self.targets))
        unknown = set(self.targets) - set(ATTENTION_AND_FEED_FORWARD)
        if unknown or not self.targets:
            raise InputError(
                f"lora.targets = {self.targets}: {sorted(unknown) or 'nothing'} matches no projection; "
                f"those that exist: {', '.join(ATTENTION_AND_FEED_FORWARD)}"
            )

    @property
    def tuning_size(self) -> int | None:
        return self.rank

    @property
    def scale(self) -> float:
        """alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def resized(self, tuning_size: int) -> "LoRA":
        return dataclasses.replace(self, rank=tuning_size)

    def project(
        self, module: nn.Module, inputs: jax.Array, project: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        if module.name not in self.targets:
            return project(inputs)
        features_in, features_out = inputs.shape[-1], module.features
        if self.rank > min(features_in, features_out):
            raise InputError(
                f"lora.rank = {self.rank} is above the smaller side of "
                f"{module.name} [{features_in}, {features_out}]"
            )
        axis_in, axis_out = module.axes
        # uniform(-1/sqrt(in), 1/sqrt(in)): kaiming-uniform with a = sqrt(5)
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        down = tuned_variable(module, "lora_a", uniform, (features_in, self.rank), (axis_in, None))
        up = tuned_variable(
            module, "lora_b", nn.initializers.zeros, (self.rank, features_out), (None, axis_out)
        )
        low_rank = jnp.dot(jnp.dot(inputs, down.astype(inputs.dtype)), up.astype(inputs.dtype))
        return project(inputs) + self.scale * low_rank

    def merge(self, tuned: Any, base: Any) -> Any:
        def merged(tuned_part: Any, base_part: Any) -> Any:
            if "lora_a" in tuned_part:
                update = jnp.matmul(
                    tuned_part["lora_a"], tuned_part["lora_b"], precision=jax.lax.Precision.HIGHEST
                )
                return base_part | {
                    "kernel": base_part["kernel"] + self.scale * update.astype(base_part["kernel"].dtype)
                }
            return base_part | {name: merged(part, base_part[name]) for name, part in tuned_part.items()}

        return merged(tuned, base)
