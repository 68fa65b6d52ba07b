"""A study as a list of jobs with folders and dependencies; the whole of it follows from gin."""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.families import named_model
from scaling_jax.studies.grid import FINETUNE, Grid, LearningRateSearch, Point
from scaling_jax.training.finetune import settings_for
from scaling_jax.tuning.method import named_method, registered_name

PRETRAIN = "pretrain"


@gin.configurable(module="studies")
@dataclasses.dataclass(frozen=True)
class Study:
    """What a study is.

    Attributes:
        name: shown in results and report.
        grids: their union is run.
        hold_out: expression over the columns of the results; such points are never fitted.
        learning_rates: a search, or None to take the rates bound in gin.
        model_size: column that stands for model size in the laws.
        pretrain_store, finetune_store: prepared stores; None prepares them from this configuration
            under the names `pretrain` and `finetune`. Other names in `Grid.store` are prepared too.
        pretrain_seed: of every pretraining run.
        workers: processes; 0 is one per core on CPU and one on an accelerator.
        cohort: runs of one program and base that a worker makes at the same time; 0 is 8 on an
            accelerator and 1 on CPU, where processes gain more. Full tuning shares nothing: one by one.
    """

    name: str
    grids: Sequence[Grid]
    hold_out: str = ""
    learning_rates: LearningRateSearch | None = None
    model_size: str = "non_embedding_params"
    pretrain_store: str | None = None
    finetune_store: str | None = None
    pretrain_seed: int = 0
    workers: int = 0
    cohort: int = 0

    def points(self) -> list[Point]:
        """The union of all grids, in order of first appearance."""
        return list(dict.fromkeys(point for grid in self.grids for point in grid.points()))

    def store_paths(self, folder: Path) -> dict[str, str]:
        """Where the stores of this study are: that of pretraining first, then those of its points."""
        given = {PRETRAIN: self.pretrain_store, FINETUNE: self.finetune_store}
        searched = [self.learning_rates.store] if self.learning_rates else []
        names = dict.fromkeys([PRETRAIN, *(point.store for point in self.points()), *searched])
        return {name: given.get(name) or str(folder / "stores" / name) for name in names}


@dataclasses.dataclass(frozen=True)
class Job:
    """One thing a worker does.

    Attributes:
        job_id: unique; also the claim's name.
        kind: "pretraining", "learning_rate" or "finetuning".
        folder: relative to the study.
        needs: ids of jobs that must have ended.
        program: jobs of the same program share compiled code.
        work: estimated FLOPs.
        details: what the kind needs (model and levels; or a point, and a rate to try).
    """

    job_id: str
    kind: str
    folder: str
    needs: tuple[str, ...]
    program: str
    work: float
    details: dict[str, Any]


def make_jobs(study: Study, vocabulary_size: int, tokens_per_example: Mapping[str, float]) -> list[Job]:
    """Jobs in the order that workers prefer them: what others wait for, then the largest.

    Args:
        study: from gin.
        vocabulary_size: of its stores.
        tokens_per_example: mean of each finetuning store, by name.

    Raises:
        InputError: an unknown model or method, a method whose settings do not fit a model, or a search over
            a model that the study does not have.
    """
    points = study.points()
    search = study.learning_rates
    _check_methods([*points, *(_search_points(search) if search else [])], vocabulary_size)
    rate_jobs = _rate_jobs(search, vocabulary_size, tokens_per_example) if search else []
    levels: dict[str, set[int]] = {}
    for point in [*points, *([_search_point(search, "full")] if search else [])]:
        levels.setdefault(point.model, set()).add(point.pretrain_tokens)
    pretraining = [_pretrain_job(model, sorted(tokens), vocabulary_size) for model, tokens in levels.items()]
    waited_for = search.model if search else None
    pretraining.sort(key=lambda job: (job.details["model"] != waited_for, -job.work))
    finetuning = [_finetune_job(point, rate_jobs, vocabulary_size, tokens_per_example) for point in points]
    finetuning.sort(key=lambda job: -job.work)
    # One worker searches for rates while the others pretrain.
    return (
        [*pretraining[:1], *rate_jobs, *pretraining[1:], *finetuning]
        if search
        else [*pretraining, *finetuning]
    )


