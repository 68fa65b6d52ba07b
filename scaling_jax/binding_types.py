"""Whether what gin binds is of the kind that a parameter is annotated with: told before anything runs.

Only what a person writes is looked at: numbers, texts, lists, mappings. A reference to a configurable, and an
annotation that is none of these, fit always.
"""

import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from scaling_jax.errors import InputError

_PLAIN = (bool, int, float, str, list, tuple, dict, type(None))
_LISTS = (list, tuple, Sequence)
_MAPPINGS = (dict, Mapping)
_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    bool: "True or False",
    type(None): "None",
}


def check(selector: str, configurable: Callable, bound: Mapping[str, Any]) -> None:
    """
    Args:
        selector: what the configurable is called in an error, with its scope.
        configurable: class or function, without what gin wraps around it.
        bound: values by parameter, macros still as references.

    Raises:
        InputError: a value of another kind than its parameter.
    """
    try:
        hints = typing.get_type_hints(configurable)
    except (NameError, TypeError):
        return
    for parameter, value in bound.items():
        value, said = _followed(value, f"{selector}.{parameter}")
        if parameter in hints and not fits(value, hints[parameter]):
            alone = f", such as ({value!r},)" if fits((value,), hints[parameter]) else ""
            raise InputError(f"{said} = {value!r}: {wanted(hints[parameter])} is needed{alone}")


def _followed(value: Any, name: str) -> tuple[Any, str]:
    """What a macro stands for and how both are called, or the value itself."""
    while isinstance(value, gin.config.ConfigurableReference) and value.selector == "gin.macro":
        macro = value.scoped_selector.removesuffix("/gin.macro")
        bound = gin.config._CONFIG.get((macro, "gin.macro"), {})
        if "value" not in bound:
            break
        value, name = bound["value"], f"{name} = %{macro}"
    return value, name


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is of an annotated kind. Lists stand for tuples, whole numbers for numbers, a text
    for a list of one."""
    if type(value) not in _PLAIN or hint is Any:
        return True
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(fits(value, kind) for kind in inner)
    if origin is typing.Annotated:
        return fits(value, inner[0])
    if origin is typing.Literal:
        return value in inner
    if origin in _LISTS:
        return _fits_list(value, origin, inner)
    if origin in _MAPPINGS:
        return type(value) is dict and (
            not inner or all(fits(key, inner[0]) and fits(part, inner[1]) for key, part in value.items())
        )
    if origin is float:
        return type(value) in (int, float)
    if origin is Path:
        return type(value) is str
    return type(value) is origin if origin in _PLAIN else True


def _fits_list(value: Any, origin: Any, inner: tuple) -> bool:
    if type(value) is str:
        return inner[:1] == (str,)
    if type(value) not in (list, tuple):
        return False
    if origin is tuple and inner and inner[-1] is not Ellipsis:
        return len(value) == len(inner) and all(map(fits, value, inner))
    return not inner or all(fits(part, inner[0]) for part in value)


def wanted(hint: Any) -> str:
    """An annotated kind in words."""
    return " or ".join(dict.fromkeys(_kinds(hint)))


def _kinds(hint: Any) -> Iterator[str]:
    origin, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for kind in inner:
            yield from _kinds(kind)
    elif origin is typing.Literal:
        yield from map(repr, inner)
    elif origin in _LISTS:
        of = [wanted(kind) for kind in inner if kind is not Ellipsis]
        yield f"a list ({', '.join(of)})" if of else "a list"
    elif origin in _MAPPINGS:
        yield f"a mapping ({wanted(inner[0])}: {wanted(inner[1])})" if inner else "a mapping"
    else:
        yield _WORDS.get(origin, getattr(origin, "__name__", str(origin)))
