"""Whether the host keeps a device in batches: what the pipeline builds per second against what steps take.

    python benchmarks/input_pipeline.py
    python benchmarks/input_pipeline.py --rows 16 --window 2048 --device "TPU v5p" --devices 4

Token stores of random tokens are written, then read as a run reads them: Grain, two batches ahead, on one
thread. Windows are read by each pretraining objective, pairs as finetuning reads them. Needed is what the
devices of one host take of the model at the stated MFU, by the formula of the records. Batches per second
are the median of several equal stretches; per second of a core they are what a busy machine gives when it is
not. Needs no device.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from scaling_jax import configuration
from scaling_jax.data.batches import TrainingBatches
from scaling_jax.data.objectives.causal_lm import CausalLM
from scaling_jax.data.objectives.prefix_lm import PrefixLM
from scaling_jax.data.objectives.span_corruption import SpanCorruption
from scaling_jax.data.objectives.ul2 import UL2
from scaling_jax.data.pipeline import training_calls
from scaling_jax.data.sequences import OneSequence, buckets_for
from scaling_jax.data.store import VocabularyFile, write_store
from scaling_jax.data.windows import WindowBatches, window_sequences
from scaling_jax.models import counts
from scaling_jax.models.families import named_model
from scaling_jax.training.peaks import PEAK_FLOPS

ROOT = Path(__file__).parents[1]
OBJECTIVES = (CausalLM(), PrefixLM(), SpanCorruption(), UL2())
STRETCHES = 5


def arguments():
    """The flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, default=16, help="of a batch")
    parser.add_argument("--window", type=int, default=1024, help="tokens")
    parser.add_argument("--examples", type=int, default=20_000, help="in each store")
    parser.add_argument("--batches", type=int, default=200, help="that are timed, of each kind")
    parser.add_argument("--model", default="decoder_1b", help="a size of gin_configs/models")
    parser.add_argument("--device", default="NVIDIA H200", choices=PEAK_FLOPS)
    parser.add_argument("--devices", type=int, default=8, help="that one host feeds")
    parser.add_argument("--mfu", type=float, default=0.55)
    return parser.parse_args()


def stores(folder, given):
    """(windows, pairs), splits of random tokens; pairs are of 20 to 80 tokens a side."""
    generator = np.random.default_rng(0)
    shared = {"task": "random", "vocabulary": VocabularyFile("bytes", 32_000, extra_ids=300)}
    shared |= {"facts": {}, "seed": 0, "settings": {}}

    def drawn(tokens):
        return generator.integers(3, 31_000, tokens, dtype=np.int32)

    windows = ({"targets": drawn(given.window)} for _ in range(given.examples))
    pairs = (
        {"inputs": drawn(generator.integers(20, 80)), "targets": drawn(generator.integers(20, 80))}
        for _ in range(given.examples)
    )
    lengths = {"targets": given.window}
    first = write_store(folder / "windows", feature_lengths=lengths, splits={"train": windows}, **shared)
    lengths = {"inputs": 80, "targets": 80}
    second = write_store(folder / "pairs", feature_lengths=lengths, splits={"train": pairs}, **shared)
    return shared["vocabulary"], first.split("train"), second.split("train")


def ways(folder, given):
    """What is read -> (batches, tokens of a batch without padding, on average)."""
    vocabulary, windows, pairs = stores(folder, given)
    found = {}
    for objective in OBJECTIVES:
        sequences = window_sequences(objective, vocabulary, given.window, has_encoder=False)
        batches = WindowBatches((windows,), (1.0,), given.rows, sequences, seed=0)
        found[f"windows, {type(objective).__name__}"] = batches, given.rows * given.window
    buckets = buckets_for([pairs.total_lengths], 160)
    batches = TrainingBatches(pairs, np.arange(len(pairs)), given.rows, OneSequence(buckets, 0, 0), seed=0)
    found["pairs, finetuning"] = batches, given.rows * float(pairs.total_lengths.mean())
    return found


def batches_per_second(batches, count):
    """(median over stretches, batches per second of a core), after the first batch."""
    calls = training_calls(batches, [(step, step + 1) for step in range(count + 1)])
    next(calls)
    size, found, core = count // STRETCHES, [], time.process_time()
    for _ in range(STRETCHES):
        began = time.perf_counter()
        for _ in range(size):
            next(calls)
        found.append(size / (time.perf_counter() - began))
    return statistics.median(found), STRETCHES * size / (time.process_time() - core)


def needed_tokens_per_second(given, length):
    """Tokens that the devices take of examples of a length, full tuning: the model's three passes."""
    model = named_model(given.model, 1)
    flops = 3 * counts.forward_flops_per_token(model, length)
    return given.devices * given.mfu * PEAK_FLOPS[given.device] / flops


def main():
    """Measures and prints a table and one JSON object."""
    given = arguments()
    gin_file = ROOT / f"gin_configs/models/{given.model}.gin"
    configuration.parse([str(gin_file)], imports=["scaling_jax.models.families"])
    print(
        f"{given.rows} rows a batch; needed by {given.model} on {given.devices} x {given.device} at an MFU "
        f"of {given.mfu:.0%}\n\n| read | batches/s | tokens/s | of a core | needed | times what is needed |\n"
        "|---|---|---|---|---|---|"
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for what, (batches, tokens) in ways(Path(folder), given).items():
            speed, of_core = batches_per_second(batches, given.batches)
            needed = needed_tokens_per_second(given, tokens / given.rows)
            print(
                f"| {what} | {speed:,.0f} | {speed * tokens:,.0f} | {of_core * tokens:,.0f} | {needed:,.0f} "
                f"| {speed * tokens / needed:.1f} |",
                flush=True,
            )
            rows.append({"read": what, "batches_per_second": speed, "tokens_per_second": speed * tokens})
            rows[-1] |= {"tokens_per_core_second": of_core * tokens, "needed_tokens_per_second": needed}
    print("\n" + json.dumps({"settings": vars(given), "rows": rows}))


if __name__ == "__main__":
    main()
