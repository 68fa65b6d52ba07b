"""Checkpoints: an array tree written by Orbax beside a small JSON that says what it is.

FOLDER/arrays/      Orbax
FOLDER/about.json   model, method, vocabulary, base, step; written last, so that a folder
                    without it is no checkpoint
FOLDER/tokenizer/   the files of the tokenizer that came with a converted model, if any
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from scaling_jax import files
from scaling_jax.errors import InputError

# Bytes of a stack of layers above which it is brought to the host layer by layer.
HASHED_AT_ONCE = 1 << 28


def save(folder: str | os.PathLike, tree: Any, about: dict[str, Any], tokenizer: Sequence[Path] = ()) -> int:
    """Writes a checkpoint, replacing an unfinished or older one; returns the bytes on disk.

    `tokenizer` are files to keep beside it.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder).absolute()
    temporary = folder.with_name(f".{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
            checkpointer.save(temporary / "arrays", tree)
        for file in tokenizer:
            files.write_bytes(temporary / "tokenizer" / file.name, file.read_bytes())
        files.write_json(temporary / "about.json", about)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # A full disk comes from TensorStore as a ValueError.
        if isinstance(error, OSError) or "No space left on device" in str(error):
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())[:300]
            raise InputError(f"cannot write checkpoint {folder}: {reason}") from error
        raise
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def exists(folder: str | os.PathLike) -> bool:
    """Whether a whole checkpoint is there."""
    return (Path(folder) / "about.json").is_file()


def about(folder: str | os.PathLike) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        InputError: there is none.
    """
    if not exists(folder):
        raise InputError(f"{folder} holds no checkpoint (no about.json)")
    return files.read_json(Path(folder) / "about.json")


def restore(folder: str | os.PathLike, like: Any) -> Any:
    """Reads the arrays onto the shapes, dtypes and shardings of `like`.

    Args:
        folder: written by `save`, on any mesh.
        like: a tree of jax.ShapeDtypeStruct with shardings.

    Raises:
        InputError: missing, extra or misshapen arrays, all named; or unreadable files.
    """
    about(folder)
    path = Path(folder).absolute() / "arrays"
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
            _check_same_tree(folder, checkpointer.metadata(path).item_metadata.tree, like)
            arguments = ocp.checkpoint_utils.construct_restore_args(like)
            return checkpointer.restore(path, item=like, restore_args=arguments)
    except InputError:
        raise
    except Exception as error:  # what Orbax raises for damaged files is a bare Exception around the cause
        reason = " ".join(str(error.__cause__ or error).split())[:300]
        raise InputError(f"checkpoint {folder} cannot be read: {reason}") from error


def tree_hash(tree: Any) -> str:
    """SHA-256 over the paths, dtypes, shapes and bytes of all leaves.

    On the host is one leaf at a time, of a large stack of layers one layer.
    """
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        digest.update(f"{jax.tree_util.keystr(path)}{np.dtype(leaf.dtype)}{tuple(leaf.shape)}".encode())
        by_layer = leaf.nbytes > HASHED_AT_ONCE and leaf.ndim > 2
        for part in (leaf[layer] for layer in range(len(leaf))) if by_layer else (leaf,):
            digest.update(np.ascontiguousarray(part).reshape(-1).view(np.uint8).data)  # no copy
    return digest.hexdigest()


def like(tree: Any, shardings: Any) -> Any:
    """Abstract arrays to restore onto."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        tree,
        shardings,
    )


def _check_same_tree(folder: str | os.PathLike, found: Any, wanted: Any) -> None:
    def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
        flat = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: hasattr(node, "shape"))[0]
        return {"/".join(_name(key) for key in path): tuple(leaf.shape) for path, leaf in flat}

    have, need = shapes(found), shapes(wanted)
    missing = sorted(need.keys() - have.keys())
    extra = sorted(have.keys() - need.keys())
    misshapen = sorted(
        f"{name} {have[name]} for {need[name]}"
        for name in have.keys() & need.keys()
        if have[name] != need[name]
    )
    if missing or extra or misshapen:
        parts = [("missing", missing), ("extra", extra), ("misshapen", misshapen)]
        raise InputError(
            f"checkpoint {folder} is of another model: "
            + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in parts if names)
        )


def _name(key: Any) -> str:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)
