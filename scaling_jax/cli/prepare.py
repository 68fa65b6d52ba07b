"""Tokenises tasks once, into stores that training reads without seqio or TensorFlow.

The gin file says which tasks, what sizes and which vocabulary; gin_configs/tasks/ has one for each
task that comes with the package, explained line by line. A store that is there already is kept; one
that was made with other settings is never overwritten.
"""

import argparse
from pathlib import Path

from scaling_jax.errors import InputError

SUMMARY = "text to token stores, through seqio tasks"
EXAMPLE = """  scaling-jax prepare --gin_file gin_configs/tasks/lab_translation.gin --out stores/lab
  scaling-jax prepare --gin_file gin_configs/tasks/parallel_text.gin --out stores/mine \\
      --gin.TRAIN="('train.en.gz', 'train.de.gz')" --gin.sentencepiece.size=2048
  scaling-jax prepare --show                      what tasks there are
  scaling-jax prepare --show lab_headline         examples of one of them"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this verb."""
    from scaling_jax import configuration

    configuration.add_arguments(parser)
    parser.add_argument("--out", metavar="DIR", help="folder of the stores, one sub-folder for each")
    parser.add_argument(
        "--show", nargs="?", const="", metavar="TASK", help="print examples of a task, or all tasks"
    )
    parser.add_argument(
        "--examples", type=int, default=3, metavar="N", help="how many examples --show prints (3)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepares the stores that the gin file names, or shows examples."""
    from scaling_jax import configuration
    from scaling_jax.tasks import prepare, registry

    registry.load_all()
    if arguments.show is not None and not (arguments.gin_file or arguments.gin):
        configuration.parse([], imports=arguments.gin_import)
    else:
        configuration.parse_arguments(arguments)
    if arguments.show == "":
        for name, task in registry.all_tasks().items():
            print(f"{name:16s} {task.summary}")
    elif arguments.show is not None:
        _show(arguments.show, arguments.examples)
    elif not arguments.out:
        raise InputError("--out is missing: name the folder that the stores are written to")
    else:
        prepare.prepare(Path(arguments.out), say=lambda line: print(line, flush=True))
    return 0


def _show(name: str, count: int) -> None:
    from scaling_jax.tasks import registry

    task = registry.find(name)
    source = task.call()
    block = next(source.splits["train"]())
    rows = zip(*(block[feature] for feature in task.features), strict=True)
    print(f"{task.versioned_name}: {task.summary}; splits {', '.join(source.splits)}")
    for _, row in zip(range(count), rows, strict=False):
        print()
        for feature, text in zip(task.features, row, strict=True):
            print(f"{feature:8s} {text}")
