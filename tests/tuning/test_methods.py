"""Five methods on every architecture: what each may change, and what may change nothing."""

import functools
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.tuning import measure
from tests.tuning.architectures import ARCHITECTURES

PAIRS = [f"{architecture}/{name}" for architecture in ARCHITECTURES for name in measure.METHODS]
# Every pair costs seconds of compilation; these have the parts of all the others in them.
FAST = {"decoder/ia3", "t5/lora", "t5/bitfit", "t5/prompt"}
TOLERANCE = 1e-5  # relative, float32: sums in another order


@functools.cache
def found(fast):
    """{devices: {pair: facts}} of the fast or of the other pairs, from one process each at the same time."""
    folder = Path(tempfile.mkdtemp())
    pairs = [pair for pair in PAIRS if (pair in FAST) == fast]
    processes = {
        devices: subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.tuning.measure", str(devices), str(folder), *pairs],
            cwd=Path(__file__).parents[2],
            env=measure.environment(devices),
            stdout=subprocess.PIPE,
            stderr=(folder / f"{devices}.log").open("w"),
            text=True,
        )
        for devices in (1, 8)
    }
    results = {}
    for devices, process in processes.items():
        output = process.communicate()[0]
        assert process.returncode == 0, (folder / f"{devices}.log").read_text()[-3000:]
        results[devices] = json.loads(output.splitlines()[-1])
    shutil.rmtree(folder)
    return results


@pytest.fixture(params=[pytest.param(pair, marks=[] if pair in FAST else pytest.mark.slow) for pair in PAIRS])
def pair(request):
    """(name of the method, facts on one device, facts on eight)."""
    facts = found(request.param in FAST)
    return request.param.split("/")[1], facts[1][request.param], facts[8][request.param]


def test_step_0_is_the_base_model(pair):
    name, one, _ = pair
    if name == "prompt":  # begins with real embeddings, so it is another model from the start
        assert not np.allclose(one["start_nats"], one["base_nats"], rtol=1e-3)
    else:
        assert one["start_nats"] == one["base_nats"]


def test_what_is_trained_moves_and_nothing_else(pair):
    _, one, _ = pair
    assert one["still"] == [] and one["base_is_as_it_was"]
    assert one["trained"] == one["counted"] == one["stored"]
    assert not np.allclose(one["end_nats"], one["start_nats"], rtol=1e-4)


def test_the_optimizer_holds_what_is_trained(pair):
    """AdamW: two moments of each trained number, and a few counters."""
    _, one, _ = pair
    assert 2 * one["trained"] <= one["optimizer"] <= 2 * one["trained"] + 6


def test_merged_is_the_same_model(pair):
    name, one, _ = pair
    if name == "prompt":
        assert one["merged_nats"] is None and "prompt cannot be merged" in one["refused"]
    else:
        assert one["merged_shapes_agree"]
        np.testing.assert_allclose(one["merged_nats"], one["end_nats"], rtol=TOLERANCE)


def test_a_checkpoint_of_what_was_trained_is_enough(pair):
    _, one, _ = pair
    assert one["restored_nats"] == one["end_nats"]


def test_eight_devices_unrolled_equal_one_scanned(pair):
    _, one, eight = pair
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=TOLERANCE)
    assert eight["still"] == [] and len(set(one["losses"])) == measure.STEPS
