"""Runs a study: prepares its stores, starts workers, reports progress, writes the results table."""

import contextlib
import dataclasses
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import gin
import jax
import jaxlib

import scaling_jax
from scaling_jax import files
from scaling_jax.data.store import TokenStore, open_store
from scaling_jax.errors import InputError
from scaling_jax.evaluation.evaluations import check as check_evaluations
from scaling_jax.studies.claims import STALE_SECONDS, Claims
from scaling_jax.studies.jobs import Job, make_jobs
from scaling_jax.studies.plan import Study, claim_folder, recipe, refuse_other_things
from scaling_jax.studies.results import write_bases, write_results
from scaling_jax.studies.shards import ALL, Shard
from scaling_jax.studies.worker import (
    CONFIGURABLES,
    STOPPED_BY_INPUT,
    chosen_rates,
    ended,
    work_together,
)
from scaling_jax.training import checkpoints, processes
from scaling_jax.training.data_sets import check_vocabulary
from scaling_jax.training.loop import Interrupted
from scaling_jax.training.platform import worker_environment
from scaling_jax.training.pretrain import check_enough_windows

SECONDS_BETWEEN_LINES = 10.0
SECONDS_TO_SAVE = 120.0
# Runs that one vmapped program takes at a time, where the study does not say.
ACCELERATOR_COHORT = 8


@dataclasses.dataclass(frozen=True)
class Crew:
    """Who makes the runs of a study, and how.

    Attributes:
        cores: one entry per worker process: the core that it is bound to, None where it is bound to none.
        cohort: runs of one program that a worker makes at the same time.
        said: both in words.
    """

    cores: tuple[int | None, ...]
    cohort: int
    said: str


def crew_for(study: Study, backend: str, cores: Sequence[int]) -> Crew:
    """On CPU a pinned worker per core, which makes one run at a time; on an accelerator ("gpu", "tpu") one
    worker, which makes several; or what the study says."""
    on_cpu = backend == "cpu"
    count = study.workers or (len(cores) if on_cpu else 1)
    cohort = study.cohort or (1 if on_cpu else ACCELERATOR_COHORT)
    where = "CPU, each on a core of its own" if on_cpu else "the accelerator"
    how = f"up to {cohort} runs of one program at a time" if cohort > 1 else "one run at a time"
    bound = tuple(cores[i % len(cores)] if on_cpu else None for i in range(count))
    return Crew(bound, cohort, f"{count} worker{'s' if count > 1 else ''} on {where}, {how}")


@dataclasses.dataclass(frozen=True)
class StudyResult:
    """Counts of finetuning runs by status, and where the table is; None while `missing` jobs are to end."""

    results: Path | None
    statuses: dict[str, int]
    made_now: int
    missing: int = 0


def prepare_stores(study: Study, folder: Path, imports: Sequence[str] = ()) -> dict[str, TokenStore]:
    """Opens the study's stores, preparing those that it names itself in a process of its own.

    Raises:
        InputError: an evaluation that cannot be made, `prepare` refused, or a given store cannot be opened.
    """
    paths = study.store_paths(folder)
    check_evaluations([*study.evaluations], paths)  # what is wrong with them is said before hours of work
    check_evaluations([*study.base_evaluations], paths)
    missing = {name: path for name, path in paths.items() if not (Path(path) / "manifest.json").exists()}
    own = [name for name, path in missing.items() if str(folder) in path]
    if own and not any(selector.split(".")[-1] == "prepare" for _, selector in gin.config._CONFIG):
        raise InputError(
            f"there is no store {own[0]!r}: bind Study.stores = {{{own[0]!r}: FOLDER}} to a prepared one, or "
            "prepare.stores to prepare it"
        )
    if own:
        command = [sys.executable, "-m", "scaling_jax.cli.main", "prepare"]
        command += ["--gin_file", str(folder / "config.gin"), "--out", str(folder / "stores")]
        command += [part for name in (CONFIGURABLES, *imports) for part in ("--gin_import", name)]
        ended_process = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=_quiet_tensorflow())
        if ended_process.returncode:
            lines = ended_process.stderr.strip().splitlines() or ["prepare failed"]
            if ended_process.returncode != STOPPED_BY_INPUT:
                raise RuntimeError("\n".join(lines[-30:]))
            raise InputError(lines[-1].removeprefix("scaling-jax prepare: error: "))
    stores = {name: open_store(path) for name, path in paths.items()}
    check_vocabularies(study, stores)
    return stores


