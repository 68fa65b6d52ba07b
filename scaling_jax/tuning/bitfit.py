"""BitFit: only biases are trained (Ben Zaken et al. 2022).

Where a model has none, they are added to the outputs of the target projections and begin at zero,
as T-Few does for T5. Where it has some, what is trained is the difference to them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax

from scaling_jax.errors import InputError
from scaling_jax.models.hooks import tuned_variable
from scaling_jax.tuning.method import register
from scaling_jax.tuning.targeted import Targeted


@register("bitfit")
@dataclasses.dataclass(frozen=True)
class BitFit(Targeted):
    """One bias of the output's width beside every target projection."""

    name: ClassVar[str] = "bitfit"

    def project(
        self, module: nn.Module, inputs: jax.Array, project: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        outputs = project(inputs)
        if not self.adds_to(module):
            return outputs
        bias = tuned_variable(
            module, "bitfit_bias", nn.initializers.zeros, (module.features,), (module.axes[1],)
        )
        return outputs + bias.astype(outputs.dtype)

    def merge_projection(self, added: Any, projection: Any) -> Any:
        if "bias" not in projection:
            raise InputError(
                "bitfit cannot be merged into this model: its projections have no biases to hold what was "
                "trained; keep the tuned checkpoint and its base side by side"
            )
        return {"bias": projection["bias"] + added["bitfit_bias"].astype(projection["bias"].dtype)}
