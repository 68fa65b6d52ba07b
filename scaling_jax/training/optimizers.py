"""Adafactor and AdamW without a learning rate: the loop multiplies that in, step by step.

Keeping the rate out of the optimizer makes runs that differ in rate or length one compiled
program. Everything under a name `layers` is updated layer by layer (vmapped over the stacked axis), so
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
    """States of the wrapped transformation: of every stack, by its path, one per layer (leading axis);
    and one for the rest."""

    stacked: dict[str, Any]
    single: Any


def per_layer(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """Applies `transformation` to each layer of every sub-tree `layers` on its own, and to the rest as is."""

    def init(params: dict) -> PerLayerState:
        stacks, single = _split(params)
        stacked = {path: jax.vmap(transformation.init)(stack) for path, stack in stacks.items()}
        return PerLayerState(stacked, transformation.init(single))

    def update(updates: dict, state: PerLayerState, params: dict) -> tuple[dict, PerLayerState]:
        stacks, single = _split(updates)
        stacks_params, single_params = _split(params)
        single, single_state = transformation.update(single, state.single, single_params)
        stacked_state = {}
        for path, stack in stacks.items():
            stack, stacked_state[path] = jax.vmap(transformation.update)(
                stack, state.stacked[path], stacks_params[path]
            )
            single = _merged(single, stack)
        return _like(updates, single), PerLayerState(stacked_state, single_state)

    return optax.GradientTransformation(init, update)


def _split(tree: dict, path: tuple[str, ...] = ()) -> tuple[dict[str, dict], dict]:
    """(stacks by path, each as a tree of its own with all names above it; the tree without them)."""
    stacks: dict[str, dict] = {}
    single = {}
    for name, part in tree.items():
        if name == "layers":
            stack = {name: part}
            for above in reversed(path):
                stack = {above: stack}
            stacks["/".join((*path, name))] = stack
        elif isinstance(part, dict):
            below, single[name] = _split(part, (*path, name))
            stacks |= below
        else:
            single[name] = part
    return stacks, single


def _merged(tree: dict, other: dict) -> dict:
    both = {name: _merged(tree[name], other[name]) for name in tree.keys() & other.keys()}
    return tree | other | both


def _like(tree: Any, found: Any) -> Any:
    """`found` with its names in the order of `tree`."""
    return (
        {name: _like(part, found[name]) for name, part in tree.items()} if isinstance(tree, dict) else found
    )
