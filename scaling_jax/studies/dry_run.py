"""What a study would run, before it runs: models, jobs, tokens, FLOPs, memory and a rough time.

Needs no data: where stores or bases are not there yet, sizes are assumed and it is said which.
"""

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from scaling_jax.data.store import open_store
from scaling_jax.errors import InputError
from scaling_jax.evaluation.evaluations import Evaluation
from scaling_jax.evaluation.evaluations import check as check_evaluations
from scaling_jax.models import counts
from scaling_jax.studies import memory
from scaling_jax.studies.assumptions import Sizes, sizes_of
from scaling_jax.studies.bases import missing_bases, read_base
from scaling_jax.studies.bindings import check_scopes
from scaling_jax.studies.grid import Point
from scaling_jax.studies.jobs import Job, Models, evaluation_tokens, make_jobs
from scaling_jax.studies.plan import Study, recipe
from scaling_jax.studies.runner import jobs_of
from scaling_jax.training.finetune import settings_for
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.method import named_method

# Share of a dense NumPy product's speed that small training steps reached on CPU (docs/performance.md).
CPU_EFFICIENCY = 0.25
COMPILE_SECONDS = 4.0
# What one accelerator is taken to sustain, where a study is too large for a CPU: weeks of a core.
ACCELERATOR_FLOPS = 4e14
_TOO_LARGE = 1e16
_KINDS = ("pretraining", "learning_rate", "finetuning", "base_evaluation")


def describe(study: Study, folder: Path) -> str:
    """The plan as text.

    Raises:
        InputError: the configuration cannot be run.
    """
    check_scopes(study)
    sizes = sizes_of(study, folder)
    if sizes.prepared and all(read_base(base).hash for base in study.bases()):
        stores = {name: open_store(path) for name, path in study.store_paths(folder).items()}
        jobs = jobs_of(study, stores)
    else:
        jobs = make_jobs(study, sizes.vocabulary, sizes.tokens)
    models = Models(sizes.vocabulary)
    points = study.points()
    lines = [f"study {study.name}: {_count(jobs, 'finetuning')} finetuning runs"]
    lines += [f"assumed: {note}" for note in (*sizes.notes, *missing_bases(study.bases()))]
    lines += ["", *_models(points, jobs, models)]
    lines += ["", *_pretraining(study, jobs, points, models, sizes)]
    lines += ["", *_finetuning(points, models, sizes), memory.FORMULA]
    lines += _checkpoints(jobs, points, models)
    lines += ["", *_evaluations(study, folder, jobs, sizes)]
    lines += _times(jobs)
    if study.hold_out:
        lines.append(f"held out of every fit: {' '.join(study.hold_out.split())}")
    return "\n".join(lines)


def _models(points: Sequence[Point], jobs: Sequence[Job], models: Models) -> list[str]:
    lines = [f"{'model':<24}{'parameters':>16}{'non-embedding':>16}   starts from"]
    for point in {(point.model, point.base): point for point in points}.values():
        config = models.of(point)
        levels = {
            f"{job.details['mixture']} " * bool(job.details["mixture"])
            + ", ".join(f"{level:,}" for level in job.details["levels"])
            for job in jobs
            if job.kind == "pretraining" and job.details["model"] == point.model and not point.base
        }
        start = point.base or "pretraining tokens " + "; ".join(sorted(levels))
        lines.append(
            f"{point.model:<24}{counts.model_parameters(config):>16,}"
            f"{counts.non_embedding_parameters(config):>16,}   {start}"
        )
    return lines


def _pretraining(
    study: Study, jobs: Sequence[Job], points: Sequence[Point], models: Models, sizes: Sizes
) -> list[str]:
    lines = []
    by_model = {point.model: point for point in points if not point.base}
    for job in jobs:
        if job.kind != "pretraining" or not max(job.details["levels"]):
            continue
        settings, model = recipe(job.details["mixture"]), job.details["model"]
        config = models.of(by_model.get(model) or study.rate_points()[0])
        window = sizes.windows.get(job.details["stores"][0], 0)
        tokens = settings.batch_size * window
        kept = memory.pretraining_bytes(config, settings.optimizer, tokens / settings.microbatches)
        mixture = ", ".join(f"{share:.0%} {name}" for name, share in settings.mixture.items())
        lines.append(
            f"{job.job_id}: {max(job.details['levels']):,} tokens{f' ({mixture})' if mixture else ''}, "
            f"{settings.batch_size} windows of {window:,} a step, {job.work:.2e} FLOPs, "
            f"{_gib(kept)}"
        )
    return lines


