"""Draws and intervals; their coverage is measured by `benchmarks/coverage.py`, reduced here."""

import importlib.util
import multiprocessing.pool
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.laws import uncertainty
from scaling_jax.laws.law import find_law
from scaling_jax.laws.noise import noise_of
from scaling_jax.laws.problem import Objective, make_problem, predicted
from scaling_jax.laws.solve import best_point


def solved(noise, rows=24, seed=0, loss="huber", residual="log"):
    objective = Objective(find_law("power"), residual, loss)
    examples = np.repeat(np.geomspace(1e2, 1e6, rows // 2), 2)
    random = np.random.default_rng(seed)
    clean = objective.law.predict({"A": 12.0, "beta": 0.3, "E": 0.7}, {"d": examples})
    problem = make_problem(objective, {"d": examples}, clean * np.exp(noise * random.standard_normal(rows)))
    return objective, problem, best_point(objective, problem).point


def widths(noise, method=None, draws=300, **given):
    objective, problem, point = solved(noise, **given)
    found = uncertainty.draw(objective, problem, point, draws, 0.9, 0, method)
    low, high = np.percentile(found.points, [5, 95], axis=0)
    return high - low


@pytest.mark.parametrize("method", ["simulated", "rows"])
def test_width_follows_the_noise(method):
    ratio = widths(0.02, method) / widths(0.005, method)
    assert np.all((2.0 < ratio) & (ratio < 8.0))


def test_the_interval_holds_the_estimate():
    assert uncertainty.interval(np.linspace(1, 2, 101), 0.9, 1.5) == pytest.approx((1.05, 1.95))
    assert uncertainty.interval(np.linspace(1, 2, 101), 0.9, 0.0)[0] == 0.0


def test_no_more_rows_than_parameters_still_gives_draws():
    objective = Objective(find_law("power"))
    problem = make_problem(objective, {"d": np.array([1e2, 1e3, 1e4])}, np.array([3.0, 2.0, 1.5]))
    point = best_point(objective, problem).point
    assert uncertainty.draw(objective, problem, point, 32, 0.9, 0).points.shape == (32, 3)


def test_squared_loss_gives_least_squares_errors():
    """Near-linear and normal: the draws' spread is that of the Fisher information."""
    from scaling_jax.laws.problem import residuals, slopes_at

    objective, problem, point = solved(0.005, rows=60, loss="squared")
    used = problem.weights > 0
    slopes = slopes_at(objective, problem, point)[used]
    size = np.sqrt(np.sum(residuals(objective, problem, point, np)[used] ** 2) / (60 - 3))
    expected = size * np.sqrt(np.diagonal(np.linalg.inv(slopes.T @ slopes)))
    for method in ("simulated", "sandwich"):
        found = uncertainty.draw(objective, problem, point, 2000, 0.9, 0, method).points.std(axis=0)
        np.testing.assert_allclose(found, expected, rtol=0.35 if method == "sandwich" else 0.1)


def test_the_ways_agree_on_many_rows():
    """With 900 rows of one law the three ways must tell the same story, also for the robust loss."""
    found = {method: widths(0.01, method, draws=400, rows=900) for method in uncertainty.METHODS}
    for method in ("rows", "sandwich"):
        np.testing.assert_allclose(found[method], found["simulated"], rtol=0.25)


def test_the_number_of_rows_chooses_the_way():
    objective, problem, point = solved(0.01)
    assert uncertainty.draw(objective, problem, point, 20, 0.9, 0).method == "simulated"
    labels = np.repeat(np.arange(12), 2)
    clustered = uncertainty.draw(objective, problem, point, 20, 0.9, 0, labels=labels, resampled=True)
    assert clustered.method == "rows"
    objective, problem, point = solved(0.01, rows=10_002)
    assert uncertainty.draw(objective, problem, point, 20, 0.9, 0).method == "sandwich"
    with pytest.raises(InputError, match="one of simulated, rows, sandwich"):
        uncertainty.draw(objective, problem, point, 20, 0.9, 0, "magic")


def noise(errors, sizes):
    return noise_of(errors, {"d": np.log(sizes)}, np.ones(len(errors)), 3)


def test_noise_of_one_size_stays_so():
    random = np.random.default_rng(0)
    sizes = np.geomspace(1e2, 1e6, 60)
    plain = sum(noise(0.01 * random.standard_normal(60), sizes).text() == "" for _ in range(100))
    assert plain >= 95


def test_noise_that_falls_with_the_size_is_seen():
    sizes = np.geomspace(1e2, 1e6, 60)
    errors = 0.1 * (sizes / 1e2) ** -0.3 * np.random.default_rng(1).standard_normal(60)
    found = noise(errors, sizes)
    assert found.slopes["d"] == pytest.approx(-0.3, abs=0.1)
    assert found.size[0] > 5 * found.size[-1]
    assert "its size changes as d^-0." in found.text()


def test_tails_are_seen():
    errors = 0.01 * np.random.default_rng(2).standard_t(2, 200)
    found = noise(errors, np.geomspace(1e2, 1e6, 200))
    assert found.tails <= 4.0
    random = np.random.default_rng(0)
    simulated = found.draw(random, random.standard_normal((50, 200)))
    assert np.median(np.abs(simulated)) == pytest.approx(np.median(np.abs(errors)), rel=0.2)


def test_a_draw_is_never_clipped_in_one_coordinate_alone():
    """A floor at zero in some draws must not make the intervals of predictions one-sided."""
    examples = np.geomspace(200, 1_638_400, 14)
    law = find_law("rectified")
    clean = law.predict({"B": 9.0, "D_l": 8.0, "beta": 0.12, "E": 0.15}, {"d": examples})
    loss = clean * np.exp(0.003 * np.random.default_rng(4).standard_normal(14))
    objective = Objective(law)
    problem = make_problem(objective, {"d": examples}, loss)
    point = best_point(objective, problem).point
    for method in ("simulated", "rows"):
        found = uncertainty.draw(objective, problem, point, 400, 0.9, 0, method)
        values = predicted(objective, problem, found.points, np)[:, :14]
        low, high = np.percentile(values, [5, 95], axis=0)
        centre = predicted(objective, problem, point, np)[:14]
        inside = slice(3, 11)
        above, below = (high - centre)[inside], (centre - low)[inside]
        assert np.all(above < 4 * below) and np.all(below < 4 * above)
        assert np.all(high - low < 0.06 * centre)


def test_rows_that_do_not_follow_the_law_are_noted():
    """A few large residuals at one end: resampling them moves the law, simulated noise does not."""
    objective = Objective(find_law("power"))
    examples = np.geomspace(1e2, 1e6, 60)
    random = np.random.default_rng(0)
    loss = (12 * examples**-0.3 + 0.7) * np.exp(0.003 * random.standard_normal(60))
    problem = make_problem(objective, {"d": examples}, loss)
    plain = uncertainty.draw(objective, problem, best_point(objective, problem).point, 200, 0.9, 0)
    assert "resampling" not in plain.note
    loss[:8] *= np.linspace(1.25, 1.03, 8)
    problem = make_problem(objective, {"d": examples}, loss)
    bent = uncertainty.draw(objective, problem, best_point(objective, problem).point, 200, 0.9, 0)
    assert "some rows may not follow the law" in bent.note


@pytest.mark.slow
def test_ninety_percent_intervals_hold_the_truth_as_often_as_they_say(monkeypatch):
    path = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
    spec = importlib.util.spec_from_file_location("coverage_benchmark", path)
    benchmark = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, benchmark)
    spec.loader.exec_module(benchmark)
    with multiprocessing.pool.ThreadPool(1) as pool:
        found = benchmark.cover("multiplicative, 5 x 9", 100, 200, pool)
    # A hundred studies: 0.9 plus or minus three standard errors.
    for name, cell in found.items():
        assert 0.81 <= cell["share"] <= 0.99, name
        assert 1.0 < cell["width"] < 1.5, name
