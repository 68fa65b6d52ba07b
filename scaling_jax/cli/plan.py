"""Says before the hardware is there whether a run or a study compiles for it, fits, and how long it takes.

The training, evaluation and decoding steps are compiled ahead of time, by libtpu for a TPU topology
(`pip install 'scaling-jax[plan]'`), without a TPU and without memory for the model. Exit code 1: it does
not fit.
"""

import json
import sys

from scaling_jax import configuration

SUMMARY = "memory, collectives, time and chip-hours on hardware that is not here"
EXAMPLE = (
    "  scaling-jax plan --topology v4:4x4x4 --gin_file gin_configs/models/decoder_16b.gin \\\n"
    "      --gin_file gin_configs/runs/finetune.gin --gin_file gin_configs/methods/zhang2024.gin \\\n"
    "      --gin.INITIAL_CHECKPOINT=decoder_16b --gin.STORE=wmt --gin.METHOD=full --gin.EXAMPLES=100000 \\\n"
    "      --lengths 256,256 --mesh auto\n"
    "  scaling-jax plan --topology v5e:16x16 --gin_file gin_configs/studies/zhang2024_en_de.gin --mesh auto"
)


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    configuration.add_arguments(parser)
    parser.add_argument(
        "--topology",
        required=True,
        metavar="NAME",
        help="v4:4x4x4, v5p:4x4x8, v5e:16x16, v6e:16x16 or other sides; 'here' for the devices at hand",
    )
    parser.add_argument(
        "--mesh",
        choices=("gin", "auto"),
        default="gin",
        help="the Layout that is bound, or one that divides rows and model, on a part of the topology "
        "where a batch has fewer rows than there are chips",
    )
    parser.add_argument(
        "--compile",
        choices=("largest", "all", "none"),
        default="largest",
        help="of a study, whose steps are compiled: of the program that needs most memory, of all, of none; "
        "the rest is estimated",
    )
    parser.add_argument(
        "--steps", default="train,evaluate,decode", metavar="LIST", help="which steps are compiled"
    )
    parser.add_argument(
        "--lengths",
        default="",
        metavar="TOKENS",
        help="where no store is prepared: of a window, or of inputs,targets; default from gin",
    )
    parser.add_argument(
        "--mfu", type=float, default=0.4, help="share of the chips' peak that training reaches (0.4)"
    )
    parser.add_argument("--peak_tflops", type=float, metavar="N", help="peak of a device that is not known")
    parser.add_argument(
        "--tries", type=int, default=3, help="how many changes are compiled where a step does not fit (3)"
    )
    parser.add_argument("--out", default="", metavar="DIR", help="study folder, for stores that are there")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(arguments) -> int:
    """Makes the plan and prints it."""
    from scaling_jax.planning import topologies

    topologies.prepare(arguments.topology)  # before JAX starts
    from scaling_jax.studies.worker import CONFIGURABLES

    configuration.parse_arguments(arguments, [CONFIGURABLES])
    from scaling_jax.planning import text
    from scaling_jax.planning.plan import Options, as_record, make_plan

    options = Options(
        arguments.mesh,
        tuple(filter(None, arguments.steps.split(","))),
        arguments.compile,
        arguments.mfu,
        arguments.peak_tflops * 1e12 if arguments.peak_tflops else None,
        arguments.tries,
    )
    workloads, notes = _workloads(arguments)
    hardware = topologies.open_topology(arguments.topology)
    planned = make_plan(workloads, hardware, options, lambda line: print(line, file=sys.stderr, flush=True))
    if arguments.json:
        print(json.dumps(as_record(planned, hardware, options, notes), indent=1))
    else:
        print(text.described(planned, hardware, options, notes))
    return 0 if all(one.fits for one in planned) else 1


def _workloads(arguments) -> tuple[list, list[str]]:
    from pathlib import Path

    from scaling_jax.planning import runs

    if runs.bound() != "Study":
        return runs.run_workloads(_lengths(arguments.lengths))
    from scaling_jax.studies.hardware import study_workloads
    from scaling_jax.studies.plan import Study

    return study_workloads(configuration.call(Study), Path(arguments.out or "."))


def _lengths(text: str) -> list[int]:
    from scaling_jax.errors import InputError

    try:
        lengths = [int(part) for part in text.split(",") if part]
    except ValueError:
        lengths = [0]
    if any(length < 1 for length in lengths):
        raise InputError(f"--lengths {text}: token counts, as 1024 or 256,256")
    return lengths
