"""Runs an hour of a study on this machine, and where the time goes: training, compiling, the rest.

    python benchmarks/study_throughput.py
    python benchmarks/study_throughput.py --models ladder_25k ladder_250k --examples 64 256 1024

A grid of models, methods and examples over random tokens, by the settings of the small ladder, made by the
command `study` three times: by one worker with nothing compiled before, by one worker again, and by all
workers (a core each on a CPU). Training is what the records count, compiling the sum over a worker's
programs; of several workers it is not known whose a program's seconds are, so it is left open. The rest is
starting, initialising, evaluating and writing. Seconds are of a whole command, its start included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from scaling_jax.data.store import VocabularyFile, write_store

ROOT = Path(__file__).parents[1]
VOCABULARY = VocabularyFile("bytes", 512)
WINDOW = 64


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ladder_25k", "ladder_60k"])
    parser.add_argument("--methods", nargs="+", default=["full", "lora", "prompt"])
    parser.add_argument("--examples", type=int, nargs="+", default=[32, 64, 128, 256])
    parser.add_argument("--steps", type=int, default=100, help="of each finetuning run, at most")
    parser.add_argument("--pretrain_tokens", type=int, default=102_400)
    return parser.parse_args()


def write_stores(folder, given):
    """Windows to pretrain on and pairs to tune on, of random tokens."""
    generator = np.random.default_rng(0)
    shared = {"task": "random", "vocabulary": VOCABULARY, "facts": {}, "seed": 0, "settings": {}}

    def windows(count):
        return ({"targets": generator.integers(3, 512, WINDOW)} for _ in range(count))

    def pairs(count):
        for _ in range(count):
            source = generator.integers(3, 512, generator.integers(6, 14))
            yield {"inputs": source, "targets": np.append(source[::-1], 1)}

    splits = {"train": windows(given.pretrain_tokens // WINDOW), "dev": windows(64)}
    write_store(folder / "windows", feature_lengths={"targets": WINDOW}, splits=splits, **shared)
    splits = {"train": pairs(max(given.examples)), "dev": pairs(128), "test": pairs(128)}
    lengths = {"inputs": 14, "targets": 15}
    write_store(folder / "pairs", feature_lengths=lengths, splits=splits, **shared)


def write_gin(folder, given):
    """The study, but for the number of workers."""
    (folder / "study.gin").write_text(
        f"""
include 'gin_configs/models/cpu_ladder.gin'
include 'gin_configs/methods/cpu_ladder.gin'
FinetuneSettings.max_steps = {given.steps}
FinetuneSettings.patience = 0
Study.name = 'throughput'
Study.pretrain_store = '{folder}/windows'
Study.finetune_store = '{folder}/pairs'
Study.grids = [@Grid()]
Grid.models = {given.models}
Grid.pretrain_tokens = [{given.pretrain_tokens}]
Grid.finetune_examples = {given.examples}
Grid.methods = {given.methods}
""",
        encoding="utf-8",
    )


def made(folder, name, workers):
    """Facts of one study."""
    command = [sys.executable, "-m", "scaling_jax.cli.main", "study", "--out", str(folder / name)]
    command += ["--gin_file", str(folder / "study.gin"), f"--gin.Study.workers={workers}"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    jobs = json.loads((folder / name / "plan.json").read_text())["jobs"]
    trained, compiled, runs = 0.0, {}, 0
    for job in jobs:
        record = json.loads((folder / name / job["folder"] / "record.json").read_text())
        if record["status"] != "done":
            sys.exit(f"{name}: {job['job_id']} ended as {record['status']}")
        runs += job["kind"] == "finetuning"
        trained += record["costs"]["train_seconds"]
        compiled[job["program"]] = max(compiled.get(job["program"], 0.0), record["costs"]["compile_seconds"])
    return {
        "workers": workers or len(os.sched_getaffinity(0)),
        "runs": runs,
        "seconds": seconds,
        "train_seconds": trained,
        "compile_seconds": sum(compiled.values()) if workers == 1 else None,
    }


def main():
    """Makes the studies and prints a table and one JSON object."""
    given = arguments()
    print(
        f"{len(given.models)} models, {len(given.methods)} methods, {len(given.examples)} sizes, "
        f"{given.steps} steps\n\n"
        "| study | workers | runs | seconds | runs an hour | training | compiling | the rest |\n"
        "|---|---|---|---|---|---|---|---|"
    )
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_stores(folder, given)
        write_gin(folder, given)
        for what, workers in (("nothing compiled before", 1), ("again", 1), ("all workers", 0)):
            one = made(folder, what.replace(" ", "_"), workers)
            available = one["workers"] * one["seconds"]
            training, compiling = one["train_seconds"] / available, one["compile_seconds"]
            shares = ["", f"{1 - training:.0%}"]  # the rest, with compiling
            if compiling is not None:
                shares = [f"{compiling / available:.0%}", f"{1 - training - compiling / available:.0%}"]
            print(
                f"| {what} | {one['workers']} | {one['runs']} | {one['seconds']:.1f} "
                f"| {3600 * one['runs'] / one['seconds']:,.0f} | {training:.0%} | {' | '.join(shares)} |",
                flush=True,
            )
            rows.append({"study": what} | one)
    print("\n" + json.dumps({"settings": vars(given), "rows": rows}))


if __name__ == "__main__":
    main()
