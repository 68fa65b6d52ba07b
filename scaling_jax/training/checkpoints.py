"""Checkpoints: an array tree written by Orbax beside a small JSON that says what it is.

FOLDER/arrays/      Orbax, written by all processes
FOLDER/about.json   model, method, vocabulary, base, step; written last, so that a folder
                    without it is no checkpoint
FOLDER/tokenizer/   the files of the tokenizer that came with a converted model, if any

The folder is one that all processes see, or a bucket (gs://...). Every function is called by all of them.
"""

import hashlib
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.training import processes

# Bytes of a stack of layers above which it is brought to the host layer by layer.
HASHED_AT_ONCE = 1 << 28


def save(folder: str | os.PathLike, tree: Any, about: dict[str, Any], tokenizer: Sequence[Path] = ()) -> int:
    """Writes a checkpoint, replacing an unfinished or older one; returns the bytes on disk.

    `tokenizer` are files to keep beside it.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = files.absolute(folder)
    # In a bucket nothing can be renamed: what says that the checkpoint is whole goes first, and comes last.
    temporary = folder if files.is_remote(folder) else folder.with_name(f".{folder.name}.writing")
    try:
        processes.on_first(lambda: _emptied(temporary))
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
            checkpointer.save(temporary / "arrays", tree)
        return processes.on_first(lambda: _completed(temporary, folder, about, tokenizer))
    except BaseException as error:
        if processes.count() == 1 and temporary != folder:
            shutil.rmtree(temporary, ignore_errors=True)
        if reason := _unwritable(error):
            raise InputError(f"cannot write checkpoint {folder}: {reason}") from error
        raise


def _emptied(folder: Any) -> None:
    try:
        if folder.exists():
            (folder / "about.json").unlink(missing_ok=True)
            files.remove_folder(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"cannot write checkpoint {folder}: {_unwritable(error)}") from error


def _completed(temporary: Any, folder: Any, about: dict[str, Any], tokenizer: Sequence[Path]) -> int:
    for file in tokenizer:
        files.write_bytes(temporary / "tokenizer" / file.name, file.read_bytes())
    files.write_json(temporary / "about.json", about)
    if temporary != folder:
        files.remove_folder(folder)
        os.replace(temporary, folder)
    return files.folder_bytes(folder)


def _unwritable(error: BaseException) -> str:
    """Why nothing can be written, if that is what an error says. A full disk comes from TensorStore as a
    ValueError, with the reason inside."""
    if isinstance(error, InputError):
        return ""
    text = f"{error} {error.__cause__ or ''}"
    told = ("No space left on device", "Permission denied", "Read-only file system", "Disk quota exceeded")
    if isinstance(error, OSError):
        return " ".join(str(error.strerror or error).split())[:300]
    return next((reason for reason in told if reason in text), "")


class Kept:
    """States to go on from, FOLDER/STEP/ each, of which the last whole one is kept.

    They are written while training goes on: `save` returns once the arrays are copied off the devices. An
    older one is removed when the next is whole, so that a kill at any time leaves one.
    """

    def __init__(self, folder: str | os.PathLike):
        self._folder = files.absolute(folder)
        self._writer: ocp.AsyncCheckpointer | None = None
        self._finishing: threading.Thread | None = None
        self._error: BaseException | None = None

    def latest(self) -> Any:
        """Folder of the last whole one on every process, None where there is none."""
        found = processes.on_first(lambda: max(self._steps(), default=None))
        return None if found is None else self._folder / str(found)

    def save(self, step: int, tree: Any, about: dict[str, Any]) -> None:
        """Begins to write one, behind the one that is being written.

        Raises:
            InputError: the folder cannot be written; also where that shows for the one before.
        """
        self.wait()
        if self._writer is None:
            self._writer = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True))
        folder = self._folder / str(step)
        processes.on_first(lambda: _emptied(folder))
        try:
            self._writer.save(folder / "arrays", tree)
        except Exception as error:
            raise self._refused(error) from error
        self._finishing = threading.Thread(target=self._finish, args=(step, about), daemon=True)
        self._finishing.start()

    def wait(self) -> None:
        """Waits until what was begun is whole.

        Raises:
            InputError: it cannot be written.
        """
        if self._finishing is None:
            return
        self._finishing.join()
        self._finishing = None
        if self._error is not None:
            raise self._refused(self._error) from self._error
        processes.meet()  # process 0 has said that it is whole

    def close(self) -> None:
        """Waits, and ends the writer's threads."""
        self.wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _finish(self, step: int, about: dict[str, Any]) -> None:
        """In a thread: all arrays there, then what says so, then the older ones go."""
        try:
            self._writer.wait_until_finished()  # until the arrays of all processes are there
            if processes.is_first():
                files.write_json(self._folder / str(step) / "about.json", about)
                for older in self._folder.iterdir():
                    if older.name != str(step):
                        files.remove_folder(older)
        except BaseException as error:
            self._error = error
            if processes.count() > 1:  # the others wait for the arrays of this one
                error = self._refused(error)
                processes.end(str(error), 2 if isinstance(error, InputError) else 1)

    def _steps(self) -> list[int]:
        if not self._folder.exists():
            return []
        return [int(one.name) for one in self._folder.iterdir() if one.name.isdigit() and exists(one)]

    def _refused(self, error: BaseException) -> BaseException:
        reason = _unwritable(error)
        return InputError(f"cannot write checkpoint {self._folder}: {reason}") if reason else error


def exists(folder: str | os.PathLike) -> bool:
    """Whether a whole checkpoint is there."""
    return (files.absolute(folder) / "about.json").exists()


# What others read of a checkpoint by its kind.
_NEEDED = {"pretrained": ("model", "hash"), "tuned": ("model", "hash", "method", "base")}


def about(folder: str | os.PathLike) -> dict[str, Any]:
    """What a checkpoint says of itself.

    Raises:
        InputError: there is none, or it is damaged.
    """
    if not exists(folder):
        raise InputError(f"{folder} holds no checkpoint (no about.json)")
    found = files.read_json(files.absolute(folder) / "about.json")
    if not isinstance(found, dict):
        raise InputError(f"{folder}/about.json says nothing of a checkpoint: it is a {type(found).__name__}")
    if missing := [name for name in _NEEDED.get(found.get("kind"), ()) if name not in found]:
        raise InputError(f"{folder}/about.json lacks {', '.join(missing)}")
    return found


def restore(folder: str | os.PathLike, like: Any) -> Any:
    """Reads the arrays onto the shapes, dtypes and shardings of `like`.

    Args:
        folder: written by `save`, on any mesh.
        like: a tree of jax.ShapeDtypeStruct with shardings.

    Raises:
        InputError: missing, extra or misshapen arrays, all named; or unreadable files.
    """
    about(folder)
    path = files.absolute(folder) / "arrays"
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
            digest.update(np.ascontiguousarray(_whole(part)).reshape(-1).view(np.uint8).data)  # no copy
    return digest.hexdigest()


def _whole(leaf: Any) -> Any:
    """All of an array, of which other processes may hold parts."""
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return leaf


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
