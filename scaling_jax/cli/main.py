"""`scaling-jax VERB`: finds the verb's file, parses, calls it, and turns errors into one line.

A verb is one file of this folder with `SUMMARY` (one line), `EXAMPLE` (a command that teaches),
`add_arguments(parser)` and `run(arguments)`; one that does not go on where it was interrupted says with
`INTERRUPTED` what is true then. Verb files import nothing heavy at the top, so that
`scaling-jax --help` stays under a second.
"""

import argparse
import importlib
import os
import pkgutil
import sys
from collections.abc import Sequence

import scaling_jax
from scaling_jax import cli, configuration
from scaling_jax.errors import InputError

_ORDER = (
    *("prepare", "pretrain", "convert", "finetune", "evaluate", "infer", "study", "plan"),
    *("fit", "predict", "compare", "pilot", "recommend", "backtest", "report"),
)
_INTERRUPTED = "what was finished is kept, run the same command to go on"
_EPILOG = """The way through:
  scaling-jax study --gin_file gin_configs/studies/quickstart.gin --out runs/quickstart
  scaling-jax report runs/quickstart
  scaling-jax fit results.csv --law multiplicative --x model_params --d finetune_examples --y loss
"""


def verbs() -> dict[str, object]:
    """The verb modules of this folder by name, in the order a study goes through them."""
    names = [info.name for info in pkgutil.iter_modules(cli.__path__)]
    modules = {name: importlib.import_module(f"{cli.__name__}.{name}") for name in names if name != "main"}
    found = {name: module for name, module in modules.items() if hasattr(module, "add_arguments")}
    order = {name: position for position, name in enumerate(_ORDER)}
    return dict(sorted(found.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="scaling-jax",
        description=scaling_jax.__doc__,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"scaling-jax {scaling_jax.__version__}")
    children = top.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name, module in verbs().items():
        child = children.add_parser(
            name,
            help=module.SUMMARY,
            description=module.__doc__,
            epilog=f"Example:\n{module.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(child)
        child.set_defaults(run=module.run, interrupted=getattr(module, "INTERRUPTED", _INTERRUPTED))
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one verb; returns the exit code (2 for input that cannot be used)."""
    arguments = parser().parse_args(_split_gin_flags(sys.argv[1:] if argv is None else argv))
    try:
        return arguments.run(arguments) or 0
    except InputError as error:
        print(f"scaling-jax {arguments.verb}: error: {configuration.message(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"interrupted; {arguments.interrupted}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _split_gin_flags(argv: Sequence[str]) -> list[str]:
    """Rewrites the `--gin.NAME=VALUE` flags that T5X users know to `--gin NAME=VALUE`."""
    return [part for flag in argv for part in (("--gin", flag[6:]) if flag.startswith("--gin.") else (flag,))]


if __name__ == "__main__":
    sys.exit(main())