def check_vocabularies(study: Study, stores: dict[str, TokenStore]) -> None:
    """
    Raises:
        InputError: a finetuning store has another vocabulary than what is tuned on it.
    """
    pretraining = [stores[name] for names in study.recipes().values() for name in names]
    points = [*study.points(), *study.rate_points()]
    tuned = [stores[name] for name in dict.fromkeys(point.store for point in points if not point.base)]
    for store in [*pretraining, *tuned]:
        if store.vocabulary.sha256() != pretraining[0].vocabulary.sha256():
            raise InputError(f"{store.path} was made with another vocabulary than {pretraining[0].path}")
    for folder, name in dict.fromkeys((point.base, point.store) for point in points if point.base):
        check_vocabulary(stores[name], Path(folder), checkpoints.about(folder))


def jobs_of(study: Study, stores: dict[str, TokenStore]) -> list[Job]:
    """All jobs of a study.

    Raises:
        InputError: more examples or pretraining tokens asked than exist, an unknown model or method.
    """
    tokens_per_example = {}
    points = [*study.points(), *study.rate_points()]
    for name in dict.fromkeys(point.store for point in points):
        split = stores[name].split("train")
        tokens_per_example[name] = float(split.total_lengths.mean())
        largest = max(point.finetune_examples for point in points if point.store == name)
        if largest > len(split):
            raise InputError(
                f"Grid.finetune_examples holds {largest:,}, but the training split of "
                f"{stores[name].path} has {len(split):,} examples"
            )
    jobs = make_jobs(study, next(iter(stores.values())).vocabulary.size, tokens_per_example)
    for job in jobs:
        if job.kind == "pretraining":
            _check_windows(job, stores)
    return jobs


def _check_windows(job: Job, stores: dict[str, TokenStore]) -> None:
    settings, names = recipe(job.details["mixture"]), job.details["stores"]
    given = {name: stores[name] for name in names} if settings.mixture else stores[names[0]]
    check_enough_windows(given, settings, job.details["levels"])


def run_study(
    study: Study,
    folder: Path,
    imports: Sequence[str] = (),
    say: Callable[[str], None] = print,
    shard: Shard = ALL,
    stale_seconds: float = STALE_SECONDS,
    elsewhere: bool = False,
) -> StudyResult:
    """Runs what is not yet there and writes `results.csv`; finished runs are never redone.

    Several machines may do so at the same time in a folder that they share: no run is made twice, and
    whoever ends last writes the table. Several processes that were joined make every run together.

    Args:
        study: from gin.
        folder: new, or of the same study.
        imports: the user's own modules, for the workers.
        say: takes progress lines.
        shard: the part of the study that is made here.
        stale_seconds: without a sign, after which a worker on another machine is taken for dead.
        elsewhere: go on also with runs that were left on other devices, see `loop.train`.

    Raises:
        InputError: see `claim_folder`, `prepare_stores` and `jobs_of`; or what a worker refused.
    """
    processes.on_first(lambda: _begin(study, folder, imports, say, stale_seconds))
    stores = {name: open_store(path) for name, path in study.store_paths(folder).items()}
    jobs = jobs_of(study, stores)
    own = shard.jobs(jobs)
    processes.on_first(lambda: _forget_failures(folder, own))
    waiting = processes.on_first(lambda: [job.job_id for job in own if ended(folder, job) is None])
    if waiting:
        plan = {
            "jobs": [dataclasses.asdict(job) for job in own],
            "stores": {name: str(store.path) for name, store in stores.items()},
            "pretrain_seed": study.pretrain_seed,
            "stale_seconds": stale_seconds,
            "resume_elsewhere": elsewhere,
        }
        if processes.count() > 1:
            work_together(folder, plan, say)
        else:
            _work(study, folder, own, plan, shard.plan_name, imports, say)
    made_now = sum(job.kind == "finetuning" and job.job_id in waiting for job in own)
    missing, statuses = processes.on_first(lambda: _collect(study, folder, stores, jobs))
    return StudyResult(None if missing else folder / "results.csv", statuses, made_now, missing)


