"""What a step costs by formula, whatever the machine, and when a run had converged."""

from typing import Any, NamedTuple

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.tuning.method import TuningMethod

FORMULA = (
    "per token of the examples, forward: 2 per matrix parameter (output matrix included), attention's scores "
    "and values, what the method adds, its prefix counted as tokens; backward: twice the forward where the "
    "base is trained, else matrices once (no gradient of a frozen matrix), attention and what the method "
    "adds twice; recomputation left out"
)
# Of the best dev loss, within which a run counts as converged.
CONVERGED = 1.01


class Flops(NamedTuple):
    """FLOPs per token of a training step, and the share that full tuning would have needed in addition."""

    forward: float
    backward: float
    saved: float


def flops_per_token(
    model: ModelConfig, method: TuningMethod, tuned: Any, length: float, target_length: float
) -> Flops:
    """FLOPs of one training step by `FORMULA`.

    A gradient of activations costs as much as the forward product, so does one of a matrix; attention
    multiplies activations only, so both of its gradients are always needed.

    Args:
        model: the base model.
        method: how it is tuned.
        tuned: (abstract) arrays that are trained.
        length: mean tokens of an example, inputs and targets together.
        target_length: how many of them an encoder-decoder's decoder reads.
    """
    before_inputs, before_targets = method.prefix(model)
    full = 3 * counts.forward_flops_per_token(model, length, target_length)
    longer, longer_targets = length + before_inputs + before_targets, target_length + before_targets
    positions = longer / length
    # No logits are computed at a prefix of the decoder.
    unread = 2 * before_targets * model.vocabulary_size * model.model_dim / length
    forward = counts.forward_flops_per_token(model, longer, longer_targets) * positions - unread
    if method.trains_base:
        return Flops(forward, 2 * forward, 1 - 3 * forward / full)
    attention = counts.attention_flops_per_token(model, longer, longer_targets) * positions
    inputs = length - target_length if model.encoder_layers else 0.0
    added = method.added_flops(tuned, inputs, length - inputs) / length
    backward = forward + attention + 2 * added
    return Flops(forward + added, backward, 1 - (forward + added + backward) / full)


def converged_step(history: list[dict[str, float]]) -> int | None:
    """The first evaluated step whose dev loss is within 1% of the best one; None without evaluations."""
    if not history:
        return None
    best = min(row["dev_loss"] for row in history)
    return int(next(row["step"] for row in history if row["dev_loss"] <= CONVERGED * best))
