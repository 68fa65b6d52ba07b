"""Attention, forward and backward: the kernels of this device against plain products, at several lengths.

    python benchmarks/attention.py
    python benchmarks/attention.py --batch 8 --heads 8 --key_value_heads 1 --head_dim 256 \\
        --lengths 512 1024 2048 4096 8192

Causal, one layer, the gradient of queries, keys and values; the batch shrinks as the length grows, so that
tokens stay the same. FLOPs count what is not masked: 3.5 times the forward pass's two products over half of
the pairs, the backward pass computing scores once more. Memory is XLA's account of temporary arrays. On a
CPU the only kernel is the TPU's, interpreted (`--interpreted`): that checks numbers and says nothing of time.
Needs jax, flax and numpy.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from scaling_jax.models import attention, placement
from scaling_jax.training.peaks import peak_flops

TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}


def arguments():
    """The flags; the defaults run on a CPU in seconds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--batch", type=int, default=2, help="rows at the first length")
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--key_value_heads", type=int, default=1)
    parser.add_argument("--head_dim", type=int, default=64)
    parser.add_argument("--lengths", type=int, nargs="+", default=[256, 512, 1024])
    parser.add_argument("--dtype", default=None, help="bfloat16 on GPU and TPU, float32 elsewhere")
    parser.add_argument("--steps", type=int, default=10, help="timed calls")
    parser.add_argument("--interpreted", action="store_true", help="the TPU's kernel, interpreted, as well")
    return parser.parse_args()


def inputs_of(given, length):
    """Random queries, keys and values."""
    rows = max(given.batch * given.lengths[0] // length, 1)
    generator = np.random.default_rng(0)

    def drawn(heads):
        return jnp.asarray(generator.normal(size=(rows, length, heads, given.head_dim)), given.dtype)

    shared = given.key_value_heads
    return attention.Inputs(
        drawn(given.heads), drawn(shared), drawn(shared), given.head_dim**-0.5, causal=True
    )


def measured(name, inputs, steps):
    """(median seconds, bytes of temporary arrays, result and gradients) of a kernel."""

    def total(query, key, value):
        attended = attention.KERNELS[name].attend(inputs._replace(query=query, key=key, value=value))
        return jnp.sum(attended.astype(jnp.float32) ** 2), attended

    arrays = inputs[:3]
    compiled = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True)).lower(*arrays).compile()
    found = jax.block_until_ready(compiled(*arrays))
    seconds = []
    for _ in range(steps):
        began = time.perf_counter()
        jax.block_until_ready(compiled(*arrays))
        seconds.append(time.perf_counter() - began)
    temporary = compiled.memory_analysis()
    return (
        statistics.median(seconds),
        temporary.temp_size_in_bytes if temporary else None,
        jax.tree.leaves(found),
    )


def distance(found, wanted):
    """The largest relative distance of an array from what plain products give."""
    pairs = [
        (np.asarray(one, np.float64), np.asarray(other, np.float64))
        for one, other in zip(found, wanted, strict=True)
    ]
    return max(np.linalg.norm(one - other) / np.linalg.norm(other) for one, other in pairs)


def main():
    """Measures and prints a table and one JSON object."""
    given = arguments()
    platform, device = placement.platform(), jax.devices()[0]
    given.dtype = given.dtype or ("float32" if platform == "cpu" else "bfloat16")
    names = ["xla", attention.AUTOMATIC.get(platform)] + ["splash_interpreted"] * given.interpreted
    names = [name for name in names if name]
    peak = peak_flops(device.device_kind)
    print(
        f"{device.device_kind}, jax {jax.__version__}; {given.heads} heads of {given.head_dim}, "
        f"{given.key_value_heads} for keys and values, {given.dtype}\n\n"
        "| length | rows | code | ms | of xla's speed | TFLOP/s | of peak | temporary MiB | distance |\n"
        "|---|---|---|---|---|---|---|---|---|"
    )
    rows = []
    for length in given.lengths:
        inputs = inputs_of(given, length)
        plain = None
        for name in names:
            if reason := attention.KERNELS[name].unfit(inputs):
                print(f"| {length} | {len(inputs.query)} | {name} | {reason} | | | | | |")
                continue
            seconds, temporary, found = measured(name, inputs, given.steps)
            plain = plain or (seconds, found)
            pairs = len(inputs.query) * given.heads * length * (length + 1) / 2
            speed = 3.5 * 2 * 2 * pairs * given.head_dim / seconds
            apart = distance(found, plain[1])
            if apart > TOLERANCE[given.dtype]:
                sys.exit(f"{name} at length {length} is {apart:.2g} from plain products")
            print(
                f"| {length} | {len(inputs.query)} | {name} | {1000 * seconds:.3f} "
                f"| {plain[0] / seconds:.2f} | {speed / 1e12:.3g} | {f'{speed / peak:.0%}' if peak else ''} "
                f"| {'' if temporary is None else f'{temporary / 2**20:.1f}'} | {apart:.1g} |",
                flush=True,
            )
            rows.append({"length": length, "code": name, "seconds": seconds, "flops_per_second": speed})
            rows[-1] |= {"temporary_bytes": temporary, "distance": float(apart)}
    print("\n" + json.dumps({"device": device.device_kind, "settings": vars(given), "rows": rows}))


if __name__ == "__main__":
    main()
