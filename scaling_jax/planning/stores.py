"""Sizes of token stores: of the stores themselves, or where they are not prepared yet from gin."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import gin

from scaling_jax.data.objectives.objective import Lengths
from scaling_jax.data.store import TokenStore, open_store

# Where the configuration does not say.
ASSUMED_VOCABULARY, ASSUMED_TOKENS, ASSUMED_WINDOW = 512, 32.0, 512


class ExampleLengths(NamedTuple):
    """Of a finetuning store: the greatest lengths of an example, and the mean of inputs and of targets."""

    greatest: Lengths
    mean: tuple[float, float]


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
        examples: lengths of the examples of each finetuning store.
    """

    vocabulary: int
    tokens: Mapping[str, float]
    windows: Mapping[str, int]
    notes: tuple[str, ...]
    prepared: bool
    examples: Mapping[str, ExampleLengths] = dataclasses.field(default_factory=dict)


def store_sizes(paths: Mapping[str, str]) -> Sizes:
    """Sizes of the stores at these paths, by name; opens what is there, and assumes the rest from gin.

    Raises:
        InputError: a store that is there cannot be opened.
    """
    there = {
        name: open_store(path) for name, path in paths.items() if (Path(path) / "manifest.json").exists()
    }
    requests = _requests()
    tokens, windows, examples, notes = {}, {}, {}, []
    for name in paths:
        if name in there:
            lengths = there[name].manifest["feature_lengths"]
            if "inputs" in lengths:
                examples[name], tokens[name] = _measured(there[name])
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
            examples[name] = of_lengths(lengths.get("inputs", 0), lengths.get("targets", 0))
            notes.append(f"{name}: not prepared; {tokens[name]:g} tokens an example, the most it may have")
        else:
            tokens[name], windows[name] = ASSUMED_TOKENS, ASSUMED_WINDOW
            examples[name] = of_lengths(ASSUMED_TOKENS // 2, ASSUMED_TOKENS // 2)
            notes.append(
                f"{name}: not prepared, its lengths are not in gin; {ASSUMED_TOKENS:g} tokens assumed, "
                f"windows of {ASSUMED_WINDOW}"
            )
    vocabularies = [store.vocabulary.size for store in there.values()]
    vocabulary = vocabularies[0] if vocabularies else _vocabulary(notes)
    return Sizes(vocabulary, tokens, windows, tuple(notes), len(there) == len(paths), examples)


def of_lengths(inputs: float, targets: float) -> ExampleLengths:
    """Examples that are all of one length."""
    inputs, targets = int(inputs), int(targets)
    return ExampleLengths(Lengths(inputs, targets, inputs + targets), (float(inputs), float(targets)))


def _measured(store: TokenStore) -> tuple[ExampleLengths, float]:
    """(lengths of the examples of a store, mean tokens of one)."""
    splits = store.manifest["splits"]  # a store to be scored on may have no train
    split = store.split("train" if "train" in splits else next(iter(splits)))
    inputs, targets, both = split.lengths("inputs"), split.lengths("targets"), split.total_lengths
    greatest = Lengths(int(inputs.max()), int(targets.max()), int(both.max()))
    return ExampleLengths(greatest, (float(inputs.mean()), float(targets.mean()))), float(both.mean())


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
