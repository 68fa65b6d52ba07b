"""Rolling origins: curves of a table, weights that find the form, a discrepancy that is found."""

import numpy as np
import pytest

from scaling_jax.decisions.forecast import DISCREPANCY
from scaling_jax.decisions.rolling import (
    curves_of,
    discrepancy_of,
    forms_of,
    learned_discrepancy,
    roll,
    stacking_weights,
)
from scaling_jax.errors import InputError
from scaling_jax.laws.table import table_of
from tests.decisions.curves import SIZES, table

COLUMNS = {"d": "finetune_examples"}
FORMS = ("pure_power", "power")


def rolled(truths, noise):
    curves = curves_of(table(truths, noise), COLUMNS, "loss", ("method",))
    return {name: roll(curves, law) for name, law in forms_of(FORMS).items()}, curves


def test_curves_over_the_union_of_sizes():
    rows = table_of(
        "t",
        {
            "method": ["a", "a", "a", "b"],
            "finetune_examples": [100, 200, 200, 400],
            "loss": [3.0, 2.0, 2.1, 1.5],
        },
    )
    curves = curves_of(rows, COLUMNS, "loss", ("method",))
    assert curves.sizes.tolist() == [100, 200, 400]
    assert np.isfinite(curves.losses).sum(axis=1).tolist() == [3, 1]
    assert curves.upto(200).weights()[0, curves.columns["d"] == 100].tolist() == [0.5]
    assert not np.isfinite(curves.upto(200).losses[1]).any()


def test_weights_go_to_the_form_that_predicts():
    floors = {name: (20.0, 0.4, floor) for name, floor in (("a", 1.0), ("b", 1.2), ("c", 0.9))}
    found, curves = rolled(floors, 0.001)
    assert stacking_weights(found, curves)["power"] > 0.9
    none = {name: (scale, 0.06, 0.0) for name, scale in (("a", 3.0), ("b", 4.0), ("c", 5.0))}
    found, curves = rolled(none, 0.004)
    weights = stacking_weights(found, curves)
    assert weights["pure_power"] > 0.6
    assert sum(weights.values()) == pytest.approx(1.0)


def test_a_form_that_could_not_be_judged_keeps_its_weight_of_other_curves():
    rows = table({"a": (20.0, 0.4, 1.0)}, sizes=SIZES[:4])
    curves = curves_of(rows, COLUMNS, "loss", ("method",))
    found = {name: roll(curves, law) for name, law in forms_of((*FORMS, "rectified")).items()}
    assert found["power"] is None and len(found["pure_power"].origins) == 1
    weights = stacking_weights(found, curves)
    assert weights == pytest.approx({"pure_power": 0.7, "power": 0.3, "rectified": 0.0})
    assert learned_discrepancy(found, weights, curves) > 0
    nothing = dict.fromkeys(found)
    assert stacking_weights(nothing, curves) == pytest.approx(weights)


def test_the_scale_of_the_discrepancy_is_found():
    random = np.random.default_rng(0)
    ratios = 0.3 * random.standard_t(5, 4000)
    owners = np.repeat(np.arange(400), 10)
    assert discrepancy_of(ratios, owners) == pytest.approx(0.3, rel=0.1)
    assert discrepancy_of(np.zeros(0), np.zeros(0, int), 3.0) == pytest.approx(DISCREPANCY, rel=0.1)
    one = discrepancy_of(ratios[:10], owners[:10], 1e6)
    assert one == pytest.approx(DISCREPANCY, rel=0.1)


def test_refusals():
    with pytest.raises(InputError, match="no column 'examples'"):
        curves_of(table({"a": (2.0, 0.2, 1.0)}), {"d": "examples"}, "loss", ("method",))
    with pytest.raises(InputError, match="'method' varies"):
        curves_of(table({"a": (2.0, 0.2, 1.0), "b": (2.0, 0.2, 1.0)}), COLUMNS, "loss", ())
