"""Runs a whole study: prepare, pretrain, finetune every point of its grids, write results.csv.

Finished runs are never redone: the same command goes on after any interruption.
"""

from pathlib import Path

from scaling_jax import configuration

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
    from scaling_jax.studies.runner import run_study

    result = run_study(study, Path(arguments.out), arguments.gin_import, lambda line: print(line, flush=True))
    counts = ", ".join(f"{count} {status}" for status, count in sorted(result.statuses.items()))
    print(f"{result.results}: {counts}; {result.made_now} made now")
    print(f"next: scaling-jax report {arguments.out}")
    return 0
