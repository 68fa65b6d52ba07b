"""A worker process: claims jobs of a study one after another and runs them.

A claim is a file lock, which the kernel releases when its holder dies, however it dies. A job
has ended when its folder has a `record.json`.
"""

import argparse
import contextlib
import fcntl
import os
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.studies.jobs import Job

CONFIGURABLES = "scaling_jax.studies.configurables"
STOPPED_BY_INPUT = 2


def ended(study: Path, job: Job) -> str | None:
    """Status of a job that has ended, else None. A failed job is to be tried again by the next study."""
    record = study / job.folder / "record.json"
    return files.read_json(record)["status"] if record.exists() else None


def chosen_rates(study: Path, jobs: list[Job]) -> dict[str, dict]:
    """Per method whose search has ended: the rate with the best dev loss, and all that were tried."""
    tried: dict[str, dict[float, float | None]] = {}
    waiting = set()
    for job in jobs:
        if job.kind == "learning_rate":
            method = job.details["point"]["method"]
            if ended(study, job) is None:
                waiting.add(method)
                continue
            record = files.read_json(study / job.folder / "record.json")
            loss = record["results"]["dev_loss"] if record["status"] == "done" else None
            tried.setdefault(method, {})[job.details["learning_rate"]] = loss
    chosen = {}
    for method, losses in tried.items():
        finite = {rate: loss for rate, loss in losses.items() if loss is not None}
        if method in waiting:
            continue
        if not finite:
            raise InputError(
                f"every learning rate tried for {method} diverged: {sorted(losses)}; try smaller ones"
            )
        best = min(sorted(finite), key=finite.__getitem__)
        at_edge = best in (min(losses), max(losses)) and len(losses) > 1
        chosen[method] = {
            "learning_rate": best,
            "dev_losses": {f"{rate:g}": loss for rate, loss in sorted(losses.items())},
            "at_edge_of_grid": at_edge,
        }
    return chosen


def run_job(study: Path, job: Job, jobs: list[Job], stores: dict[str, str], pretrain_seed: int) -> None:
    """Runs one job to its record."""
    from scaling_jax.studies.base_evaluation import evaluate_base
    from scaling_jax.training.finetune import finetune

    folder = study / job.folder
    if job.kind == "pretraining":
        _pretrain(job, stores, pretrain_seed, folder)
    elif job.kind == "base_evaluation":
        evaluate_base(study, job, stores)
    else:
        finetune(finetune_run(study, job, jobs, stores), folder, at_best=_at_best(job, stores))


def _at_best(job: Job, stores: dict[str, str]) -> Any:
    """What is done with the best step of a run: the study's evaluations, but not where rates are compared."""
    from scaling_jax.evaluation.evaluations import at_best
    from scaling_jax.studies.plan import Study

    evaluations = configuration.call(Study).evaluations if job.kind == "finetuning" else ()
    return at_best(evaluations, stores)


def _pretrain(job: Job, stores: dict[str, str], seed: int, folder: Path) -> None:
    """Pretrains by the recipe of the job, whose settings are bound under its scope."""
    import gin

    from scaling_jax.training.pretrain import PretrainSettings, pretrain

    names = job.details["stores"]
    with gin.config_scope(job.details["mixture"] or None):
        paths = {name: stores[name] for name in names} if PretrainSettings().mixture else stores[names[0]]
        pretrain(job.details["model"], paths, tuple(job.details["levels"]), seed, folder)


def finetune_run(study: Path, job: Job, jobs: list[Job], stores: dict[str, str]) -> Any:
    """The `FinetuneRun` of a job, with the rate that the study's search chose."""
    from scaling_jax.training.finetune import FinetuneRun
    from scaling_jax.tuning.method import registered_name

    point = job.details["point"]
    rate = job.details.get("learning_rate")
    if rate is None:
        chosen = chosen_rates(study, jobs)
        own = chosen.get(point["method"]) or chosen.get(registered_name(point["method"]), {})
        rate = own.get("learning_rate")
    return FinetuneRun(
        base=str(study / job.details["base"]),
        store=stores[point["store"]],
        method=point["method"],
        examples=point["finetune_examples"],
        tuning_size=point["tuning_size"],
        learning_rate=rate,
        seed=point["seed"],
        subset_seed=point["seed"],
    )


