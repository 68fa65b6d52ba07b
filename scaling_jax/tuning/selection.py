"""Which projections and which layers of a model a method adds to.

Projections are chosen by patterns over their place in the model, layers by a short phrase or a
list. As in the ablations of Pu et al. 2023, both are settings of the method.
"""

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from scaling_jax.errors import InputError

ATTENTION = ("query", "key", "value", "out")
FEED_FORWARD = ("gate", "up", "down")
PROJECTIONS = (*ATTENTION, *FEED_FORWARD)
# Under this name a model keeps a stack: arrays with one row per layer on the leading axis.
STACK = "layers"

Path = tuple[str, ...]


def matches(pattern: str, path: Path) -> bool:
    """Whether a pattern names the projection at `path`, say (layers, layer, attention, query).

    A pattern is one or more names divided by slashes that are found in the path in this order:
    "query", "feed_forward", "decoder/cross_attention", "encoder/self_attention/value". A name may
    hold the wildcards * and ?. "attention" is any kind of attention, "self_attention" all but the cross.
    """
    names = iter(path)
    return all(any(_is_named(wanted, name) for name in names) for wanted in pattern.split("/"))


def _is_named(wanted: str, name: str) -> bool:
    if wanted == "attention":
        return name in ("attention", "cross_attention")
    if wanted == "self_attention":
        return name == "attention"
    return fnmatch.fnmatchcase(name, wanted)


def projections(parameters: Any) -> dict[Path, Any]:
    """Kernels [layers, in, out] of all projections in a tree of (abstract) base parameters, by place."""
    found = {}

    def walk(tree: Any, path: Path) -> None:
        if path and path[-1] in PROJECTIONS and "kernel" in tree:
            found[path] = tree["kernel"]
        elif isinstance(tree, dict):
            for name, part in tree.items():
                walk(part, (*path, name))

    walk(parameters, ())
    return found


def check_targets(setting: str, patterns: Sequence[str], parameters: Any) -> None:
    """
    Args:
        setting: what to call the patterns in an error.
        patterns: see `matches`.
        parameters: (abstract) base parameters.

    Raises:
        InputError: no pattern, or one that matches no projection of the model.
    """
    paths = projections(parameters)
    idle = [pattern for pattern in patterns if not any(matches(pattern, path) for path in paths)]
    if idle or not patterns:
        # `layer` is there once per layer and says nothing
        possible = sorted({"/".join(name for name in path if name not in (STACK, "layer")) for path in paths})
        raise InputError(
            f"{setting}: {', '.join(map(repr, idle)) or 'an empty list'} matches no projection; "
            f"those that exist: {', '.join(possible)}"
        )


def chosen_layers(setting: str, wanted: str | Sequence[int], count: int) -> np.ndarray:
    """Ascending indices of the chosen layers of a stack of `count`, 0 being the one next to the input.

    `wanted` is "all", "first N", "last N", "random N seed S", or a list of indices.

    Raises:
        InputError: another phrase, no layer, more layers than there are, or one that does not exist.
    """
    if not isinstance(wanted, str):
        indices = np.asarray(sorted(wanted), int)
        if not len(indices) or len(set(indices)) < len(indices) or indices[0] < 0 or indices[-1] >= count:
            raise InputError(
                f"{setting} = {tuple(wanted)}: different indices between 0 and {count - 1}, "
                f"of the {count} layers"
            )
        return indices
    words = wanted.split()
    numbers = [int(word) for word in words[1::2] if word.isdigit()]
    shape = " ".join("N" if word.isdigit() else word for word in words)
    if shape == "all":
        return np.arange(count)
    if shape not in ("first N", "last N", "random N seed N"):
        raise InputError(
            f"{setting} = {wanted!r}: 'all', 'first N', 'last N', 'random N seed S' or a list of indices"
        )
    if not 1 <= numbers[0] <= count:
        raise InputError(f"{setting} = {wanted!r}: the model has {count} layers, choose 1 to {count}")
    if words[0] == "first":
        return np.arange(numbers[0])
    if words[0] == "last":
        return np.arange(count - numbers[0], count)
    return np.sort(np.random.default_rng(numbers[1]).permutation(count)[: numbers[0]])


def map_stacked(change: Callable[[Path, Any], Any], tree: Any, path: Path = ()) -> Any:
    """The tree with `change(path, leaf)` for every array inside a stack, and the rest as it is."""
    if isinstance(tree, dict):
        return {name: map_stacked(change, part, (*path, name)) for name, part in tree.items()}
    return change(path, tree) if STACK in path else tree


def kept_rows(setting: str, wanted: str | Sequence[int], added: Any) -> Any:
    """The chosen layers' rows of what a method adds: arrays [layers, ...] become [chosen, ...]."""
    return map_stacked(lambda _, leaf: leaf[chosen_layers(setting, wanted, leaf.shape[0])], added)


def whole_stack(
    setting: str, wanted: str | Sequence[int], kept: Any, parameters: Any, identity: float
) -> Any:
    """The inverse of `kept_rows`: layers that were not chosen get `identity`, which changes nothing.

    Args:
        setting: what to call `wanted` in an error.
        wanted: see `chosen_layers`.
        kept: arrays [chosen, ...], beside projections of `parameters`.
        parameters: base parameters, for the number of layers of each stack.
        identity: value at which the method leaves a layer as it is.
    """

    def spread(path: Path, leaf: Any) -> Any:
        projection = parameters
        for name in path[:-1]:
            projection = projection[name]
        count = projection["kernel"].shape[0]
        whole = jnp.full((count, *leaf.shape[1:]), identity, leaf.dtype)
        return whole.at[chosen_layers(setting, wanted, count)].set(leaf)

    return kept if wanted == "all" else map_stacked(spread, kept)
