"""Makes one of our checkpoints from a Hugging Face folder (LLaMA, T5), a T5X checkpoint (T5), a PEFT
adapter (LoRA, (IA)3, prompt) or what T5X's train.py has trained of our models (--method, --size); or,
from one of ours, a Hugging Face folder, into which what was tuned is merged, or a PEFT adapter.
"""

import time

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
CONFIGURABLES = "scaling_jax.studies.configurables"


def add_arguments(parser) -> None:
    """Declares the verb's flags."""
    parser.add_argument("folder", metavar="FOLDER", help="Hugging Face folder, T5X checkpoint_STEP, or ours")
    parser.add_argument("out", metavar="OUT", help="folder to write, whole or not at all")
    parser.add_argument("--to", choices=("checkpoint", "hugging_face", "adapter"), default="checkpoint")
    parser.add_argument("--name", help="of the model in records; the folder's by default")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the arrays that are written"
    )
    parser.add_argument(
        "--activations",
        choices=("float32", "bfloat16"),
        default="float32",
        help="dtype that the checkpoint's model computes in",
    )
    parser.add_argument(
        "--remat",
        choices=("none", "attention", "dots", "full"),
        default="none",
        help="what the model's backward pass recomputes",
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

    of_t5x = arguments.method or arguments.size
    _check_flags(arguments)
    if of_t5x and (arguments.gin or arguments.gin_file):
        configuration.parse_arguments(arguments, [CONFIGURABLES])
    else:
        configuration.import_module(CONFIGURABLES)
    out = files.at(arguments.out)
    if arguments.to != "checkpoint" and files.is_remote(out):
        raise InputError(f"{out}: --to {arguments.to} writes a folder of this machine; copy that there")
    began = time.perf_counter()
    made = _of_t5x(arguments) if of_t5x else _converted(arguments)
    print(f"{out}: {made.model}, {made.parameters:,} parameters, {time.perf_counter() - began:.1f} s")
    if made.remark:
        print(made.remark)
    if made.vocabulary is None and arguments.to == "checkpoint":
        print("no tokenizer beside it: to tune it, convert again with --vocabulary STORE")
    return 0


def _check_flags(arguments) -> None:
    """
    Raises:
        InputError: flags of a run of T5X's that do not belong together.
    """
    from scaling_jax.errors import InputError

    if not (arguments.method or arguments.size):
        if arguments.gin or arguments.gin_file:
            raise InputError("gin says what T5X's train.py has trained: add --method NAME or --size NAME")
    elif arguments.method and arguments.size:
        raise InputError("a run of T5X's that began at random is named by --size alone, without --method")
    elif arguments.to != "checkpoint":
        raise InputError(
            f"--to {arguments.to} takes a checkpoint of ours: convert what T5X trained to one first"
        )
    elif arguments.method and not arguments.base:
        raise InputError("--method needs --base: the checkpoint of ours that T5X tuned")
    elif arguments.size and arguments.base:
        raise InputError("--size is of a run without a base: name --base and --method, or --size alone")


def _of_t5x(arguments):
    """What T5X's train.py has trained of our models."""
    from scaling_jax import files
    from scaling_jax.interop import t5x_runs
    from scaling_jax.training.mesh import Layout

    source, out = files.at(arguments.folder), files.at(arguments.out)
    layout = Layout(fsdp=arguments.fsdp, tensor=arguments.tensor)
    if arguments.method:
        return t5x_runs.to_tuned(source, out, files.at(arguments.base), arguments.method, layout)
    vocabulary = files.at(arguments.vocabulary) if arguments.vocabulary else None
    return t5x_runs.to_pretrained(source, out, arguments.size, layout, vocabulary)


def _converted(arguments):
    """A model or adapter of others, or one of ours for others."""
    from scaling_jax import files
    from scaling_jax.errors import InputError
    from scaling_jax.interop import conversion
    from scaling_jax.training.mesh import Layout

    source, out = files.at(arguments.folder), files.at(arguments.out)
    layout = Layout(fsdp=arguments.fsdp, tensor=arguments.tensor)
    if arguments.to == "hugging_face":
        base = files.at(arguments.base) if arguments.base else None
        return conversion.to_hugging_face(source, out, layout, arguments.dtype, base)
    if arguments.to == "adapter":
        return conversion.to_adapter(source, out, layout, arguments.base)
    if not files.is_remote(source) and (source / "adapter_config.json").is_file():
        if arguments.base is None:
            raise InputError(f"{source} is an adapter: name the checkpoint of its base with --base")
        return conversion.from_adapter(source, out, files.at(arguments.base), layout)
    execution = {"dtype": arguments.activations, "remat": arguments.remat}
    vocabulary = files.at(arguments.vocabulary) if arguments.vocabulary else None
    return conversion.to_checkpoint(
        source, out, arguments.name, layout, arguments.dtype, execution, vocabulary
    )
