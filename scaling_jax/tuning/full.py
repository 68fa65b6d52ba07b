"""Full-model tuning (FMT): every parameter is trained, nothing is added."""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

from scaling_jax.tuning.method import TuningMethod, register


@register("full")
@dataclasses.dataclass(frozen=True)
class Full(TuningMethod):
    """Trains the whole model; `base` is empty."""

    trains_base: ClassVar[bool] = True

    def variables(self, tuned: Any, base: Any) -> dict[str, Any]:
        return {"params": tuned}

    def start(self, base: Any, create: Callable[[Any], Any]) -> tuple[Any, Any]:
        return base, {}

    def merge(self, tuned: Any, base: Any) -> Any:
        return tuned
