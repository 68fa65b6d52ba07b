"""LoRA, (IA)3 and prompts in the format of Hugging Face's PEFT: a folder with adapter_config.json and
adapter_model.safetensors beside a base model of `hugging_face.py`.

Of a projection PEFT holds lora_A [rank, in] and lora_B [out, rank], or ia3_l [out, 1]; of a prompt one
array prompt_embeddings [length, model_dim].
"""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.interop import hugging_face
from scaling_jax.interop.tensor_files import NewTensor, write_file
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.tuning import selection
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.method import TuningMethod
from scaling_jax.tuning.prompt import Prompt

CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
PROMPT = "prompt_embeddings"
FLOAT32 = np.dtype(np.float32)


def modules(model: ModelConfig) -> dict[selection.Path, str]:
    """Every projection of a model and its module there, with {layer} for the layer's number.

    Raises:
        InputError: a model that no Hugging Face family can express.
    """
    family = hugging_face.family_of(model)
    family.write_config(model)
    return {
        tuple(entry.ours.split("/")[:-1]): entry.theirs.removesuffix(".weight")
        for entry in family.entries(model)
        if entry.ours.endswith("/kernel")
    }


def layer_counts(model: ModelConfig) -> dict[selection.Path, int]:
    """Layers of the stack that each projection is in."""
    abstract = counts.abstract_parameters(model)
    return {path: _part(abstract, path)["kernel"].shape[0] for path in modules(model)}


def write_adapter(path: Path, model: ModelConfig, method: TuningMethod, tuned: Any, base: str) -> None:
    """Writes what a method trained as a PEFT adapter, whole or not at all.

    Args:
        path: folder that does not exist yet, or is empty.
        model: the base's config.
        method: LoRA, (IA)3 or prompt.
        tuned: what it trained.
        base: name of the base model, for adapter_config.json.

    Raises:
        InputError: a method or a base that PEFT cannot express, or a folder that cannot be written.
    """
    if isinstance(method, Prompt):
        settings, tensors = _prompt(model, method, tuned)
    elif isinstance(method, LoRA | IA3):
        settings, tensors = _targeted(model, method, tuned)
    else:
        raise _no_adapter(model, method)
    about = {
        "base_model_name_or_path": base,
        "task_type": "SEQ_2_SEQ_LM" if model.encoder_layers else "CAUSAL_LM",
        "inference_mode": True,
    }
    with files.new_directory(path) as folder:
        write_file(folder / TENSORS, tensors)
        files.write_json(folder / CONFIG, about | settings)


def _no_adapter(model: ModelConfig, method: TuningMethod) -> InputError:
    says = f"{type(method).__name__} has no form among PEFT's adapters (lora, ia3 and prompt have)"
    merged = method.merged_model(model)
    try:
        hugging_face.family_of(merged).write_config(merged)
    except InputError as error:
        return InputError(f"{says}, nor has the merged model one at Hugging Face: {error}")
    return InputError(f"{says}: write the merged model with --to hugging_face")


def _targeted(model: ModelConfig, method: LoRA | IA3, tuned: Any) -> tuple[dict, list[NewTensor]]:
    named = modules(model)
    depth = layer_counts(model)
    tensors: list[NewTensor] = []
    targeted: list[str] = []
    for path, module in named.items():
        if not method.is_target(path):
            continue
        added = _part(tuned, path)
        chosen = selection.chosen_layers(f"{method.name}.layers", method.layers, depth[path])
        for row, layer in enumerate(chosen):
            name = module.format(layer=layer)
            targeted.append(name)
            tensors += _tensors_of(f"{PREFIX}{name}", added, row)
    every = [module.format(layer=layer) for path, module in named.items() for layer in range(depth[path])]
    settings: dict[str, Any] = {"target_modules": _shortest(targeted, every)}
    if isinstance(method, IA3):
        # What ours multiplies is always a projection's output, which PEFT calls no feed-forward module.
        return settings | {"peft_type": "IA3", "feedforward_modules": []}, tensors
    return settings | {
        "peft_type": "LORA",
        "r": method.rank,
        "lora_alpha": method.scale * method.rank,
        "lora_dropout": method.dropout,
        "bias": "none",
    }, tensors


def _tensors_of(name: str, added: Mapping[str, jax.Array], row: int) -> Iterator[NewTensor]:
    theirs = {"lora_a": "lora_A.weight", "lora_b": "lora_B.weight", "ia3_scale": "ia3_l"}
    for ours, leaf in added.items():
        shape = leaf.shape[1:][::-1] if ours != "ia3_scale" else (leaf.shape[1], 1)

        def produce(leaf: jax.Array = leaf, shape: tuple[int, ...] = shape) -> np.ndarray:
            return np.asarray(leaf[row], np.float32).T.reshape(shape)

        yield NewTensor(f"{name}.{theirs[ours]}", FLOAT32, shape, produce)


def _shortest(targeted: list[str], every: list[str]) -> list[str]:
    """Last names where all modules of that name are targets, as people write them; else whole names."""
    chosen = set(targeted)
    last = {name.rsplit(".", 1)[1] for name in targeted}
    whole = {name for name in last if all(other in chosen for other in every if other.endswith(f".{name}"))}
    return sorted(whole) + [name for name in targeted if name.rsplit(".", 1)[1] not in whole]


def _prompt(model: ModelConfig, method: Prompt, tuned: Any) -> tuple[dict, list[NewTensor]]:
    hugging_face.family_of(model).write_config(model)
    place = "encoder" if model.encoder_layers else "embedding"
    if tuned.keys() != {place}:
        raise InputError(
            "a prompt of the decoder has no form in PEFT, which puts one before the encoder alone"
        )
    settings = {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": method.length,
        "token_dim": model.model_dim,
        "num_transformer_submodules": 1,
        "num_attention_heads": model.heads,
        "num_layers": model.encoder_layers or model.layers,
        "prompt_tuning_init": "RANDOM",
    }
    shape = (method.length, model.model_dim)
    leaf = tuned[place]["prompt"]
    return settings, [NewTensor(PROMPT, FLOAT32, shape, lambda: np.asarray(leaf, np.float32))]


def _part(tree: Any, path: selection.Path) -> Any:
    return functools.reduce(lambda part, name: part[name], path, tree)
