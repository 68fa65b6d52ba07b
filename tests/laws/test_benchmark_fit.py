"""`benchmarks/fit.py`, reduced: its peers are right, it runs, and ours is nowhere above them."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    for name in ("fit", "fit_peers"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import fit

    yield fit
    for name in ("fit", "fit_peers"):
        sys.modules.pop(name, None)


def test_the_gradient_of_the_reference_is_right(benchmark):
    peers = benchmark.fit_peers
    loss, step = peers.study(peers.TRAP, 0), 1e-6
    weights = np.linspace(0.5, 2.0, len(loss))
    point = np.array([4.0, 0.15, 0.1, -0.2])
    for frame in (peers.Frame(), peers.centred(peers.COLUMNS)):
        evaluate = peers.value_and_slope(peers.COLUMNS, loss, weights, frame)
        at = frame.enter(point)
        value, slope = evaluate(at)
        expected = peers.huber_sum(peers.multiplicative(peers.COLUMNS, point), loss, weights)
        assert value == pytest.approx(frame.factor * expected, rel=1e-12)
        moved = [(evaluate(at + step * e)[0] - evaluate(at - step * e)[0]) / (2 * step) for e in np.eye(4)]
        np.testing.assert_allclose(slope, moved, rtol=1e-5)
        np.testing.assert_allclose(frame.leave(at), point)


def test_the_trap_catches_a_single_start(benchmark):
    peers = benchmark.fit_peers
    loss = peers.study(peers.TRAP, peers.TRAP_SEED)
    found = peers.grid_search(peers.COLUMNS, loss, peers.some_starts(8), peers.centred(peers.COLUMNS))
    assert peers.one_start(peers.COLUMNS, loss) > 1.5 * found.value


def test_objectives_and_draws_stand_beside_scipy(benchmark):
    """The draws given to SciPy must be the ones that we fit, or the objectives of a draw could not agree."""
    found = benchmark.random_problems(count=2, starts=12)
    assert found["higher"] == 0 and found["lower"] + found["equal"] == 2
    for method, cell in benchmark.bootstraps(draws=64, rounds=1).items():
        assert cell["within_1e-3"] >= 0.95, method
        assert cell["alpha_deviation_ratio"] == pytest.approx(1.0, abs=0.02), method


@pytest.mark.slow
def test_it_runs_from_the_command_line(benchmark, tmp_path, monkeypatch, capsys):
    sizes = {"starts": 8, "rounds": 1, "problems": 1, "problem_starts": 8, "draws": 64, "package_side": 1}
    options = [part for name, value in sizes.items() for part in (f"--{name}", str(value))]
    target = tmp_path / "figures.json"
    monkeypatch.setattr(sys, "argv", ["fit.py", *options, "--json", str(target)])
    monkeypatch.setattr(benchmark, "one_core", lambda: "unbound, for the test")
    benchmark.main()
    shown, figures = capsys.readouterr().out, json.loads(target.read_text())
    assert "| search and polish |" in shown and "Package chinchilla" in shown
    assert len(figures["targets"]) == 6
    assert figures["warm"][benchmark.NAIVE]["reached"] == 0.0
    values = [cell["value"] for cell in (figures["warm"] | figures["cold"]).values()]
    best = figures["warm"]["search and polish"]["value"]
    assert best <= min(values) * (1 + 1e-9)