def _begin(
    study: Study, folder: Path, imports: Sequence[str], say: Callable[[str], None], stale_seconds: float
) -> None:
    """Makes the folder and its stores, or waits for whoever is at it."""
    refuse_other_things(folder)
    new = not folder.exists()
    try:
        with Claims(folder / "claims", stale_seconds).held_in_turn("study", say):
            claim_folder(folder, study)
            prepare_stores(study, folder, imports)
    except InputError:
        if new and not (folder / "study.json").exists():
            files.remove_folder(folder)  # a study that was refused leaves no folder
        raise


def _collect(
    study: Study, folder: Path, stores: dict[str, TokenStore], jobs: list[Job]
) -> tuple[int, dict[str, int]]:
    """(jobs that have not ended, finetuning runs by status), and the tables where all have."""
    missing = sum(ended(folder, job) is None for job in jobs)
    if missing:
        return missing, {}
    tasks = {name: store.manifest["task"] for name, store in stores.items()}
    rows = write_results(folder, study.name, tasks, jobs, study.means)
    write_bases(folder, tasks, jobs, study.means)
    _describe(study, folder, stores, jobs)
    statuses: dict[str, int] = {}
    for row in rows:
        statuses[row["status"]] = statuses.get(row["status"], 0) + 1
    return 0, statuses


def _work(
    study: Study,
    folder: Path,
    jobs: list[Job],
    plan: dict[str, Any],
    plan_name: str,
    imports: Sequence[str],
    say: Callable[[str], None],
) -> None:
    environment = worker_environment()
    crew = crew_for(study, _backend(environment), sorted(os.sched_getaffinity(0)))
    count = len(crew.cores)
    files.write_json(folder / plan_name, plan | {"cohort": crew.cohort})
    say(crew.said)
    workers = [_start(folder, plan_name, imports, environment, core) for core in crew.cores]
    errors: dict[int, str] = {}
    readers = [
        threading.Thread(target=_read_errors, args=(worker, errors), daemon=True) for worker in workers
    ]
    for reader in readers:
        reader.start()
    try:
        with _raised_by_sigterm():
            _watch(folder, jobs, workers, say)
    except Interrupted:
        _end(workers)
        saved = sum(worker.returncode == 128 + signal.SIGTERM for worker in workers)
        say(f"stopped: {saved} of {count} workers saved what they were making; the same command goes on")
        raise
    finally:
        _end(workers)
    for reader in readers:
        reader.join(timeout=5)
    for worker in workers:
        if worker.returncode == STOPPED_BY_INPUT:
            raise InputError(errors[worker.pid].strip().splitlines()[-1])
    unfinished = [job.job_id for job in jobs if ended(folder, job) is None]
    if unfinished:
        tail = "\n".join(text[-3000:] for text in errors.values())
        raise RuntimeError(
            f"the workers ended before {len(unfinished)} jobs, the first {unfinished[0]}:\n{tail}"
        )


def _watch(
    folder: Path, jobs: list[Job], workers: list[subprocess.Popen], say: Callable[[str], None]
) -> None:
    """Says how far the study is until all jobs have ended or all workers are gone."""
    total = sum(job.work for job in jobs)
    remaining = {job.job_id: job for job in jobs if ended(folder, job) is None}
    before = total - sum(job.work for job in remaining.values())
    began = said = time.monotonic()
    while remaining and any(worker.poll() is None for worker in workers):
        time.sleep(0.2)
        if any(worker.poll() == STOPPED_BY_INPUT for worker in workers):
            return
        remaining = {name: job for name, job in remaining.items() if ended(folder, job) is None}
        if time.monotonic() - said >= SECONDS_BETWEEN_LINES and remaining:
            said = time.monotonic()
            done = total - sum(job.work for job in remaining.values())
            elapsed = said - began
            rate = (done - before) / elapsed
            left = f", about {_clock((total - done) / rate)} left" if rate else ""
            say(
                f"{len(jobs) - len(remaining)}/{len(jobs)} jobs, {done / total:.0%} of the work, "
                f"{_clock(elapsed)} elapsed{left}"
            )
    say(f"{len(jobs) - len(remaining)}/{len(jobs)} jobs in {_clock(time.monotonic() - began)}")


