"""The results table: one row per finetuning run, read from the runs' own records."""

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.studies.plan import Job

COLUMNS = (
    "run_id study task method model model_params non_embedding_params pretrain_tokens "
    "finetune_examples finetune_tokens tuning_size tuning_params subset_seed seed steps best_step "
    "dev_loss loss bleu chrf rouge_l accuracy judge_score step_seconds train_seconds "
    "tokens_per_second peak_memory_bytes checkpoint_bytes forward_flops_per_token "
    "backward_flops_per_token flops_saved converged_step status reason record"
).split()
# Equal between two studies of one configuration only by luck.
COST_COLUMNS = (
    "step_seconds",
    "train_seconds",
    "tokens_per_second",
    "peak_memory_bytes",
    "checkpoint_bytes",
)

COUNTED_COSTS = ("forward_flops_per_token", "backward_flops_per_token", "flops_saved")


def row(study_name: str, task: str, job: Job, record: dict[str, Any]) -> dict[str, Any]:
    """One row; what a failed run did not measure stays empty."""
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
        "pretrain_tokens": point["pretrain_tokens"],
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
    return {name: filled.get(name) for name in COLUMNS}


def write_results(
    study: Path, study_name: str, tasks: Mapping[str, str], jobs: list[Job]
) -> list[dict[str, Any]]:
    """Writes `results.csv` with the rows of all runs that have ended, in the order of their ids.

    `tasks` holds the task of each finetuning store by the store's name.
    """
    rows = []
    for job in sorted((job for job in jobs if job.kind == "finetuning"), key=lambda job: job.job_id):
        path = study / job.folder / "record.json"
        if path.exists():
            task = tasks[job.details["point"]["store"]]
            rows.append(row(study_name, task, job, files.read_json(path)))
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    files.write_text(study / "results.csv", text.getvalue())
    return rows
