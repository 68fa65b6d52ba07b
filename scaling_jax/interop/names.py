"""How a family of Hugging Face models names and lays out what our tree holds."""

import dataclasses
from collections.abc import Callable, Collection, Mapping
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.interop.tensor_files import StoredTensor
from scaling_jax.models.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our arrays and its name there.

    Attributes:
        ours: path in our tree, joined by "/".
        theirs: name there, with {layer} where ours is stacked.
        axes: their axes in the order of ours (of one layer); (1, 0) for matrices, which they hold as
            [out, in].
        factor: theirs is ours multiplied by it.
    """

    ours: str
    theirs: str
    axes: tuple[int, ...] = (0,)
    factor: float = 1.0

    @property
    def stacked(self) -> bool:
        """Whether our array holds all layers."""
        return "{layer}" in self.theirs


@dataclasses.dataclass(frozen=True)
class Family:
    """What we know of one `model_type`.

    Attributes:
        model_type: as in config.json.
        read_config: (its config.json, its tensors, our name for the model) to our config.
        write_config: our config to its config.json.
        entries: our config to the names of all parameters; biases among them that ours does not have are
            zeros there.
        start_id: its config.json to the id that begins what a decoder reads; None is the pad.
        duplicates: our config to names that may be there too, and the name whose values they repeat.
        ignored: endings of names that hold no parameters.
    """

    model_type: str
    read_config: Callable[[Mapping[str, Any], Mapping[str, StoredTensor], str], ModelConfig]
    write_config: Callable[[ModelConfig], dict[str, Any]]
    entries: Callable[[ModelConfig], list[Entry]]
    start_id: Callable[[Mapping[str, Any]], int | None]
    duplicates: Callable[[ModelConfig], dict[str, str]]
    ignored: tuple[str, ...] = ()


MATRIX = (1, 0)


def cannot_be(config: ModelConfig, family: str, wrong: Mapping[str, str]) -> InputError:
    """That a model is none of a family, by its fields and what the family has instead."""
    values = {field: getattr(config, field) for field in wrong}
    values = {
        field: " and ".join(value) if isinstance(value, tuple) else value for field, value in values.items()
    }
    said = "; ".join(f"{field}: {values[field]} here, {has} there" for field, has in wrong.items())
    return InputError(f"model {config.name!r} cannot be written as a {family} ({said})")


def projections(ours: str, theirs: str, names: Mapping[str, str], biases: Collection[str]) -> list[Entry]:
    """Kernels (and biases) of the projections {our name: their name} under two prefixes."""
    found = []
    for name, other in names.items():
        found.append(Entry(f"{ours}/{name}/kernel", f"{theirs}.{other}.weight", MATRIX))
        if name in biases:
            found.append(Entry(f"{ours}/{name}/bias", f"{theirs}.{other}.bias"))
    return found
