"""The thirty published curves, when SCALING_JAX_DATA holds them: what docs/backtest.md states."""

import csv
import os
from pathlib import Path

import pytest

from scaling_jax.decisions.backtest import AVERAGE, backtest
from scaling_jax.decisions.rolling import curves_of
from scaling_jax.laws.table import table_of

SIZES = [200 * 2**k for k in range(14)]


@pytest.fixture(scope="module")
def replays():
    folder = os.environ.get("SCALING_JAX_DATA")
    if not folder:
        pytest.skip("SCALING_JAX_DATA is not set to a folder with published tables")
    with open(Path(folder) / "laws/rectified_gigaword/gigaword.csv", newline="") as file:
        wide = list(csv.DictReader(file))
    rows = [(row["config name"], size, row[str(size)]) for row in wide for size in SIZES]
    long = table_of("t", dict(zip(("model", "d", "loss"), zip(*rows, strict=True), strict=True)))
    curves = curves_of(long, {"d": "d"}, "loss", ("model",))
    found = backtest(curves, "t", ("model",), ("model",))
    return {(round(1 / replay.end), replay.rule): replay for replay in found.replays}


@pytest.mark.slow
def test_errors_and_selection(replays):
    """Median errors and correlations of the page; baselines are those that Lin et al. print."""
    for end, median, pearson in ((8, 0.008, 98.5), (32, 0.016, 94), (128, 0.048, 86), (512, 0.06, 89)):
        average = replays[end, AVERAGE]
        assert average.median_log < median
        assert 100 * average.pearson > pearson
    assert 100 * replays[8, "largest run"].pearson == pytest.approx(93.2, abs=0.05)
    assert 100 * replays[512, "largest run"].pearson == pytest.approx(64.8, abs=0.05)
    assert 100 * replays[8, "AtS"].pearson == pytest.approx(98.9, abs=0.05)
    assert 100 * replays[512, "AtS"].pearson == pytest.approx(91.0, abs=1.0)


@pytest.mark.slow
def test_coverage_is_near_nominal_where_the_law_alone_is_not(replays):
    """Within two binomial standard deviations of 30 curves, at every end."""
    for end in (8, 32, 128, 512):
        coverage = replays[end, AVERAGE].coverage
        assert coverage["law"]["0.9"] < 0.65
        for way in ("shipped", "crossed"):
            assert coverage[way]["0.9"] >= 0.9 - 0.11
            assert coverage[way]["0.8"] >= 0.8 - 0.15
