"""Tokenises tasks once, into stores that training reads without seqio or TensorFlow.

The gin file says which tasks, what sizes and which vocabulary; gin_configs/tasks/ has one for each
task that comes with the package, explained line by line. A store that is there already is kept; one
that was made with other settings is never overwritten.
"""

import argparse
import itertools
import shlex
from pathlib import Path

from scaling_jax.errors import InputError

SUMMARY = "text to token stores, through seqio tasks"
EXAMPLE = """  scaling-jax prepare --gin_file gin_configs/tasks/lab_translation.gin --out stores/lab
  scaling-jax prepare --gin_file gin_configs/tasks/parallel_text.gin --out stores/mine \\
      --gin.TRAIN="('train.en.gz', 'train.de.gz')" --gin.sentencepiece.size=2048
  scaling-jax prepare --gin_file mine.gin --out stores/mine --runner DirectRunner \\
      --runner_options direct_num_workers=4 direct_running_mode=multi_processing
  scaling-jax prepare --show                      what tasks there are
  scaling-jax prepare --show lab_headline         one of them: source, prompt, splits, examples
  scaling-jax prepare --show flores200 --gin.flores200.folder=flores200_dataset"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this verb."""
    from scaling_jax import configuration

    configuration.add_arguments(parser)
    parser.add_argument("--out", metavar="DIR", help="folder of the stores, one sub-folder for each")
    parser.add_argument(
        "--show", nargs="?", const="", metavar="TASK", help="print examples of a task, or all tasks"
    )
    parser.add_argument(
        "--runner", metavar="NAME", help="tokenise under Apache Beam: DirectRunner, DataflowRunner, ..."
    )
    parser.add_argument(
        "--runner_options", nargs="+", default=[], metavar="NAME=VALUE", help="pipeline options of Beam"
    )
    parser.add_argument("--markdown", action="store_true", help="with --show alone: the table of the docs")
    parser.add_argument(
        "--examples", type=int, default=3, metavar="N", help="how many examples --show prints (3)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepares the stores that the gin file names, or shows examples."""
    from scaling_jax import configuration
    from scaling_jax.tasks import prepare, registry, showing

    registry.load_all()
    if arguments.show is not None and not (arguments.gin_file or arguments.gin):
        configuration.parse([], imports=arguments.gin_import)
    else:
        configuration.parse_arguments(arguments)
    if arguments.show == "" and arguments.markdown:
        print(showing.markdown(registry.all_tasks().values()), end="")
    elif arguments.show == "":
        for name, task in registry.all_tasks().items():
            print(f"{name:16s} {task.summary}")
    elif arguments.show is not None:
        _show(arguments.show, arguments.examples)
    elif not arguments.out:
        raise InputError("--out is missing: name the folder that the stores are written to")
    else:
        words = [word for value in arguments.runner_options for word in shlex.split(value)]
        prepare.prepare(
            Path(arguments.out),
            say=lambda line: print(line, flush=True),
            runner=arguments.runner,
            runner_options=[word if word.startswith("--") else f"--{word}" for word in words],
        )
    return 0


def _show(name: str, count: int) -> None:
    """Prints what is known of a task, then what its settings find; SCOPE/TASK takes those of a gin scope."""
    import gin

    from scaling_jax.tasks import registry, showing

    if count < 0:
        raise InputError(f"--examples {count}: 0 or more")
    scope, _, bare = name.rpartition("/")
    task = registry.find(bare)
    for line in showing.description(task):
        print(line)
    with gin.config_scope(scope or None):
        source = task.call()
    for line in itertools.chain(showing.found(source), showing.examples(task, source, count)):
        print(line)
