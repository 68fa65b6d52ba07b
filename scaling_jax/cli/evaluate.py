"""Loss and scores of a checkpoint on one split of a store, or scores of answers that are there already.

Without --scores it measures the mean nats per target token alone. With them it also lets the model answer
every input and scores the answers; settings of scores are gin bindings (--gin.bleu.tokenize=char).
"""

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.evaluation.score import known_scores
from scaling_jax.training import processes

SUMMARY = "loss and scores of a checkpoint, or scores of answers"
EXAMPLE = """  scaling-jax evaluate runs/lora-1000/checkpoint --store stores/lab/finetune --split test
  scaling-jax evaluate runs/lora-1000/checkpoint --store stores/mine --scores bleu,chrf \\
      --strategy beam --beams 4 --out runs/lora-1000/evaluation
  scaling-jax evaluate --answers runs/lora-1000/evaluation/answers.jsonl --scores rouge
  scaling-jax evaluate --hypotheses out.de --references ref1.de ref2.de --scores bleu"""

# Flags of the generation: name, type, help. Each overrides what gin binds to `Decoding`.
_DECODING = (
    ("strategy", str, "greedy, beam or sample"),
    ("max_new_tokens", int, "longest answer, in tokens"),
    ("beams", int, "of a beam search"),
    ("length_penalty", float, "of a beam search"),
    ("temperature", float, "of a sample"),
    ("top_k", int, "of a sample; 0 is all"),
    ("top_p", float, "of a sample; 1 is all"),
    ("seed", int, "of a sample"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the verb's flags."""
    parser.add_argument(
        "checkpoint", nargs="?", metavar="CHECKPOINT", help="folder with about.json, pretrained or tuned"
    )
    parser.add_argument("--store", metavar="DIR", help="token store")
    parser.add_argument("--split", default="test", help="train, dev or test (default)")
    parser.add_argument("--examples", type=int, metavar="N", help="only the first N examples")
    parser.add_argument(
        "--base", metavar="DIR", help="where the base of a tuned checkpoint is now, if it moved"
    )
    parser.add_argument("--batch_size", type=int, default=64, help="examples per batch of the loss")
    parser.add_argument(
        "--scores", default="", metavar="NAMES", help=f"comma-separated: {', '.join(known_scores())}"
    )
    parser.add_argument("--shots", type=int, default=0, metavar="N", help="solved examples before each input")
    for name, kind, text in _DECODING:
        parser.add_argument(f"--{name}", type=kind, help=text)
    parser.add_argument(
        "--out",
        metavar="DIR",
        help="keep answers, scores and what a score writes here; later scores of the same answers are added",
    )
    parser.add_argument("--answers", metavar="FILE", help="score these answers (JSONL), without a model")
    parser.add_argument("--hypotheses", metavar="FILE", help="score these lines of text, or what infer wrote")
    parser.add_argument(
        "--references", nargs="+", default=[], metavar="FILE", help="for --hypotheses; one or several files"
    )
    parser.add_argument("--language", default="", metavar="CODE", help="of --hypotheses, such as zh")
    configuration.add_arguments(parser)
    processes.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Evaluates and prints."""
    given = [flag for flag in ("checkpoint", "answers", "hypotheses") if getattr(arguments, flag)]
    if len(given) != 1:
        raise InputError(
            "give one thing to evaluate: CHECKPOINT with --store, --answers FILE, or --hypotheses FILE with "
            "--references FILE"
        )
    if not arguments.checkpoint:
        return _evaluate(arguments)
    from scaling_jax.training import platform

    platform.prepare_process()
    with processes.joined(arguments):
        return _evaluate(arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    names = [name.strip() for name in arguments.scores.split(",") if name.strip()]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.out or temporary)
        evaluate = _of_checkpoint if arguments.checkpoint else _of_texts
        found, of = evaluate(arguments, names, folder)
        if arguments.out:
            from scaling_jax.evaluation import evaluation_file

            processes.on_first(lambda: str(evaluation_file.add(folder, found, of)))
    if not processes.is_first():
        return 0
    if arguments.json:
        print(json.dumps(found, ensure_ascii=False))
    else:
        _show(found, names)
    return 0


# What an evaluation found, and what it is of (see `evaluation_file`).
_Found = tuple[dict[str, Any], dict[str, Any]]


def _of_checkpoint(arguments: argparse.Namespace, names: Sequence[str], folder: Path) -> _Found:
    if not arguments.store:
        raise InputError("--store is missing: name the token store with the split")
    _parse(arguments, ["scaling_jax.studies.configurables"])
    from scaling_jax.data.store import open_store
    from scaling_jax.evaluation import answers, evaluations
    from scaling_jax.evaluation.decoding import Decoding
    from scaling_jax.training.bases import load_checkpoint
    from scaling_jax.training.mesh import Layout

    changes = {name: getattr(arguments, name) for name, _, _ in _DECODING}
    changes = {name: value for name, value in changes.items() if value is not None}
    evaluation = evaluations.Evaluation(
        split=arguments.split,
        examples=arguments.examples,
        scores=names,
        loss=True,
        shots=arguments.shots,
        decoding=dataclasses.replace(configuration.call(Decoding), **changes),
        batch_size=arguments.batch_size,
    )
    evaluations.check([evaluation], {})
    path = Path(arguments.checkpoint)
    base = Path(arguments.base) if arguments.base else None
    subject = evaluations.of_checkpoint(path, load_checkpoint(path, Layout(), base))
    found = evaluations.evaluate_answers(subject, arguments.store, evaluation, folder)
    perplexity = math.exp(found["loss"]) if found["loss"] is not None and found["loss"] < 700 else None
    store = open_store(arguments.store)
    of_split = store.manifest["splits"][arguments.split]["examples"]
    measured = min(arguments.examples or of_split, of_split)
    found |= {"perplexity": perplexity, "split": arguments.split, "loss_examples": measured}
    of = {
        "model": subject.identity,
        "store": store.manifest_hash(),
        "split": arguments.split,
        "examples": arguments.examples,
    }
    if names and arguments.out:
        found["answers"] = str(folder / "answers.jsonl")
        if processes.is_first():
            of["answers"] = answers.identity(answers.read(folder / "answers.jsonl"))
    return found, of


def _of_texts(arguments: argparse.Namespace, names: Sequence[str], folder: Path) -> _Found:
    if not names:
        raise InputError(f"--scores is missing: name some of {', '.join(known_scores())}")
    if arguments.answers and (arguments.references or arguments.language):
        raise InputError("--references and --language go with --hypotheses: answers have their own")
    from scaling_jax.evaluation import answers
    from scaling_jax.evaluation.score import checked_scores, score_answers

    _parse(arguments, [])
    checked_scores(names)
    if arguments.answers:
        found = answers.read(Path(arguments.answers))
    else:
        references = [Path(path) for path in arguments.references]
        found = answers.read_lines(Path(arguments.hypotheses), references, arguments.language)
    scored = score_answers(names, found, folder) | {"examples": len(found)}
    return scored, {"answers": answers.identity(found)}


def _parse(arguments: argparse.Namespace, imports: Sequence[str]) -> None:
    known_scores()
    paths = [path for path in arguments.gin_search_paths.split(",") if path]
    configuration.parse(arguments.gin_file, arguments.gin, paths, [*imports, *arguments.gin_import])


def _show(found: dict[str, Any], names: Sequence[str]) -> None:
    if "loss" in found:
        of = f"{found['loss_examples']:,} {found['split']} examples"
        if found["perplexity"] is None:
            print(f"the loss is not finite, or above 700 nats per target token, {of}")
        else:
            print(f"{found['loss']:.5f} nats per target token, perplexity {found['perplexity']:.4f}, {of}")
    known = {"loss", "perplexity", "split", "examples", "loss_examples", "seconds", "answers"}
    known |= {"signatures", "notes"}
    columns = {name: value for name, value in found.items() if name not in known}
    for name in dict.fromkeys(names):
        own = [column for column in columns if column in known_scores()[name].columns]
        values = "  ".join(f"{column} {_number(columns.pop(column))}" for column in own)
        print(f"{values}   ({found['signatures'][name]})")
    for column, value in columns.items():  # that a score fills beyond those it declares
        print(f"{column} {_number(value)}")
    for note in found["notes"]:
        print(f"note: {note}")
    if "answers" in found:
        print(f"answers: {found['answers']}")


def _number(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"
