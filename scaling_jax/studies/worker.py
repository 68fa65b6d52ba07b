"""A worker process: claims jobs of a study one after another and runs them.

Workers on several machines may share the study's folder: no two make one run (`claims.py`). A job has
ended when its folder has a `record.json`.
"""

import argparse
import contextlib
import dataclasses
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.studies.claims import Claims
from scaling_jax.studies.jobs import Job
from scaling_jax.training import processes

CONFIGURABLES = "scaling_jax.studies.configurables"
STOPPED_BY_INPUT = 2
PLAN = "plan.json"
SECONDS_TO_FAIL_TOGETHER = 60.0


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


def run_job(study: Path, job: Job, jobs: list[Job], plan: dict[str, Any]) -> None:
    """Runs one job to its record, on from where it was left."""
    from scaling_jax.studies.base_evaluation import evaluate_base
    from scaling_jax.training.finetune import finetune

    folder, stores, elsewhere = study / job.folder, plan["stores"], plan["resume_elsewhere"]
    if job.kind == "pretraining":
        _pretrain(job, stores, plan["pretrain_seed"], folder, elsewhere)
    elif job.kind == "base_evaluation":
        evaluate_base(study, job, stores)
    else:
        run = _agreed_run(study, job, jobs, stores)
        finetune(run, folder, at_best=_at_best(job, stores), elsewhere=elsewhere)


def _at_best(job: Job, stores: dict[str, str]) -> Any:
    """What is done with the best step of a run: the study's evaluations, but not where rates are compared."""
    from scaling_jax.evaluation.evaluations import at_best
    from scaling_jax.studies.plan import Study

    evaluations = configuration.call(Study).evaluations if job.kind == "finetuning" else ()
    return at_best(evaluations, stores)


def _pretrain(job: Job, stores: dict[str, str], seed: int, folder: Path, elsewhere: bool) -> None:
    """Pretrains by the recipe of the job, whose settings are bound under its scope."""
    import gin

    from scaling_jax.training.pretrain import PretrainSettings, pretrain

    names = job.details["stores"]
    with gin.config_scope(job.details["mixture"] or None):
        paths = {name: stores[name] for name in names} if PretrainSettings().mixture else stores[names[0]]
        levels = tuple(job.details["levels"])
        pretrain(job.details["model"], paths, levels, seed, folder, elsewhere=elsewhere)


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


def _agreed_run(study: Path, job: Job, jobs: list[Job], stores: dict[str, str]) -> Any:
    """The run of a job as process 0 sees it: what it chose by files the others may not see yet."""
    from scaling_jax.training.finetune import FinetuneRun

    def see() -> dict[str, Any]:
        return dataclasses.asdict(finetune_run(study, job, jobs, stores))

    return FinetuneRun(**processes.on_first(see))


def work(study: Path, plan_name: str = PLAN) -> None:
    """Runs the jobs of a plan until all have ended, whoever makes them."""
    plan = files.read_json(study / plan_name)
    jobs = [Job(**(job | {"needs": tuple(job["needs"])})) for job in plan["jobs"]]
    claims = Claims(study / "claims", plan["stale_seconds"])
    last_program = ""
    open_jobs = list(jobs)
    done: dict[str, str] = {}
    idle = 0.1
    while open_jobs:
        for job in list(open_jobs):
            status = ended(study, job)
            if status is not None:
                done[job.job_id] = status
                open_jobs.remove(job)
        ready = [job for job in open_jobs if all(need in done for need in job.needs)]
        ready.sort(key=lambda job: job.program != last_program)
        for job in ready:
            with claims.held(job.job_id) as mine:
                if not mine or ended(study, job) is not None:
                    continue
                last_program = job.program
                with contextlib.ExitStack() as further:
                    together = [job, *_companions(study, job, ready, plan["cohort"] - 1, claims, further)]
                    _run_and_record(study, together, jobs, plan, done)
                idle = 0.1
                break
        else:  # others make what is left, or what it waits for
            time.sleep(idle)
            idle = min(2 * idle, 2.0)


def _companions(
    study: Path, job: Job, ready: list[Job], count: int, claims: Claims, held: contextlib.ExitStack
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
        if held.enter_context(claims.held(other.job_id)) and ended(study, other) is None:
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


def work_together(study: Path, plan: dict, say: Callable[[str], None]) -> None:
    """Runs the jobs of a plan one after another, each on the devices of all processes.

    Process 0 says what is made next, and claims it: others may work in the same folder.
    """
    jobs = [Job(**(job | {"needs": tuple(job["needs"])})) for job in plan["jobs"]]
    by_id = {job.job_id: job for job in jobs}
    claims = Claims(study / "claims", plan["stale_seconds"])
    while True:
        name, done = processes.on_first(lambda: _next_job(study, jobs, claims))
        if name is None:
            return
        say(f"{sum(job.job_id in done for job in jobs)}/{len(jobs)} jobs, now {name}")
        try:
            _run_alone(study, by_id[name], jobs, plan, done)
        finally:
            if processes.is_first():
                claims.release(name)


def _next_job(study: Path, jobs: list[Job], claims: Claims) -> tuple[str | None, dict[str, str]]:
    """(a job that is now claimed, None where all have ended; the status of those that have ended)."""
    while True:
        statuses = {job.job_id: ended(study, job) for job in jobs}
        done = {name: status for name, status in statuses.items() if status is not None}
        if len(done) == len(jobs):
            return None, done
        for job in jobs:
            ready = job.job_id not in done and all(need in done for need in job.needs)
            if ready and claims.take(job.job_id):
                if ended(study, job) is None:
                    return job.job_id, done
                claims.release(job.job_id)
        time.sleep(0.5)


def _run_alone(study: Path, job: Job, jobs: list[Job], plan: dict, done: dict[str, str]) -> None:
    lost = [need for need in job.needs_done if done[need] != "done"]
    try:
        if lost:
            raise RuntimeError(f"{lost[0]} ended as {done[lost[0]]}")
        run_job(study, job, jobs, plan)
    except InputError:
        raise
    except Exception as error:  # a failed run is a row with its reason, the study goes on
        told, reason = traceback.format_exc(), f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        # Where it failed for one process alone, the others are in the middle of it: then all end.
        processes.from_all(reason, SECONDS_TO_FAIL_TOGETHER)
        record = {"kind": job.kind, "status": "failed", "reason": reason}
        processes.on_first(lambda: _write_failure(study / job.folder, told, record))


def _write_failure(folder: Path, told: str, record: dict[str, Any]) -> None:
    files.write_text(folder / "failure.txt", told)
    files.write_json(folder / "record.json", record)


def _die_with_parent() -> None:
    """Ends this process when the study's own process is gone: its end of our standard input closes."""

    def watch() -> None:
        # The raw descriptor: a buffered read would hold a lock that the interpreter needs to shut down.
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> int:
    """Entry point of `python -m scaling_jax.studies.worker STUDY [--plan NAME] [--core N]`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", type=Path)
    parser.add_argument("--plan", default=PLAN)
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
        work(arguments.study, arguments.plan)
    except InputError as error:
        print(error, file=sys.stderr)
        return STOPPED_BY_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
