"""Hugging Face folders: opened and checked (`reading.py` reads them), and written from our tree."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.interop import llama, t5
from scaling_jax.interop.names import Entry, Family
from scaling_jax.interop.reading import DTYPES, Source, by_path, check, their_shape
from scaling_jax.interop.settings import of_file, one_of
from scaling_jax.interop.tensor_files import NewTensor, open_folder, write_folder
from scaling_jax.models.config import ModelConfig

FAMILIES: dict[str, Family] = {family.model_type: family for family in (llama.FAMILY, t5.FAMILY)}
BYTES_PER_FILE = 5_000_000_000
# What a family says of them is of its usual tokens; what came with a model goes before.
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")


def open_model(path: Path, name: str | None = None) -> Source:
    """Opens and checks a folder with config.json and safetensors files; reads no tensor.

    Args:
        path: the folder.
        name: of the model in our records; None is the folder's.

    Raises:
        InputError: no or a damaged config.json, a `model_type` that is not known, options that our
            models do not have, truncated files; missing, extra or misshapen tensors, all named.
    """
    if not (path / "config.json").is_file():
        raise InputError(f"{path} is no Hugging Face model (no config.json)")
    settings = files.read_json(path / "config.json")
    if not isinstance(settings, dict):
        raise InputError(f"{path}/config.json: no settings of a model, but a {type(settings).__name__}")
    with of_file(path / "config.json"):
        family = FAMILIES[one_of(settings, "model_type", FAMILIES)]
    if settings.get("quantization_config"):
        raise InputError(
            f"{path}/config.json: the tensors are quantised (quantization_config): "
            "take the model as it was before"
        )
    tensors = open_folder(path)
    with of_file(path / "config.json"):
        model = family.read_config(settings, tensors, name or path.resolve().name)
        _check_start_id(family.start_id(settings), model)
    return check(
        Source(
            path,
            model,
            family.entries(model),
            tensors,
            family.start_id(settings),
            family.duplicates(model),
            family.ignored,
            settings,
        )
    )


def _check_start_id(start_id: Any, model: ModelConfig) -> None:
    if start_id is None or (type(start_id) is int and 0 <= start_id < model.vocabulary_size):
        return
    raise InputError(f"the first token is {start_id!r}, an id below {model.vocabulary_size} is needed")


def family_of(model: ModelConfig) -> Family:
    """The family that a model of ours is written as."""
    return FAMILIES["t5" if model.encoder_layers else "llama"]


def write_model(
    path: Path,
    model: ModelConfig,
    parameters: Any,
    dtype: str = "float32",
    settings: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
    bytes_per_file: int = BYTES_PER_FILE,
) -> None:
    """Writes a plain model (nothing tuned beside it) as a Hugging Face folder, whole or not at all.

    Args:
        path: folder that does not exist yet, or is empty.
        model: its config; our own decoder becomes a LLaMA that computes the same.
        parameters: our tree.
        dtype: of the tensors in the file.
        settings: entries of config.json that ours does not hold (token ids, lengths), such as those of the
            folder that the model came from.
        tokenizer: folder with tokenizer files to lay beside it.
        bytes_per_file: from which size on files are split.

    Raises:
        InputError: a model that neither family can express, or a folder that cannot be written.
    """
    family = family_of(model)
    kept = {key: value for key, value in (settings or {}).items() if key not in ("rope_parameters", "dtype")}
    own = family.write_config(model)
    own = {key: value for key, value in own.items() if key not in TOKEN_IDS or key not in kept}
    with files.new_directory(path) as folder:
        write_folder(folder, _new_tensors(family, model, parameters, DTYPES[dtype]), bytes_per_file)
        for file in sorted(tokenizer.iterdir()) if tokenizer else ():
            files.write_bytes(folder / file.name, file.read_bytes())
        files.write_json(folder / "config.json", kept | own | {"torch_dtype": dtype})


def _new_tensors(family: Family, model: ModelConfig, parameters: Any, dtype: np.dtype) -> Iterator[NewTensor]:
    arrays = by_path(parameters)
    for entry in family.entries(model):
        if entry.ours.endswith("/bias") and entry.ours not in arrays:
            kernel = arrays[entry.ours.removesuffix("bias") + "kernel"].shape
            arrays[entry.ours] = np.zeros((*kernel[:-2], kernel[-1]), np.float32)

    def produced(entry: Entry, layer: int | None) -> np.ndarray:
        array = arrays[entry.ours] if layer is None else arrays[entry.ours][layer]
        values = np.asarray(array).transpose(np.argsort(entry.axes))
        if entry.factor != 1.0:
            values = values.astype(np.float32) * np.float32(entry.factor)
        return values.astype(dtype)

    for entry in family.entries(model):
        ours = arrays[entry.ours].shape
        for layer in range(ours[0]) if entry.stacked else (None,):
            shape = their_shape(entry, ours)
            produce = functools.partial(produced, entry, layer)
            yield NewTensor(entry.theirs.format(layer=layer), dtype, shape, produce)
