"""Text that a pretrained or tuned checkpoint writes after each line of a file, as JSONL.

The input is UTF-8 (`.gz` too), one prompt per line, or JSONL with the field `inputs` (a file whose first
line begins with "{"). Each line of the output is {"inputs", "output", "score", "tokens", "finished"}: the
score is the log-probability in nats (of beam divided by the length penalty), `finished` is false where
the text was cut at --max_new_tokens.
"""

import itertools
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.training import processes

SUMMARY = "text that a checkpoint writes after each line of a file"
EXAMPLE = (
    "  scaling-jax infer runs/lora-1000/checkpoint --store stores/lab/finetune --input sources.txt \\\n"
    "      --strategy beam --beams 4 --out answers.jsonl\n"
    "  echo 'a source sentence' | scaling-jax infer runs/lora-1000/checkpoint --store stores/lab/finetune\n"
    "  scaling-jax infer runs/base/checkpoints/1638400 --store stores/lab/finetune --shots 5 < sources.txt"
)


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    parser.add_argument(
        "checkpoint", metavar="CHECKPOINT", help="folder with about.json, pretrained or tuned"
    )
    parser.add_argument(
        "--store",
        metavar="DIR",
        help="token store of the checkpoint's vocabulary; a converted checkpoint that keeps its tokenizer "
        "needs none",
    )
    parser.add_argument(
        "--base", metavar="DIR", help="where the base of a tuned checkpoint is now, if it moved"
    )
    parser.add_argument(
        "--input", default="-", metavar="FILE", help="text or JSONL, .gz too; - is standard input"
    )
    parser.add_argument("--out", metavar="FILE", help="JSONL, a new file; standard output by default")
    parser.add_argument("--cut", action="store_true", help="cut inputs that are longer than the store's")
    choice = parser.add_argument_group("how tokens are chosen")
    choice.add_argument("--strategy", default="greedy", help="greedy (default), beam or sample")
    choice.add_argument("--max_new_tokens", type=int, default=128, metavar="N")
    choice.add_argument("--beams", type=int, default=4, metavar="N")
    choice.add_argument(
        "--length_penalty", type=float, default=0.6, metavar="ALPHA", help="of beam: ((5 + tokens) / 6)^ALPHA"
    )
    choice.add_argument("--temperature", type=float, default=1.0)
    choice.add_argument("--top_k", type=int, default=0, metavar="K", help="of sample; 0 is all tokens")
    choice.add_argument("--top_p", type=float, default=1.0, metavar="P", help="of sample; 1 is all tokens")
    choice.add_argument("--batch_size", type=int, default=32, metavar="N")
    choice.add_argument("--seed", type=int, default=0)
    shown = parser.add_argument_group("examples of the store's train split before each prompt")
    shown.add_argument("--shots", type=int, default=0, metavar="N", help="how many; 0 (default) is zero-shot")
    shown.add_argument("--shots_seed", type=int, default=0, metavar="N", help="which ones")
    shown.add_argument("--separator", default="", metavar="TEXT", help="after each; EOS by default")
    processes.add_arguments(parser)
    placed = parser.add_argument_group("devices")
    placed.add_argument("--fsdp", type=int, default=1, help="devices along each parameter's width")
    placed.add_argument("--tensor", type=int, default=1, help="devices along heads and feed-forward")


def run(arguments) -> int:
    """Reads, writes, and says how far it is."""
    from scaling_jax.training import platform

    platform.prepare_process()
    with processes.joined(arguments):
        return _run(arguments)


def _run(arguments) -> int:
    configuration.import_module("scaling_jax.studies.configurables")
    from scaling_jax.cli.progress import counted
    from scaling_jax.evaluation import inference
    from scaling_jax.evaluation.decoding import Decoding
    from scaling_jax.evaluation.prompts import Shots
    from scaling_jax.training.mesh import Layout

    fields = Decoding.__dataclass_fields__
    decoding = Decoding(**{name: getattr(arguments, name) for name in fields})
    shots = Shots(arguments.shots, arguments.shots_seed, arguments.separator)
    if arguments.out:
        processes.on_first(lambda: _check_out(arguments.out, arguments.input))
    lines, total = _lines(arguments.input, inference.read_lines)
    opened = inference.open_checkpoint(
        Path(arguments.checkpoint),
        Path(arguments.store) if arguments.store else None,
        Layout(fsdp=arguments.fsdp, tensor=arguments.tensor),
        Path(arguments.base) if arguments.base else None,
    )
    cut = []
    found = inference.answers(
        opened,
        lines,
        decoding,
        shots,
        (lambda line, tokens: cut.append(line.where)) if arguments.cut else None,
        counted("answers", total),
    )
    beyond = 0

    def written():
        nonlocal beyond
        for answer in found:
            beyond += answer.get("beyond", False)
            yield json.dumps(answer, ensure_ascii=False) + "\n"

    if not processes.is_first():
        for _ in written():  # it takes part in what process 0 writes
            pass
        return 0
    if arguments.out:
        print(f"{arguments.out}: {_write(arguments.out, written()):,} answers")
    else:
        for line in written():
            sys.stdout.write(line)
            sys.stdout.flush()
    if cut:
        print(
            f"{len(cut):,} inputs were longer than the store's and are cut, first {cut[0]}", file=sys.stderr
        )
    if beyond:
        print(f'{beyond:,} answers went beyond the positions of the model, "beyond": true', file=sys.stderr)
    return 0


def _write(out: str, lines: Iterable[str]) -> int:
    """Writes all lines, and returns how many; those of before an error to another file beside it."""
    whole: list[str] = []
    try:
        whole.extend(lines)  # which keeps those of before an error
    except BaseException as error:
        if not whole:
            raise
        kept = f"{len(whole):,} answers of before are in {files.write_text(_partial(out), ''.join(whole))}"
        if isinstance(error, InputError):
            raise InputError(f"{error}; {kept}") from error
        print(kept, file=sys.stderr)
        raise
    files.write_text(out, "".join(whole))
    return len(whole)


def _partial(out: str) -> str:
    return f"{out}.partial"


def _check_out(out: str, given: str) -> None:
    """
    Raises:
        InputError: a file or folder is there already (the input, say), or none can be written.
    """
    path = files.at(out)
    try:
        if given != "-" and not files.is_remote(out) and path.exists() and path.samefile(given):
            raise InputError(f"--out {out} is the input itself: name another file")
        for place in (path, files.at(_partial(out))):
            if place.exists():
                raise InputError(f"{place} is there already: name another --out, or move it away first")
        if files.is_remote(out):
            return
        above = next(folder for folder in path.absolute().parents if folder.exists())
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror or error}") from error
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        why = "is no folder" if not above.is_dir() else "cannot be written to"
        raise InputError(f"cannot write {out}: {above} {why}")


def _lines(name: str, read):
    """(inputs, how many): a file is read to its end before anything is computed, a stream is not.

    Raises:
        InputError: no text in it, or what `read` and `text_files` refuse.
    """
    from scaling_jax.tasks import text_files

    if name == "-":
        if processes.count() > 1:
            raise InputError("several processes read the same lines: give --input FILE")
        lines = read("standard input", text_files.lines_of("standard input", sys.stdin.buffer))
        first = next(lines, None)
        if first is None:
            raise InputError("standard input holds no text")
        return itertools.chain([first], lines), None
    lines = list(read(name, text_files.lines(Path(name))))
    if not lines:
        raise InputError(f"{name} holds no text")
    return lines, len(lines)
