"""Reads a study folder for the report and refuses what cannot be shown."""

import csv
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.laws import results
from scaling_jax.laws.factors import told_apart
from scaling_jax.laws.results import Fit

REQUIRED = (
    "run_id",
    "task",
    "method",
    "model",
    "non_embedding_params",
    "pretrain_tokens",
    "finetune_examples",
    "loss",
    "status",
)
SIZES = (
    "model_params",
    "non_embedding_params",
    "pretrain_tokens",
    "finetune_examples",
    "finetune_tokens",
    "tuning_size",
    "tuning_params",
)
_MEASURED = (
    "dev_loss",
    "loss",
    "bleu",
    "chrf",
    "rouge_1",
    "rouge_2",
    "rouge_l",
    "exact_match",
    "accuracy",
    "judge_score",
    "step_seconds",
    "epoch_seconds",
    "train_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "checkpoint_bytes",
    "steps",
    "best_step",
    "converged_step",
    "runs_at_once",
    "seed",
    "subset_seed",
)
# Columns that must hold numbers wherever they stand.
KNOWN = SIZES + _MEASURED


@dataclass(frozen=True)
class Run:
    """One row of results.csv: `cells` as text, `numbers` what was measured; an empty cell is absent."""

    line: int
    run_id: str
    task: str
    method: str
    model: str
    status: str
    reason: str
    record: str
    cells: dict[str, str]
    numbers: dict[str, float]

    def __getitem__(self, column: str) -> float:
        """The number in `column`, NaN when not measured."""
        return self.numbers.get(column, math.nan)

    @property
    def loss(self) -> float:
        """Nats per target token; NaN when not measured."""
        return self["loss"]


@dataclass(frozen=True)
class Study:
    """What the report is made of.

    Attributes:
        folder: the study folder.
        description: study.json.
        runs: all rows of results.csv.
        fits: what fits.json holds.
        decision: decision.json, {} when there is none.
        facts: `facts` of the finetuning store's manifest, {} when unknown.
    """

    folder: Path
    description: dict[str, Any]
    runs: tuple[Run, ...]
    fits: tuple[Fit, ...]
    decision: dict[str, Any]
    facts: dict[str, Any]

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.description.get("name", self.folder.name))

    @property
    def done(self) -> tuple[Run, ...]:
        """Finished rows that have a loss."""
        return tuple(run for run in self.runs if run.status == "done" and math.isfinite(run.loss))

    @property
    def left_out(self) -> tuple[Run, ...]:
        """Rows that carry no loss, with their reason."""
        kept = set(map(id, self.done))
        return tuple(run for run in self.runs if id(run) not in kept)

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks in the order of the table."""
        return _in_order(run.task for run in self.runs)

    def methods(self, task: str) -> tuple[str, ...]:
        """Methods of a task in the order of the table."""
        return _in_order(run.method for run in self.runs if run.task == task)


def read_study(folder: str | Path) -> Study:
    """Reads study.json, results.csv, fits.json, decision.json and the store's facts.

    Raises:
        InputError: a file is missing or damaged; a column is missing; a cell is not a number where one
            belongs, or a size is not above zero.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the folder that `scaling-jax study` wrote")
    description = read_description(folder / "study.json")
    fits = read_fits(folder / "fits.json")
    decision = read_description(folder / "decision.json") if (folder / "decision.json").exists() else {}
    runs = read_runs(folder / "results.csv")
    return Study(folder, description, runs, fits, decision, _facts(folder, description))


def read_runs(path: Path) -> tuple[Run, ...]:
    """Reads results.csv; see `read_study` for what is refused."""
    try:
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            _need_columns(path, header)
            return _told_apart([_run(path, reader.line_num, row) for row in reader])
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; run the study first") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from error


def read_fits(path: Path) -> tuple[Fit, ...]:
    """The fits of fits.json; () when the list is empty, as for a study nothing could be fitted to."""
    if files.read_json(path) == []:
        return ()
    return tuple(results.read_fits(path))


def read_description(path: Path) -> dict[str, Any]:
    """A JSON object such as study.json or decision.json."""
    content = files.read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _need_columns(path: Path, header: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in header]
    if missing:
        raise InputError(f"{path}:1: no column {missing[0]!r}{did_you_mean(missing[0], header)}")


def _run(path: Path, line: int, row: dict[str, Any]) -> Run:
    if None in row or None in row.values():
        raise InputError(f"{path}:{line}: the row has another number of cells than the header")
    numbers = {}
    for column in KNOWN:
        text = (row.get(column) or "").strip()
        if not text:
            continue
        try:
            numbers[column] = float(text)
        except ValueError as error:
            raise InputError(f"{path}:{line}: column {column!r}: {text!r} is not a number") from error
        if column in SIZES and not (math.isfinite(numbers[column]) and numbers[column] >= 0):
            raise InputError(f"{path}:{line}: column {column!r}: {text!r}; a size is zero or above")
    numbers |= _further(row, numbers)
    return Run(
        line,
        row["run_id"],
        row["task"],
        row["method"],
        row["model"],
        row["status"],
        row.get("reason") or "",
        row.get("record") or "",
        dict(row),
        numbers,
    )


def _further(row: dict[str, Any], known: dict[str, float]) -> dict[str, float]:
    """Numbers in the columns after `record`: values of further evaluations, beside what a user may add."""
    names = list(row)
    found = {}
    for column in names[names.index("record") + 1 :] if "record" in names else ():
        try:
            value = float(row[column])
        except ValueError:
            continue
        if math.isfinite(value) and column not in known:
            found[column] = value
    return found


def _told_apart(runs: list[Run]) -> tuple[Run, ...]:
    """The runs with their tasks named as the fits name them; see `laws.factors.told_apart`."""
    tasks, mixtures, *others = (
        [run.cells.get(name) or "" for run in runs]
        for name in ("task", "pretrain_mixture", "after", "pretrain_tokens")
    )
    tasks = told_apart(tasks, mixtures, *others, set(mixtures))
    return tuple(
        replace(run, task=task, cells={**run.cells, "task": task})
        for run, task in zip(runs, tasks, strict=True)
    )


def _facts(folder: Path, description: dict[str, Any]) -> dict[str, Any]:
    store = (description.get("stores") or {}).get("finetune", "stores/finetune")
    manifest = folder / str(store) / "manifest.json"
    return dict(read_description(manifest).get("facts") or {}) if manifest.exists() else {}


def _in_order(values) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
