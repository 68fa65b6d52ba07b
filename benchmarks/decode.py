"""Tokens per second of decoding: this project against transformers.generate, same model and machine.

    python benchmarks/decode.py
    python benchmarks/decode.py --strategy beam --rows 8
    python benchmarks/decode.py --layers 24 --model_dim 2048 --heads 16 --dtype bfloat16

A LLaMA of random weights with as many query as key-value heads and a feed-forward of four times the
width (ours written as a Hugging Face folder, which transformers opens); random prompts of one length; no
sequence ends before the last token, so that both sides write the same number. Every measurement is a
process of its own, in turns: transformers as it comes (its dynamic cache, and `--static` its static one),
ours with XLA's default flags, ours with the flags that the command line sets. Tokens per second are of
the median call of all rounds, after one call that compiles; processor seconds are shown beside them. At the
end it says how many of the tokens are the same on both sides. `--cores 1` binds every process and its
threads to one core: on a machine that others use, threads of one process that wait for each other make
times of both sides meaningless. Needs the extra `parity`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
VARIANTS = ("transformers", "transformers_static", "default_flags", "shipped_flags")


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--model_dim", type=int, default=512)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16, help="prompts at a time")
    parser.add_argument("--prompt", type=int, default=64, help="tokens of a prompt")
    parser.add_argument("--new", type=int, default=128, help="tokens written after each")
    parser.add_argument("--strategy", default="greedy", choices=("greedy", "beam"))
    parser.add_argument("--beams", type=int, default=4)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--calls", type=int, default=3, help="timed calls of one process")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cores", type=int, default=0, help="bind each process to so many; 0 is all")
    parser.add_argument("--only", choices=("ours", "transformers"))
    parser.add_argument("--static", action="store_true", help="transformers with its static cache as well")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    return parser.parse_args()


def shape_of(given):
    """Our config of the model."""
    from scaling_jax.models.config import ModelConfig
    from scaling_jax.models.families import llama_config

    return ModelConfig(
        "benchmark",
        **llama_config(
            layers=given.layers,
            heads=given.heads,
            model_dim=given.model_dim,
            feed_forward_dim=4 * given.model_dim,
            vocabulary_size=given.vocabulary,
            dtype=given.dtype,
        ),
    )


def prompts_of(given):
    """Random prompts, [rows, prompt]; the first token of a sequence is 0."""
    import numpy as np

    found = np.random.default_rng(0).integers(2, given.vocabulary, (given.rows, given.prompt))
    return found.astype(np.int32)


def write(given):
    """The model as a Hugging Face folder."""
    import jax
    import numpy as np

    from scaling_jax.interop import hugging_face
    from scaling_jax.models import counts

    generator = np.random.default_rng(0)

    def drawn(path, leaf):
        if path[-1].key == "scale":
            return np.ones(leaf.shape, np.float32)
        fan_in = leaf.shape[-2] if path[-1].key == "kernel" else leaf.shape[-1]
        return (generator.standard_normal(leaf.shape, np.float32) / fan_in**0.5).astype(np.float32)

    model = shape_of(given)
    parameters = jax.tree_util.tree_map_with_path(drawn, counts.abstract_parameters(model))
    hugging_face.write_model(Path(given.folder), model, parameters)
    return {}


def timed(call, given):
    """{wall and processor seconds of every timed call, tokens}."""
    seconds, processor = [], []
    for _ in range(given.calls + 1):
        began, used = time.perf_counter(), time.process_time()
        tokens = call()
        seconds.append(time.perf_counter() - began)
        processor.append(time.process_time() - used)
    return {
        "seconds": seconds[1:],
        "processor_seconds": processor[1:],
        "first_seconds": seconds[0],
        "tokens": tokens,
    }


def time_ours(given):
    """Seconds of every call, and what was written."""
    import jax

    from scaling_jax.data.store import VocabularyFile
    from scaling_jax.evaluation.decoding import Decoding, generate
    from scaling_jax.interop import hugging_face, reading
    from scaling_jax.training.mesh import Layout
    from scaling_jax.training.optimizers import Optimizer
    from scaling_jax.training.precision import stored_as
    from scaling_jax.training.program import Program
    from scaling_jax.tuning.full import Full

    program = Program(shape_of(given), Full(), Optimizer(), Layout())
    folder = hugging_face.open_model(Path(given.folder))
    params = stored_as(reading.read_parameters(folder, program.shardings["params"]), given.dtype)
    prompts = list(prompts_of(given))
    decoding = Decoding(given.strategy, given.new, given.beams, length_penalty=0.0, batch_size=given.rows)
    never = VocabularyFile("bytes", given.vocabulary, eos_id=given.vocabulary)

    def call():
        found = generate(program, params, {}, prompts, decoding, never, 0)
        return [one.tokens.tolist() for one in found]

    return timed(call, given) | {
        "device": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__},
    }


def time_transformers(given):
    """Seconds of every call, and what was written."""
    import numpy as np
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = transformers.LlamaForCausalLM.from_pretrained(given.folder, dtype=getattr(torch, given.dtype))
    model = model.to(device).eval()
    model.generation_config.eos_token_id = None  # every sequence is as long as it may be
    prompts = np.pad(prompts_of(given), ((0, 0), (1, 0)))
    read = torch.tensor(prompts).long().to(device)
    search = {}
    if given.strategy == "beam":
        search = {"num_beams": given.beams, "length_penalty": 0.0, "early_stopping": "never"}
    if given.variant == "transformers_static":
        search["cache_implementation"] = "static"

    def call():
        found = model.generate(
            read,
            attention_mask=torch.ones_like(read),
            max_new_tokens=given.new,
            do_sample=False,
            pad_token_id=0,
            **search,
        )
        return found[:, read.shape[1] :].tolist()

    with torch.inference_mode():
        return timed(call, given) | {
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }


def measured(variant, folder):
    """What a process of its own measures."""
    environment = dict(os.environ)
    if variant == "shipped_flags":
        from scaling_jax.training.platform import worker_environment

        environment = worker_environment()
    command = [sys.executable, *sys.argv, "--variant", variant, "--folder", folder]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{variant} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measures in turns and prints a table and one JSON object."""
    sys.path.insert(0, str(ROOT))
    given = arguments()
    if given.cores:
        cores = sorted(os.sched_getaffinity(0))[: given.cores]
        os.sched_setaffinity(0, cores)  # a child inherits it
        os.environ["OMP_NUM_THREADS"] = str(len(cores))
    if given.variant:
        run = {"write": write}.get(
            given.variant, time_transformers if given.variant.startswith("trans") else time_ours
        )
        print(json.dumps(run(given)))
        return
    variants = [
        variant
        for variant in VARIANTS
        if (variant != "transformers_static" or given.static)
        and given.only in (None, "transformers" if variant.startswith("trans") else "ours")
    ]
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(Path(temporary) / "model")
        measured("write", folder)
        for _ in range(given.rounds):
            for variant in variants:
                one = measured(variant, folder)
                known = found.setdefault(variant, one | {"seconds": [], "processor_seconds": []})
                known["seconds"] += one["seconds"]
                known["processor_seconds"] += one["processor_seconds"]
    show(given, found)


