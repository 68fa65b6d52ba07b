"""Rough memory of a job, what is kept between steps exactly, what lives in a step by a stated formula;
and the size of its checkpoint."""

from typing import Any

import flax.linen as nn
import jax

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.planning.memory import activation_bytes
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.method import TuningMethod

FORMULA = (
    "memory: parameters, gradients and optimizer state over all devices together, exact; with it "
    "activations of one microbatch, roughly: one width per token and layer where layers are recomputed "
    "(remat 'full'), else the output of every matrix, and float32 logits of at most one chunk"
)
_BYTES = {"float32": 4, "bfloat16": 2}


def checkpoint_bytes(model: ModelConfig, method: TuningMethod) -> int:
    """Bytes of a checkpoint: what the method trains, in float32."""
    variables = nn.unbox(counts.abstract_variables(model, method))
    return _bytes(_trained(method, variables))


def job_bytes(
    model: ModelConfig,
    method: TuningMethod,
    optimizer: Optimizer,
    batch_tokens: float,
    base_dtype: str = "float32",
) -> float:
    """Bytes of a training job, by `FORMULA`.

    Args:
        model: the base model.
        method: what is trained of it.
        optimizer: whose state is kept.
        batch_tokens: tokens of a microbatch.
        base_dtype: of a frozen base's matrices.
    """
    variables = nn.unbox(counts.abstract_variables(model, method))
    base, tuned = variables["params"], _trained(method, variables)
    state = jax.eval_shape(optimizer.transformation().init, tuned)
    frozen = 0 if method.trains_base else counts.size(base) * _BYTES[base_dtype]
    return frozen + 2 * _bytes(tuned) + _bytes(state) + activation_bytes(model, batch_tokens)


def pretraining_bytes(model: ModelConfig, optimizer: Optimizer, batch_tokens: float) -> float:
    """Bytes of a pretraining job: all parameters are trained."""
    return job_bytes(model, Full(), optimizer, batch_tokens)


def _trained(method: TuningMethod, variables: Any) -> Any:
    return variables["params"] if method.trains_base else jax.eval_shape(method.kept, variables["tuned"])


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
