"""What LoRA, (IA)3 and BitFit share: arrays beside chosen projections of chosen layers."""

import dataclasses
from typing import Any, ClassVar

import flax.linen as nn
import jax

from scaling_jax.errors import InputError
from scaling_jax.tuning import selection
from scaling_jax.tuning.method import TuningMethod


@dataclasses.dataclass(frozen=True)
class Targeted(TuningMethod):
    """Adds something at every projection that `targets` names, in the layers that `layers` names.

    The trained tree and its checkpoint hold the chosen layers only; in the others the method's
    identity stands, so that scanned and unrolled layers stay one program.

    Attributes:
        targets: patterns (see `selection.matches`): "query", "attention", "decoder/cross_attention/key".
        layers: "all", "first N", "last N", "random N seed S" or a list of indices from 0, of every
            stack of the model that has a target.
    """

    targets: tuple[str, ...] = selection.PROJECTIONS
    layers: str | tuple[int, ...] = "all"

    name: ClassVar[str] = ""
    identity: ClassVar[float] = 0.0
    # Of one token and one trained number: a multiplication or an addition.
    flops_per_number: ClassVar[int] = 1

    def __post_init__(self):
        # gin gives lists, jit's cache needs what can be hashed
        targets = (self.targets,) if isinstance(self.targets, str) else tuple(self.targets)
        object.__setattr__(self, "targets", targets)
        if not isinstance(self.layers, str):
            object.__setattr__(self, "layers", tuple(self.layers))

    def adds_to(self, module: nn.Module) -> bool:
        """Whether this projection is a target."""
        return self.is_target(module.path)

    def is_target(self, path: selection.Path) -> bool:
        """Whether the projection at this place of the model is a target."""
        return any(selection.matches(pattern, path) for pattern in self.targets)

    def check(self, parameters: Any) -> None:
        selection.check_targets(f"{self.name}.targets", self.targets, parameters)
        for path, kernel in selection.projections(parameters).items():
            if self.is_target(path):
                selection.chosen_layers(f"{self.name}.layers", self.layers, kernel.shape[0])
                self.check_kernel(path, kernel.shape[1:])

    def check_kernel(self, path: selection.Path, shape: tuple[int, int]) -> None:
        """Compares the settings with the matrix [in, out] of one target.

        Raises:
            InputError: they do not fit.
        """

    def kept(self, added: Any) -> Any:
        return selection.kept_rows(f"{self.name}.layers", self.layers, added)

    def variables(self, tuned: Any, base: Any) -> dict[str, Any]:
        whole = selection.whole_stack(f"{self.name}.layers", self.layers, tuned, base, self.identity)
        return {"params": base, "tuned": whole}

    def added_flops(self, tuned: Any, inputs: float, targets: float) -> float:
        """`flops_per_number` of every trained number and token that passes it: those of the memory's keys
        and values, and of an encoder, are the inputs."""
        total = 0.0
        for path, leaf in jax.tree_util.tree_leaves_with_path(tuned):
            names = {key.key for key in path}
            of_inputs = "encoder" in names or ("cross_attention" in names and names & {"key", "value"})
            total += self.flops_per_number * leaf.size * (inputs if of_inputs else targets)
        return total

    def merge_projection(self, added: Any, projection: Any) -> Any:
        """Changed parameters {kernel [layers, in, out], ...} of one projection that hold what was added.

        Raises:
            InputError: the method does not say how, so that it cannot be merged.
        """
        raise InputError(f"{type(self).__name__} cannot be merged into the base model's parameters")

    def merge(self, tuned: Any, base: Any) -> Any:
        def merged(added: Any, parameters: Any) -> Any:
            if not any(isinstance(part, dict) for part in added.values()):
                return parameters | self.merge_projection(added, parameters)
            return parameters | {name: merged(part, parameters[name]) for name, part in added.items()}

        return merged(self.variables(tuned, base)["tuned"], base)
