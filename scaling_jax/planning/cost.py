"""What a plan costs: FLOPs by formula, time at a stated efficiency, chip-hours."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax

from scaling_jax.models import counts
from scaling_jax.planning.topologies import Hardware
from scaling_jax.planning.workload import Workload
from scaling_jax.training import costs

# Share of the chips' peak that training is taken to reach where nothing is said.
EFFICIENCY = 0.4
FORMULA = (
    "time = FLOPs of the examples' tokens (recomputation and padding left out) / (devices x peak x "
    "efficiency); compiling, evaluations on dev, checkpoints and waiting are not in it"
)


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a workload's training costs.

    Attributes:
        flops_per_step: by `training.costs`.
        tokens_per_step: of the examples, padding left out.
        step_seconds: None where the device's peak is not known.
        steps: of all runs.
        hours: of all runs one after another on their devices.
        chip_hours: the same times the devices.
    """

    flops_per_step: float
    tokens_per_step: float
    step_seconds: float | None
    steps: int
    hours: float | None
    chip_hours: float | None


def cost(workload: Workload, hardware: Hardware, efficiency: float, peak: float | None) -> Cost:
    """What training costs on so many devices of this peak (FLOP/s)."""
    per_step, tokens, steps = flops_per_step(workload), tokens_per_step(workload), sum(workload.steps)
    if not peak:
        return Cost(per_step, tokens, None, steps, None, None)
    seconds = per_step / (hardware.count * peak * efficiency)
    hours = seconds * steps / 3600
    return Cost(per_step, tokens, seconds, steps, hours, hours * hardware.count)


def tokens_per_step(workload: Workload) -> float:
    """Tokens of the examples in a step."""
    return workload.rows * sum(workload.mean_lengths)


def flops_per_step(workload: Workload) -> float:
    """FLOPs of a training step by `training.costs.FORMULA`."""
    inputs, targets = workload.mean_lengths
    tuned = abstract_trained(workload)
    per_token = costs.flops_per_token(workload.model, workload.method, tuned, inputs + targets, targets)
    return (per_token.forward + per_token.backward) * tokens_per_step(workload)


def abstract_trained(workload: Workload) -> Any:
    """Shapes of what is trained."""
    method = workload.method
    variables = nn.unbox(counts.abstract_variables(workload.model, method))
    kept = jax.eval_shape(method.kept, variables["tuned"]) if "tuned" in variables else {}
    return method.start(variables["params"], lambda _: kept)[0]
