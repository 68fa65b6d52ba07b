"""Adafactor and AdamW without a learning rate: the loop multiplies that in, step by step.

Keeping the rate out of the optimizer makes runs that differ in rate or length one compiled
program. Everything under `layers` is updated layer by layer (vmapped over the stacked axis), so
that Adafactor's clipping and scaling see one layer's matrix, as they would unstacked, and depth
does not change the optimizer.
"""

import dataclasses
from typing import Any, NamedTuple

import gin
import jax
import optax

from scaling_jax.errors import InputError


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class Optimizer:
    """`name` is "adafactor" (Shazeer and Stern 2018) or "adamw" (Loshchilov and Hutter 2019).

    Attributes:
        clip_norm: greatest global norm of the gradient; 0 does not clip.
        weight_decay: decoupled, multiplied by the learning rate.
        beta1, beta2, epsilon: AdamW's.
        decay_rate: Adafactor's exponent of the second moment's decay.
        relative_step: Adafactor multiplies an array's update by its root mean square (at least 1e-3).
        factored_size: Adafactor factors the second moment of matrices whose sides reach this.
    """

    name: str = "adafactor"
    clip_norm: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    decay_rate: float = 0.8
    relative_step: bool = True
    factored_size: int = 128

    def __post_init__(self):
        if self.name not in ("adafactor", "adamw"):
            raise InputError(f"Optimizer.name = {self.name!r}: 'adafactor' or 'adamw'")

    def transformation(self) -> optax.GradientTransformation:
        """Gradients to updates of rate 1 (to be multiplied by the learning rate and subtracted)."""
        clip = [optax.clip_by_global_norm(self.clip_norm)] if self.clip_norm else []
        decay = [optax.add_decayed_weights(self.weight_decay)] if self.weight_decay else []
        if self.name == "adamw":
            core = [optax.scale_by_adam(self.beta1, self.beta2, self.epsilon)]
        else:
            relative = [optax.scale_by_param_block_rms()] if self.relative_step else []
            core = [
                optax.scale_by_factored_rms(
                    decay_rate=self.decay_rate, min_dim_size_to_factor=self.factored_size
                ),
                optax.clip_by_block_rms(1.0),
                *relative,
            ]
        return optax.chain(*clip, per_layer(optax.chain(*core, *decay)))


class PerLayerState(NamedTuple):
    """States of the wrapped transformation: one per layer (leading axis), and one for the rest."""

    stacked: Any
    single: Any


def per_layer(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies `transformation` to each layer of the sub-tree `layers` on its own, and to the rest as is."""

    def init(params: dict) -> PerLayerState:
        stacked, single = _split(params)
        return PerLayerState(
            jax.vmap(transformation.init)(stacked) if stacked else None, transformation.init(single)
        )

    def update(updates: dict, state: PerLayerState, params: dict) -> tuple[dict, PerLayerState]:
        stacked, single = _split(updates)
        stacked_params, single_params = _split(params)
        single, single_state = transformation.update(single, state.single, single_params)
        stacked_state = None
        if stacked:
            stacked, stacked_state = jax.vmap(transformation.update)(stacked, state.stacked, stacked_params)
        return {name: (stacked | single)[name] for name in updates}, PerLayerState(
            stacked_state, single_state
        )

    return optax.GradientTransformation(init, update)


def _split(tree: dict) -> tuple[dict, dict]:
    stacked = {name: part for name, part in tree.items() if name == "layers"}
    return stacked, {name: part for name, part in tree.items() if name != "layers"}
