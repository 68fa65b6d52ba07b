"""fit_pilot: weighted laws whose forecasts hold the truth; what is too little is refused."""

import numpy as np
import pytest

from scaling_jax.decisions.forecast import forecasts_of
from scaling_jax.decisions.pilot_fits import fit_pilot, fit_pilot_groups
from scaling_jax.decisions.recommendation import recommend
from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import table_of
from tests.decisions.curves import SIZES, table

COLUMNS = {"d": "finetune_examples"}
TRUTHS = {"full": (25.0, 0.4, 1.0), "lora": (6.0, 0.2, 0.9)}
AT = {"finetune_examples": 1e6}
SETTINGS = Settings(loss="squared", bootstrap=100)


@pytest.fixture(scope="module")
def fits():
    return fit_pilot(table(TRUTHS, noise=0.002), COLUMNS, by=("method",), settings=SETTINGS)


def test_weights_of_a_method_are_one_together(fits):
    for method in TRUTHS:
        own = [fit for fit in fits if fit.group["method"] == method]
        assert sum(fit.extra["weight"] for fit in own) == pytest.approx(1.0)
        assert len({fit.extra["discrepancy"] for fit in own}) == 1
        assert {fit.extra["row_weights"] for fit in own} == {"finetune_examples"}


def test_the_forecast_holds_the_truth(fits):
    for forecast in forecasts_of(fits, AT):
        scale, beta, floor = TRUTHS[forecast.name]
        estimate = forecast.estimate(AT, 0.9)
        assert estimate.low < scale * 1e6**-beta + floor < estimate.high
    assert recommend(fits, AT).choice == "full"


def test_a_forecast_survives_its_file(fits):
    again = [Fit.from_json(fit.to_json()) for fit in fits]
    before, after = recommend(fits, AT), recommend(again, AT)
    assert after.candidates[0].loss.value == pytest.approx(before.candidates[0].loss.value)
    assert after.candidates[0].loss.high == pytest.approx(before.candidates[0].loss.high, rel=1e-6)


def test_several_model_sizes():
    rows = {"method": [], "model_params": [], "finetune_examples": [], "loss": []}
    random = np.random.default_rng(0)
    for size in (1e6, 4e6, 1.6e7):
        for examples in SIZES[:6]:
            loss = (60.0 * size**-0.2 * examples**-0.15 + 0.7) * np.exp(0.002 * random.standard_normal())
            for column, value in zip(rows, ("lora", size, examples, loss), strict=True):
                rows[column].append(value)
    columns = {"x": "model_params", **COLUMNS}
    laws = ("pure_multiplicative", "multiplicative")
    made = fit_pilot(table_of("t", rows), columns, by=("method",), settings=SETTINGS, laws=laws)
    at = {"model_params": 6.4e7, "finetune_examples": 2e5}
    estimate = forecasts_of(made, at)[0].estimate(at, 0.9)
    assert estimate.low < 60.0 * 6.4e7**-0.2 * 2e5**-0.15 + 0.7 < estimate.high


def test_a_method_that_is_too_short_does_not_hide_the_others():
    whole, part = table(TRUTHS), table({"prompt": (5.0, 0.1, 1.0)}, sizes=SIZES[:2])
    cells = {name: [*whole.cells[name], *part.cells[name]] for name in whole.cells}
    rows = table_of("t", cells)
    made, short = fit_pilot_groups(rows, COLUMNS, by=("method",), settings=SETTINGS)
    assert {fit.group["method"] for fit in made} == set(TRUTHS)
    assert list(short) == ["prompt"] and "has 2 different values" in short["prompt"]
    with pytest.raises(InputError, match="method=prompt has 2 different values"):
        fit_pilot(rows, COLUMNS, by=("method",), settings=SETTINGS)


@pytest.mark.parametrize("sizes", [SIZES[:1], SIZES[:2]])
def test_too_few_sizes(sizes):
    with pytest.raises(InputError, match="needs 3 at least"):
        fit_pilot(table(TRUTHS, sizes=sizes), COLUMNS, by=("method",))
