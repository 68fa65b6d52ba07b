"""Learning rates of a whole run, computed on the host: float32 [steps]."""

import dataclasses
import math

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
            peak holds for the warm-up of k steps, then falls as sqrt(k / step). A rate that is written
            b / sqrt(max(step, k)), as by Isik et al. 2024 with k = 10,000, has the peak b / sqrt(k)).
        warmup_steps: steps of linear rise from 0 before the shape begins (none for the inverse square root).
        warmup_fraction: the same as a share of the run's steps, rounded up, instead of `warmup_steps`
            (0.03 in Sun et al. 2023, 0.06 in T-Few).
        final_fraction: rate at the end over the peak, for cosine and linear.
    """

    shape: str = "constant"
    warmup_steps: int = 0
    final_fraction: float = 0.1
    warmup_fraction: float = 0.0

    def __post_init__(self):
        if self.shape not in SHAPES:
            raise InputError(f"Schedule.shape = {self.shape!r}: one of {', '.join(SHAPES)}")
        if self.warmup_steps and self.warmup_fraction:
            raise InputError(
                f"Schedule.warmup_steps = {self.warmup_steps} and Schedule.warmup_fraction = "
                f"{self.warmup_fraction:g}: bind one of them"
            )
        if not 0 <= self.warmup_fraction <= 1:
            raise InputError(f"Schedule.warmup_fraction = {self.warmup_fraction!r}: a share from 0 to 1")

    def warmup(self, steps: int) -> int:
        """Steps of warm-up that are set for a run of that many steps."""
        # Rounded first, so that 0.06 of 1,000 is 60 though the product is a little more.
        return self.warmup_steps or math.ceil(round(self.warmup_fraction * steps, 6))

    def rates(self, peak: float, steps: int) -> np.ndarray:
        """Learning rates float32 [steps] of a run of that many steps."""
        step = np.arange(steps)
        whole_warmup = self.warmup(steps)
        warmup = min(whole_warmup, steps)
        progress = np.clip((step - warmup) / max(steps - warmup, 1), 0, 1)
        rates = peak * SHAPES[self.shape](progress, step, whole_warmup, self.final_fraction)
        if self.shape != "inverse_square_root":
            rates = np.where(step < warmup, peak * (step + 1) / max(warmup, 1), rates)
        return rates.astype(np.float32)
