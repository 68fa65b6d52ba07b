"""Files written whole or not at all, and their hashes."""

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError


def at(path: str | os.PathLike) -> Any:
    """A path of this machine, or of a bucket (`gs://bucket/folder`), which is left as it is written.

    What is of a bucket has the methods of `pathlib.Path`; what reads it is only imported for one.
    """
    if is_remote(path):
        from etils import epath

        return epath.Path(path)
    return Path(path)


def is_remote(path: str | os.PathLike) -> bool:
    """Whether a path is of a bucket."""
    return "://" in os.fspath(path)


def absolute(path: str | os.PathLike) -> Any:
    """`at`, from the root of the file system."""
    return at(path) if is_remote(path) else Path(path).absolute()


def remove_folder(folder: str | os.PathLike) -> None:
    """Removes a folder with all that is in it, if it is there and as far as that goes."""
    if not is_remote(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif at(folder).exists():
        at(folder).rmtree()


def folder_bytes(folder: str | os.PathLike) -> int:
    """Bytes of all files in a folder."""
    if is_remote(folder):
        return sum(folder_bytes(one) if one.is_dir() else one.stat().length for one in at(folder).iterdir())
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def write_bytes(path: str | os.PathLike, content: bytes) -> Path:
    """Writes `content` to a temporary sibling and renames it onto `path`.

    Raises:
        InputError: the folder cannot be written or the disk is full.
    """
    if is_remote(path):  # where a file appears whole or not at all
        at(path).write_bytes(content)
        return at(path)
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def write_text(path: str | os.PathLike, content: str) -> Path:
    """Writes UTF-8 text whole or not at all; see `write_bytes`."""
    return write_bytes(path, content.encode("utf-8"))


def write_json(path: str | os.PathLike, content: Any) -> Path:
    """Writes JSON whole or not at all. NaN and infinity are refused: they are not JSON."""
    return write_text(path, json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False) + "\n")


def read_json(path: str | os.PathLike) -> Any:
    """Reads JSON.

    Raises:
        InputError: no such file, not JSON (with line and column), or JSON that is nested too deeply.
    """
    try:
        return json.loads(at(path).read_text("utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg})") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error
    except RecursionError as error:
        raise InputError(f"{path}: JSON that is nested too deeply to be read") from error
    except ValueError as error:  # a number of thousands of digits
        raise InputError(f"{path}: JSON that cannot be read ({error})") from error


def make_directory(path: str | os.PathLike) -> Path:
    """Makes a folder and those above it, if they are not there.

    Raises:
        InputError: it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {path}: {error.strerror or error}") from error
    return Path(path)


@contextlib.contextmanager
def new_directory(path: str | os.PathLike) -> Iterator[Path]:
    """Yields a temporary sibling folder that becomes `path` when the block ends without error.

    Raises:
        InputError: `path` already exists and is not an empty folder, or cannot be made or written to.
    """
    path = Path(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise InputError(f"{path} already exists and is not an empty folder")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    except OSError as error:
        raise InputError(f"cannot make {path}: {error.strerror or error}") from error
    try:
        yield temporary
        os.chmod(temporary, 0o777 & ~_umask())
        if path.exists():
            path.rmdir()
        os.replace(temporary, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        # An error that names a file elsewhere is of what was to be written, not of the writing.
        if isinstance(error, OSError) and str(error.filename or temporary).startswith(str(temporary)):
            raise InputError(f"cannot write {path}: {error.strerror or error}") from error
        raise


def sha256(path: str | os.PathLike) -> str:
    """Hex digest of a file's bytes."""
    with at(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
