"""Critical sizes: known crossings, several, none, the closed form, open intervals."""

import math

import numpy as np
import pytest

from scaling_jax.decisions.critical_size import closed_form, critical_sizes, difference
from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.law import find_law
from scaling_jax.laws.results import stated
from scaling_jax.laws.table import table_of


def made(method, parameters, law="power", spread=0.01, draws=200):
    """A `Fit` with these parameters and draws around them, without fitting."""
    columns = {"d": "finetune_examples", "y": "loss"}
    fitted = {"d": (1e2, 1e6)}
    if "alpha" in parameters:
        columns["x"], fitted["x"] = "model_params", (1e9, 2e9)
    random = np.random.default_rng(len(method))
    scatter = {
        name: value * np.exp(spread * random.standard_normal(draws)) for name, value in parameters.items()
    }
    return stated(law, columns, parameters, scatter, fitted, {"method": method})


@pytest.fixture(scope="module")
def full():
    return made("full", {"A": 20.0, "beta": 0.4, "E": 1.0})


def test_a_known_crossing_with_its_interval(full):
    lora = made("lora", {"A": 5.0, "beta": 0.2, "E": 1.0})
    found = critical_sizes(full, lora, {})
    (crossing,) = found.crossings
    assert crossing.size == pytest.approx(4.0**5, rel=0.01)
    assert crossing.low < 4.0**5 < crossing.high
    assert (crossing.better_below, crossing.better_above) == ("lora", "full")
    assert found.share_crossing > 0.95
    assert found.better is None
    assert "lora is better below" in found.text()
    mirrored = critical_sizes(lora, full, {}).crossings[0]
    assert mirrored.size == pytest.approx(crossing.size)
    assert mirrored.better_below == "lora"


def test_no_crossing_in_range(full):
    worse = made("prompt", {"A": 25.0, "beta": 0.4, "E": 1.5})
    found = critical_sizes(full, worse, {})
    assert found.crossings == ()
    assert found.better == "full"
    assert found.share_crossing == 0.0
    assert "no crossing in range" in found.text()


def test_a_crossing_out_of_the_given_range_is_none(full):
    lora = made("lora", {"A": 5.0, "beta": 0.2, "E": 1.0})
    assert critical_sizes(full, lora, {}, (1e4, 1e6)).crossings == ()


def test_several_crossings():
    """A lower floor wins far out, a steeper law in the middle."""
    steep = made("lora", {"A": 100.0, "beta": 0.6, "E": 1.2}, spread=1e-4)
    slow = made("full", {"A": 5.0, "beta": 0.2, "E": 1.0}, spread=1e-4)
    found = critical_sizes(steep, slow, {}, (1.0, 1e12))
    assert [c.better_below for c in found.crossings] == ["full", "lora"]
    for crossing in found.crossings:
        gap, _, _ = difference(steep, slow, {"d": crossing.size})
        assert abs(gap) < 1e-3
        assert crossing.low <= crossing.size <= crossing.high


def test_an_interval_may_be_open(full):
    near = made("lora", {"A": 20.0, "beta": 0.39, "E": 1.0}, spread=0.05)
    found = critical_sizes(full, near, {}, (1e2, 1e5))
    content = found.to_json()
    assert (
        any(c["low"] is None or c["high"] is None for c in content["crossings"]) or found.share_crossing < 1
    )


def test_the_closed_form_of_the_paper():
    """Zhang et al., Table 4, En-De, model size: Prompt and LoRA give the printed H and gamma of Table 5."""
    prompt = made("prompt", {"A": 3.9e3, "alpha": 0.40, "beta": 0.051, "E": 0.62}, "multiplicative")
    lora = made("lora", {"A": 2.1e3, "alpha": 0.36, "beta": 0.081, "E": 0.62}, "multiplicative")
    form = closed_form(prompt, lora)
    assert form["gamma"] == pytest.approx((0.36 - 0.40) / (0.051 - 0.081))
    assert form["H"] == pytest.approx((3.9 / 2.1) ** (1 / (0.051 - 0.081)))
    # E1 = E2 here, so that the closed form is the crossing itself.
    at = {"model_params": 1e9}
    (crossing,) = critical_sizes(prompt, lora, at, (1.0, 1e9)).crossings
    assert crossing.size == pytest.approx(form["H"] * 1e9 ** form["gamma"], rel=0.01)
    assert crossing.size == pytest.approx(1.1e3, rel=0.1)


def test_closed_form_beyond_numbers_is_null():
    one = made("a", {"A": 1e5, "alpha": 0.5, "beta": 0.1001, "E": 0.6}, "multiplicative")
    two = made("bb", {"A": 1e2, "alpha": 0.3, "beta": 0.1, "E": 0.6}, "multiplicative")
    assert closed_form(one, two)["H"] is None
    assert math.isfinite(closed_form(one, two)["gamma"])


