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
# Every pair costs seconds of compilation; these, on so many devices, have the parts of all the others.
FAST = {1: {"decoder/ia3", "llama/full", "t5/lora", "t5/bitfit", "t5/prompt"}, 8: {"t5/lora"}}
TOLERANCE = 1e-5  # relative, float32: sums in another order


@functools.cache
def found(devices, fast):
    """{pair: facts} of the fast or of the other pairs, from a process with so many devices."""
    folder = Path(tempfile.mkdtemp())
    pairs = [pair for pair in PAIRS if (pair in FAST[devices]) == fast]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.tuning.measure", str(devices), str(folder), *pairs],
        cwd=Path(__file__).parents[2],
        env=measure.environment(devices),
        capture_output=True,
        text=True,
    )
    shutil.rmtree(folder)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def facts(pair, devices):
    """What was measured of a pair."""
    return found(devices, pair in FAST[devices])[pair]


def marked(devices):
    """The pairs, those that are not fast marked slow."""
    return [pytest.param(pair, marks=[] if pair in FAST[devices] else pytest.mark.slow) for pair in PAIRS]


@pytest.fixture(params=marked(1))
def pair(request):
    """(name of the method, facts on one device)."""
    return request.param.split("/")[1], facts(request.param, 1)


def test_step_0_is_the_base_model(pair):
    name, one = pair
    if name == "prompt":  # begins with real embeddings, so it is another model from the start
        assert not np.allclose(one["start_nats"], one["base_nats"], rtol=1e-3)
    else:
        assert one["start_nats"] == one["base_nats"]


def test_what_is_trained_moves_and_nothing_else(pair):
    _, one = pair
    assert one["still"] == [] and one["base_is_as_it_was"]
    assert one["trained"] == one["counted"] == one["stored"]
    assert not np.allclose(one["end_nats"], one["start_nats"], rtol=1e-4)


def test_the_optimizer_holds_what_is_trained(pair):
    """AdamW: two moments of each trained number, and a few counters."""
    _, one = pair
    assert 2 * one["trained"] <= one["optimizer"] <= 2 * one["trained"] + 6


def test_merged_is_the_same_model(pair):
    name, one = pair
    if name == "prompt":
        assert one["merged_nats"] is None and "prompt cannot be merged" in one["refused"]
    else:
        assert one["merged_shapes_agree"]
        np.testing.assert_allclose(one["merged_nats"], one["end_nats"], rtol=TOLERANCE)


def test_a_checkpoint_of_what_was_trained_is_enough(pair):
    _, one = pair
    assert one["restored_nats"] == one["end_nats"]


@pytest.mark.parametrize("name", marked(8))
def test_eight_devices_unrolled_equal_one_scanned(name):
    one, eight = facts(name, 1), facts(name, 8)
    np.testing.assert_allclose(eight["losses"], one["losses"], rtol=TOLERANCE)
    assert eight["still"] == [] and len(set(one["losses"])) == measure.STEPS
