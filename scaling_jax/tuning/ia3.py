"""(IA)3: trained vectors, ones at the start, multiply chosen activations (Liu et al. 2022, T-Few).

A vector beside a projection multiplies its output. On `up` of a gated feed-forward that is the
hidden activation itself: act(gate x) * (up x) * l. The default is T-Few's: keys, values, hidden.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax

from scaling_jax.models.hooks import tuned_variable
from scaling_jax.tuning.method import register
from scaling_jax.tuning.targeted import Targeted


@register("ia3")
@dataclasses.dataclass(frozen=True)
class IA3(Targeted):
    """One vector of the output's width beside every target projection."""

    targets: tuple[str, ...] = ("key", "value", "up")

    name: ClassVar[str] = "ia3"
    identity: ClassVar[float] = 1.0

    def project(
        self, module: nn.Module, inputs: jax.Array, project: Callable[[jax.Array], jax.Array]
    ) -> jax.Array:
        outputs = project(inputs)
        if not self.adds_to(module):
            return outputs
        scale = tuned_variable(
            module, "ia3_scale", nn.initializers.ones, (module.features,), (module.axes[1],)
        )
        return outputs * scale.astype(outputs.dtype)

    def merge_projection(self, added: Any, projection: Any) -> Any:
        scale = added["ia3_scale"]
        kernel = projection["kernel"]
        merged = {"kernel": (kernel * scale[..., None, :]).astype(kernel.dtype)}
        if "bias" in projection:
            merged["bias"] = (projection["bias"] * scale).astype(projection["bias"].dtype)
        return merged
