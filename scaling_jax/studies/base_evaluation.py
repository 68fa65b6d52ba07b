"""Models evaluated before they are tuned: with no example, or with a few of them in the prompt."""

from pathlib import Path
from typing import Any

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.evaluation.evaluations import Evaluation, Subject, evaluate_answers, of_checkpoint
from scaling_jax.evaluation.score import kept_as_note
from scaling_jax.models import counts
from scaling_jax.studies.jobs import Job
from scaling_jax.studies.plan import Study
from scaling_jax.training import records
from scaling_jax.training.bases import load_checkpoint
from scaling_jax.training.mesh import Layout


def evaluate_base(study: Path, job: Job, stores: dict[str, str]) -> dict[str, Any]:
    """Makes `Study.base_evaluations` of one model and writes its record; returns that.

    An evaluation of the run's own task is made on every store that the model is tuned on, one of another
    store once. What cannot be evaluated is noted.

    Raises:
        InputError: see `load_checkpoint`.
    """
    folder, checkpoint = study / job.folder, study / job.details["base"]
    subject = of_checkpoint(checkpoint, load_checkpoint(checkpoint, Layout()))
    elsewhere: dict[str, dict] = {}
    found: dict[str, dict] = {}
    for store in job.details["stores"]:
        found[store] = {}
        for evaluation in configuration.call(Study).base_evaluations:
            label = evaluation.label
            if evaluation.store and label in elsewhere:
                found[store][label] = elsewhere[label]
                continue
            place = folder / "evaluations" / (label if evaluation.store else f"{store}_{label}")
            where = stores[evaluation.store or store]
            found[store][label] = _evaluated(subject, where, evaluation, place)
            if evaluation.store:
                elsewhere[label] = found[store][label]
    model = subject.program.model
    record = {
        "kind": "base_evaluation",
        "status": "done",
        "reason": None,
        "base": {"path": str(checkpoint), "hash": subject.identity},
        "parameters": {
            "total": counts.model_parameters(model),
            "non_embedding": counts.non_embedding_parameters(model),
        },
        "evaluations": found,
        "config": configuration.resolved(),
        "environment": records.environment(Layout()),
    }
    records.write(folder, record)
    return record


def _evaluated(subject: Subject, store: str, evaluation: Evaluation, folder: Path) -> dict[str, Any]:
    try:
        return evaluate_answers(subject, store, evaluation, folder, kept_as_note)
    except InputError as error:  # what else was asked is still answered
        return {"signatures": {}, "notes": [f"not evaluated: {configuration.message(error)}"]}