def _start(
    folder: Path, plan_name: str, imports: Sequence[str], environment: dict[str, str], core: int | None
) -> subprocess.Popen:
    command = [sys.executable, "-m", "scaling_jax.studies.worker", str(folder), "--plan", plan_name]
    command += ["--core", str(core)] if core is not None else []
    command += [part for name in imports for part in ("--gin_import", name)]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@contextlib.contextmanager
def _raised_by_sigterm() -> Iterator[None]:
    """Raises `Interrupted` where SIGTERM comes, which the workers of this process would not hear of."""
    if threading.current_thread() is not threading.main_thread():  # whoever owns the process listens
        yield
        return

    def stop(number, frame):
        raise Interrupted("stopped; the same command goes on")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _end(workers: list[subprocess.Popen]) -> None:
    """Ends the workers: those that are training save first. One that does not hear ends with its input."""
    for worker in workers:
        worker.terminate()
    until = time.monotonic() + SECONDS_TO_SAVE
    for worker in workers:
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(max(0.0, until - time.monotonic()))
        worker.stdin.close()
    for worker in workers:
        worker.wait()


def _read_errors(worker: subprocess.Popen, errors: dict[int, str]) -> None:
    errors[worker.pid] = ""
    for line in worker.stderr:
        errors[worker.pid] = (errors[worker.pid] + line)[-100_000:]


def _backend(environment: dict[str, str]) -> str:
    """The platform that a worker will have; asked in a process of its own, which frees a GPU again."""
    probe = [sys.executable, "-c", "import jax; print(jax.default_backend())"]
    answered = subprocess.run(probe, env=environment, capture_output=True, text=True)
    if answered.returncode:
        raise RuntimeError(f"JAX does not start: {answered.stderr[-2000:]}")
    return answered.stdout.split()[-1]


def _forget_failures(folder: Path, jobs: list[Job]) -> None:
    for job in jobs:
        if ended(folder, job) == "failed":
            (folder / job.folder / "record.json").unlink()


def _describe(study: Study, folder: Path, stores: dict[str, TokenStore], jobs: list[Job]) -> None:
    """Completes `study.json` with what the report and the fits need."""
    known = files.read_json(folder / "study.json")
    rates = chosen_rates(folder, jobs)
    files.write_json(
        folder / "study.json",
        known
        | {
            "created": known.get("created") or time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "hold_out": study.hold_out,
            "model_size": study.model_size,
            "stores": {name: os.path.relpath(store.path, folder) for name, store in stores.items()},
            "store_hashes": {name: store.manifest_hash() for name, store in stores.items()},
            "learning_rates": {method: chosen["learning_rate"] for method, chosen in rates.items()},
            "learning_rate_search": rates,
            "versions": {
                "scaling_jax": scaling_jax.__version__,
                "jax": jax.__version__,
                "jaxlib": jaxlib.__version__,
                "python": platform.python_version(),
            },
            "device": f"{platform.machine()}, {os.cpu_count()} cores",
        }
        | _valuing(study, stores),
    )


def _valuing(study: Study, stores: dict[str, TokenStore]) -> dict[str, Any]:
    if study.valuing is None:
        return {}
    recipes = {
        scope: dict(recipe(scope).mixture) or {names[0]: 1.0} for scope, names in study.recipes().items()
    }
    tasks = {name: store.manifest["task"] for name, store in stores.items()}
    return {"valuing_pretraining": study.valuing.declared(recipes, tasks)}


def _quiet_tensorflow() -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s" if minutes else f"{seconds}s"