def test_refusals(full):
    joint = made("lora", {"A": 2e3, "alpha": 0.3, "beta": 0.1, "E": 0.6}, "multiplicative")
    with pytest.raises(InputError, match="needs 'model_params'"):
        critical_sizes(full, joint, {})
    with pytest.raises(InputError, match="0 < low < high"):
        critical_sizes(full, full, {}, (10.0, 1.0))


PRINTED = {
    ("de", "full"): ((1.2e5, 0.52), (6.3e2, 0.21), 0.75, 0.15),
    ("de", "prompt"): ((3.9e3, 0.40), (2.7e2, 0.21), 0.62, 0.051),
    ("de", "lora"): ((2.1e3, 0.36), (1.4e2, 0.18), 0.62, 0.081),
    ("zh", "full"): ((3.3e3, 0.34), (2.4e2, 0.17), 1.0, 0.14),
    ("zh", "prompt"): ((8.5e2, 0.33), (2e2, 0.20), 0.77, 0.015),
    ("zh", "lora"): ((6.6e2, 0.31), (1.3e2, 0.18), 0.73, 0.025),
}


@pytest.mark.parametrize(
    ("task", "first", "second", "by_size", "by_pretraining"),
    [
        ("de", "full", "prompt", 2.4e5, 6.0e4),
        ("de", "prompt", "lora", 1.1e3, 88),
        ("zh", "full", "prompt", 1.8e5, 2.1e4),
        ("zh", "full", "lora", 2.1e5, 4.1e4),
    ],
)
def test_critical_sizes_from_the_printed_coefficients(task, first, second, by_size, by_pretraining):
    """Zhang et al. (2024), Table 4, at 1B: En-De has 283B pretraining tokens, En-Zh 206B."""
    tokens = {"de": 283e9, "zh": 206e9}[task]
    for factor, x, expected in ((0, 1e9, by_size), (1, tokens, by_pretraining)):
        pair = []
        for method in (first, second):
            *factors, floor, beta = PRINTED[task, method]
            scale, alpha = factors[factor]
            values = {"A": scale, "alpha": alpha, "beta": beta, "E": floor}
            pair.append(made(method, values, "multiplicative"))
        crossing = critical_sizes(*pair, {"x": x}, (1.0, 1e12)).crossings[0]
        assert float(f"{crossing.size:.2g}") == expected


def test_draws_of_two_methods_are_independent():
    """They are subtracted; with common noise the interval of a crossing would be far too narrow."""
    sizes = np.repeat(np.geomspace(1e2, 1e6, 8), 3)
    random = np.random.default_rng(0)
    rows = {"method": ["full"] * 24 + ["lora"] * 24, "d": np.tile(sizes, 2)}
    rows["loss"] = np.concatenate(
        [
            (scale * sizes**-beta + 0.8) * np.exp(0.01 * random.standard_normal(24))
            for scale, beta in ((20.0, 0.35), (9.0, 0.25))
        ]
    )
    settings = Settings(bootstrap=400)
    full, lora = fit_table(table_of("t", rows), "power", {"d": "d"}, by=("method",), settings=settings)
    one, two = (fit.draw_predictions({"d": np.array([1e4])})[:, 0] for fit in (full, lora))
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.2
    again = fit_table(table_of("t", rows), "rectified", {"d": "d"}, by=("method",), settings=settings)[0]
    # Two laws of one group have common draws: `choose` pairs them.
    other = again.draw_predictions({"d": np.array([1e4])})[:, 0]
    assert np.corrcoef(one, other)[0, 1] > 0.5


def test_a_higher_score_is_better():
    tokens = np.geomspace(1e9, 1e11, 9)
    law = find_law("score_log")
    rows = {"method": ["good"] * 9 + ["bad"] * 9, "d": np.tile(tokens, 2)}
    scores = [law.predict({"A": 1e-6, "alpha": 1.0, "beta": beta}, {"d": tokens}) for beta in (1.4, 1.2)]
    rows["bleu"] = np.concatenate(scores) * np.exp(0.002 * np.random.default_rng(0).standard_normal(18))
    settings = Settings(bootstrap=60)
    good, bad = fit_table(
        table_of("t", rows), "score_log", {"d": "d"}, "bleu", by=("method",), settings=settings
    )
    assert critical_sizes(good, bad, {}).better == "good"
    same = critical_sizes(good, good, {})
    assert same.better is None and "do not differ" in same.text()
    with pytest.raises(InputError, match="a loss and a score"):
        critical_sizes(good, made("full", {"A": 20.0, "beta": 0.4, "E": 1.0}), {})
