"""The results table: one row per finetuning run, read from the runs' own records."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.studies.columns import BASE_COLUMNS, COLUMNS
from scaling_jax.studies.jobs import Job

# Equal between two studies of one configuration only by luck.
COST_COLUMNS = (
    "step_seconds",
    "epoch_seconds",
    "train_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "checkpoint_bytes",
)

COUNTED_COSTS = ("forward_flops_per_token", "backward_flops_per_token", "flops_saved", "runs_at_once")
# What an evaluation's record says beside its values.
ABOUT_AN_EVALUATION = ("examples", "seconds", "signatures", "notes")
OWN_TASK = "task"
# Name of a mean -> names of the evaluations that it is taken over, see `Study.means`.
Means = Mapping[str, Sequence[str]]
NO_MEANS: Means = {}


def row(
    study_name: str, task: str, job: Job, record: dict[str, Any], means: Means = NO_MEANS
) -> dict[str, Any]:
    """One row; what a failed run did not measure stays empty. Values of further evaluations come last."""
    point = job.details["point"]
    results, costs = record.get("results", {}), record.get("costs", {})
    parameters = record.get("parameters", {})
    filled = {
        "run_id": job.job_id,
        "study": study_name,
        "task": task,
        "method": point["method"],
        "model": point["model"],
        "model_params": parameters.get("total"),
        "non_embedding_params": parameters.get("non_embedding"),
        "pretrain_mixture": point["mixture"],
        "pretrain_tokens": point["pretrain_tokens"],
        "after": job.details["after"],
        "finetune_examples": point["finetune_examples"],
        "finetune_tokens": record.get("finetune_tokens"),
        "tuning_size": point["tuning_size"],
        "tuning_params": parameters.get("trained"),
        "subset_seed": point["seed"],
        "seed": point["seed"],
        "status": record["status"],
        "reason": record.get("reason"),
        "record": f"{job.folder}/record.json",
    }
    filled |= {
        name: results.get(name) for name in ("steps", "best_step", "converged_step", "dev_loss", "loss")
    }
    filled |= {name: costs.get(name) for name in (*COST_COLUMNS, *COUNTED_COSTS)}
    measured = evaluated(with_means(record.get("evaluations", {}), means))
    measured.pop("loss", None)  # that of the whole test split is measured anyway
    return {name: filled.get(name) for name in COLUMNS} | measured


def evaluated(evaluations: Mapping[str, Mapping[str, Any]]) -> dict[str, float | None]:
    """Column -> value of a record's evaluations: `bleu` on the run's own task, `NAME_bleu` of others."""
    return {
        column if name == OWN_TASK else f"{name}_{column}": value
        for name, values in evaluations.items()
        for column, value in values.items()
        if column not in ABOUT_AN_EVALUATION
    }


def with_means(evaluations: Mapping[str, Mapping[str, Any]], means: Means) -> dict[str, Mapping[str, Any]]:
    """A record's evaluations and their means: of every value that all evaluations of a mean have."""
    found = dict(evaluations)
    for name, parts in means.items():
        values = [evaluations.get(part, {}) for part in parts]
        shared = [
            column
            for column in values[0]
            if column not in ABOUT_AN_EVALUATION and all(one.get(column) is not None for one in values)
        ]
        found[name] = {column: statistics.fmean(one[column] for one in values) for column in shared}
    return found


def write_results(
    study: Path, study_name: str, tasks: Mapping[str, str], jobs: list[Job], means: Means = NO_MEANS
) -> list[dict[str, Any]]:
    """Writes `results.csv` with the rows of all runs that have ended, in the order of their ids.

    `tasks` holds the task of each finetuning store by the store's name; for `means` see `with_means`.
    """
    rows = []
    for job in sorted((job for job in jobs if job.kind == "finetuning"), key=lambda job: job.job_id):
        path = study / job.folder / "record.json"
        if path.exists():
            task = tasks[job.details["point"]["store"]]
            rows.append(row(study_name, task, job, files.read_json(path), means))
    write_table(study / "results.csv", COLUMNS, rows)
    return rows


def write_bases(
    study: Path, tasks: Mapping[str, str], jobs: list[Job], means: Means = NO_MEANS
) -> list[dict[str, Any]]:
    """Writes `bases.csv`, one row for each model and finetuning store, where models were evaluated as they
    are before they are tuned."""
    rows = []
    for job in (job for job in jobs if job.kind == "base_evaluation"):
        path = study / job.folder / "record.json"
        if path.exists():
            rows += _base_rows(job, files.read_json(path), tasks, means)
    if rows:
        write_table(study / "bases.csv", BASE_COLUMNS, rows)
    return rows


def _base_rows(
    job: Job, record: Mapping[str, Any], tasks: Mapping[str, str], means: Means
) -> list[dict[str, Any]]:
    point, parameters = job.details["point"], record.get("parameters", {})
    about = {
        "base_id": job.job_id,
        "model": point["model"],
        "model_params": parameters.get("total"),
        "non_embedding_params": parameters.get("non_embedding"),
        "pretrain_mixture": point["mixture"],
        "pretrain_tokens": point["pretrain_tokens"],
        "status": record["status"],
        "reason": record.get("reason"),
        "record": f"{job.folder}/record.json",
    }
    found = []
    for store in job.details["stores"]:
        filled = about | {"task": tasks[store]}
        measured = evaluated(with_means(record.get("evaluations", {}).get(store, {}), means))
        found.append({name: filled.get(name) for name in BASE_COLUMNS} | measured)
    return found


def write_table(path: Path, columns: Iterable[str], rows: list[dict[str, Any]]) -> None:
    """Writes rows as a CSV of these columns, then of all others that some row has."""
    columns = list(dict.fromkeys([*columns, *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(path, text.getvalue())
