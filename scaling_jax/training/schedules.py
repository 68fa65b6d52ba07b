"""Learning rates of a whole run, computed on the host: float32 [steps]."""

import dataclasses

import gin
import numpy as np

from scaling_jax.errors import InputError


def _constant(progress: np.ndarray, step: np.ndarray, warmup: int, final: float) -> np.ndarray:
    return np.ones_like(progress)


def _cosine(progress: np.ndarray, step: np.ndarray, warmup: int, final: float) -> np.ndarray:
    return final + (1 - final) * (1 + np.cos(np.pi * progress)) / 2


def _linear(progress: np.ndarray, step: np.ndarray, warmup: int, final: float) -> np.ndarray:
    return 1 - (1 - final) * progress


def _inverse_square_root(progress: np.ndarray, step: np.ndarray, warmup: int, final: float) -> np.ndarray:
    return np.sqrt(max(warmup, 1) / np.maximum(step + 1, max(warmup, 1)))


SHAPES = {
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
    "inverse_square_root": _inverse_square_root,
}


@gin.configurable(module="training")
@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the learning rate moves.

    Attributes:
        shape: "constant", "cosine", "linear" or "inverse_square_root" (Raffel et al. 2020: the
            peak holds for `warmup_steps`, then falls as 1 / sqrt(step)).
        warmup_steps: steps of linear rise from 0 before the shape begins (none for the inverse square root).
        final_fraction: rate at the end over the peak, for cosine and linear.
    """

    shape: str = "constant"
    warmup_steps: int = 0
    final_fraction: float = 0.1

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise InputError(f"Schedule.shape = {self.shape!r}: one of {', '.join(SHAPES)}")

    def rates(self, peak: float, steps: int) -> np.ndarray:
        """Learning rates float32 [steps] of a run of that many steps."""
        step = np.arange(steps)
        warmup = min(self.warmup_steps, steps)
        progress = np.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
        rates = peak * SHAPES[self.shape](progress, step, self.warmup_steps, self.final_fraction)
        if self.shape != "inverse_square_root":
            rates = np.where(step < warmup, peak * (step + 1) / max(warmup, 1), rates)
        return rates.astype(np.float32)
