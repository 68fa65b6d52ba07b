"""Makes one of our checkpoints from a Hugging Face folder (LLaMA, T5), a T5X checkpoint (T5) or a PEFT
adapter (LoRA, (IA)3, prompt); or, from one of ours, a Hugging Face folder, into which what was tuned
is merged, or a PEFT adapter.
"""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

SUMMARY = "checkpoints and adapters from Hugging Face and T5X, and back to Hugging Face"
EXAMPLE = (
    "  scaling-jax convert downloads/flan-t5-xl runs/flan-t5-xl --activations bfloat16 --remat full\n"
    "  scaling-jax convert downloads/checkpoint_1138000 runs/flan-t5-xl --vocabulary downloads/spiece.model\n"
    "  scaling-jax convert runs/lora-1000/checkpoint exports/lora-1000 --to hugging_face\n"
    "  scaling-jax convert runs/lora-1000/checkpoint exports/adapter --to adapter --base google/flan-t5-xl"
)

INTERRUPTED = "nothing was written, run the same command again"
# Flags that not every conversion heeds: of each kind of conversion (what it is called, those it does).
_FLAGS = ("name", "dtype", "activations", "remat", "vocabulary", "base")
_HEEDED = {
    "model": ("for a whole model that is read", ("name", "dtype", "activations", "remat", "vocabulary")),
    "adapter_read": ("for an adapter that is read", ("base",)),
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
        help="checkpoint of the base of an adapter that is read, or of a tuned checkpoint if it has moved; "
        "name of the base of an adapter that is written",
    )
    parser.add_argument("--fsdp", type=int, default=1, help="devices along each parameter's width")
    parser.add_argument("--tensor", type=int, default=1, help="devices along heads and feed-forward")


def run(arguments) -> int:
    """Converts and says what was written."""
    from scaling_jax.training import platform

    platform.prepare_process()
    from scaling_jax import configuration
    from scaling_jax.errors import InputError
    from scaling_jax.interop import conversion
    from scaling_jax.training.mesh import Layout

    configuration.import_module("scaling_jax.studies.configurables")
    source, out = Path(arguments.folder), Path(arguments.out)
    layout = Layout(fsdp=arguments.fsdp, tensor=arguments.tensor)
    began = time.perf_counter()
    kind = arguments.to
    if kind == "checkpoint":
        kind = "adapter_read" if (source / "adapter_config.json").is_file() else "model"
    words, heeded = _HEEDED[kind]
    given = [flag for flag in _FLAGS if getattr(arguments, flag) is not None]
    if idle := [f"--{flag}" for flag in given if flag not in heeded]:
        raise InputError(f"{', '.join(idle)} would have no effect {words}: leave it out")
    with _ended_by_sigterm():
        if kind == "hugging_face":
            base = Path(arguments.base) if arguments.base else None
            made = conversion.to_hugging_face(source, out, layout, arguments.dtype or "float32", base)
        elif kind == "adapter":
            made = conversion.to_adapter(source, out, layout, arguments.base)
        elif kind == "adapter_read":
            if arguments.base is None:
                raise InputError(f"{source} is an adapter: name the checkpoint of its base with --base")
            made = conversion.from_adapter(source, out, Path(arguments.base), layout)
        else:
            execution = {"dtype": arguments.activations or "float32", "remat": arguments.remat or "none"}
            vocabulary = Path(arguments.vocabulary) if arguments.vocabulary else None
            made = conversion.to_checkpoint(
                source, out, arguments.name, layout, arguments.dtype or "float32", execution, vocabulary
            )
    print(f"{out}: {made.model}, {made.parameters:,} parameters, {time.perf_counter() - began:.1f} s")
    if made.remark:
        print(made.remark)
    if made.vocabulary is None and arguments.to == "checkpoint":
        again = "the base again" if kind == "adapter_read" else "again"
        print(f"no tokenizer beside it: to tune it, convert {again} with --vocabulary STORE")
    return 0


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
