"""Runs a whole study: prepare, pretrain, finetune every point of its grids, write results.csv.

Finished runs are never redone: the same command goes on after any interruption.
"""

import os
from pathlib import Path

from scaling_jax import configuration
from scaling_jax.training import processes

SUMMARY = "run every point of a gin grid, on all cores, resumable"
EXAMPLE = (
    "  scaling-jax study --gin_file gin_configs/studies/quickstart.gin --out runs/quickstart --dry_run\n"
    "  scaling-jax study --gin_file gin_configs/studies/quickstart.gin --out runs/quickstart"
)


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    configuration.add_arguments(parser)
    parser.add_argument("--out", required=True, metavar="DIR", help="study folder; new, or of the same study")
    parser.add_argument("--dry_run", action="store_true", help="print what would be run, and run nothing")
    parser.add_argument(
        "--shard",
        metavar="I/N",
        help="make part I of N here (machines, tasks of an array); `study` without it collects them",
    )
    parser.add_argument(
        "--stale_seconds",
        type=float,
        default=300.0,
        metavar="N",
        help="take a worker on another machine for dead after N seconds without a sign of it",
    )
    parser.add_argument(
        "--resume_elsewhere",
        action="store_true",
        help="go on also with runs that were left on other devices; their records say so",
    )
    processes.add_arguments(parser)


def run(arguments) -> int:
    """Runs the study or prints its plan."""
    from scaling_jax.studies.worker import CONFIGURABLES

    configuration.parse_arguments(arguments, [CONFIGURABLES])
    from scaling_jax.studies.plan import Study

    study = configuration.call(Study)
    if arguments.dry_run:
        from scaling_jax.studies.dry_run import describe

        print(describe(study, Path(arguments.out)))
        return 0
    # Parts are made by machines each on its own, unless it is said who belongs together.
    own = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment = own if arguments.shard else os.environ
    if processes.group_in(arguments, environment) is not None:
        from scaling_jax.training import platform

        platform.prepare_process()  # no workers: this process trains
    with processes.joined(arguments, environment):
        return _run(arguments, study)


def _run(arguments, study) -> int:
    from scaling_jax.studies.runner import run_study
    from scaling_jax.studies.shards import ALL, shard_of

    result = run_study(
        study,
        Path(arguments.out),
        arguments.gin_import,
        lambda line: processes.is_first() and print(line, flush=True),
        shard_of(arguments.shard) if arguments.shard else ALL,
        arguments.stale_seconds,
        arguments.resume_elsewhere,
    )
    if not processes.is_first():
        return 0
    if result.results is None:
        print(
            f"{arguments.out}: {result.made_now} made now; {result.missing} jobs of the study are not made "
            "yet: who ends last writes results.csv, or `study` without --shard"
        )
        return 0
    counts = ", ".join(f"{count} {status}" for status, count in sorted(result.statuses.items()))
    print(f"{result.results}: {counts}; {result.made_now} made now")
    print(f"next: scaling-jax report {arguments.out}")
    return 0
