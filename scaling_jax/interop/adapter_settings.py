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
from scaling_jax.interop.settings import check_pattern, indices, of_file, one_of, text_or_texts

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
        InputError: no such file, a kind that is not known, settings that our methods do not have, or
            modules or layers that are not named as PEFT does.
    """
    settings = files.read_json(file)
    if not isinstance(settings, dict):
        raise InputError(f"{file}: no adapter's settings, but a {type(settings).__name__}")
    with of_file(file):
        one_of(settings, "peft_type", KINDS)
        unusual = {
            key: value
            for key, value in settings.items()
            if value and key not in (*_READ, *_WITHOUT_EFFECT) and value not in _ALLOWED.get(key, ())
        }
        if unusual:
            raise InputError(
                f"asks for what our methods do not have: {unusual} (what changes nothing of what the "
                "adapter computes may be taken out of the file)"
            )
        _check_modules(settings)
    return settings


def _check_modules(settings: Mapping[str, Any]) -> None:
    """Once, before they are asked for every module of a model."""
    for name in ("target_modules", "exclude_modules", "feedforward_modules"):
        if isinstance(wanted := text_or_texts(settings, name), str):
            check_pattern(name, wanted)
    for pattern in _layers_patterns(settings):
        check_pattern("layers_pattern", pattern)
    indices(settings, "layers_to_transform")


def targeted(settings: Mapping[str, Any], modules: Iterable[str]) -> set[str] | None:
    """Those of the modules that the settings name, by PEFT's rules; None where they name none."""
    wanted = settings.get("target_modules")
    if not wanted:
        return None
    excluded = settings.get("exclude_modules") or ()
    return {
        module
        for module in modules
        if _is_named(module, wanted) and _is_chosen(module, settings) and not _is_named(module, excluded)
    }


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
    layers = indices(settings, "layers_to_transform")
    if not layers or isinstance(settings["target_modules"], str):
        return True
    patterns = (rf"(?:^|.*?\.)(?:{pattern})\.(\d+)\." for pattern in _layers_patterns(settings))
    found = (re.match(pattern, module) for pattern in patterns)
    first = next((match for match in found if match), None)
    return first is not None and int(first[first.re.groups]) in layers


def _layers_patterns(settings: Mapping[str, Any]) -> list[str]:
    patterns = text_or_texts(settings, "layers_pattern") or r"[^.]*"
    return [patterns] if isinstance(patterns, str) else patterns
