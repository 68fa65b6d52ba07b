"""Tokens per second of a device, and its model FLOPs utilisation (MFU; Chowdhery et al. 2022, appendix B)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from scaling_jax.training.peaks import peak_flops

FORMULA = (
    "mfu: flops_per_token x tokens per second of a device / its peak of bfloat16 products; tokens without "
    "padding, causal attention counted half, nothing that is computed again; empty for a device whose peak "
    "is not known"
)


@dataclasses.dataclass(frozen=True)
class Work:
    """What one step does.

    Attributes:
        tokens: of a step over all devices, padding left out, on average.
        flops_per_token: by the formula of the record.
        devices: how many.
        peak_flops: of one of them per second; None if not known.
    """

    tokens: float
    flops_per_token: float
    devices: int
    peak_flops: float | None

    def rates(self, steps: int, seconds: float) -> dict[str, float]:
        """{"tokens_per_second_per_device", "mfu"} of so many steps; without what is not known."""
        if not steps or not seconds:
            return {}
        tokens = steps * self.tokens / seconds / self.devices
        found = {"tokens_per_second_per_device": tokens}
        if self.peak_flops:
            found["mfu"] = tokens * self.flops_per_token / self.peak_flops
        return found

    def recorded(self, steps: int, seconds: float) -> dict[str, Any]:
        """Of a whole run, for its record; None where not known."""
        rates = self.rates(steps, seconds)
        return {
            "tokens_per_second_per_device": rates.get("tokens_per_second_per_device"),
            "mfu": rates.get("mfu"),
            "mfu_formula": FORMULA,
            "peak_flops_per_device": self.peak_flops,
        }


def noting_speed(work: Work, then: Callable[[Any], None]) -> Callable[[Any], None]:
    """A callback for every evaluation of a run, that adds to `speeds` of its `Progress` and calls `then`."""

    def note(progress: Any) -> None:
        last = progress.speeds[-1] if progress.speeds else {"step": 0, "train_seconds": 0.0}
        seconds = progress.train_seconds - last["train_seconds"]
        if rates := work.rates(progress.step - int(last["step"]), seconds):
            at = {"step": progress.step, "train_seconds": progress.train_seconds}
            progress.speeds.append(at | rates)
        then(progress)

    return note


def work_here(tokens: float, flops_per_token: float) -> Work:
    """Of a step on the devices at hand."""
    return Work(tokens, flops_per_token, jax.device_count(), peak_flops(jax.devices()[0].device_kind))
