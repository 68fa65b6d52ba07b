"""Answers, before the final run is paid for: which method, what loss, at what cost?

From a model, a file of examples and a budget it designs the small runs that tell most of the loss at the
target, makes them in rounds (what they show is used to place the next ones, methods that have no chance are
dropped), fits the law and recommends. The same command goes on after an interruption; with a larger budget
it goes further. --dry_run converts, tokenises and measures, then prints the plan and trains nothing.
"""

import argparse
import shutil
from pathlib import Path

from scaling_jax import configuration
from scaling_jax.errors import InputError

SUMMARY = "small runs on your own examples that tell which method to take"
EXAMPLE = """  scaling-jax pilot --model llama --data mine.jsonl --hours 0.5 --out runs/pilot --dry_run
  scaling-jax pilot --model llama --data mine.jsonl --hours 0.5 --out runs/pilot
  scaling-jax pilot --model downloads/flan-t5-base --data train.tsv --dev dev.tsv --test test.tsv \\
      --target 50000 --share 0.1 --methods full,lora,prompt --out runs/pilot"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of this verb."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="what is to be tuned: a checkpoint of ours, a Hugging Face or T5X folder, or a size of ours",
    )
    parser.add_argument(
        "--models",
        default="",
        metavar="A,B",
        help="smaller (or larger) models of its family to learn from too",
    )
    parser.add_argument(
        "--data", required=True, metavar="FILE", help="examples: .jsonl or .tsv (.gz is fine)"
    )
    parser.add_argument("--dev", metavar="FILE", help="cut out of --data where not given, as is --test")
    parser.add_argument("--test", metavar="FILE")
    parser.add_argument(
        "--fields", default="source,target", metavar="A,B", help="of JSON lines (source,target)"
    )
    parser.add_argument("--columns", default="0,1", metavar="I,J", help="of a .tsv, from zero (0,1)")
    parser.add_argument("--template", default="{source}", help="what the model reads; {source} is the source")
    parser.add_argument(
        "--lengths", default="512,128", metavar="N,M", help="most tokens of both sides (512,128)"
    )
    parser.add_argument("--methods", default="full,lora,prompt", metavar="A,B", help="(full,lora,prompt)")
    parser.add_argument(
        "--target",
        default="all",
        metavar="N",
        help="examples of the final run: all, or as many as could be had",
    )
    parser.add_argument(
        "--hours", type=float, metavar="H", help="budget: hours of a GPU or a core, all together"
    )
    parser.add_argument("--share", type=float, metavar="S", help="budget: share of the cost of the final run")
    parser.add_argument("--memory_gib", type=float, metavar="G", help="most memory of the final run's device")
    parser.add_argument("--final_hours", type=float, metavar="H", help="most device hours of the final run")
    parser.add_argument(
        "--vocabulary", metavar="PATH", help="SentencePiece file or store, if not beside the model"
    )
    parser.add_argument(
        "--pretrain", default="", metavar="FILES", help="of a size of ours: text, one document a line"
    )
    parser.add_argument("--pretrain_tokens", type=int, default=0, metavar="N", help="of a size of ours")
    parser.add_argument("--pieces", type=int, default=2048, metavar="N", help="of its vocabulary (2048)")
    parser.add_argument(
        "--activations", choices=("float32", "bfloat16"), default="float32", help="of a converted model"
    )
    parser.add_argument(
        "--remat", choices=("none", "dots", "full"), default="none", help="of a converted model"
    )
    parser.add_argument(
        "--smallest", type=int, default=32, metavar="N", help="smallest data size of a run (32)"
    )
    parser.add_argument(
        "--precision",
        type=float,
        default=0.05,
        metavar="P",
        help="relative interval that needs no more runs (0.05)",
    )
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder of the pilot; new, or of the same one"
    )
    parser.add_argument("--dry_run", action="store_true", help="print the plan, and train nothing")
    configuration.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Makes the pilot, or prints its plan."""
    asked = _request(arguments)
    from scaling_jax.cli.piloting import outcome, plan, request, rounds

    def say(line: str) -> None:
        print(line, flush=True)

    request.check(asked)
    is_new = not (asked.out / "pilot.json").exists()
    record = request.claim(asked)
    try:
        made = request.ready(asked, say)
    except InputError:
        # What was refused must not be in the way of the corrected command.
        if is_new:
            shutil.rmtree(asked.out)
        raise
    if arguments.dry_run:
        for line in plan.plan_lines(made, record):
            say(line)
        return 0
    for line in plan.dearer(made):
        say(line)
    made, record = rounds.begun(made, record)
    rounds.run_rounds(made, record, say)
    found = outcome.concluded(made, record)
    for line in outcome.outcome_lines(made, record, found):
        say(line)
    return 0


