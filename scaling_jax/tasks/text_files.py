"""Text files, plain, gzipped or alone in a zip archive; errors name the file, the line and the byte."""

import gzip
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from scaling_jax import files
from scaling_jax.errors import InputError

_BLOCK = 4096


def as_paths(binding: str, value: str | Sequence[str]) -> tuple[Path, ...]:
    """One path or several, as a tuple.

    Raises:
        InputError: a file that does not exist, or no file at all.
    """
    given = [value] if isinstance(value, (str, Path)) else value or ()
    if not isinstance(given, Sequence) or not all(isinstance(path, (str, Path)) for path in given):
        raise InputError(f"{binding} = {value!r}: a path or several are needed")
    paths = tuple(Path(path) for path in given)
    if not paths:
        raise InputError(f"{binding} is not set: bind it to the path of your file")
    for path in paths:
        if not path.is_file():
            raise InputError(f"{binding}: no file {path}")
    return paths


def lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 file without their ends; `.gz` files and `.zip` files of one are unpacked.

    Raises:
        InputError: the file cannot be read, or a line is not text, see `lines_of`.
    """
    number = 0
    try:
        with _open(path) as file:
            for number, line in enumerate(lines_of(str(path), file), 1):  # noqa: B007, said below
                yield line
    # RuntimeError: an archive with a password, or packed in a way that zipfile does not know.
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError) as error:
        if not number and isinstance(error, OSError) and error.strerror:
            raise InputError(f"cannot read {path}: {error.strerror}") from error
        raise InputError(f"{path}: cannot be read after line {number} ({error})") from error


def lines_of(name: str, file: Iterable[bytes]) -> Iterator[str]:
    """The lines of an open UTF-8 file without their ends; `name` is what messages call it.

    Raises:
        InputError: a line that is not UTF-8, or holds a NUL character, as UTF-16 without a mark does.
    """
    # Only \n ends a line: str.splitlines would also split at characters such as U+2028.
    for number, raw in enumerate(file, 1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        raw = raw.rstrip(b"\r\n")
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(
                f"{name}:{number}: not UTF-8 text (byte {error.start + 1} of the line is "
                f"0x{error.object[error.start]:02x}); "
                "convert the file, for example with iconv -t utf-8"
            ) from error
        if (place := raw.find(b"\0")) >= 0:
            raise InputError(
                f"{name}:{number}: not text (byte {place + 1} of the line is NUL, as in UTF-16 or a binary "
                "file); convert the file, for example with iconv -f utf-16le -t utf-8"
            )
        yield line


def _open(path: Path) -> IO[bytes]:
    if path.suffix == ".gz":
        return gzip.open(path)
    if path.suffix != ".zip":
        return open(path, "rb")
    with zipfile.ZipFile(path) as archive:
        members = [member for member in archive.infolist() if not member.is_dir()]
        if len(members) != 1:
            raise InputError(f"{path}: holds {len(members)} files, one is needed; unpack it yourself")
        return archive.open(members[0])  # stays open when the archive's own handle is closed


def first_of(folder: Path, *names: str) -> Path | None:
    """The first of these files that the folder has, as it is or with `.gz` after its name."""
    candidates = (folder / f"{name}{ending}" for name in names for ending in ("", ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def once(paths: Iterable[Path]) -> list[Path]:
    """The paths in order of name, of a file that lies unpacked beside its `.gz` the unpacked one alone."""
    there = set(paths)
    return sorted(path for path in there if path.suffix != ".gz" or path.with_suffix("") not in there)


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
