"""Typed values out of the settings that others wrote: config.json of models, adapter_config.json.

Each reader takes the settings, the name of one, and its default, which stands where that is missing.
`of_file` puts the file's name before what they raise.
"""

import contextlib
import re
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError

# No model has as much of anything, and sizes of arrays are counted in 64 bits.
_LARGEST = 2**31 - 1


@contextlib.contextmanager
def of_file(file: Path) -> Iterator[None]:
    """
    Raises:
        InputError: what was raised within, with the file before it; of a KeyError, what is not there.
    """
    try:
        yield
    except KeyError as error:
        raise InputError(f"{file}: no {error.args[0]}") from error
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def whole_number(settings: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """A count or width; the default stands also for null.

    Raises:
        KeyError: it is not there and has no default.
        InputError: it is no whole number above 0, or larger than any model's.
    """
    value = settings[name] if default is None else settings.get(name)
    if value is None and default is not None:
        value = default
    if type(value) is not int or value < 1:
        raise InputError(f"{name} = {value!r}: a whole number above 0")
    if value > _LARGEST:
        raise InputError(f"{name} is above {_LARGEST}, the largest that is read")
    return value


def number(
    settings: Mapping[str, Any], name: str, default: float | None = None, above: float | None = None
) -> float:
    """
    Raises:
        KeyError: it is not there and has no default.
        InputError: it is no finite number, or not above the bound.
    """
    value = settings[name] if default is None else settings.get(name, default)
    finite = type(value) in (int, float) and abs(value) <= sys.float_info.max
    if not finite or (above is not None and value <= above):
        raise InputError(f"{name} = {value!r}: a number{'' if above is None else f' above {above}'}")
    return value


def truth(settings: Mapping[str, Any], name: str, default: bool) -> bool:
    """The default stands also for null.

    Raises:
        InputError: it is neither true nor false.
    """
    value = settings.get(name)
    if value is None:
        return default
    if type(value) is not bool:
        raise InputError(f"{name} = {value!r}: true or false")
    return value


def one_of(settings: Mapping[str, Any], name: str, known: Collection[str], default: str | None = None) -> str:
    """
    Raises:
        InputError: it is none of those that are known, or not there and has no default.
    """
    value = settings.get(name, default)
    if not isinstance(value, str) or value not in known:
        raise InputError(f"{name} {value!r}: known are {', '.join(known)}")
    return value


def text(settings: Mapping[str, Any], name: str) -> str | None:
    """None where it is missing or null.

    Raises:
        InputError: it is no text.
    """
    value = settings.get(name)
    if value is not None and not isinstance(value, str):
        raise InputError(f"{name} = {value!r}: a text")
    return value


def text_or_texts(settings: Mapping[str, Any], name: str) -> str | list[str] | None:
    """A text, a list of them, or None where it is missing or null.

    Raises:
        InputError: it is something else.
    """
    value = settings.get(name)
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list) or not all(isinstance(part, str) for part in value):
        raise InputError(f"{name} = {value!r}: a text or a list of texts")
    return value


def indices(settings: Mapping[str, Any], name: str) -> list[int] | None:
    """One whole number or a list of them, as a list; None where it is missing or null.

    Raises:
        InputError: it is something else.
    """
    value = settings.get(name)
    if value is None:
        return None
    found = value if isinstance(value, list) else [value]
    if not all(type(index) is int and index >= 0 for index in found):
        raise InputError(f"{name} = {value!r}: a whole number from 0 on, or a list of them")
    return found


def check_pattern(name: str, pattern: str) -> None:
    """
    Raises:
        InputError: it is no regular expression.
    """
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f"{name} = {pattern!r} is no regular expression ({error})") from error
