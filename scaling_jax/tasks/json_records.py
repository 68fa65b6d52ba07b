"""JSON files of records, one object per line or one array of objects; errors name file, line and column."""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import text_files

_SPACE = re.compile(r"\s*")


def records(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every object with the line that it begins on; `.gz` too. Blank lines are passed over.

    An array is held in memory as a whole, lines are not.

    Raises:
        InputError: not JSON, an object with one key twice, or something that is no object.
    """
    numbered = enumerate(text_files.lines(path), 1)
    for number, line in numbered:
        if line.lstrip().startswith("["):
            rest = itertools.chain([line], (later for _, later in numbered))
            yield from _of_array(path, "\n" * (number - 1) + "\n".join(rest))
            return
        if line.strip():
            yield number, _object(path, number, value_of(f"{path}:{number}", line))


def value_of(place: str, line: str) -> Any:
    """What a line of JSON says; `place` is "FILE:NUMBER", for messages.

    Raises:
        InputError: not JSON, or an object that has one key twice.
    """
    try:
        return _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise InputError(f"{place}:{error.colno}: not JSON ({error.msg})") from error
    except _Repeated as error:
        raise InputError(f"{place}: {error}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a deep nest
        raise InputError(f"{place}: not JSON that can be read ({error})") from error


class _Repeated(ValueError):
    """An object with one key twice, of which json would silently take the last."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in found if keys.count(key) > 1)
        raise _Repeated(f"the key {twice!r} is there twice: leave one")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_once)


def rows(path: Path, *fields: str) -> Iterator[tuple[str, ...]]:
    """These fields, all text, of every object.

    Raises:
        InputError: as `records` and `text_field` do.
    """
    for number, record in records(path):
        yield tuple(text_field(path, number, record, field) for field in fields)


def text_field(path: Path, number: int, record: Mapping[str, Any], field: str) -> str:
    """A field of a record that must be there and be text.

    Raises:
        InputError: no such field, or one that is no text.
    """
    if field not in record:
        raise InputError(f"{path}:{number}: no field {field!r}{did_you_mean(field, record)}")
    if not isinstance(record[field], str):
        kind = type(record[field]).__name__
        raise InputError(f"{path}:{number}: field {field!r} must be a string, this is a {kind}")
    try:
        record[field].encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{path}:{number}: field {field!r} is not Unicode text ({error.reason})") from error
    return record[field]


def _of_array(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    place, number, counted = text.index("[") + 1, 1, 0
    expects_more = False
    while True:
        place = _SPACE.match(text, place).end()
        if text[place : place + 1] == "]" and not expects_more:
            break
        number, counted = number + text.count("\n", counted, place), place
        try:
            record, place = _DECODER.raw_decode(text, place)
            yield number, _object(path, number, record)
            place = _SPACE.match(text, place).end()
            if text[place : place + 1] not in ("]", ","):
                raise json.JSONDecodeError("Expecting ',' or ']' after an object", text, place)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}:{error.colno}: not JSON ({error.msg})") from error
        except _Repeated as error:
            raise InputError(f"{path}:{number}: {error}") from error
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{path}:{number}: not JSON that can be read ({error})") from error
        expects_more = text[place] == ","
        place += expects_more
    after = _SPACE.match(text, place + 1).end()
    if after < len(text):
        raise InputError(f"{path}:{text.count(chr(10), 0, after) + 1}: there is more after the array's end")


def _object(path: Path, number: int, record: Any) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise InputError(f"{path}:{number}: a JSON object is needed, this is a {type(record).__name__}")
    return record
