"""What a pretraining objective is: what of a window of text a model reads, and what it must say.

An objective is one file of this folder (or a user's own file) with one frozen dataclass that derives
from `Objective` and is registered under its name. Its settings are gin bindings:

    PretrainSettings.objective = @span_corruption()
    span_corruption.rate = 0.5

An encoder-decoder reads the inputs with its encoder and says the targets. A decoder reads the inputs
and then the targets as one causal sequence. The loss is on the targets in both.
"""

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import gin
import numpy as np

from scaling_jax import configuration
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError, did_you_mean

_OBJECTIVES: dict[str, type["Objective"]] = {}


class Example(NamedTuple):
    """What is made of one window: 1-D int32 token ids each."""

    inputs: np.ndarray
    targets: np.ndarray


class Lengths(NamedTuple):
    """The greatest numbers of tokens in the inputs, in the targets, and in one example's both."""

    inputs: int
    targets: int
    both: int


class Objective:
    """How windows become examples. A pure function: the same window and seed give the same example."""

    def lengths(self, window: int) -> Lengths:
        """The lengths that hold every example of windows of so many tokens."""
        raise NotImplementedError

    def mean_lengths(self, window: int) -> tuple[float, float]:
        """Tokens of an example's inputs and targets on average."""
        greatest = self.lengths(window)
        return float(greatest.inputs), float(greatest.targets)

    def extra_ids(self, window: int) -> int:
        """How many ids that stand for no text (sentinels, modes) the vocabulary must have."""
        return 0

    def draw(self, window: np.ndarray, vocabulary: VocabularyFile, seed: Sequence[int]) -> Example:
        """The example of a window.

        Args:
            window: token ids [window].
            vocabulary: says which ids are sentinels and modes.
            seed: of everything random, for `numpy.random.default_rng`.
        """
        raise NotImplementedError


def register(name: str) -> Callable[[type[Objective]], type[Objective]]:
    """Class decorator: makes an objective known by `name` to gin and to checkpoints."""

    def add(objective: type[Objective]) -> type[Objective]:
        with configuration.registering():
            _OBJECTIVES[name] = gin.configurable(name, module="objectives")(objective)
        return _OBJECTIVES[name]

    return add


def load_all() -> None:
    """Imports every objective of this folder."""
    package = importlib.import_module("scaling_jax.data.objectives")
    for info in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{info.name}")


def registered_name(objective: Objective) -> str:
    """The name under which an objective's class is registered."""
    return next(name for name, known in _OBJECTIVES.items() if isinstance(objective, known))


def recorded(objective: Objective) -> dict[str, Any]:
    """Name and settings, as a record or checkpoint writes them."""
    return {"name": registered_name(objective), **dataclasses.asdict(objective)}


def restored(record: Mapping[str, Any]) -> Objective:
    """The objective that a checkpoint recorded, whatever gin says now.

    Raises:
        InputError: no such objective, or other settings than it has.
    """
    load_all()
    settings = {key: value for key, value in record.items() if key != "name"}
    name = record["name"]
    if name not in _OBJECTIVES:
        raise InputError(f"no pretraining objective {name!r}{did_you_mean(name, _OBJECTIVES)}")
    fields = {field.name for field in dataclasses.fields(_OBJECTIVES[name])}
    if unknown := settings.keys() - fields:
        raise InputError(f"objective {name!r} has settings that are not known: {sorted(unknown)}")
    return _OBJECTIVES[name](**settings)
