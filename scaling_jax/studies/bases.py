"""Checkpoints that a study starts from instead of pretraining its own: converted, pretrained or tuned."""

import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.models.config import ModelConfig, from_record
from scaling_jax.training import checkpoints
from scaling_jax.tuning.method import restored_method


@dataclasses.dataclass(frozen=True)
class Base:
    """What a checkpoint says of itself.

    Attributes:
        folder: where it is.
        name: of its model; of a folder where no checkpoint is yet, the folder's own name.
        model: its shape; None where no checkpoint is yet.
        pretrain_tokens: None is not known, as of most converted models.
        hash: of its arrays; "" where no checkpoint is yet.
    """

    folder: str
    name: str
    model: ModelConfig | None
    pretrain_tokens: int | None
    hash: str


def read_base(folder: str | os.PathLike) -> Base:
    """Reads what is known of a base; that it is there at all is checked by `check_bases`.

    Raises:
        InputError: a checkpoint of something else than a model.
    """
    folder = os.path.abspath(folder)
    if not checkpoints.exists(folder):
        return Base(folder, Path(folder).name, None, None, "")
    about = checkpoints.about(folder)
    if about["kind"] not in ("pretrained", "tuned"):
        raise InputError(f"{folder} is no model: a pretrained or tuned checkpoint is needed")
    model, tokens = from_record(about["model"]), about.get("pretrain_tokens")
    if about["kind"] == "tuned":
        model = restored_method(about["method"]).merged_model(model)
        tokens = about["base"]["pretrain_tokens"]
    return Base(folder, model.name, model, tokens, about["hash"])


def missing_bases(folders: Iterable[str]) -> list[str]:
    """A note for each folder where no checkpoint is yet: which model is taken to be there."""
    return [
        f"base {folder}: not there; its model is taken to be {read_base(folder).name!r} of the gin files"
        for folder in folders
        if not read_base(folder).hash
    ]


def check_bases(folders: Iterable[str], known: dict[str, str]) -> dict[str, str]:
    """The hash of every base, by its folder.

    Args:
        folders: of the bases.
        known: what this gave when the study was begun; {} for a new one.

    Raises:
        InputError: a folder holds no checkpoint, or another one than when the study was begun.
    """
    found = {}
    for folder in folders:
        base = read_base(folder)
        if not base.hash:
            raise InputError(
                f"Grid.bases: {folder} holds no checkpoint (no about.json): give a folder that "
                "`scaling-jax convert`, `pretrain` or `finetune` wrote"
            )
        if known.get(folder, base.hash) != base.hash:
            raise InputError(
                f"Grid.bases: {folder} is not the checkpoint that this study was begun with (its hash was "
                f"{known[folder][:12]} and is {base.hash[:12]}): put that one back, or give a new --out"
            )
        found[folder] = base.hash
    return found
