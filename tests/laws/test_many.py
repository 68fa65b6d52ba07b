"""Many curves at once are the single fits."""

import numpy as np
import pytest

from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.law import find_law
from scaling_jax.laws.many import Lanes
from scaling_jax.laws.table import table_of

SIZES = 200.0 * 2.0 ** np.arange(9)


@pytest.fixture(scope="module")
def losses():
    random = np.random.default_rng(0)
    truths = [(9.0, 0.3, 1.2), (4.0, 0.1, 0.3), (30.0, 0.5, 1.0)]
    clean = np.array([a * SIZES**-b + e for a, b, e in truths])
    return clean * np.exp(0.004 * random.standard_normal(clean.shape))


@pytest.fixture(scope="module")
def lanes(losses):
    weights = np.ones_like(losses)
    weights[1, 6:] = 0.0
    return Lanes(find_law("power"), {"d": SIZES}, np.where(weights > 0, losses, np.nan), weights)


def single(losses, rows):
    table = table_of("t", {"d": SIZES[:rows], "loss": losses[:rows]})
    return fit_table(table, "power", {"d": "d"}, settings=Settings(loss="squared", bootstrap=400))[0]


@pytest.mark.parametrize(("lane", "rows"), [(0, 9), (1, 6), (2, 9)])
def test_a_lane_is_the_fit_of_its_rows(lanes, losses, lane, rows):
    fit = single(losses[lane], rows)
    found = lanes.predict({"d": np.array([200.0, 1e6])})[lane]
    assert found == pytest.approx(fit.predict({"d": np.array([200.0, 1e6])})[0], rel=1e-5)


def test_draws_are_as_wide_as_those_of_a_fit(lanes, losses):
    draws = {name: values[0] for name, values in lanes.draws(400).items()}
    far = find_law("power").predict(draws, {"d": 1e6})
    other = single(losses[0], 9).draw_predictions({"d": np.array(1e6)})
    assert np.ptp(np.percentile(far, [10, 90])) == pytest.approx(
        np.ptp(np.percentile(other, [10, 90])), rel=0.3
    )