def work(study: Path) -> None:
    """Runs jobs until none is left that this worker could take."""
    plan = files.read_json(study / "plan.json")
    jobs = [Job(**(job | {"needs": tuple(job["needs"])})) for job in plan["jobs"]]
    last_program = ""
    open_jobs = list(jobs)
    done: dict[str, str] = {}
    while open_jobs:
        for job in list(open_jobs):
            status = ended(study, job)
            if status is not None:
                done[job.job_id] = status
                open_jobs.remove(job)
        ready = [job for job in open_jobs if all(need in done for need in job.needs)]
        ready.sort(key=lambda job: job.program != last_program)
        for job in ready:
            with _claim(study, job) as mine:
                if not mine or ended(study, job) is not None:
                    continue
                last_program = job.program
                with contextlib.ExitStack() as claims:
                    together = [job, *_companions(study, job, ready, plan["cohort"] - 1, claims)]
                    _run_and_record(study, together, jobs, plan, done)
                break
        else:
            time.sleep(0.1)


def _companions(
    study: Path, job: Job, ready: list[Job], count: int, claims: contextlib.ExitStack
) -> list[Job]:
    """Up to `count` other jobs, claimed, that one vmapped program over one base can make with this one."""
    if job.kind not in ("learning_rate", "finetuning") or count < 1:
        return []
    from scaling_jax.tuning.method import named_method

    if named_method(job.details["point"]["method"]).trains_base:
        return []
    found: list[Job] = []
    for other in ready:
        if len(found) == count or other is job or _shared(other) != _shared(job):
            continue
        if claims.enter_context(_claim(study, other)) and ended(study, other) is None:
            found.append(other)
    return found


def _shared(job: Job) -> tuple:
    """What jobs have in common that can be made at the same time."""
    point = job.details.get("point", {})
    return job.kind, job.program, job.details.get("base"), point.get("store")


def _run_and_record(
    study: Path, together: list[Job], jobs: list[Job], plan: dict, done: dict[str, str]
) -> None:
    if len(together) > 1:
        _run_cohort(study, together, jobs, plan, done)
    for job in together:
        if ended(study, job) is None:
            _run_alone(study, job, jobs, plan, done)


def _run_cohort(study: Path, together: list[Job], jobs: list[Job], plan: dict, done: dict[str, str]) -> None:
    """Makes the jobs at the same time; where that fails, those without a record are to be tried alone."""
    if any(done[need] != "done" for job in together for need in job.needs_done):
        return
    from scaling_jax.training.finetune_cohort import finetune_cohort

    try:
        runs = [finetune_run(study, job, jobs, plan["stores"]) for job in together]
        folders = [study / job.folder for job in together]
        finetune_cohort(runs, folders, _at_best(together[0], plan["stores"]))
    except InputError:
        raise
    except Exception:  # out of memory, say: one at a time needs less
        files.write_text(study / together[0].folder / "cohort_failure.txt", traceback.format_exc())


def _run_alone(study: Path, job: Job, jobs: list[Job], plan: dict, done: dict[str, str]) -> None:
    lost = [need for need in job.needs_done if done[need] != "done"]
    try:
        if lost:
            raise RuntimeError(f"{lost[0]} ended as {done[lost[0]]}")
        run_job(study, job, jobs, plan["stores"], plan["pretrain_seed"])
    except InputError:
        raise
    except Exception as error:  # a failed run is a row with its reason, the study goes on
        files.write_text(study / job.folder / "failure.txt", traceback.format_exc())
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        files.write_json(
            study / job.folder / "record.json", {"kind": job.kind, "status": "failed", "reason": reason}
        )


class _claim:
    """Holds the lock of a job while the block runs; True where it was free."""

    def __init__(self, study: Path, job: Job):
        self._path = study / "claims" / job.job_id

    def __enter__(self) -> bool:
        self._path.parent.mkdir(exist_ok=True)
        self._file = open(self._path, "w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._file.close()


def _die_with_parent() -> None:
    """Ends this process when the study's own process is gone: its end of our standard input closes."""

    def watch() -> None:
        # The raw descriptor: a buffered read would hold a lock that the interpreter needs to shut down.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Entry point of `python -m scaling_jax.studies.worker STUDY [--core N]`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--core", type=int)
    parser.add_argument("--gin_import", action="append", default=[])
    arguments = parser.parse_args()
    if arguments.core is not None:
        os.sched_setaffinity(0, {arguments.core})
    _die_with_parent()
    from scaling_jax.training import platform

    platform.prepare_process()
    try:
        configuration.parse(
            [str(arguments.study / "config.gin")], imports=[CONFIGURABLES, *arguments.gin_import]
        )
        work(arguments.study)
    except InputError as error:
        print(error, file=sys.stderr)
        return STOPPED_BY_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