def identity() -> str:
    """Hash of the resolved configuration: a study folder belongs to one."""
    return hashlib.sha256(configuration.resolved().encode()).hexdigest()


def claim_folder(folder: Path, study: Study) -> None:
    """Writes `study.json` and `config.gin` into a new study folder, or checks that it is the same study.

    Raises:
        InputError: the folder holds another study, or something that is no study.
    """
    record = folder / "study.json"
    if record.exists():
        known = files.read_json(record)
        if known["identity"] != identity():
            changed = _first_difference(known["config"], configuration.resolved())
            raise InputError(
                f"{folder} already holds another study ({known['name']}; first difference: {changed}): "
                "give a new --out, or the configuration it was made with"
            )
        return
    if folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no study: give a new --out")
    files.write_text(folder / "config.gin", configuration.resolved())
    files.write_json(record, {"name": study.name, "identity": identity(), "config": configuration.resolved()})


def _first_difference(old: str, new: str) -> str:
    old_lines, new_lines = set(old.splitlines()), set(new.splitlines())
    for line in [*new.splitlines(), *old.splitlines()]:
        if (line in new_lines) != (line in old_lines):
            return f"{'now' if line in new_lines else 'then'} {line.strip()!r}"
    return "the order of bindings"


def _search_point(search: LearningRateSearch, method: str) -> Point:
    examples, seed = search.finetune_examples, search.seed
    return Point(search.model, search.pretrain_tokens, method, None, examples, seed, search.store)


def _search_points(search: LearningRateSearch) -> list[Point]:
    return [_search_point(search, method) for method in search.rates]


def _check_methods(points: Sequence[Point], vocabulary_size: int) -> None:
    """Every method's settings against every model that it tunes, before anything is trained."""
    for model, method, size in {(point.model, point.method, point.tuning_size): None for point in points}:
        parameters = counts.abstract_parameters(named_model(model, vocabulary_size))
        try:
            named_method(method, size).check(parameters)
        except InputError as error:
            raise InputError(f"model {model!r}: {error}") from error


def _pretrain_job(model: str, levels: list[int], vocabulary_size: int) -> Job:
    config = named_model(model, vocabulary_size)
    work = 3.0 * counts.forward_flops_per_token(config, 64) * max(levels)
    details = {"model": model, "levels": levels}
    return Job(
        f"pretrain-{model}", "pretraining", f"pretraining/{model}", (), f"pretrain-{model}", work, details
    )


def _finetune_work(point: Point, vocabulary_size: int, tokens_per_example: Mapping[str, float]) -> float:
    settings, tokens = settings_for(point.method), tokens_per_example[point.store]
    forward = counts.forward_flops_per_token(named_model(point.model, vocabulary_size), int(tokens) or 1)
    return 3.0 * forward * settings.steps(point.finetune_examples) * settings.batch_size * tokens


def _program(point: Point) -> str:
    return f"{point.method}-{point.tuning_size}-{point.model}-{point.store}"


def _rate_jobs(
    search: LearningRateSearch, vocabulary_size: int, tokens_per_example: Mapping[str, float]
) -> list[Job]:
    jobs = []
    for method, rates in search.rates.items():
        point = _search_point(search, method)
        for rate in rates:
            job_id = f"rate-{method}-{rate:g}"
            details = {"point": dataclasses.asdict(point), "learning_rate": rate}
            work = _finetune_work(point, vocabulary_size, tokens_per_example)
            needs = (f"pretrain-{search.model}",)
            jobs.append(
                Job(
                    job_id,
                    "learning_rate",
                    f"learning_rates/{method}-{rate:g}",
                    needs,
                    _program(point),
                    work,
                    details,
                )
            )
    return jobs


def _finetune_job(
    point: Point, rate_jobs: list[Job], vocabulary_size: int, tokens_per_example: Mapping[str, float]
) -> Job:
    searched = {job.details["point"]["method"] for job in rate_jobs}
    method = point.method if point.method in searched else registered_name(point.method)
    rates = tuple(job.job_id for job in rate_jobs if job.details["point"]["method"] == method)
    return Job(
        point.run_id,
        "finetuning",
        f"runs/{point.run_id}",
        (f"pretrain-{point.model}", *rates),
        _program(point),
        _finetune_work(point, vocabulary_size, tokens_per_example),
        {"point": dataclasses.asdict(point)},
    )
