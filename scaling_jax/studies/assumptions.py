"""Sizes of a study's stores: of the stores themselves, or where they are not prepared yet from gin."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gin

from scaling_jax.data.store import open_store
from scaling_jax.studies.plan import Study

# Where the configuration does not say.
ASSUMED_VOCABULARY, ASSUMED_TOKENS, ASSUMED_WINDOW = 512, 32.0, 512


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What jobs are planned with.

    Attributes:
        vocabulary: pieces.
        tokens: mean tokens of an example of each finetuning store; where it is not prepared, its greatest
            length.
        windows: tokens of a window of each pretraining store.
        notes: what was assumed, one sentence each.
        prepared: whether every store is there.
    """

    vocabulary: int
    tokens: Mapping[str, float]
    windows: Mapping[str, int]
    notes: tuple[str, ...]
    prepared: bool


def sizes_of(study: Study, folder: Path) -> Sizes:
    """Sizes by store; opens what is there, and assumes the rest from the gin configuration.

    Raises:
        InputError: a store that is there cannot be opened.
    """
    paths = study.store_paths(folder)
    there = {
        name: open_store(path) for name, path in paths.items() if (Path(path) / "manifest.json").exists()
    }
    requests = _requests()
    tokens, windows, notes = {}, {}, []
    for name in paths:
        if name in there:
            lengths = there[name].manifest["feature_lengths"]
            if "inputs" in lengths:
                splits = there[name].manifest["splits"]  # a store to be scored on may have no train
                split = "train" if "train" in splits else next(iter(splits))
                tokens[name] = float(there[name].split(split).total_lengths.mean())
            else:
                windows[name] = int(lengths["targets"])
            continue
        request = requests.get(name, {})
        lengths = request.get("feature_lengths")
        if request.get("window"):
            windows[name] = int(request["window"])
            notes.append(
                f"{name}: not prepared; windows of {windows[name]:,} tokens, as many as are asked for"
            )
        elif isinstance(lengths, Mapping):
            tokens[name] = float(sum(lengths.values()))
            notes.append(f"{name}: not prepared; {tokens[name]:g} tokens an example, the most it may have")
        else:
            tokens[name], windows[name] = ASSUMED_TOKENS, ASSUMED_WINDOW
            notes.append(
                f"{name}: not prepared, its lengths are not in gin; {ASSUMED_TOKENS:g} tokens assumed"
            )
    vocabularies = [store.vocabulary.size for store in there.values()]
    vocabulary = vocabularies[0] if vocabularies else _vocabulary(notes)
    return Sizes(vocabulary, tokens, windows, tuple(notes), len(there) == len(paths))


def _requests() -> dict[str, dict[str, Any]]:
    """Bindings of every `task_store` by the store's name."""
    found: dict[str, dict[str, Any]] = {}
    for (_, selector), bindings in gin.config._CONFIG.items():
        if selector.split(".")[-1] == "task_store":
            values = {key: _value(value) for key, value in bindings.items()}
            name = values.get("name") or values.get("task")
            if isinstance(name, str):
                found[name] = values
    return found


def _value(value: Any) -> Any:
    """A bound value; what a macro stands for."""
    if not isinstance(value, gin.config.ConfigurableReference):
        return value
    scope, selector = value.config_key
    bindings = gin.config._CONFIG.get((scope, selector), {})
    return bindings.get("value") if selector == "gin.macro" else None


def _vocabulary(notes: list[str]) -> int:
    for (_, selector), bindings in gin.config._CONFIG.items():
        if selector.split(".")[-1] == "sentencepiece" and isinstance(_value(bindings.get("size")), int):
            size = _value(bindings["size"]) + (_value(bindings.get("extra_ids")) or 0)
            notes.append(f"vocabulary: {size:,} pieces, as bound; a model that states its own has that")
            return size
    notes.append(f"vocabulary: {ASSUMED_VOCABULARY} pieces assumed; a model that states its own has that")
    return ASSUMED_VOCABULARY
