"""What a study would run, before it runs: models, tokens, jobs and a rough time."""

import time
from pathlib import Path

import numpy as np

from scaling_jax.data.store import open_store
from scaling_jax.models import counts
from scaling_jax.models.families import named_model
from scaling_jax.studies.plan import PRETRAIN, Job, Study, make_jobs
from scaling_jax.studies.runner import jobs_of

# Share of a dense NumPy product's speed that small training steps reached on CPU (docs/performance.md).
CPU_EFFICIENCY = 0.25
COMPILE_SECONDS = 4.0
# Stand-ins where the stores are not prepared yet.
ASSUMED_VOCABULARY, ASSUMED_TOKENS = 512, 32.0


def describe(study: Study, folder: Path) -> str:
    """The plan as text.

    Raises:
        InputError: the configuration cannot be run.
    """
    paths = {name: Path(path) for name, path in study.store_paths(folder).items()}
    prepared = all((path / "manifest.json").exists() for path in paths.values())
    if prepared:
        stores = {name: open_store(path) for name, path in paths.items()}
        vocabulary, jobs = stores[PRETRAIN].vocabulary.size, jobs_of(study, stores)
    else:
        assumed = dict.fromkeys(paths, ASSUMED_TOKENS)
        vocabulary, jobs = ASSUMED_VOCABULARY, make_jobs(study, ASSUMED_VOCABULARY, assumed)
    lines = [f"study {study.name}: {_count(jobs, 'finetuning')} finetuning runs"]
    if not prepared:
        lines.append(
            f"stores not prepared yet: a vocabulary of {vocabulary} and "
            f"{ASSUMED_TOKENS:g} tokens an example assumed"
        )
    lines.append(f"\n{'model':<16}{'parameters':>14}{'non-embedding':>16}   pretraining tokens kept")
    for job in jobs:
        if job.kind == "pretraining":
            config = named_model(job.details["model"], vocabulary)
            levels = ", ".join(f"{level:,}" for level in job.details["levels"])
            lines.append(
                f"{config.name:<16}{counts.model_parameters(config):>14,}"
                f"{counts.non_embedding_parameters(config):>16,}   {levels}"
            )
    lines += ["", *_methods(study), "", *_times(study, jobs)]
    if study.hold_out:
        lines.append(f"held out of every fit: {study.hold_out}")
    return "\n".join(lines)


def _methods(study: Study) -> list[str]:
    lines = []
    points = study.points()
    for method in dict.fromkeys(point.method for point in points):
        own = [point for point in points if point.method == method]
        examples = sorted({point.finetune_examples for point in own})
        sizes = sorted({point.tuning_size for point in own if point.tuning_size is not None})
        size = f", tuning size {', '.join(map(str, sizes))}" if sizes else ""
        seeds = len({point.seed for point in own})
        lines.append(f"{method}: {len(own)} runs, {seeds} seeds{size}, examples {examples}")
    return lines


def _times(study: Study, jobs: list[Job]) -> list[str]:
    speed = _dense_flops_per_second() * CPU_EFFICIENCY
    programs = len({job.program for job in jobs})
    lines = []
    for kind in ("pretraining", "learning_rate", "finetuning"):
        work = sum(job.work for job in jobs if job.kind == kind)
        lines.append(f"{kind.replace('_', ' ')}: {_count(jobs, kind)} jobs, {work:.2e} FLOPs")
    seconds = sum(job.work for job in jobs) / speed + programs * COMPILE_SECONDS
    lines.append(
        f"roughly {seconds / 60:.0f} core-minutes on this machine's CPU "
        f"({speed / 1e9:.0f} GFLOP/s a core assumed, {programs} programs to compile), "
        "less where runs stop early"
    )
    return lines


def _count(jobs: list[Job], kind: str) -> int:
    return sum(job.kind == kind for job in jobs)


def _dense_flops_per_second() -> float:
    matrix = np.ones((512, 512), np.float32)
    matrix @ matrix
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < 0.2:
        matrix @ matrix
        products += 1
    return products * 2 * 512**3 / (time.perf_counter() - began)