def _finetuning(points: Sequence[Point], models: Models, sizes: Sizes) -> list[str]:
    """One line per method, tuning size, model and store: runs, steps, tokens, memory."""
    groups: dict[tuple, list[Point]] = {}
    for point in points:
        key = (point.store, point.method, point.tuning_size, point.model, point.earlier)
        groups.setdefault(key, []).append(point)
    lines = []
    for (store, method, size, model, earlier), own in groups.items():
        settings, config = settings_for(method), models.of(own[0])
        steps = [settings.steps(point.finetune_examples) for point in own]
        batch = settings.batch_size * sizes.tokens[store]
        kept = memory.job_bytes(
            config,
            named_method(method, size),
            settings.optimizer,
            batch / settings.microbatches,
            settings.base_dtype,
        )
        name = f"{method}{f' of {size}' if size is not None else ''}"
        after = f" after {earlier}" if earlier else ""
        examples = sorted({point.finetune_examples for point in own})
        lines.append(
            f"{name} of {model}{after} on {store}: {_times_of(len(own), 'run')}, "
            f"{_times_of(len({point.seed for point in own}), 'seed')}, examples {_range(examples)}, "
            f"{_range(steps)} steps of {settings.batch_size}, up to {max(steps) * batch:.2e} tokens, "
            f"{_gib(kept)}"
        )
    return lines


def _checkpoints(jobs: Sequence[Job], points: Sequence[Point], models: Models) -> list[str]:
    """What of the study stays on disk as checkpoints."""
    by_model = {point.model: point for point in points if not point.base}
    pretrained = sum(
        len(job.details["levels"])
        * memory.checkpoint_bytes(models.of(by_model[job.details["model"]]), Full())
        for job in jobs
        if job.kind == "pretraining" and job.details["model"] in by_model
    )
    sizes: dict[tuple, int] = {}
    tuned = 0
    for point in points:
        if settings_for(point.method).keep_checkpoint == "best":
            key = (point.method, point.tuning_size, point.model, point.base)
            if key not in sizes:
                method = named_method(point.method, point.tuning_size)
                sizes[key] = memory.checkpoint_bytes(models.of(point), method)
            tuned += sizes[key]
    return [
        f"checkpoints: {_gib(pretrained)} of pretrained models, {_gib(tuned)} of tuned ones "
        "(FinetuneSettings.keep_checkpoint = 'none' keeps none of these)"
    ]


def _evaluations(study: Study, folder: Path, jobs: Sequence[Job], sizes: Sizes) -> list[str]:
    lines = []
    stores = study.store_paths(folder)
    for evaluations, kind, of in (
        (study.evaluations, "finetuning", "tuned models"),
        (study.base_evaluations, "base_evaluation", "models before they are tuned"),
    ):
        for evaluation in evaluations:
            lines.append(_evaluation(evaluation, _count(jobs, kind), of, sizes))
        try:
            check_evaluations(evaluations, stores)
        except InputError as error:
            lines.append(f"  cannot be made here: {error}")
    return lines


def _evaluation(evaluation: Evaluation, count: int, of: str, sizes: Sizes) -> str:
    where = evaluation.store or "their own store"
    mean = sizes.tokens.get(evaluation.store or "", max(sizes.tokens.values(), default=0.0))
    told = [*evaluation.scores, *(["loss"] if evaluation.loss else [])] or ["the scores that its task names"]
    examples = "all" if evaluation.examples is None else f"{evaluation.examples:,}"
    total = count * evaluation_tokens(evaluation, mean)
    return (
        f"evaluation {evaluation.label}: {count} {of}, {', '.join(told)} on {examples} examples of "
        f"{evaluation.split} of {where}, {evaluation.shots} shots, {evaluation.decoding.strategy}; "
        f"about {total:.2e} tokens" + ("" if evaluation.examples else " (1,000 examples assumed)")
    )


def _times(jobs: Sequence[Job]) -> list[str]:
    programs = len({job.program for job in jobs})
    lines = []
    for kind in _KINDS:
        if _count(jobs, kind) or kind != "base_evaluation":
            work = sum(job.work for job in jobs if job.kind == kind)
            lines.append(f"{kind.replace('_', ' ')}: {_count(jobs, kind)} jobs, {work:.2e} FLOPs")
    total = sum(job.work for job in jobs)
    if total > _TOO_LARGE:
        days = total / ACCELERATOR_FLOPS / 86400
        lines.append(
            f"all: {total:.2e} FLOPs, roughly {days:.3g} days of one accelerator that sustains "
            f"{ACCELERATOR_FLOPS / 1e12:.0f} TFLOP/s, less where runs stop early"
        )
    else:
        speed = _dense_flops_per_second() * CPU_EFFICIENCY
        seconds = total / speed + programs * COMPILE_SECONDS
        lines.append(
            f"roughly {seconds / 60:.0f} core-minutes on this machine's CPU "
            f"({speed / 1e9:.0f} GFLOP/s a core assumed, {programs} programs to compile), "
            "less where runs stop early"
        )
    return lines


def _range(values: Iterable[int]) -> str:
    values = sorted(set(values))
    if len(values) == 1:
        return f"{values[0]:,}"
    return f"{values[0]:,} to {values[-1]:,}"


def _times_of(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


def _gib(size: float) -> str:
    unit, name = (2**40, "TiB") if size >= 2**40 else (2**30, "GiB")
    return f"roughly {size / unit:.3g} {name}"


def _count(jobs: Sequence[Job], kind: str) -> int:
    return sum(job.kind == kind for job in jobs)


def _dense_flops_per_second() -> float:
    matrix = np.ones((512, 512), np.float32)
    matrix @ matrix
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < 0.2:
        matrix @ matrix
        products += 1
    return products * 2 * 512**3 / (time.perf_counter() - began)
