"""A study as a list of jobs with folders and dependencies."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax

from scaling_jax.errors import InputError
from scaling_jax.evaluation.evaluations import Evaluation
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.families import named_model
from scaling_jax.studies.bases import read_base
from scaling_jax.studies.grid import Point
from scaling_jax.studies.plan import Study
from scaling_jax.training.finetune import settings_for
from scaling_jax.tuning.method import named_method, registered_name

# A search for learning rates is waited for too, but its jobs may diverge.
RATE = "rate-"
# Stands for all of a split whose size is not known yet, in estimates of work.
ASSUMED_EXAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Job:
    """One thing a worker does.

    Attributes:
        job_id: unique; also the claim's name.
        kind: "pretraining", "learning_rate", "finetuning" or "base_evaluation".
        folder: relative to the study.
        needs: ids of jobs that must have ended.
        program: jobs of the same program share compiled code.
        work: estimated FLOPs.
        details: what the kind needs (model, levels, recipe and its stores; or a point, the folder of its
            base relative to the study, and a rate to try).
    """

    job_id: str
    kind: str
    folder: str
    needs: tuple[str, ...]
    program: str
    work: float
    details: dict[str, Any]

    @property
    def needs_done(self) -> tuple[str, ...]:
        """Those of its needs without whose result it cannot be done."""
        return tuple(need for need in self.needs if not need.startswith(RATE))


class Models:
    """The shapes of a study's models, read once each."""

    def __init__(self, vocabulary_size: int):
        self._vocabulary_size = vocabulary_size
        self._known: dict[tuple[str, str], ModelConfig] = {}

    def of(self, point: Point) -> ModelConfig:
        """The model that a point tunes.

        Raises:
            InputError: no such model in the gin files.
        """
        key = (point.model, point.base)
        if key not in self._known:
            base = read_base(point.base) if point.base else None
            known = base.model if base else None
            self._known[key] = known or named_model(point.model, self._vocabulary_size)
        return self._known[key]


def make_jobs(study: Study, vocabulary_size: int, tokens_per_example: Mapping[str, float]) -> list[Job]:
    """Jobs in the order that workers prefer them: what others wait for, then the largest.

    Args:
        study: from gin.
        vocabulary_size: of its stores.
        tokens_per_example: mean of each finetuning store, by name.

    Raises:
        InputError: an unknown model or method, a method whose settings do not fit a model, a run that goes on
            from one that keeps no checkpoint or cannot be merged.
    """
    points, rate_points = study.points(), study.rate_points()
    models = Models(vocabulary_size)
    _check_methods([*points, *rate_points], models)
    _check_chains(points, models)
    rate_jobs = _rate_jobs(study, models, tokens_per_example)
    pretraining = _pretrain_jobs(study, [*points, *rate_points], models)
    waited_for = {need for job in rate_jobs for need in job.needs}
    pretraining.sort(key=lambda job: (job.job_id not in waited_for, -job.work))
    finetuning = [_finetune_job(study, point, rate_jobs, models, tokens_per_example) for point in points]
    earlier = {need for job in finetuning for need in job.needs_done}
    finetuning.sort(key=lambda job: (job.job_id not in earlier, -job.work))
    # One worker searches for rates while the others pretrain.
    first = len(waited_for)
    of_bases = _base_jobs(study, points, models, tokens_per_example) if study.base_evaluations else []
    return [*pretraining[:first], *rate_jobs, *pretraining[first:], *finetuning, *of_bases]


def _check_methods(points: Sequence[Point], models: Models) -> None:
    """Every method's settings against every model that it tunes, before anything is trained."""
    distinct = {(point.model, point.base, point.method, point.tuning_size): point for point in points}
    for point in distinct.values():
        parameters = counts.abstract_parameters(models.of(point))
        try:
            named_method(point.method, point.tuning_size).check(parameters)
        except InputError as error:
            raise InputError(f"model {point.model!r}: {error}") from error


def _check_chains(points: Sequence[Point], models: Models) -> None:
    """Runs that others go on from must leave a checkpoint, and one that can be merged."""
    earlier = {point.after: point for point in points if point.after}
    for point, later in earlier.items():
        told = f"{later.run_id} goes on from {point.run_id}"
        if settings_for(point.method).keep_checkpoint != "best":
            raise InputError(
                f"{told}, which keeps no checkpoint: bind {registered_name(point.method)}/"
                "FinetuneSettings.keep_checkpoint = 'best'"
            )
        try:
            _check_mergeable(models.of(point), named_method(point.method, point.tuning_size))
        except InputError as error:
            raise InputError(f"{told}, but {error}") from error


def _check_mergeable(model: ModelConfig, method: Any) -> None:
    if not method.trains_base:
        variables = nn.unbox(counts.abstract_variables(model, method))
        jax.eval_shape(method.merge, method.kept(variables["tuned"]), variables["params"])


def _pretrain_name(point: Point) -> str:
    """Of the pretraining run that a point starts from: its model, and its recipe where it has one."""
    return f"{point.model}-{point.mixture}" if point.mixture else point.model


