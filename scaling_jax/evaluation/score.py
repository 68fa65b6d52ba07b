"""What a score of texts is, and how one is found by its name.

A score is one file of `scores/` (or a user's own file, loaded by `--gin_import`) with one function:

    @score("brevity", columns=("brevity",), summary="mean characters of an answer")
    def brevity(answers, folder, spaces=True):
        return ScoreResult({"brevity": ...}, signature="spaces:yes")

Its further parameters are gin bindings (`brevity.spaces = False`). What it returns fills the columns that
it names, and its signature says how it was computed, so that two numbers can be told to be comparable.
Libraries are imported by the function that needs them, never by the file.
"""

import dataclasses
import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from scaling_jax import configuration, files
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation import scores

SCORES_EXTRA = "pip install 'scaling-jax[scores]'"


@dataclasses.dataclass(frozen=True)
class Answer:
    """One answer of a model.

    Attributes:
        inputs: what was asked, as text.
        hypothesis: what the model wrote.
        references: what would have been right; a score needs one at least, unless it says otherwise.
        columns: further columns of the task, by name.
        language: of the references, in any spelling of `tasks.languages`; empty where it is not known.
    """

    inputs: str
    hypothesis: str
    references: tuple[str, ...]
    columns: Mapping[str, str] = dataclasses.field(default_factory=dict)
    language: str = ""


@dataclasses.dataclass(frozen=True)
class ScoreResult:
    """What a score found.

    Attributes:
        values: by column; None where nothing could be measured.
        signature: how it was computed: tokenizer, references, library and version.
        notes: what a reader of the values should know.
    """

    values: Mapping[str, float | None]
    signature: str
    notes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Score:
    """A registered score; `call(answers, folder)` computes it under the gin bindings in force.

    `folder` is where it may keep files, `package` what it imports, `install` the command for that, and
    `ready` raises an InputError where its settings cannot be used.
    """

    name: str
    columns: tuple[str, ...]
    summary: str
    package: str
    install: str
    call: Callable[[Sequence[Answer], Path], ScoreResult]
    ready: Callable[[], Any] = lambda: None

    def check(self) -> None:
        """Looks for the score's package without importing it, before anything is made to be scored.

        Raises:
            InputError: it is not installed; says the command that installs it.
        """
        if self.package and importlib.util.find_spec(self.package) is None:
            raise InputError(f"score {self.name!r} needs the package {self.package}: {self.install}")


_SCORES: dict[str, Score] = {}


def score(
    name: str,
    *,
    columns: Sequence[str],
    summary: str,
    package: str = "",
    install: str = SCORES_EXTRA,
    ready: Callable[[], Any] = lambda: None,
) -> Callable[[Callable], Callable]:
    """Decorator: makes a function known as the score `name`, to gin, to `--scores` and to studies.

    Args:
        name: of the score, and of its gin bindings.
        columns: that it always fills.
        summary: one line.
        package: that it imports, if it needs one that may be missing.
        install: the command that installs it.
        ready: raises InputError where the settings in force cannot be used; called before any model is
            trained to be scored.

    Raises:
        InputError: another file has registered a score of that name.
    """

    def register(function: Callable[..., ScoreResult]) -> Callable[..., ScoreResult]:
        known = _SCORES.get(name)
        if known is not None and known.call.__module__ != function.__module__:
            raise InputError(
                f"{function.__module__} registers a score {name!r}, which {known.call.__module__} has: "
                "give yours another name"
            )
        with configuration.registering():
            call = gin.configurable(name, module="scores")(function)
        _SCORES[name] = Score(name, tuple(columns), summary, package, install, call, ready)
        return call

    return register


def known_scores() -> dict[str, Score]:
    """All registered scores by name."""
    for info in pkgutil.iter_modules(scores.__path__):
        importlib.import_module(f"{scores.__name__}.{info.name}")
    return dict(sorted(_SCORES.items()))


def find_score(name: str) -> Score:
    """The score called `name`.

    Raises:
        InputError: no such score.
    """
    known = known_scores()
    if name not in known:
        raise InputError(f"no score {name!r}{did_you_mean(name, known)}")
    return known[name]


def checked_scores(names: Sequence[str]) -> list[Score]:
    """The named scores, each once.

    Raises:
        InputError: no such score, or one whose package is not installed.
    """
    found = [find_score(name) for name in dict.fromkeys(names)]
    for one in found:
        one.check()
    return found


# What is done where a score refuses its answers.
Refusal = Callable[[Score, InputError], ScoreResult]


def refused(one: Score, error: InputError) -> ScoreResult:
    """The refusal is raised."""
    raise error


def kept_as_note(one: Score, error: InputError) -> ScoreResult:
    """The score's columns are not measured, and a note says why."""
    return ScoreResult(dict.fromkeys(one.columns), "", (f"not measured: {configuration.message(error)}",))


def score_answers(
    names: Sequence[str], answers: Sequence[Answer], folder: Path, on_refusal: Refusal = refused
) -> dict[str, Any]:
    """The named scores of the same answers.

    Args:
        names: of scores.
        answers: one at least.
        folder: where scores may keep files.
        on_refusal: called where a score raises InputError.

    Returns:
        {column: value, ..., "signatures": {score: signature}, "notes": [...]}.

    Raises:
        InputError: no such score, no answers, two scores that fill one column, a folder that cannot be made,
            or what a score refuses.
    """
    if not answers:
        raise InputError("there are no answers to score")
    wanted = checked_scores(names)
    files.make_directory(folder)
    values: dict[str, float | None] = {}
    signatures: dict[str, str] = {}
    notes = _notes(answers)
    for found in wanted:
        try:
            result = found.call(answers, folder)
        except InputError as error:
            result = on_refusal(found, error)
        twice = values.keys() & result.values.keys()
        if twice:
            raise InputError(f"score {found.name!r} fills column {min(twice)!r}, which another score has")
        values |= result.values
        signatures[found.name] = result.signature
        notes += [f"{found.name}: {note}" for note in result.notes]
    return {**values, "signatures": signatures, "notes": notes}


def _notes(answers: Sequence[Answer]) -> list[str]:
    total = len(answers)
    empty = sum(not answer.hypothesis.strip() for answer in answers)
    blank = sum(not any(text.strip() for text in answer.references) for answer in answers)
    notes = []
    if empty:
        notes.append(f"{empty:,} of {total:,} answers are empty; they count")
    if blank:
        notes.append(f"{blank:,} of {total:,} answers have only empty references; they count")
    return notes
