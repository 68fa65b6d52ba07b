"""What the user can pay, which methods fit into it, and the least change that would admit one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling_jax.decisions.costs import Cost
from scaling_jax.errors import InputError

# Attribute of `Limits` and `Cost` -> flag and unit.
_NAMES = {"memory_gib": "GiB of memory", "hours": "hours", "checkpoint_mib": "MiB stored"}


@dataclass(frozen=True)
class Limits:
    """The most that a run may need; None for no limit.

    Attributes:
        memory_gib: of one device.
        hours: of training.
        checkpoint_mib: of what is stored of one tuned model.
    """

    memory_gib: float | None = None
    hours: float | None = None
    checkpoint_mib: float | None = None

    def __post_init__(self):
        """Refuses limits that nothing can keep."""
        for name, limit in self.given.items():
            if not 0 < limit < float("inf"):
                raise InputError(f"--{name} {limit:g}: a limit is a finite number above zero")

    @property
    def given(self) -> dict[str, float]:
        """Name -> limit, of those that are set."""
        return {name: getattr(self, name) for name in _NAMES if getattr(self, name) is not None}

    def exceeded(self, cost: Cost) -> dict[str, float]:
        """Name -> what is needed, of the limits not kept; what was not measured counts as kept."""
        found = {}
        for name, limit in self.given.items():
            needed = getattr(cost, name)
            if needed is not None and needed.value > limit:
                found[name] = needed.value
        return found

    def unknown(self, cost: Cost) -> list[str]:
        """Names of the limits about which the costs say nothing."""
        return [name for name in self.given if getattr(cost, name) is None]

    def excluded_by(self, cost: Cost) -> list[str]:
        """Each exceeded limit in words."""
        return [
            f"needs {needed:.3g} {_NAMES[name]}, the limit is {self.given[name]:.3g}"
            for name, needed in self.exceeded(cost).items()
        ]


def least_change(limits: Limits, costs: Mapping[str, Cost]) -> str:
    """The limits to raise so that one method fits: that of the smallest factor on its worst limit.

    Args:
        limits: which no method keeps.
        costs: method -> cost.
    """
    factors = {
        method: max(needed / limits.given[name] for name, needed in limits.exceeded(cost).items())
        for method, cost in costs.items()
    }
    method = min(factors, key=factors.get)
    needed = limits.exceeded(costs[method])
    raised = " ".join(f"--{name} {_rounded_up(value):g}" for name, value in needed.items())
    return f"{raised} would admit {method}"


def unknown_text(names: Sequence[str]) -> str:
    """Limits that could not be checked, in words."""
    return "; ".join(f"whether it keeps --{name} is not known (not measured)" for name in names)


def _rounded_up(value: float) -> float:
    """Three digits, never below the value."""
    rounded = float(f"{value:.3g}")
    return rounded if rounded >= value else float(f"{value * 1.005:.3g}")