def _request(arguments: argparse.Namespace):
    """The request, as far as it can be checked before anything is made."""
    if (arguments.hours is None) == (arguments.share is None):
        both = "both are given" if arguments.hours is not None else "neither is given"
        raise InputError(f"a budget is --hours H or --share S, one of the two; {both}")
    if arguments.hours is not None and not 0 < arguments.hours < 1e6:
        raise InputError(f"--hours {arguments.hours:g}: above zero")
    if arguments.share is not None and not 0 < arguments.share < 1:
        raise InputError(
            f"--share {arguments.share:g}: between 0 and 1; for 1 or more, make the final run by every method"
        )
    if not 0 < arguments.precision < 1 or arguments.smallest < 1:
        raise InputError("--precision lies between 0 and 1, --smallest is at least 1")
    for flag in ("memory_gib", "final_hours"):
        limit = getattr(arguments, flag)
        if limit is not None and not 0 < limit < 1e6:
            raise InputError(f"--{flag} {limit:g}: a limit is a finite number above zero")
    target = None
    if arguments.target != "all":
        if not arguments.target.replace(",", "").replace("_", "").isdigit():
            raise InputError(f"--target {arguments.target}: a number of examples, or all")
        target = int(arguments.target.replace(",", ""))
    methods = _words("--methods", arguments.methods)
    family = [arguments.model, *_words("--models", arguments.models, least=0)]
    family = list(dict.fromkeys(family))
    text = [Path(path) for path in _words("--pretrain", arguments.pretrain, least=0)]
    for path in text:
        if not path.is_file():
            raise InputError(f"--pretrain: no file {path}")
    from scaling_jax.cli.piloting.request import Request
    from scaling_jax.studies.pilot_inputs import Examples, Pretraining, find_model

    examples = Examples(
        Path(arguments.data),
        Path(arguments.dev) if arguments.dev else None,
        Path(arguments.test) if arguments.test else None,
        tuple(_words("--fields", arguments.fields, 2, 2)),
        tuple(_numbers("--columns", arguments.columns, 0)),
        arguments.template,
        tuple(_numbers("--lengths", arguments.lengths, 1)),
    )
    out = Path(arguments.out)
    models = tuple(find_model(given, out) for given in family)
    if len({model.base for model in models}) < len(models):
        raise InputError("--models: two folders have the same name; rename one of them")
    return Request(
        models=models,
        examples=examples,
        counted=examples.counted(),
        methods=tuple(methods),
        target=target,
        hours=arguments.hours,
        share=arguments.share,
        vocabulary=Path(arguments.vocabulary) if arguments.vocabulary else None,
        pretraining=Pretraining(tuple(text), arguments.pretrain_tokens, arguments.pieces),
        execution=("--activations", arguments.activations, "--remat", arguments.remat),
        smallest=arguments.smallest,
        precision=arguments.precision,
        memory_gib=arguments.memory_gib,
        final_hours=arguments.final_hours,
        gin_files=tuple(arguments.gin_file) or ("gin_configs/studies/pilot.gin",),
        bindings=tuple(arguments.gin),
        search_paths=tuple(path for path in arguments.gin_search_paths.split(",") if path),
        imports=tuple(arguments.gin_import),
        out=out,
    )


def _words(flag: str, text: str, least: int = 1, most: int = 100) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not least <= len(words) <= most or len(set(words)) < len(words):
        raise InputError(
            f"{flag} {text!r}: {'two' if most == 2 else 'one or more'} different names, with commas between"
        )
    return words


def _numbers(flag: str, text: str, least: int) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if len(words) != 2 or not all(word.isdigit() and int(word) >= least for word in words):
        raise InputError(f"{flag} {text!r}: two whole numbers of at least {least}, with a comma between")
    return [int(word) for word in words]
