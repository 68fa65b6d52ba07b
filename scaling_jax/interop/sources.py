"""A model of others, opened by what is there: a Hugging Face folder or a T5X checkpoint; and where it is
neither, what it is instead.
"""

import re
from typing import Any

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.interop import hugging_face, t5x_checkpoints
from scaling_jax.interop.reading import Source
from scaling_jax.interop.t5x_arrays import is_checkpoint, short

STEP = re.compile(r"checkpoint_(\d+)")


def open_source(path: Any, name: str | None = None) -> Source:
    """Opens and checks a model; reads no tensor.

    Args:
        path: folder with config.json and safetensors files, of this machine; or T5X's `checkpoint_STEP`, of
            this machine or of a bucket.
        name: of the model in our records; None is the folder's.

    Raises:
        InputError: see `hugging_face.open_model` and `t5x_checkpoints.open_checkpoint`; or neither is there.
    """
    try:
        if is_checkpoint(path):
            return t5x_checkpoints.open_checkpoint(path, name)
        if files.is_remote(path) or not (path / "config.json").is_file():
            _explain(path)
    except InputError:
        raise
    except Exception as error:  # each kind of bucket has its own, of what is not installed too
        if not files.is_remote(path):
            raise
        raise InputError(f"{path} cannot be read: {short(error)}") from error
    return hugging_face.open_model(path, name)


def inside(folder: Any) -> list[Any]:
    """The T5X checkpoints in a folder, oldest first."""
    found = [one for one in folder.iterdir() if STEP.fullmatch(one.name) and is_checkpoint(one)]
    return sorted(found, key=lambda one: int(STEP.fullmatch(one.name)[1]))


def _explain(path: Any) -> None:
    """
    Raises:
        InputError: what is there instead of a model, and what to do. It returns where that is not known.
    """
    if not path.exists():
        raise InputError(f"{path}: no such folder{_download(path)}")
    if not path.is_dir():
        raise InputError(f"{path} is a file: name a Hugging Face folder or T5X's checkpoint_STEP")
    if steps := inside(path):
        raise InputError(
            f"{path} is a folder of T5X checkpoints ({', '.join(step.name for step in steps)}): "
            f"name one of them, the newest is {steps[-1]}"
        )
    if files.is_remote(path):
        if (path / "config.json").exists():
            raise InputError(
                f"{path}: a Hugging Face model is read from this machine, copy it here first: "
                f"gcloud storage cp --recursive {path} downloads/"
            )
        raise InputError(f"{path} is no T5X checkpoint (no file checkpoint, and no state/manifest.ocdbt)")


def _download(path: Any) -> str:
    """How to get what is perhaps the name of a model of the Hugging Face hub."""
    written = str(path)
    if files.is_remote(path) or not re.fullmatch(r"[\w-][\w.-]*(/[\w-][\w.-]*)?", written):
        return ""
    folder = f"downloads/{written.rpartition('/')[2]}"
    return (
        ". Nothing is downloaded here: if it is a model's name, "
        f"`hf download {written} --local-dir {folder}` (or huggingface-cli), then name {folder}"
    )
