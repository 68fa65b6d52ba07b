"""The runs of a study as a list in a file, which may grow: what a pilot adds round by round.

A study folder belongs to one configuration, and the list is not part of it: the configuration names the
file. Finished runs are never redone, so the same study goes on with what was added.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import gin

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.studies.bases import read_base
from scaling_jax.studies.grid import Point


@dataclasses.dataclass(frozen=True)
class ListedRun:
    """One run of the list: `base` is the folder of a checkpoint, the rest as in `grid.Point`."""

    base: str
    method: str
    finetune_examples: int
    seed: int


@gin.configurable(module="studies")
@dataclasses.dataclass(frozen=True)
class ListedRuns:
    """A grid of single runs.

    Attributes:
        file: JSON, a list of objects {base, method, finetune_examples, seed}.
    """

    file: str

    def points(self) -> list[Point]:
        """The points of all runs, in the order of the file.

        Raises:
            InputError: the file cannot be read, or a run in it lacks something.
        """
        bases: dict[str, Point] = {}
        found = []
        for number, run in enumerate(read_runs(self.file)):
            base = bases.setdefault(run.base, read_base(run.base))
            if run.finetune_examples < 1:
                raise InputError(f"{self.file}: run {number} has {run.finetune_examples} examples")
            point = Point(base.name, base.pretrain_tokens, run.method, None, run.finetune_examples, run.seed)
            found.append(dataclasses.replace(point, base=base.folder))
        return found


def read_runs(path: str | Path) -> list[ListedRun]:
    """
    Raises:
        InputError: not readable, or not such a list.
    """
    content = files.read_json(path)
    try:
        return [ListedRun(**entry) for entry in content]
    except TypeError as error:
        names = ", ".join(field.name for field in dataclasses.fields(ListedRun))
        raise InputError(f"{path}: a list of objects with {names} is needed") from error


def write_runs(path: str | Path, runs: Iterable[ListedRun]) -> None:
    """Writes the list whole or not at all."""
    files.write_json(path, [dataclasses.asdict(run) for run in runs])
