"""Intervals: their coverage, reduced here; `benchmarks/coverage.py` has the whole table."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from scaling_jax.laws import uncertainty
from scaling_jax.laws.fit import Settings, best_point
from scaling_jax.laws.law import find_law
from scaling_jax.laws.problem import make_problem


def problem(noise, rows=24, seed=0):
    law = find_law("power")
    examples = np.repeat(np.geomspace(1e2, 1e6, rows // 2), 2)
    random = np.random.default_rng(seed)
    loss = law.predict({"A": 12.0, "beta": 0.3, "E": 0.7}, {"d": examples})
    return law, make_problem(law, {"d": examples}, loss * np.exp(noise * random.standard_normal(rows)), 1e-3)


def widths(noise, **settings):
    law, made = problem(noise)
    chosen = Settings(bootstrap=300, **settings)
    point, _, _, _ = best_point(law, made, chosen)
    draws = uncertainty.bootstrap(law, chosen, made, point, 24)
    low, high = np.percentile(draws, [5, 95], axis=0)
    return high - low


def test_width_follows_the_noise():
    ratio = widths(0.02) / widths(0.005)
    assert np.all((2.0 < ratio) & (ratio < 8.0))


def test_the_interval_holds_the_estimate():
    assert uncertainty.interval(np.linspace(1, 2, 101), 0.9, 1.5) == pytest.approx((1.05, 1.95))
    assert uncertainty.interval(np.linspace(1, 2, 101), 0.9, 0.0)[0] == 0.0


def test_no_more_rows_than_parameters_still_gives_draws():
    law = find_law("power")
    made = make_problem(law, {"d": np.array([1e2, 1e3, 1e4])}, np.array([3.0, 2.0, 1.5]), 1e-3)
    settings = Settings(bootstrap=32)
    point, _, _, _ = best_point(law, made, settings)
    assert uncertainty.bootstrap(law, settings, made, point, 3).shape == (32, 3)


@pytest.mark.slow
def test_ninety_percent_intervals_hold_the_truth_as_often_as_they_say():
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    found = benchmark.cover("multiplicative, 45 rows", studies=60, bootstrap=200)
    # Sixty studies: 0.9 plus or minus three standard errors.
    for name, (share, width) in found.items():
        assert 0.78 <= share <= 1.0, name
        assert 0.7 < width < 1.5, name
    assert 0.84 <= np.mean([share for share, _ in found.values()]) <= 0.97
