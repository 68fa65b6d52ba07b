"""Gin files, search paths and bindings parsed in one place, with errors a person can act on."""

import contextlib
import importlib
import importlib.util
import inspect
import os
import re
import tokenize
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gin

from scaling_jax import binding_types
from scaling_jax.errors import InputError, did_you_mean, nearest

# The copy inside an installed package, and the checkout that this file stands in.
CONFIG_FOLDERS = (str(Path(__file__).parent), str(Path(__file__).parents[1]))
# Of the modules below this one a parameter never takes a configurable itself.
_OURS = __name__.partition(".")[0] + "."


def _in_a_package(path: str) -> bool:
    """Whether a relative path is one of a file in a Python package, such as t5x/configs/runs/pretrain.gin.

    Gin's own test fails on a folder that is importable but no package, as gin_configs is where a checkout
    is on PYTHONPATH, and prints an error for every path that is none.
    """
    folder, file = os.path.split(path)
    try:
        found = None if os.path.isabs(path) else importlib.util.find_spec(folder.replace("/", "."))
    except (ImportError, ValueError):
        return False
    return bool(found and found.origin) and os.path.isfile(os.path.join(os.path.dirname(found.origin), file))


gin.config._FILE_READERS[:] = [
    (reader, _in_a_package if exists is gin.resource_reader.system_path_file_exists else exists)
    for reader, exists in gin.config._FILE_READERS
]


def parse(
    gin_files: Sequence[str],
    bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    imports: Sequence[str] = (),
) -> None:
    """Replaces the whole gin configuration by these files, then these bindings.

    Args:
        gin_files: files, looked for in the working folder, in `search_paths`, beside the installed package.
        bindings: `NAME=VALUE` strings that override the files.
        search_paths: more folders to look in.
        imports: modules (`package.module`) or files (`path/to/file.py`) that register configurables.

    Raises:
        InputError: a file that is not found, a syntax error, a name that does not exist (with the nearest).
    """
    gin.clear_config()
    for name in imports:
        import_module(name)
    folders = (*search_paths, *CONFIG_FOLDERS)
    for path in folders:
        _add_search_path(path)
    for file in gin_files:
        if not any(os.path.isfile(os.path.join(folder, file)) for folder in ("", *folders)):
            looked = f"looked in the working folder, {', '.join(folders)}"
            raise InputError(f"no gin file {file}: {looked}{_near_file(file, folders)}")
    source = ", ".join(gin_files) or "the bindings"
    try:
        with gin.unlock_config():
            gin.parse_config_files_and_bindings(
                list(gin_files), [_quoted(binding) for binding in bindings], finalize_config=True
            )
    except (ValueError, SyntaxError, OSError, ImportError, TypeError, tokenize.TokenError) as error:
        raise InputError(f"{source}: {_explain(error)}") from error
    _check_values()


def _near_file(file: str, folders: Sequence[str]) -> str:
    """What may have been meant by a gin file that is not there, or nothing."""
    shipped = {
        str(path.relative_to(folder))
        for folder in folders
        for path in Path(folder).glob("gin_configs/**/*.gin")
    }
    beside = {str(path) for path in Path(file).parent.glob("*.gin")} if Path(file).parent.is_dir() else set()
    known = shipped | beside
    same_name = sorted(path for path in known if Path(path).name == Path(file).name)
    near = nearest(file, known) or next(iter(same_name), None)
    return f"; did you mean {near!r}?" if near else ""


def _check_values() -> None:
    """
    Raises:
        InputError: a parameter of ours that is bound to a configurable and not to what it returns, or to a
            value of another kind than it is annotated with.
    """
    for (scope, selector), bound in gin.config._CONFIG.items():
        configurable = gin.config._REGISTRY.get_match(selector).wrapped
        if not configurable.__module__.startswith(_OURS):
            continue
        for parameter, value in bound.items():
            for reference in gin.config.iterate_references({parameter: value}):
                if not reference.evaluate:
                    name = f"{scope}/" * bool(scope) + f"{selector.split('.')[-1]}.{parameter}"
                    raise InputError(f"{name} = {reference}: write {reference}(), with its parentheses")
        binding_types.check(f"{scope}/" * bool(scope) + selector.split(".")[-1], configurable, bound)


def _add_search_path(path: str) -> None:
    if path not in gin.config._LOCATION_PREFIXES:  # gin keeps every call's path for good
        gin.add_config_file_search_path(path)


