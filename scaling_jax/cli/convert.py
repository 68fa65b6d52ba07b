"""Makes one of our checkpoints from a Hugging Face folder (LLaMA, T5), a T5X checkpoint (T5), a PEFT
adapter (LoRA, (IA)3, prompt) or what T5X's train.py has trained of our models (--method, --size); or,
from one of ours, a Hugging Face folder, into which what was tuned is merged, or a PEFT adapter.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from scaling_jax import configuration

SUMMARY = "checkpoints and adapters from Hugging Face and T5X, and back to Hugging Face"
EXAMPLE = (
    "  scaling-jax convert downloads/flan-t5-xl runs/flan-t5-xl --activations bfloat16 --remat full\n"
    "  scaling-jax convert downloads/checkpoint_1138000 runs/flan-t5-xl --vocabulary downloads/spiece.model\n"
    "  scaling-jax convert gs://t5-data/pretrained_models/t5x/t5_1_1_small/checkpoint_1000000 runs/t5-small\n"
    "  scaling-jax convert runs/t5x/checkpoint_80 runs/ours --base runs/base --method lora\n"
    "  scaling-jax convert runs/lora-1000/checkpoint exports/lora-1000 --to hugging_face\n"
    "  scaling-jax convert runs/lora-1000/checkpoint exports/adapter --to adapter --base google/flan-t5-xl"
)
INTERRUPTED = "nothing was written, run the same command again"
CONFIGURABLES = "scaling_jax.studies.configurables"
# Of each kind of conversion: what it is called, and those of the flags here that it heeds.
_FLAGS = ("name", "dtype", "activations", "remat", "vocabulary", "base", "method", "size", "gin_file", "gin")
_HEEDED = {
    "model": ("for a whole model that is read", ("name", "dtype", "activations", "remat", "vocabulary")),
    "adapter_read": ("for an adapter that is read", ("base",)),
    "tuned_by_t5x": ("with --method", ("base", "method", "gin_file", "gin")),
    "trained_by_t5x": ("with --size", ("vocabulary", "size", "gin_file", "gin")),
    "hugging_face": ("with --to hugging_face", ("dtype", "base")),
    "adapter": ("with --to adapter", ("base",)),
}


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    parser.add_argument("folder", metavar="FOLDER", help="Hugging Face folder, T5X checkpoint_STEP, or ours")
    parser.add_argument("out", metavar="OUT", help="folder to write, whole or not at all")
    parser.add_argument("--to", choices=("checkpoint", "hugging_face", "adapter"), default="checkpoint")
    parser.add_argument("--name", help="of the model in records; the folder's by default")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), help="of the arrays that are written; float32 by default"
    )
    parser.add_argument(
        "--activations",
        choices=("float32", "bfloat16"),
        help="dtype that the checkpoint's model computes in; float32 by default",
    )
    parser.add_argument(
        "--remat",
        choices=("none", "attention", "dots", "full"),
        help="what the model's backward pass recomputes; none by default",
    )
    parser.add_argument(
        "--vocabulary",
        metavar="PATH",
        help="token store or tokenizer's file that the tokens belong to, where FOLDER has no tokenizer",
    )
    parser.add_argument(
        "--base",
        help="checkpoint of the base of an adapter or run of T5X's that is read, or of a tuned checkpoint if "
        "it has moved; name of the base of an adapter that is written",
    )
    parser.add_argument(
        "--method",
        metavar="NAME",
        help="FOLDER is of T5X's train.py, which tuned --base by this method with the settings that gin has",
    )
    parser.add_argument(
        "--size",
        metavar="NAME",
        help="FOLDER is of T5X's train.py, which trained all of this model of the gin files",
    )
    configuration.add_arguments(parser)
    parser.add_argument("--fsdp", type=int, default=1, help="devices along each parameter's width")
    parser.add_argument("--tensor", type=int, default=1, help="devices along heads and feed-forward")


def run(arguments) -> int:
    """Converts and says what was written."""
    from scaling_jax.training import platform

    platform.prepare_process()
    from scaling_jax import files
    from scaling_jax.errors import InputError

    source, out = files.at(arguments.folder), files.at(arguments.out)
    kind = _kind(arguments, source)
    _check_flags(arguments, kind)
    if arguments.to != "checkpoint" and files.is_remote(out):
        raise InputError(f"{out}: --to {arguments.to} writes a folder of this machine; copy that there")
    if arguments.gin or arguments.gin_file:
        configuration.parse_arguments(arguments, [CONFIGURABLES])
    else:
        configuration.import_module(CONFIGURABLES)
    began = time.perf_counter()
    with _ended_by_sigterm():
        made = _made(arguments, kind, source, out)
    print(f"{out}: {made.model}, {made.parameters:,} parameters, {time.perf_counter() - began:.1f} s")
    if made.remark:
        print(made.remark)
    if made.vocabulary is None and arguments.to == "checkpoint":
        again = "again" if "vocabulary" in _HEEDED[kind][1] else "the base again"
        print(f"no tokenizer beside it: to tune it, convert {again} with --vocabulary STORE")
    return 0


def _kind(arguments, source: Any) -> str:
    """Which of the conversions is asked for."""
    from scaling_jax import files

    if arguments.to != "checkpoint":
        return arguments.to
    if arguments.method:
        return "tuned_by_t5x"
    if arguments.size:
        return "trained_by_t5x"
    is_adapter = not files.is_remote(source) and (source / "adapter_config.json").is_file()
    return "adapter_read" if is_adapter else "model"


def _check_flags(arguments, kind: str) -> None:
    """
    Raises:
        InputError: a flag that this conversion would not heed, or one that it needs.
    """
    from scaling_jax.errors import InputError

    words, heeded = _HEEDED[kind]
    given = [flag for flag in _FLAGS if getattr(arguments, flag)]
    if idle := [f"--{flag}" for flag in given if flag not in heeded]:
        raise InputError(f"{', '.join(idle)} would have no effect {words}: leave it out")
    if kind == "tuned_by_t5x" and not arguments.base:
        raise InputError("--method needs --base: the checkpoint of ours that T5X tuned")
    if kind == "adapter_read" and not arguments.base:
        raise InputError(f"{arguments.folder} is an adapter: name the checkpoint of its base with --base")


def _made(arguments, kind: str, source: Any, out: Any):
    """What the conversion wrote."""
    from scaling_jax import files
    from scaling_jax.interop import conversion, t5x_runs
    from scaling_jax.training.mesh import Layout

    layout = Layout(fsdp=arguments.fsdp, tensor=arguments.tensor)
    dtype = arguments.dtype or "float32"
    vocabulary = files.at(arguments.vocabulary) if arguments.vocabulary else None
    if kind == "adapter":
        return conversion.to_adapter(source, out, layout, arguments.base)
    base = files.at(arguments.base) if arguments.base else None
    if kind == "hugging_face":
        return conversion.to_hugging_face(source, out, layout, dtype, base)
    if kind == "adapter_read":
        return conversion.from_adapter(source, out, base, layout)
    if kind == "tuned_by_t5x":
        return t5x_runs.to_tuned(source, out, base, arguments.method, layout)
    if kind == "trained_by_t5x":
        return t5x_runs.to_pretrained(source, out, arguments.size, layout, vocabulary)
    execution = {"dtype": arguments.activations or "float32", "remat": arguments.remat or "none"}
    return conversion.to_checkpoint(source, out, arguments.name, layout, dtype, execution, vocabulary)


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Lets SIGTERM end the process as an error does, so that nothing half-written is left."""
    if threading.current_thread() is not threading.main_thread():  # whoever owns the process listens
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
