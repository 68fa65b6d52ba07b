"""PEFT adapters of LoRA, (IA)3 and prompts as our methods and what they trained."""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.interop.adapter_settings import read_settings, scales_input, targeted
from scaling_jax.interop.adapters import CONFIG, PREFIX, PROMPT, TENSORS, layer_counts, modules
from scaling_jax.interop.reading import check_values
from scaling_jax.interop.settings import number, of_file, text, truth, whole_number
from scaling_jax.interop.tensor_files import StoredTensor, open_file
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.tuning import selection
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.method import TuningMethod
from scaling_jax.tuning.prompt import Prompt

# Our arrays beside one projection, by (path, layer).
Found = dict[tuple[selection.Path, int], dict[str, np.ndarray]]


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A method with the settings of an adapter, its name, and what was trained.

    Attributes:
        base: what the adapter calls the model that it was trained on; None where it does not say.
    """

    name: str
    method: TuningMethod
    tuned: Any
    base: str | None = None


def read_adapter(path: Path, model: ModelConfig) -> Adapter:
    """Reads an adapter for a base model.

    Raises:
        InputError: no adapter there, a kind or an option of it that our methods do not have, a truncated
            file, values that are not finite, or one that was trained on another base (all that does not
            fit is named).
    """
    settings = read_settings(path / CONFIG)
    kind = settings["peft_type"]
    with of_file(path / CONFIG):
        base = text(settings, "base_model_name_or_path")
    if not (path / TENSORS).is_file() and (path / "adapter_model.bin").is_file():
        raise InputError(
            f"{path}/adapter_model.bin is a pickle, which is never loaded: save it as safetensors"
        )
    stored = open_file(path / TENSORS)
    if kind == "PROMPT_TUNING":
        return dataclasses.replace(_prompt(path, settings, stored, model), base=base)
    read = {"LORA": _lora_arrays, "IA3": _ia3_arrays}[kind]
    found = read(path, settings, stored, model)
    targets, layers = _selected(path, found, layer_counts(model))
    tuned = _stacked(found)
    if kind == "IA3":
        return Adapter("ia3", IA3(targets=targets, layers=layers), tuned, base)
    with of_file(path / CONFIG):
        rank, alpha = settings["r"], number(settings, "lora_alpha")
        scale = alpha / (rank**0.5 if truth(settings, "use_rslora", False) else rank)
        dropout = number(settings, "lora_dropout", 0.0)
        method = LoRA(rank=rank, alpha=scale * rank, dropout=dropout, targets=targets, layers=layers)
    return Adapter("lora", method, tuned, base)


def _places(model: ModelConfig) -> dict[str, tuple[selection.Path, int]]:
    depth = layer_counts(model)
    return {
        module.format(layer=layer): (path, layer)
        for path, module in modules(model).items()
        for layer in range(depth[path])
    }


def _lora_arrays(
    path: Path, settings: Mapping[str, Any], stored: Mapping[str, StoredTensor], model: ModelConfig
) -> Found:
    with of_file(path / CONFIG):
        rank = whole_number(settings, "r")
    suffixes = {"lora_a": ".lora_A.weight", "lora_b": ".lora_B.weight"}
    shapes = _kernel_shapes(model)
    wanted: dict[str, tuple[selection.Path, int, str, tuple[int, ...]]] = {}
    present = {
        name.removeprefix(PREFIX).removesuffix(suffix)
        for name in stored
        for suffix in suffixes.values()
        if name.endswith(suffix)
    }
    places = _places(model)
    targets = targeted(settings, places)
    for module, (place, layer) in places.items():
        if module in (present if targets is None else targets):
            features_in, features_out = shapes[place]
            sides = {"lora_a": (rank, features_in), "lora_b": (features_out, rank)}
            for ours, suffix in suffixes.items():
                wanted[PREFIX + module + suffix] = (place, layer, ours, sides[ours])
    _check(path, stored, {name: shape for name, (*_, shape) in wanted.items()})
    found: Found = {}
    for name, (place, layer, ours, _) in wanted.items():
        found.setdefault((place, layer), {})[ours] = _read(path, stored[name]).T
    return found


def _ia3_arrays(
    path: Path, settings: Mapping[str, Any], stored: Mapping[str, StoredTensor], model: ModelConfig
) -> Found:
    """A vector on the output of a projection is ours; one on the input of the last projection of a gated
    feed-forward is ours on the output of `up`."""
    shapes, wanted = _kernel_shapes(model), {}
    places = _places(model)
    targets = targeted(settings, places)
    for module, (place, layer) in places.items():
        name = f"{PREFIX}{module}.ia3_l"
        if not (name in stored if targets is None else module in targets):
            continue
        if not scales_input(module, settings):
            wanted[name] = (place, layer, (shapes[place][1], 1))
        elif place[-1] == "down" and model.feed_forward == "gated":
            wanted[name] = ((*place[:-1], "up"), layer, (1, shapes[place][0]))
        else:
            raise InputError(
                f"{path}: {module} has its input multiplied, which ours is only before the last projection "
                "of a gated feed-forward"
            )
    _check(path, stored, {name: shape for name, (*_, shape) in wanted.items()})
    found: Found = {}
    for name, (place, layer, _) in wanted.items():
        if (place, layer) in found:
            raise InputError(f"{path}: {name} and another vector multiply the same activations")
        found[place, layer] = {"ia3_scale": _read(path, stored[name]).reshape(-1)}
    return found


def _prompt(
    path: Path, settings: Mapping[str, Any], stored: Mapping[str, StoredTensor], model: ModelConfig
) -> Adapter:
    # With two parts, as is peft's default for an encoder-decoder, it holds a second prompt that it never
    # puts before the decoder.
    with of_file(path / CONFIG):
        length = whole_number(settings, "num_virtual_tokens")
        parts = whole_number(settings, "num_transformer_submodules", 1)
    _check(path, stored, {PROMPT: (length * parts, model.model_dim)})
    place = "encoder" if model.encoder_layers else "embedding"
    return Adapter("prompt", Prompt(length), {place: {"prompt": _read(path, stored[PROMPT])[:length]}})


def _selected(
    path: Path, found: Found, depth: Mapping[selection.Path, int]
) -> tuple[tuple[str, ...], str | tuple[int, ...]]:
    """The targets and layers of our methods that choose just these projections.

    Raises:
        InputError: projections of different layers, which one setting cannot choose.
    """
    by_path: dict[selection.Path, list[int]] = {}
    for place, layer in sorted(found):
        by_path.setdefault(place, []).append(layer)
    targets = tuple("/".join(_pattern(place)) for place in by_path)
    if all(layers == list(range(depth[place])) for place, layers in by_path.items()):
        return targets, "all"
    first = next(iter(by_path.values()))
    if any(layers != first for layers in by_path.values()):
        raise InputError(f"{path} is in other layers at some projections than at others: {by_path}")
    return targets, tuple(first)


def _pattern(place: selection.Path) -> tuple[str, ...]:
    names = [name for name in place if name not in (selection.STACK, "layer")]
    return tuple("self_attention" if name == "attention" else name for name in names)


def _stacked(found: Found) -> Any:
    tree: dict[str, Any] = {}
    for place in sorted({place for place, _ in found}):
        rows = [found[key] for key in sorted(found) if key[0] == place]
        arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        *above, last = place
        functools.reduce(lambda part, key: part.setdefault(key, {}), above, tree)[last] = arrays
    return tree


def _kernel_shapes(model: ModelConfig) -> dict[selection.Path, tuple[int, int]]:
    abstract = counts.abstract_parameters(model)
    return {
        path: functools.reduce(lambda part, name: part[name], path, abstract)["kernel"].shape[1:]
        for path in modules(model)
    }


def _check(path: Path, stored: Mapping[str, StoredTensor], need: Mapping[str, tuple[int, ...]]) -> None:
    wrong = {
        "missing": sorted(need.keys() - stored.keys()),
        "extra": sorted(stored.keys() - need.keys()),
        "misshapen": [
            f"{name} {list(stored[name].shape)} for {list(need[name])}"
            for name in sorted(need.keys() & stored.keys())
            if stored[name].shape != need[name]
        ],
    }
    if any(wrong.values()):
        named = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in wrong.items() if names)
        raise InputError(f"{path} is no adapter for this base: {named}")
    if not need:
        raise InputError(f"{path} holds no adapter for this base: none of its tensors is known")


def _read(path: Path, tensor: StoredTensor) -> np.ndarray:
    values = tensor.read()
    check_values(path, tensor.name, values)
    return values.astype(np.float32)