def _pretrain_jobs(study: Study, points: Iterable[Point], models: Models) -> list[Job]:
    """One job per model and recipe, which keeps every level that some run starts from."""
    recipes = study.recipes()
    of: dict[str, tuple[Point, set[int]]] = {}
    for point in points:
        if not point.base:
            of.setdefault(_pretrain_name(point), (point, set()))[1].add(point.pretrain_tokens)
    jobs = []
    for name, (point, levels) in of.items():
        forward = counts.forward_flops_per_token(models.of(point), 64)
        # A model that is only initialised takes its vocabulary from any recipe.
        scope = point.mixture if point.mixture in recipes else next(iter(recipes))
        details = {
            "model": point.model,
            "levels": sorted(levels),
            "mixture": scope,
            "stores": list(recipes[scope]),
        }
        work = 3.0 * forward * max(levels)
        job_id = f"pretrain-{name}"
        jobs.append(Job(job_id, "pretraining", f"pretraining/{name}", (), job_id, work, details))
    return jobs


def _start(point: Point) -> tuple[str, tuple[str, ...]]:
    """(folder of the checkpoint that a point starts from, relative to the study or absolute; its needs)."""
    if point.after:
        return f"runs/{point.after.run_id}/checkpoint", (point.after.run_id,)
    if point.base:
        return point.base, ()
    name = _pretrain_name(point)
    return f"pretraining/{name}/checkpoints/{point.pretrain_tokens}", (f"pretrain-{name}",)


def _finetune_work(point: Point, models: Models, tokens_per_example: Mapping[str, float]) -> float:
    settings, tokens = settings_for(point.method), tokens_per_example[point.store]
    forward = counts.forward_flops_per_token(models.of(point), int(tokens) or 1)
    return 3.0 * forward * settings.steps(point.finetune_examples) * settings.batch_size * tokens


def _program(point: Point) -> str:
    return f"{point.method}-{point.tuning_size}-{point.model}-{point.store}"


def _rate_jobs(study: Study, models: Models, tokens_per_example: Mapping[str, float]) -> list[Job]:
    jobs = []
    for point in study.rate_points():
        base, needs = _start(point)
        for rate in study.learning_rates.rates[point.method]:
            details = {"point": dataclasses.asdict(point), "base": base, "learning_rate": rate}
            jobs.append(
                Job(
                    f"{RATE}{point.method}-{rate:g}",
                    "learning_rate",
                    f"learning_rates/{point.method}-{rate:g}",
                    needs,
                    _program(point),
                    _finetune_work(point, models, tokens_per_example),
                    details,
                )
            )
    return jobs


def evaluation_tokens(evaluation: Evaluation, tokens_per_example: float) -> float:
    """Tokens that an evaluation reads and generates, roughly: all of a split is taken for 1,000 examples."""
    read = tokens_per_example * (1 + evaluation.shots)
    generated = evaluation.decoding.max_new_tokens if evaluation.scores or not evaluation.loss else 0
    return (evaluation.examples or ASSUMED_EXAMPLES) * (read + generated)


def evaluation_work(
    evaluations: Sequence[Evaluation],
    store: str,
    model: ModelConfig,
    tokens_per_example: Mapping[str, float],
) -> float:
    """Estimated FLOPs of the evaluations of one model that is tuned on `store`."""
    work = 0.0
    for evaluation in evaluations:
        tokens = tokens_per_example.get(evaluation.store or store, tokens_per_example[store])
        forward = counts.forward_flops_per_token(model, int(tokens) or 1)
        work += forward * evaluation_tokens(evaluation, tokens)
    return work


def _base_jobs(
    study: Study, points: Sequence[Point], models: Models, tokens_per_example: Mapping[str, float]
) -> list[Job]:
    """One job for each model that is tuned: it is evaluated as it is, on every store that it is tuned on."""
    stores: dict[str, dict[str, Point]] = {}
    for point in points:
        if point.after is None:
            stores.setdefault(point.origin, {}).setdefault(point.store, point)
    jobs = []
    for origin, by_store in stores.items():
        point = next(iter(by_store.values()))
        base, needs = _start(point)
        work = sum(
            evaluation_work(study.base_evaluations, store, models.of(point), tokens_per_example)
            for store in by_store
        )
        details = {"point": dataclasses.asdict(point), "base": base, "stores": list(by_store)}
        job_id = f"base-{origin}"
        jobs.append(Job(job_id, "base_evaluation", f"bases/{origin}", needs, job_id, work, details))
    return jobs


def _finetune_job(
    study: Study,
    point: Point,
    rate_jobs: list[Job],
    models: Models,
    tokens_per_example: Mapping[str, float],
) -> Job:
    searched = {job.details["point"]["method"] for job in rate_jobs}
    method = point.method if point.method in searched else registered_name(point.method)
    rates = tuple(job.job_id for job in rate_jobs if job.details["point"]["method"] == method)
    base, needs = _start(point)
    evaluations = evaluation_work(study.evaluations, point.store, models.of(point), tokens_per_example)
    return Job(
        point.run_id,
        "finetuning",
        f"runs/{point.run_id}",
        (*needs, *rates),
        _program(point),
        _finetune_work(point, models, tokens_per_example) + evaluations,
        {
            "point": dataclasses.asdict(point),
            "base": base,
            "after": point.earlier,
        },
    )
