"""What a run starts from: a pretrained checkpoint, or a tuned one merged into its own base.

So tuning goes on from a tuned model, as Sun et al. 2023 do (full, then LoRA): the merged model is
the new base, and the new checkpoint says which one that was.
"""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import jax

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig, from_record
from scaling_jax.training import checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.precision import stored_as
from scaling_jax.training.program import Program
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.method import restored_method


class Tuned(NamedTuple):
    """A tuned checkpoint read: `program` runs it, `tuned` is what was trained, `base` is frozen."""

    program: Program
    tuned: Any
    base: Any
    about: dict[str, Any]


def load_base(
    checkpoint: Path, layout: Layout, dtype: str = "float32", base: Path | None = None
) -> tuple[ModelConfig, Any, dict[str, Any]]:
    """(model, parameters, what the checkpoint says of itself) of a pretrained or tuned model.

    A tuned one is merged; of it, `about` says model, hash, pretrain_tokens and vocabulary_sha256 as a
    pretrained one does, and the method and base that it came from.

    Args:
        checkpoint: folder written by `pretrain` or `finetune`.
        layout: where arrays go.
        dtype: of matrices; vectors stay float32.
        base: where the base of a tuned one is, if not where it was.

    Raises:
        InputError: no checkpoint there, one of something else, or a method that cannot be merged.
    """
    about = checkpoints.about(checkpoint)
    kind = about.get("kind", "resume")
    if kind == "tuned":
        found = load_tuned(checkpoint, layout, base, dtype="float32")
        config = found.program.method.merged_model(found.program.model)
        try:
            params = _merged(found, config)
        except InputError as error:
            raise InputError(f"{checkpoint} cannot be a base: {error}") from error
        about = about | {
            "hash": tuned_hash(found.tuned, about),
            "pretrain_tokens": about["base"]["pretrain_tokens"],
            "model": dataclasses.asdict(config),
        }
        return config, stored_as(params, dtype), about
    if kind != "pretrained":
        raise InputError(f"{checkpoint} is a {kind} checkpoint, a pretrained or tuned one is needed")
    config = from_record(about["model"])
    program = Program(config, Full(), Optimizer(), layout)
    abstract = stored_as(counts.abstract_parameters(config), dtype)
    return (
        config,
        checkpoints.restore(checkpoint, checkpoints.like(abstract, program.shardings["params"])),
        about,
    )


def config_json(about: dict[str, Any]) -> dict[str, Any]:
    """The config.json of the converted model that a checkpoint goes back to; empty where there is none.

    Args:
        about: what a pretrained or tuned checkpoint says of itself.
    """
    while about.get("kind") == "tuned" and checkpoints.exists(about["base"]["path"]):
        about = checkpoints.about(about["base"]["path"])
    return about.get("hugging_face") or {}


def base_model(checkpoint: Path, layout: Layout) -> tuple[ModelConfig, dict[str, Any]]:
    """(model, what it says of itself) as `load_base` has them, of a pretrained one without reading arrays.

    Raises:
        InputError: see `load_base`.
    """
    about = checkpoints.about(checkpoint)
    if about.get("kind") == "pretrained":
        return from_record(about["model"]), about
    config, _, about = load_base(checkpoint, layout)
    return config, about


def _merged(found: Tuned, config: ModelConfig) -> Any:
    """Parameters of the plain model, laid out as those of a pretrained one, in the memory of the base."""
    program, method = found.program, found.program.method
    if method.trains_base:
        return found.tuned
    plain = Program(config, Full(), Optimizer(), program.layout)
    merge = jax.jit(method.merge, donate_argnums=1, out_shardings=plain.shardings["params"])
    return merge(found.tuned, found.base)


def load_tuned(checkpoint: Path, layout: Layout, base: Path | None = None, dtype: str | None = None) -> Tuned:
    """A tuned checkpoint and the base that it was tuned from.

    Args:
        checkpoint: folder written by `finetune`.
        layout: where arrays go.
        base: where the base is, if not where it was. A checkpoint of full tuning needs none.
        dtype: of the base's matrices; None is as it was trained.

    Raises:
        InputError: it is no tuned checkpoint, the base is not there, or its arrays have another hash.
    """
    about = checkpoints.about(checkpoint)
    if about.get("kind") != "tuned":
        raise InputError(f"{checkpoint} is a {about.get('kind', 'resume')} checkpoint, a tuned one is needed")
    method = restored_method(about["method"])
    if method.trains_base and base is None:
        config, frozen = from_record(about["model"]), {}
    else:
        folder = base or files.at(about["base"]["path"])
        config, params, base_about = load_base(folder, layout, dtype or about["base"].get("dtype", "float32"))
        if base_about["hash"] != about["base"]["hash"]:
            raise InputError(
                f"{folder} is not the base that {checkpoint} was tuned from (its arrays have another hash)"
            )
        frozen = {} if method.trains_base else params
    program = Program(config, method, Optimizer(), layout)
    tuned = checkpoints.restore(checkpoint, program.abstract_tuned())
    return Tuned(program, tuned, frozen, about)


def load_checkpoint(checkpoint: Path, layout: Layout, base: Path | None = None) -> Tuned:
    """A pretrained or tuned checkpoint, ready to run; all of a pretrained one is `tuned`.

    Args:
        checkpoint: folder written by `pretrain`, `finetune` or `convert`.
        layout: where arrays go.
        base: where a tuned checkpoint's base is, if not where it was.

    Raises:
        InputError: no checkpoint there, or a base with another hash than was tuned.
    """
    if checkpoints.about(checkpoint).get("kind") == "tuned":
        return load_tuned(checkpoint, layout, base)
    config, params, about = load_base(checkpoint, layout)
    return Tuned(Program(config, Full(), Optimizer(), layout), params, {}, about)


def tuned_hash(tuned: Any, about: dict[str, Any]) -> str:
    """SHA-256 of what a tuned checkpoint computes: what was trained, the method, the base's hash."""
    if restored_method(about["method"]).trains_base:
        return checkpoints.tree_hash(tuned)
    # As they come back from a file, where tuples are lists.
    settings = [
        (key, list(value) if isinstance(value, tuple) else value) for key, value in about["method"].items()
    ]
    settings = sorted((key, str(value)) for key, value in settings)
    whole = f"{about['base']['hash']} {settings} {checkpoints.tree_hash(tuned)}"
    return hashlib.sha256(whole.encode()).hexdigest()
