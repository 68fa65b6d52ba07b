"""Text files, plain or gzipped: lines with errors that name the file, the line and the byte."""

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from scaling_jax import files
from scaling_jax.errors import InputError

_BLOCK = 4096


def as_paths(binding: str, value: str | Sequence[str]) -> tuple[Path, ...]:
    """One path or several, as a tuple.

    Raises:
        InputError: a file that does not exist, or no file at all.
    """
    paths = tuple(Path(path) for path in ([value] if isinstance(value, (str, Path)) else value or ()))
    if not paths:
        raise InputError(f"{binding} is not set: bind it to the path of your file")
    for path in paths:
        if not path.is_file():
            raise InputError(f"{binding}: no file {path}")
    return paths


def lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends; `.gz` files are unpacked.

    Raises:
        InputError: the file cannot be read, or a line is not UTF-8.
    """
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            # Only \n ends a line: str.splitlines would also split at characters such as U+2028.
            for number, raw in enumerate(file, 1):
                if number == 1:
                    raw = raw.removeprefix(b"\xef\xbb\xbf")
                yield raw.rstrip(b"\r\n").decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}:{number}: not UTF-8 text (byte {error.start + 1} of the line is "
            f"0x{error.object[error.start]:02x}); "
            "convert the file, for example with iconv -t utf-8"
        ) from error
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read after line {number} ({error})") from error


def hashes(paths: Iterable[Path]) -> list[str]:
    """The identity of files: their SHA-256, whatever they are called."""
    return [files.sha256(path) for path in paths]


def in_blocks(rows: Iterable[Sequence[str]], features: Sequence[str]) -> Iterator[Mapping[str, list[str]]]:
    """Collects rows of one string per feature into blocks of a few thousand."""
    pending: list[Sequence[str]] = []
    for row in rows:
        pending.append(row)
        if len(pending) == _BLOCK:
            yield dict(zip(features, map(list, zip(*pending, strict=True)), strict=True))
            pending = []
    if pending:
        yield dict(zip(features, map(list, zip(*pending, strict=True)), strict=True))
