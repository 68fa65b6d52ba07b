"""BitFit: only biases are trained (Ben Zaken et al. 2022).

Where a model has none, they are added to the outputs of the target projections and begin at zero,
as T-Few does for T5. Where it has some, what is trained is the difference to them. Merged into a
model without biases it gives one with biases (`ModelConfig.biases`), the same function.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import tuned_variable
from scaling_jax.tuning.method import register
from scaling_jax.tuning.selection import PROJECTIONS, projections
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
        return {"bias": projection["bias"] + added["bitfit_bias"].astype(projection["bias"].dtype)}

    def merge(self, tuned: Any, base: Any) -> Any:
        return super().merge(tuned, _with_biases(base, self._names(base)))

    def merged_model(self, model: ModelConfig) -> ModelConfig:
        names = self._names(counts.abstract_parameters(model)) | set(model.biases)
        return dataclasses.replace(model, biases=tuple(name for name in PROJECTIONS if name in names))

    def _names(self, parameters: Any) -> set[str]:
        """Names of the projections that have a target among them: a model has biases by name."""
        return {path[-1] for path in projections(parameters) if self.is_target(path)}


def _with_biases(tree: Any, names: set[str], path: tuple[str, ...] = ()) -> Any:
    """Zeros where a projection of these names has no bias."""
    if not isinstance(tree, dict):
        return tree
    if path and path[-1] in names and "kernel" in tree:
        kernel = tree["kernel"]
        return {"bias": jnp.zeros((*kernel.shape[:-2], kernel.shape[-1]), kernel.dtype)} | tree
    return {name: _with_biases(part, names, (*path, name)) for name, part in tree.items()}
