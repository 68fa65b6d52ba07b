"""Tasks by name: one file per task, found by its registration.

A task is a function that takes its settings (gin bindings) and returns a `TextSource`:

    @text_task(version=1, features=("inputs", "targets"), summary="sentence pairs of my own")
    def my_task(path="pairs.txt"):
        return TextSource(splits={"train": read_train, "dev": read_dev, "test": read_test})

The function's name is the task's name, and its parameters are bound in gin (`my_task.path = ...`).
A file outside the package works the same way when it is loaded by `--gin_import`. Nothing here or in
a task's file imports seqio or TensorFlow: `seqio_tasks` makes a seqio task of the text when `prepare`
asks for it.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gin

from scaling_jax import configuration, tasks
from scaling_jax.errors import InputError, did_you_mean

PAIRS = ("inputs", "targets")
DOCUMENTS = ("targets",)

# Text in blocks of examples: {feature or column: strings}. Blocks, because a call per example costs more
# than the rest.
Blocks = Iterator[Mapping[str, list[str]]]
ONE, SAME_INPUTS = "one", "same_inputs"


def as_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Names that are bound as a list; a text alone is a list of one, not its letters."""
    return (value,) if isinstance(value, str) else tuple(value)


@dataclasses.dataclass(frozen=True)
class TextSource:
    """Text of a task.

    Attributes:
        splits: for `train`, `dev` and `test`, or those of them that there are, a function that reads the
            split from its beginning, the same way every time.
        facts: gets the target tokens of each split, returns what is known of the data (such as its
            entropy per token) for the store's manifest.
        seed: seed of the data, if it has one.
        identity: what the text depends on beyond the task's own parameters (hashes of files, settings
            of a language), so that a store is not taken for up to date when it is not.
        notes: lines worth telling the user.
        target_language: ISO 639-1 code of the targets, where they are of one language; BLEU chooses its
            tokenizer by it.
        examples: how many examples a split has, where it is known before they are read.
        groups: examples of each part of a split that is a concatenation, such as its languages:
            {split: {part: examples}}, in order. Nested subsets keep the shares of the parts.
    """

    splits: Mapping[str, Callable[[], Blocks]]
    facts: Callable[[Mapping[str, int]], Mapping[str, Any]] = lambda target_tokens: {}
    seed: int | None = None
    identity: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    target_language: str | None = None
    examples: Mapping[str, int] = dataclasses.field(default_factory=dict)
    groups: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class DataSet:
    """What a task reads, in words: for `prepare --show`, the docs and messages about data not found.

    Attributes:
        source: who published it (authors and year), with the address of the paper or the page.
        get: how to get it: a command, or an address and what to do with it.
        splits: what is train, dev and test.
        prompt: what the inputs look like, as a template.
        targets: what the targets are, where they are not plain text.
    """

    source: str
    get: str
    splits: str
    prompt: str = ""
    targets: str = ""


# Of tasks over the user's own files.
OWN_FILES = DataSet("your own files", "bind your files to its settings", "as given, or cut out of train")
# Of the lab, which makes its text up.
THE_LAB = DataSet("made up by the lab (docs/tasks.md)", "nothing to get", "independent draws of one language")


@dataclasses.dataclass(frozen=True)
class TextTask:
    """A registered task; `call()` returns its `TextSource` under the gin bindings in force.

    `scores` names the scores that the task is evaluated by where an evaluation names none.
    """

    name: str
    version: int
    features: tuple[str, ...]
    summary: str
    ends: tuple[str, ...]
    call: Callable[..., TextSource]
    data: DataSet = OWN_FILES
    scores: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    references: str = ONE

    @property
    def versioned_name(self) -> str:
        """The name in seqio's registry and in the store's manifest."""
        return f"{self.name}_v{self.version}"


_TASKS: dict[str, TextTask] = {}


def text_task(
    *,
    version: int,
    features: tuple[str, ...],
    summary: str,
    ends: tuple[str, ...] = (),
    columns: tuple[str, ...] = (),
    references: str = ONE,
    data: DataSet = OWN_FILES,
    scores: tuple[str, ...] = (),
) -> Callable[[Callable[..., TextSource]], Callable[..., TextSource]]:
    """Registers a task's function under its own name.

    Args:
        version: raised whenever the same settings give other examples than before.
        features: `PAIRS` for finetuning tasks, `DOCUMENTS` for pretraining text.
        summary: one line.
        ends: features whose sequences end in EOS; all of them where empty.
        columns: further strings of each example, which are not tokenised but kept beside dev and test
            texts (the class of an instruction, say).
        references: "one", each example's target is what its input is scored against, or "same_inputs",
            all targets of a split that have the same input are.
        data: what it reads, in words.
        scores: names of the scores that suit it.

    Raises:
        InputError: another file has registered a task of that name; no such `references`.
    """
    if references not in (ONE, SAME_INPUTS):
        raise InputError(f"text_task: references = {references!r}: must be {ONE!r} or {SAME_INPUTS!r}")

    def register(function: Callable[..., TextSource]) -> Callable[..., TextSource]:
        @functools.wraps(function)
        def checked(*args: Any, **kwargs: Any) -> TextSource:
            bound = inspect.signature(function).bind(*args, **kwargs)
            bound.apply_defaults()
            source = function(*bound.args, **bound.kwargs)
            return dataclasses.replace(source, identity={**bound.arguments, **source.identity})

        name = function.__name__
        if name in _TASKS and _TASKS[name].call.__module__ != function.__module__:
            raise InputError(
                f"{function.__module__} registers a task {name!r}, which {_TASKS[name].call.__module__} has: "
                "give yours another name"
            )
        with configuration.registering():
            call = gin.configurable(name, module=function.__module__)(checked)
        _TASKS[name] = TextTask(
            name, version, features, summary, ends or features, call, data, scores, tuple(columns), references
        )
        return call

    return register


def load_all() -> None:
    """Imports every module of this room that may hold a task."""
    for info in pkgutil.walk_packages(tasks.__path__, f"{tasks.__name__}."):
        if info.name.rsplit(".", 1)[1] != "seqio_tasks":
            importlib.import_module(info.name)


def all_tasks() -> dict[str, TextTask]:
    """Every registered task by name."""
    load_all()
    return dict(sorted(_TASKS.items()))


def find(name: str) -> TextTask:
    """The task called `name`, with or without its version.

    Raises:
        InputError: no such task.
    """
    known = all_tasks()
    versioned = {task.versioned_name: task for task in known.values()}
    found = known.get(name) or versioned.get(name)
    if found is None:
        raise InputError(f"no task {name!r}{did_you_mean(name, known)}")
    return found
