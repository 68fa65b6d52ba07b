"""Full and LoRA training steps: this project against transformers + peft, same model and batch.

    python benchmarks/tuning_step.py
    python benchmarks/tuning_step.py --layers 16 --model_dim 512
    python benchmarks/tuning_step.py --dtype bfloat16 --layers 16 --model_dim 2048 --heads 16 --length 1024

A LLaMA, by default with as many query as key-value heads and a feed-forward of four times the width;
AdamW; LoRA on all seven projections. Every measurement is a process of its own, in turns: torch as it comes,
ours with XLA's default flags, ours with the flags that the command line sets. Milliseconds are the median of
all steps of all rounds, their spread the quartiles. Prints a table in Markdown and a JSON object. Needs the
extra `parity` (torch, transformers, peft), or jax, flax, optax and gin-config alone with `--only ours`.
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
VARIANTS = ("torch", "torch_compiled", "default_flags", "shipped_flags")
METHODS = ("full", "lora")
LABELS = {
    "torch": "transformers + peft",
    "torch_compiled": "the same, torch.compile",
    "default_flags": "ours, XLA's default flags",
    "shipped_flags": "ours, the flags we ship",
}


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--model_dim", type=int, default=256)
    parser.add_argument("--heads", type=int, default=8)
    parser.add_argument("--key_value_heads", type=int, default=0, help="0 is as many as heads")
    parser.add_argument("--head_dim", type=int, default=0, help="0 is the width by the heads")
    parser.add_argument("--feed_forward_dim", type=int, default=0, help="0 is four times the width")
    parser.add_argument("--activation", choices=("silu", "gelu"), default="silu")
    parser.add_argument("--tied", action="store_true", help="the embedding is the output matrix")
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--dtype", default="float32", help="of products; LoRA's base is kept in it")
    parser.add_argument("--unroll", type=int, default=0, help="layers per iteration; 0 is all, no scan")
    parser.add_argument("--remat", default="none")
    parser.add_argument("--attention", default="auto", help="our code for it")
    parser.add_argument("--torch_attention", default="sdpa", help="transformers' code for it")
    parser.add_argument("--steps", type=int, default=6, help="timed steps of one process")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=("ours", "torch"))
    parser.add_argument("--operations", type=int, default=0, help="of our step, so many of the longest")
    parser.add_argument("--compiled", action="store_true", help="torch.compile as well")
    parser.add_argument("--variant", help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.key_value_heads = given.key_value_heads or given.heads
    given.head_dim = given.head_dim or given.model_dim // given.heads
    given.feed_forward_dim = given.feed_forward_dim or 4 * given.model_dim
    return given


def program_of(given, method):
    """Our program of a method, "full" or "lora"."""
    sys.path.insert(0, str(ROOT))
    from scaling_jax.models.config import ModelConfig
    from scaling_jax.models.families import llama_config
    from scaling_jax.training.mesh import Layout
    from scaling_jax.training.optimizers import Optimizer
    from scaling_jax.training.program import Program
    from scaling_jax.tuning.full import Full
    from scaling_jax.tuning.lora import LoRA

    shape = llama_config(
        layers=given.layers,
        heads=given.heads,
        model_dim=given.model_dim,
        feed_forward_dim=given.feed_forward_dim,
        vocabulary_size=given.vocabulary,
        key_value_heads=given.key_value_heads,
        head_dim=given.head_dim,
        output="tied" if given.tied else "untied",
        dtype=given.dtype,
        attention=given.attention,
        remat=given.remat,
        unroll=given.unroll or given.layers,
    )
    model = ModelConfig("benchmark", **(shape | {"activation": given.activation}))
    tuning = Full() if method == "full" else LoRA(rank=given.rank)
    return Program(model, tuning, Optimizer("adamw"), Layout())


def time_ours(given):
    """Seconds of every step, and facts, in this process."""
    program = program_of(given, given.method)
    import jax
    import numpy as np

    from scaling_jax.models import counts
    from scaling_jax.training.peaks import peak_flops
    from scaling_jax.training.precision import stored_as

    base = program.initial_parameters(0)
    state, frozen = program.start(base if given.method == "full" else stored_as(base, given.dtype), 0)
    whole = np.random.default_rng(0).integers(0, given.vocabulary, (1, given.rows, given.length + 1))
    whole = whole.astype(np.int32)
    batch = {
        "inputs": whole[..., :-1],
        "targets": whole[..., 1:],
        "weights": np.ones((1, given.rows, given.length), np.float32),
    }
    rates = np.full(1, 1e-4, np.float32)
    seconds = []
    for _ in range(given.steps + 2):
        began = time.perf_counter()
        state, metrics = program.train(state, frozen, batch, rates)
        loss = float(metrics["loss"][0])
        seconds.append(time.perf_counter() - began)
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")

    def step():
        nonlocal state
        state, _ = program.train(state, frozen, batch, rates)
        jax.block_until_ready(state)

    return {
        "seconds": seconds[2:],
        "loss": loss,
        "flops_per_token": flops_per_token(given, given.method),
        "peak_flops": peak_flops(jax.devices()[0].device_kind),
        "operations": longest_operations(step, given.operations) if given.operations else [],
        "parameters": counts.model_parameters(program.model),
        "trained": program.trained_parameters(),
        "device": jax.devices()[0].device_kind,
        "peak_memory_bytes": peak,
        "versions": {"jax": jax.__version__},
    }


def flops_per_token(given, method):
    """Of a step, by the formula of the records."""
    program = program_of(given, method)
    from scaling_jax.training import costs

    tuned = program.abstract_tuned()
    found = costs.flops_per_token(program.model, program.method, tuned, given.length, given.length)
    return found.forward + found.backward


def longest_operations(step, count):
    """(name, milliseconds) of the operations that take longest in one call, as the profiler has it."""
    import jax

    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            step()
        (trace,) = Path(folder).rglob("*.xplane.pb")
        planes = list(jax.profiler.ProfileData.from_file(str(trace)).planes)
    devices = [plane for plane in planes if plane.name.startswith("/device:")]
    lines = [line for plane in devices for line in plane.lines if line.name in ("XLA Ops", "Stream #13")]
    lines = lines or [line for plane in devices or planes for line in plane.lines]
    total = {}
    for line in lines:
        for event in line.events:
            if "::" not in event.name and not event.name.startswith(("$", "end: ", "jit_")):
                total[event.name] = total.get(event.name, 0.0) + event.duration_ns / 1e6
    return sorted(total.items(), key=lambda item: -item[1])[:count]


def time_torch(given):
    """Seconds of every step, and facts, in this process."""
    import peft
    import torch
    import transformers

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, given.dtype)
    config = transformers.LlamaConfig(
        hidden_size=given.model_dim,
        intermediate_size=given.feed_forward_dim,
        num_hidden_layers=given.layers,
        num_attention_heads=given.heads,
        num_key_value_heads=given.key_value_heads,
        head_dim=given.head_dim,
        hidden_act={"silu": "silu", "gelu": "gelu_pytorch_tanh"}[given.activation],
        vocab_size=given.vocabulary,
        tie_word_embeddings=given.tied,
        attn_implementation=given.torch_attention,
        use_cache=False,
    )
    model = transformers.LlamaForCausalLM(config).to(device)
    parameters = sum(part.numel() for part in model.parameters())
    if given.method == "lora":
        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        adapters = peft.LoraConfig(r=given.rank, lora_alpha=given.rank, target_modules=names)
        model = peft.get_peft_model(model.to(dtype), adapters)
    if given.remat != "none":
        model.gradient_checkpointing_enable()
    model.train()
    trained = [part for part in model.parameters() if part.requires_grad]
    for part in trained:
        part.data = part.data.float()
    optimizer = torch.optim.AdamW(trained, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    tokens = torch.randint(0, given.vocabulary, (given.rows, given.length + 1), device=device)
    run = torch.compile(model) if given.variant == "torch_compiled" else model
    seconds = []
    for _ in range(given.steps + 2):
        began = time.perf_counter()
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            logits = run(input_ids=tokens[:, :-1]).logits
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), tokens[:, 1:].flatten())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        value = float(loss)
        seconds.append(time.perf_counter() - began)
    on_gpu = device == "cuda"
    return {
        "seconds": seconds[2:],
        "loss": value,
        "parameters": parameters,
        "trained": sum(part.numel() for part in trained),
        "device": torch.cuda.get_device_name() if on_gpu else "cpu",
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if on_gpu else None,
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "peft": peft.__version__,
        },
    }


def measured(variant, method):
    """What a process of its own measures."""
    environment = dict(os.environ)
    if variant == "shipped_flags":
        sys.path.insert(0, str(ROOT))
        from scaling_jax.training.platform import worker_environment

        environment = worker_environment()
    command = [sys.executable, *sys.argv, "--variant", variant, "--method", method]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{variant} {method} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def main():
    """Measures in turns and prints a table and one JSON object."""
    given = arguments()
    if given.variant:
        print(json.dumps(time_torch(given) if given.variant.startswith("torch") else time_ours(given)))
        return
    variants = [
        variant
        for variant in VARIANTS
        if (variant != "torch_compiled" or given.compiled)
        and given.only in (None, "torch" if variant.startswith("torch") else "ours")
    ]
    found = {}
    for _ in range(given.rounds):
        for method in METHODS:
            for variant in variants:
                one = measured(variant, method)
                known = found.setdefault((method, variant), one | {"seconds": []})
                known["seconds"] += one["seconds"]
    sizes = {one["parameters"] for one in found.values()}
    first = next(iter(found.values()))
    if len(sizes) > 1:
        sys.exit(f"the models differ: {sizes} parameters")
    rows = [row_of(found, method, variant, given.rows * given.length) for method, variant in found]
    print(
        f"{first['device']}, {sizes.pop():,} parameters ({given.layers} layers, d {given.model_dim}), "
        f"{given.rows} x {given.length} tokens, {given.dtype}, LoRA of rank {given.rank}; {versions(found)}\n"
    )
    print("\n".join(markdown(rows)), flush=True)
    print("\n" + json.dumps({"settings": vars(given), "device": first["device"], "rows": rows}))


def row_of(found, method, variant, tokens):
    """What is said of one measurement."""
    one, peer = found[method, variant], found.get((method, "torch"))
    low, seconds, high = statistics.quantiles(one["seconds"], n=4)
    ours = found.get((method, "shipped_flags"), one)
    peak, flops = ours.get("peak_flops"), ours.get("flops_per_token")
    return {
        "method": method,
        "variant": variant,
        "milliseconds": 1000 * seconds,
        "quartiles": [1000 * low, 1000 * high],
        "tokens_per_second": tokens / seconds,
        "of_torch": statistics.median(peer["seconds"]) / seconds if peer else None,
        "mfu": tokens / seconds * flops / peak if peak and flops else None,
        "operations": one.get("operations", []),
        **{key: one[key] for key in ("peak_memory_bytes", "trained", "loss", "versions")},
    }


def markdown(rows):
    """Lines of a table for a docs page; peak memory where the device counts it."""
    shown = {
        "method": lambda row: row["method"],
        "program": lambda row: LABELS[row["variant"]],
        "ms a step (quartiles)": lambda row: "{:.1f} ({:.1f}, {:.1f})".format(
            row["milliseconds"], *row["quartiles"]
        ),
        "tokens/s": lambda row: f"{row['tokens_per_second']:,.0f}",
        "of torch's": lambda row: f"{row['of_torch']:.2f}" if row["of_torch"] else "",
        "trained": lambda row: f"{row['trained']:,}",
    }
    if any(row["mfu"] for row in rows):
        shown["MFU"] = lambda row: f"{row['mfu']:.1%}"
    if any(row["peak_memory_bytes"] for row in rows):
        shown["peak GiB"] = lambda row: f"{(row['peak_memory_bytes'] or 0) / 2**30:.2f}"
    yield "| " + " | ".join(shown) + " |"
    yield "|---" * len(shown) + "|"
    for row in rows:
        yield "| " + " | ".join(cell(row) for cell in shown.values()) + " |"
    for row in rows:
        for name, milliseconds in row["operations"]:
            yield f"{row['method']}, {LABELS[row['variant']]}: {milliseconds:.3f} ms in {name}"


def versions(found):
    """All libraries that took part, with their versions."""
    known = {name: text for one in found.values() for name, text in one["versions"].items()}
    return ", ".join(f"{name} {text}" for name, text in known.items())


if __name__ == "__main__":
    main()
