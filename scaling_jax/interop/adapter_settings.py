"""What an adapter_config.json of PEFT asks for: checked against what our methods have.

A setting that changes what an adapter computes is honoured or refused, and so is one that is not known
here: PEFT gets new ones with every version.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.errors import InputError

KINDS = ("LORA", "IA3", "PROMPT_TUNING")
# Settings that we read, that say where an adapter came from, or that a finished one does not depend on.
_READ = (
    "peft_type target_modules exclude_modules layers_to_transform layers_pattern feedforward_modules "
    "r lora_alpha lora_dropout use_rslora num_virtual_tokens num_transformer_submodules"
).split()
_WITHOUT_EFFECT = (
    "task_type auto_mapping peft_version base_model_name_or_path revision inference_mode init_ia3_weights "
    "eva_config ensure_weight_tying fan_in_fan_out megatron_core qalora_group_size runtime_config token_dim "
    "num_attention_heads num_layers prompt_tuning_init prompt_tuning_init_text tokenizer_name_or_path "
    "tokenizer_kwargs"
).split()
# Others may be empty, or this. Initialisations that are not named here change the base's matrices too.
_ALLOWED = {"bias": ("none",), "init_lora_weights": (True, "gaussian", "eva", "orthogonal", "mica")}


def read_settings(file: Path) -> dict[str, Any]:
    """The settings of an adapter that our methods can be.

    Raises:
        InputError: no such file, a kind that is not known, or settings that our methods do not have.
    """
    settings = files.read_json(file)
    if not isinstance(settings, dict):
        raise InputError(f"{file}: no adapter's settings, but a {type(settings).__name__}")
    kind = settings.get("peft_type")
    if kind not in KINDS:
        raise InputError(f"{file}: peft_type {kind!r}; known are {', '.join(KINDS)}")
    unusual = {
        key: value
        for key, value in settings.items()
        if value and key not in (*_READ, *_WITHOUT_EFFECT) and value not in _ALLOWED.get(key, ())
    }
    if unusual:
        raise InputError(
            f"{file} asks for what our methods do not have: {unusual} (what changes nothing of what the "
            "adapter computes may be taken out of the file)"
        )
    return settings


def whole_number(file: Path, settings: Mapping[str, Any], name: str) -> int:
    """
    Raises:
        InputError: it is not there, or no whole number above 0.
    """
    value = settings.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{file}: {name} = {value!r}: a whole number above 0")
    return value


def number(file: Path, settings: Mapping[str, Any], name: str, default: float | None = None) -> float:
    """
    Raises:
        InputError: it is no number, or not there and has no default.
    """
    value = settings.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{file}: {name} = {value!r}: a number")
    return value


def targeted(file: Path, settings: Mapping[str, Any], modules: Iterable[str]) -> set[str] | None:
    """Those of the modules that the settings name, by PEFT's rules; None where they name none.

    Raises:
        InputError: a pattern that is no regular expression.
    """
    wanted = settings.get("target_modules")
    if not wanted:
        return None
    excluded = settings.get("exclude_modules") or ()
    try:
        return {
            module
            for module in modules
            if _is_named(module, wanted) and _is_chosen(module, settings) and not _is_named(module, excluded)
        }
    except re.error as error:
        raise InputError(f"{file}: {error.pattern!r} is no regular expression ({error})") from error


def scales_input(module: str, settings: Mapping[str, Any]) -> bool:
    """Whether (IA)3 multiplies a module's input instead of its output."""
    named = settings.get("feedforward_modules") or ()
    if isinstance(named, str):
        return re.fullmatch(named, module) is not None
    return module.endswith(tuple(named))


def _is_named(module: str, wanted: str | Sequence[str]) -> bool:
    """A text is a pattern of the whole name, a list holds names or their last parts."""
    if isinstance(wanted, str):
        return wanted.lower() == "all-linear" or re.fullmatch(wanted, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted)


def _is_chosen(module: str, settings: Mapping[str, Any]) -> bool:
    """Whether it is in one of the layers that the settings choose: its first number is the layer's, or that
    after one of `layers_pattern`."""
    layers = settings.get("layers_to_transform")
    if layers is None or layers == [] or isinstance(settings["target_modules"], str):
        return True
    patterns = settings.get("layers_pattern") or r"[^.]*"
    patterns = [patterns] if isinstance(patterns, str) else patterns
    found = (re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", module) for pattern in patterns)
    first = next((match for match in found if match), None)
    return first is not None and int(first[1]) in ([layers] if isinstance(layers, int) else layers)
