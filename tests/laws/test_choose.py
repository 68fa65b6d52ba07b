"""Comparing laws at rows that they have not seen."""

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.laws.choose import choose_held_out, choose_rolling
from scaling_jax.laws.fit import Settings, fit_table, samples_of
from scaling_jax.laws.law import find_law
from scaling_jax.laws.table import table_of

SETTINGS = Settings(bootstrap=100)
COLUMNS = {"x": "x", "d": "d"}


def table(truth="multiplicative", noise=0.003, seed=0):
    x, d = (
        a.ravel() for a in np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e2, 1e5, 10), indexing="ij")
    )
    parameters = {
        "multiplicative": {"A": 400.0, "alpha": 0.25, "beta": 0.25, "E": 0.9},
        "additive": {"A": 300.0, "B": 6.0, "alpha": 0.3, "beta": 0.3, "E": 0.9},
        "rectified_multiplicative": {"A": 4000.0, "alpha": 0.25, "D_l": 30.0, "beta": 0.5, "E": 0.9},
    }[truth]
    loss = find_law(truth).predict(parameters, {"x": x, "d": d})
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return table_of("t", {"x": x, "d": d, "loss": loss})


def held_out(rows, laws, **given):
    samples = {law: samples_of(rows, find_law(law), COLUMNS, "loss", SETTINGS, **given)[0] for law in laws}
    fits = {law: fit_table(rows, law, COLUMNS, settings=SETTINGS, **given)[0] for law in laws}
    return choose_held_out(samples, fits, SETTINGS), fits


@pytest.mark.parametrize("truth", ["multiplicative", "additive"])
def test_the_true_law_is_found(truth):
    choice, fits = held_out(
        table(truth, 0.001), ("multiplicative", "additive"), hold_out="x > 1e8 and d > 3e4"
    )
    assert choice.scores[0].law == truth
    assert choice.scores[0].worse_by is None
    other = choice.scores[1]
    assert other.worse_by[0] == pytest.approx(other.held_out_mad - choice.scores[0].held_out_mad)
    assert other.worse_by[1] > 0 and f"better than {other.law}" in choice.text
    assert choice.rows == fits[truth].rows["held_out"] == 4


def test_laws_that_agree_cannot_be_told_apart():
    """Without a pre-power phase the rectified law is the multiplicative one."""
    choice, _ = held_out(table(), ("multiplicative", "rectified_multiplicative"), hold_out="d > 6e4")
    assert "the data cannot tell it from" in choice.text
    assert choice.to_json()["scores"][0]["law"] in ("multiplicative", "rectified_multiplicative")


def test_rolling_judges_the_next_size_only():
    rows = table("rectified_multiplicative")
    (sample,) = samples_of(rows, find_law("multiplicative"), COLUMNS, "loss", SETTINGS)
    laws = {law: find_law(law) for law in ("multiplicative", "rectified_multiplicative")}
    choice = choose_rolling(sample, laws, "d", SETTINGS)
    assert choice.scores[0].law == "rectified_multiplicative"
    sizes = np.unique(sample.sizes["d"])
    assert list(choice.scores[0].by_size) == sizes[3:].tolist()
    assert choice.rows == 4 * 7
    last = fit_table(rows, "multiplicative", COLUMNS, largest=("d", 1), settings=SETTINGS)[0]
    other = next(score for score in choice.scores if score.law == "multiplicative")
    assert other.by_size[sizes[-1]] == pytest.approx(last.errors["held_out_mad"], rel=1e-5)


def test_refusals():
    rows = table()
    with pytest.raises(InputError, match="add --hold_out"):
        held_out(rows, ("multiplicative", "additive"))
    few = rows.where("d < 500")
    (sample,) = samples_of(few, find_law("multiplicative"), COLUMNS, "loss", SETTINGS)
    with pytest.raises(InputError, match="the laws need three of them"):
        choose_rolling(sample, {"multiplicative": find_law("multiplicative")}, "d", SETTINGS)
    with pytest.raises(InputError, match="4 of them cannot be held out"):
        held_out(rows, ("multiplicative",), largest=("x", 4))
    with pytest.raises(InputError, match="not both"):
        held_out(rows, ("multiplicative",), largest=("x", 1), hold_out="d > 1")


def test_few_steps_claim_nothing():
    d = np.geomspace(1e2, 1e4, 6)
    rows = table_of("t", {"d": d, "loss": 12 * d**-0.2 + 0.7 + 0.01 * np.cos(9 * np.arange(6))})
    (sample,) = samples_of(rows, find_law("power"), {"d": "d"}, "loss", SETTINGS)
    laws = {"power": find_law("power"), "score_log": find_law("score_log")}
    choice = choose_rolling(sample, laws, "d", SETTINGS)
    assert "better than" not in choice.text and "cannot tell" in choice.text
