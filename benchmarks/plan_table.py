"""The table of docs/planning.md: what `scaling-jax plan` says of large models on TPU pods.

    pip install -e '.[plan]' -c constraints.txt
    python benchmarks/plan_table.py --out runs/plan_table
    python benchmarks/plan_table.py --out runs/plan_table --models decoder_1b,decoder_16b --print

Every cell is one `scaling-jax plan` in a process of its own, whose seconds and peak resident memory are kept
beside what it said; cells that are there are not made again. Batches and lengths are those of Zhang et al.
2024: 128 examples of 256 + 256 tokens for full tuning, 16 for LoRA of rank 4, whose frozen base is bfloat16;
pretraining takes 2,048 windows of 1,024 tokens. The mesh is the one that `--mesh auto` chooses.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
GIB = 2**30
MODELS = (
    "decoder_1b", "decoder_2b", "decoder_4b", "decoder_8b", "decoder_16b", "t5_xxl", "llama_13b",
)  # fmt: skip
METHODS = ("full", "lora")
TOPOLOGIES = ("v4:4x4x4", "v5p:4x4x8", "v5e:16x16")
COLUMNS = (
    *("model", "method", "topology", "part, data x fsdp x tensor", "parameters", "optimizer", "temporaries"),
    *("rest", "all, GiB a device", "fits", "collectives GiB a step", "kernels", "ms a step", "links, ms"),
    *("plan: s (CPU s)", "its GiB"),
)
STUDIES = ("zhang2024_en_de", "zhang2024_en_zh", "zhang2024_mlsum")


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells")
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--topologies", default=",".join(TOPOLOGIES))
    parser.add_argument("--steps", default="train", help="train,evaluate,decode compiles all three")
    parser.add_argument("--print", action="store_true", help="print what is there, make nothing")
    return parser.parse_args()


def cell(model, method, topology, steps):
    """The command line of a cell."""
    flags = ["--topology", topology, "--mesh", "auto", "--steps", steps, "--lengths", "256,256"]
    for name in (f"models/{model}", "runs/finetune", "methods/zhang2024"):
        flags += ["--gin_file", f"gin_configs/{name}.gin"]
    bindings = {
        "INITIAL_CHECKPOINT": repr(model),
        "STORE": "'zhang2024'",
        "METHOD": repr(method),
        "EXAMPLES": 1000000 if method == "full" else 100000,
        "FinetuneSettings.base_dtype": "'bfloat16'",
        "FinetuneSettings.eval_batch_size": 64,
        # On v4 and v5p XLA takes rounds out of a loop over steps too: a program twice as large.
        "FinetuneSettings.steps_per_call": 1,
        "Decoding.max_new_tokens": 256,
    }
    return flags + [f"--gin.{name}={value}" for name, value in bindings.items()]


def study(name, topology):
    """The command line of a study's chip-hours; nothing is compiled."""
    gin_file = f"gin_configs/studies/{name}.gin"
    return ["--topology", topology, "--mesh", "auto", "--compile", "none", "--gin_file", gin_file]


def planned(flags):
    """What a plan says, as JSON, with its seconds and memory."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "scaling_jax.cli.main", "plan", *flags, "--json"],
            stdout=out,
            stderr=errors,
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - began
        out.seek(0), errors.seek(0)
        told, complaint = out.read().decode(), errors.read().decode()
    process_facts = {
        "wall_seconds": seconds,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_rss_bytes": used.ru_maxrss * 1024,
    }
    if process.returncode not in (0, 1) or not told:
        return process_facts | {
            "error": complaint.strip().splitlines()[-1:] or [f"exit {process.returncode}"]
        }
    return process_facts | {"plan": json.loads(told)}


def made(folder, name, flags, only_read):
    """A cell from its file, or made now."""
    path = folder / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text("utf-8"))
    if only_read:
        return None
    found = planned(flags)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(found, indent=1), "utf-8")
    temporary.rename(path)
    print(f"{name}: {found['wall_seconds']:.0f} s", file=sys.stderr, flush=True)
    return found


def gib(size):
    """A cell of memory."""
    return f"{size / GIB:.2f}"


def row(model, method, topology, found):
    """A line of the table."""
    start = f"| {model} | {method} | {topology} |"
    if "error" in found:
        return f"{start} {' '.join(found['error'])} |"
    one = found["plan"]["workloads"][0]
    step = next(step for step in one["steps"] if step["name"] == "train")
    mesh = "x".join(str(one["mesh"][axis]) for axis in ("data", "fsdp", "tensor"))
    where = f"{one['topology'].split(':')[1]} {mesh}"
    memory = step["memory"]
    if memory is None:
        kinds = "| | | | |"
    else:
        trained = gib(memory["trained"] + memory["frozen"])
        rest = memory["batch"] + memory["outputs"] + memory["code"]
        kinds = f"{trained} | {gib(memory['optimizer'])} | {gib(memory['temporaries'])} | {gib(rest)} |"
    margin = one["margin_bytes"] / GIB
    fits = f"yes, {margin:.1f} left" if one["fits"] else f"no, {-margin:.1f} too much"
    collectives = links = "unavailable"
    if step["collectives"] is not None:
        collectives = gib(sum(kind["bytes"] for kind in step["collectives"]))
        links = f"{step['link_seconds'] * 1e3:.0f}"
    kernels = (step["kernels"] or {}).get("tpu_custom_call", 0) if step["kernels"] is not None else "?"
    seconds, cost = one["cost"]["step_seconds"], found
    return (
        f"{start} {where} | {kinds} {gib(step['needed'])} | {fits} | {collectives} | {kernels} | "
        f"{seconds * 1e3:.0f} | {links} | {cost['wall_seconds']:.0f} ({cost['cpu_seconds']:.0f}) | "
        f"{gib(cost['peak_rss_bytes'])} |"
    )


def print_models(given):
    """Makes and prints the table of models."""
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for model in given.models.split(","):
        for method in given.methods.split(","):
            for topology in given.topologies.split(","):
                name = f"{model}-{method}-{topology.replace(':', '_')}"
                found = made(given.out, name, cell(model, method, topology, given.steps), given.print)
                if found is not None:
                    print(row(model, method, topology, found), flush=True)


def print_studies(given):
    """Makes and prints the table of studies."""
    topologies = given.topologies.split(",")
    print("\n| study | " + " | ".join(f"{topology}: tuning, pretraining" for topology in topologies) + " |")
    print("|" + "---|" * (len(topologies) + 1))
    for name in STUDIES:
        line = f"| {name} |"
        for topology in topologies:
            told = made(given.out, f"{name}-{topology.replace(':', '_')}", study(name, topology), given.print)
            if told is None or "error" in told:
                line += f" {' '.join((told or {}).get('error', []))} |"
                continue
            totals = told["plan"]["totals"]
            hours = [totals[kind]["chip_hours"] for kind in ("finetuning", "pretraining")]
            line += f" {hours[0]:,.3g}, {hours[1]:,.3g} |"
        print(line, flush=True)


def main():
    """Makes what is missing and prints both tables."""
    given = arguments()
    print_models(given)
    print_studies(given)


if __name__ == "__main__":
    main()
