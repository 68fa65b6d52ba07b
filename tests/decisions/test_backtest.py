"""Replays of pilots: rules by hand, coverage on curves whose law is known, refusals."""

import numpy as np
import pytest

from scaling_jax.decisions.backtest import AVERAGE, backtest
from scaling_jax.decisions.backtest_plot import draw_backtest
from scaling_jax.decisions.backtest_text import markdown, table_text
from scaling_jax.decisions.baselines import accept_then_stop, largest_run
from scaling_jax.decisions.choices import choices
from scaling_jax.decisions.rolling import curves_of
from scaling_jax.errors import InputError
from tests.decisions.curves import SIZES, table

COLUMNS = {"d": "finetune_examples"}
FORMS = ("pure_power", "power")


def curves(truths, **options):
    return curves_of(table(truths, **options), COLUMNS, "loss", ("method",))


@pytest.fixture(scope="module")
def replayed():
    """Twenty curves of the power law with a floor."""
    random = np.random.default_rng(1)
    truths = {
        f"m{i}": (random.uniform(5, 30), random.uniform(0.2, 0.5), random.uniform(0.5, 1.5))
        for i in range(20)
    }
    return backtest(curves(truths), "t", ("method",), ("method",), ends=(1 / 4,), forms=FORMS, draws=60)


def rule(found, name):
    return next(replay for replay in found.replays if replay.rule == name)


def test_the_average_beats_the_largest_run(replayed):
    average, largest = rule(replayed, AVERAGE), rule(replayed, "largest run")
    assert average.median_log < 0.3 * largest.median_log
    assert average.pearson > largest.pearson - 0.01
    assert average.weights["power"] > 0.7
    assert (average.sizes, average.curves) == (8, 20)


def test_intervals_hold_about_as_often_as_they_say(replayed):
    average = rule(replayed, AVERAGE)
    for way in ("shipped", "crossed"):
        assert average.coverage[way]["0.9"] >= 0.75
        assert average.coverage[way]["0.8"] <= average.coverage[way]["0.9"]
    assert average.coverage["law"]["0.9"] <= average.coverage["shipped"]["0.9"]


def test_selection_by_hand():
    """b is measured best; the largest pilot runs say a."""
    truths = {"a": (2.0, 0.02, 0.0), "b": (6.0, 0.15, 0.0), "c": (9.0, 0.1, 0.0)}
    found = backtest(
        curves(truths, noise=1e-4), "t", ("method",), ("method",), (1 / 64,), ("pure_power",), draws=40
    )
    measured = {name: a * SIZES[-1] ** -b for name, (a, b, _) in truths.items()}
    largest = rule(found, "largest run")
    assert largest.regret == pytest.approx(measured["a"] - measured["b"], rel=1e-2)
    worst = max(measured.values())
    expected = (worst - measured["a"]) / (worst - measured["b"])
    assert largest.relative_accuracy == pytest.approx(expected, rel=1e-2)
    chosen = rule(found, AVERAGE)
    assert (chosen.regret, chosen.relative_accuracy) == (0.0, 1.0)
    assert rule(found, "AtS").median_log < 1e-3


def test_probabilities_are_counted_by_hand():
    """Two draws of three curves: a below b in all, a below c in half of them, where c is better."""
    draws = np.log([[1.0, 1.0], [2.0, 2.0], [0.5, 3.0]])
    members, measured = np.arange(3), np.array([1.0, 2.0, 0.9])
    found = choices(members, np.array([1.0, 2.0, 1.5]), measured, [[0, 1, 2]], draws, np.zeros(3))
    assert sum(pair[2] for pair in found.pairs) == 3
    assert found.pairs[-1] == (0.95, 1.0, 1, 1)
    # Of the two even pairs the first is taken: c is told better than a, rightly, and than b, rightly.
    assert found.pairs[0] == (0.5, 0.6, 2, 2)
    assert found.regret == pytest.approx(0.1)


def test_accept_then_stop_finds_the_power_phase():
    """A flat start is left out, as in Lin et al."""
    losses = 5.0 * SIZES**-0.2
    bent = losses.copy()
    bent[:4] = losses[4] * 1.02
    random = np.random.default_rng(0)
    bent = bent * np.exp(1e-4 * random.standard_normal(len(bent)))
    assert accept_then_stop(SIZES, bent, 1e6) == pytest.approx(5.0 * 1e6**-0.2, rel=2e-3)
    assert largest_run(SIZES, losses, 1e6) == losses[-1]


def test_text_and_picture(replayed):
    text = table_text(replayed)
    assert "pilots that end at 1/4 of it (8 sizes), 20 curves" in text and "AtS" in text
    assert markdown(replayed).count("\n") == 1 + len(replayed.replays)
    assert len(draw_backtest(replayed).axes) == 2
    assert replayed.to_json()["replays"][0]["rule"] == AVERAGE


@pytest.mark.parametrize(
    ("sizes", "ends", "message"),
    [
        (SIZES[:1], (0.5,), "one size in every group"),
        (SIZES, (1.5,), "above 0 and below 1"),
        (SIZES, (1 / 512,), "has 1 sizes; a fit needs three, so the end is 0.00781 at least"),
    ],
)
def test_refusals(sizes, ends, message):
    with pytest.raises(InputError, match=message):
        backtest(curves({"a": (2.0, 0.2, 0.5)}, sizes=sizes), "t", ("method",), (), ends, FORMS)
