"""What a tuning method is: a hook into the model, what it trains, and how its result is used.

A method is one file of this folder (or a user's own file) with one frozen dataclass that derives
from `TuningMethod` and is registered under its name. Its settings are gin bindings.

What is trained is one tree, `tuned`; the rest is `base`, frozen. The gradient is taken of `tuned`
alone and a tuning checkpoint is that tree.

A variant is a method with other settings under a name of its own, made by gin alone: the bindings
`lora/lora_last_half/lora.layers = 'last 2'` make `lora_last_half` a method, which takes everything
else from what is bound for `lora`; so do settings of its training alone, as in
`full/full_slow/FinetuneSettings.learning_rate = 5e-7`. Its name begins with that of its method.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gin

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.hooks import Hook

# The configurable that says how a method is trained (`training.finetune`), by its name in gin.
TRAINING_SETTINGS = "FinetuneSettings"
_METHODS: dict[str, type["TuningMethod"]] = {}


@dataclasses.dataclass(frozen=True)
class TuningMethod(Hook):
    """Adds arrays to the model's `tuned` collection and trains those; the base stays as it is."""

    trains_base: ClassVar[bool] = False

    @property
    def tuning_size(self) -> int | None:
        """Prompt length or rank; None for a method that has no size."""
        return None

    def resized(self, tuning_size: int) -> "TuningMethod":
        """This method at another prompt length or rank.

        Raises:
            InputError: the method has no size.
        """
        raise InputError(f"{type(self).__name__} has no tuning size, {tuning_size} was asked for")

    def added_flops(self, tuned: Any, inputs: float, targets: float) -> float:
        """FLOPs that the method's own arrays add to the forward pass of one example.

        Args:
            tuned: (abstract) arrays of the method.
            inputs: tokens that an encoder reads; 0 for a decoder.
            targets: tokens that the decoder reads.
        """
        return 0.0

    def prefix(self, model: ModelConfig) -> tuple[int, int]:
        """Positions that the method puts before what the encoder and what the decoder reads."""
        return 0, 0

    @property
    def draws(self) -> bool:
        """Whether a training step draws random numbers (dropout)."""
        return False

    def check(self, parameters: Any) -> None:
        """Compares the settings with a model's (abstract) base parameters, before anything is made.

        Raises:
            InputError: a setting that does not fit this model, with what would.
        """

    def kept(self, added: Any) -> Any:
        """The part of a newly made `tuned` collection that is trained; `variables` fills up the rest."""
        return added

    def variables(self, tuned: Any, base: Any) -> dict[str, Any]:
        """Collections to apply the model with, from what is trained and the frozen base."""
        return {"params": base, "tuned": tuned}

    def start(self, base: Any, create: Callable[[Any], Any]) -> tuple[Any, Any]:
        """(tuned, base) at step 0 from pretrained parameters.

        `create(params)` runs the model once and returns what is `kept` of the collection that it made.
        """
        return create(base), base

    def merge(self, tuned: Any, base: Any) -> Any:
        """Parameters of a plain model, `merged_model`, that computes the same.

        Raises:
            InputError: the method cannot be merged.
        """
        raise InputError(f"{type(self).__name__} cannot be merged into the base model's parameters")

    def merged_model(self, model: ModelConfig) -> ModelConfig:
        """The config of what `merge` gives for this model."""
        return model


def register(name: str) -> Callable[[type[TuningMethod]], type[TuningMethod]]:
    """Class decorator: makes a method known by `name` to gin, studies and reports."""

    def add(method: type[TuningMethod]) -> type[TuningMethod]:
        _METHODS[name] = gin.configurable(name, module="tuning")(method)
        return method

    return add


def method_names() -> tuple[str, ...]:
    """Names of all registered methods and of their variants in the gin configuration."""
    _find_own()
    return tuple(sorted({*_METHODS, *_variants()}))


def registered_name(name: str) -> str:
    """The registered method that `name` is, or is a variant of."""
    return _variants().get(name, name)


def method_scope(name: str) -> str:
    """The gin scope of the method's own settings; a variant's lies inside that of its method."""
    own = registered_name(name)
    return name if own == name else f"{own}/{name}"


def named_method(name: str, tuning_size: int | None = None) -> TuningMethod:
    """The method `name` with its gin settings, at another tuning size if one is given.

    Raises:
        InputError: no such method, or a size for one that has none.
    """
    known = method_names()
    if name not in known:
        raise InputError(f"no tuning method {name!r}{did_you_mean(name, known)}")
    own = registered_name(name)
    # A registered method's settings are bound without a scope, a variant's in its scope.
    with gin.config_scope([own, name] if own != name else gin.current_scope()):
        method = _METHODS[own]()
    return method if tuning_size is None else method.resized(tuning_size)


def restored_method(recorded: Mapping[str, Any]) -> TuningMethod:
    """The method of a checkpoint from its recorded name and settings, whatever gin says now.

    Raises:
        InputError: no such method.
    """
    settings = {key: tuple(value) if isinstance(value, list) else value for key, value in recorded.items()}
    name = settings.pop("name")
    _find_own()
    if name not in _METHODS:
        raise InputError(f"no tuning method {name!r}{did_you_mean(name, sorted(_METHODS))}")
    return _METHODS[name](**settings)


def _variants() -> dict[str, str]:
    """Variant to registered method: every scope such as lora/lora_last_half with settings of lora or of
    its training."""
    scopes = [(scope.split("/"), selector.split(".")[-1]) for scope, selector in gin.config._CONFIG]
    return {
        parts[1]: parts[0]
        for parts, selector in scopes
        if len(parts) == 2
        and parts[0] in _METHODS
        and selector in (parts[0], TRAINING_SETTINGS)
        and parts[1].startswith(f"{parts[0]}_")
    }


def _find_own() -> None:
    package = importlib.import_module("scaling_jax.tuning")
    for info in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{info.name}")