def import_module(name: str) -> None:
    """Imports `package.module` or a file outside the package, for what it registers.

    Raises:
        InputError: no such module or file.
    """
    try:
        if name.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(name).stem, name)
            spec.loader.exec_module(importlib.util.module_from_spec(spec))
        else:
            importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise InputError(f"cannot import {name}: {error}") from error


@contextlib.contextmanager
def registering() -> Iterator[None]:
    """Lets a file register configurables after a gin file was parsed, and again (in a notebook, say)."""
    with gin.unlock_config():
        gin.enter_interactive_mode()
        try:
            yield
        finally:
            gin.exit_interactive_mode()


def resolved() -> str:
    """Every binding in force, macros included, as gin text that can be parsed again."""
    return gin.config_str(max_line_length=100)


def call(configurable: Callable[[], Any]) -> Any:
    """Calls what gin has fully bound.

    Raises:
        InputError: a parameter without a value, or of the wrong kind.
    """
    try:
        return configurable()
    except TypeError as error:
        missing = re.search(
            r"missing \d+ required[^:]*: (.*?)(?: No values| In call|$)", " ".join(str(error).split())
        )
        name = getattr(configurable, "__name__", str(configurable))
        if missing:
            raise InputError(f"{name} needs {missing.group(1)}: bind {name}.NAME in gin") from error
        raise InputError(f"{name}: {' '.join(str(error).split())}") from error


def message(error: Exception) -> str:
    """What an error says, on one line, without where gin appends that it was called from."""
    return " ".join(str(error).split("\n  In call to configurable")[0].split("\n"))


def add_arguments(parser) -> None:
    """The flags that every gin-driven verb takes."""
    parser.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="gin file; may be repeated"
    )
    parser.add_argument(
        "--gin_search_paths",
        default="",
        metavar="DIRS",
        help="comma-separated folders to look for gin files in",
    )
    parser.add_argument(
        "--gin_import",
        action="append",
        default=[],
        metavar="MODULE",
        help="module or .py file of your own to load first",
    )
    parser.add_argument(
        "--gin", action="append", default=[], metavar="NAME=VALUE", help="binding; also as --gin.NAME=VALUE"
    )


def parse_arguments(arguments, imports: Sequence[str] = ()) -> None:
    """Parses what `add_arguments` collected; `imports` are the modules whose configurables the verb uses."""
    if not arguments.gin_file and not arguments.gin:
        raise InputError("no configuration: give --gin_file FILE (see gin_configs/) or --gin.NAME=VALUE")
    paths = [path for path in arguments.gin_search_paths.split(",") if path]
    parse(arguments.gin_file, arguments.gin, paths, [*imports, *arguments.gin_import])


def _quoted(binding: str) -> str:
    """Lets `NAME=some text` pass without quotes inside quotes: a value gin cannot read is a string."""
    name, separator, value = binding.partition("=")
    if not separator:
        raise InputError(f"binding {binding!r}: write NAME=VALUE")
    value = value.strip() or repr("")
    if value[:1] in ("@", "%"):  # a reference that does not exist is an error, not a text
        return f"{name.strip()} = {value}"
    try:
        gin.config.parse_value(f"[{value}]")  # in brackets, because gin reads `3 apples` as 3
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        if "No configurable matching" not in str(error):
            value = repr(value)
    return f"{name.strip()} = {value}"


def _explain(error: Exception) -> str:
    text = " ".join(str(error).split())
    unknown = re.search(r"No configurable matching (?:reference )?'@?([^'()]+)(?:\(\))?'", text)
    if unknown:
        registered = [
            entry.name for entry in gin.config._REGISTRY._selector_map.values()
        ]  # gin offers no public list
        return f"{text}{did_you_mean(unknown.group(1).split('/')[-1], registered)}"
    macro = re.search(r"No bindings specified for '([^']+)/gin.macro'", text)
    if macro:
        return f"the macro %{macro.group(1)} is used and never set: add {macro.group(1)} = VALUE"
    parameter = re.search(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'", text)
    if parameter:
        known = _parameters(parameter.group(1))
        return f"{text}{did_you_mean(parameter.group(2), known)}"
    return text


def _parameters(selector: str) -> list[str]:
    entry = gin.config._REGISTRY.get_match(selector)
    return list(inspect.signature(entry.wrapped).parameters) if entry else []