def show(given, found):
    """Prints the table and the object."""
    tokens = given.rows * given.new
    print(
        f"{given.strategy}, {given.layers} layers of {given.model_dim}, {given.rows} prompts of "
        f"{given.prompt} tokens, {given.new} new, {given.dtype}, {next(iter(found.values()))['device']}"
    )
    print(
        f"{'':<22}{'s a call':>10}{'tokens/s':>12}{'of transformers':>17}{'processor s':>13}"
        f"{'of transformers':>17}{'first call':>12}"
    )
    rows = []
    peer = found.get("transformers")
    for variant, one in found.items():
        medians = {key: statistics.median(one[key]) for key in ("seconds", "processor_seconds")}
        ratios = {key: statistics.median(peer[key]) / medians[key] if peer else None for key in medians}
        shown = {key: f"{ratio:.2f}" if ratio else "" for key, ratio in ratios.items()}
        print(
            f"{variant:<22}{medians['seconds']:>10.3f}{tokens / medians['seconds']:>12,.0f}"
            f"{shown['seconds']:>17}{medians['processor_seconds']:>13.3f}{shown['processor_seconds']:>17}"
            f"{one['first_seconds']:>10.1f} s"
        )
        rows.append(
            {"variant": variant, "tokens_per_second": tokens / medians["seconds"]}
            | {"of_transformers": ratios["seconds"]}
            | {"processor_of_transformers": ratios["processor_seconds"]}
            | {key: one[key] for key in ("seconds", "processor_seconds", "versions")}
        )
    ours = found.get("shipped_flags")
    if ours and peer:
        pairs = [
            (a, b)
            for row, other in zip(ours["tokens"], peer["tokens"], strict=True)
            for a, b in zip(row, other, strict=True)
        ]
        same = sum(a == b for a, b in pairs)
        print(f"{same} of {len(pairs)} tokens are the same on both sides")
    print(json.dumps({"settings": vars(given), "rows": rows}))


if __name__ == "__main__":
    main()
