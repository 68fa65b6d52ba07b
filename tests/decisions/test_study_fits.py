"""All fits of a study, from a simulated results table."""

import json

import numpy as np
import pytest

from scaling_jax.decisions.study_fits import (
    crossings,
    fit_study,
    nearest_neighbour_error,
    nothing_to_fit,
    skipped_fits,
    study_plan,
    summary_text,
)
from scaling_jax.errors import InputError
from scaling_jax.laws.results import read_fits, write_fits
from scaling_jax.laws.table import table_of

MODELS = {"s": 3e4, "m": 1e5, "l": 3e5, "xl": 1e6}
TRUTHS = {"full": (40.0, 0.2, 0.35, 0.8, ""), "lora": (9.0, 0.2, 0.15, 0.8, "4")}
HOLD_OUT = "non_embedding_params >= 1e6 or finetune_examples >= 8000 or pretrain_tokens == 200000"


def study(noise=0.003):
    random = np.random.default_rng(0)
    rows = []
    for method, (scale, alpha, beta, floor, tuning) in TRUTHS.items():
        for model, size in MODELS.items():
            for tokens in (200000, 400000, 800000) if model == "m" else (800000,):
                for tuned in ("2", "4", "8") if method == "lora" and model == "s" else (tuning,):
                    for examples in (0, 250, 500, 1000, 2000, 4000, 8000):
                        data = max(examples, 100) ** -beta
                        loss = scale * size**-alpha * (tokens / 8e5) ** -0.1 * data + floor
                        rows.append(
                            {
                                "task": "lab",
                                "method": method,
                                "model": model,
                                "non_embedding_params": int(size),
                                "pretrain_tokens": tokens,
                                "finetune_examples": examples,
                                "tuning_size": tuned,
                                "seed": 0,
                                "loss": loss * np.exp(noise * random.standard_normal()),
                                "status": "done",
                                "reason": "",
                            }
                        )
    rows[3] |= {"status": "diverged", "reason": "loss not finite", "loss": ""}
    return table_of("results.csv", {name: [row[name] for row in rows] for name in rows[0]})


@pytest.fixture(scope="module")
def table():
    return study()


@pytest.fixture(scope="module")
def fits(table):
    return fit_study(table, HOLD_OUT, bootstrap=40)


def select(fits, factor, law, method):
    return [f for f in fits if (f.extra["factor"], f.law, f.group["method"]) == (factor, law, method)]


def test_every_factor_is_fitted(fits):
    for method in TRUTHS:
        assert len(select(fits, "single", "power", method)) == 3
        for law in ("multiplicative", "additive"):
            assert len(select(fits, "model_size", law, method)) == 1
            assert len(select(fits, "pretraining", law, method)) == 1
            assert len(select(fits, "tuning_size", law, method)) == (method == "lora")


def test_the_rows_are_those_of_the_factor(fits):
    (by_size,) = select(fits, "model_size", "multiplicative", "lora")
    assert by_size.rows == {"fitted": 15, "held_out": 9, "dropped": 0}
    assert by_size.extra["fixed"] == {"pretrain_tokens": 8e5, "tuning_size": 4.0}
    assert by_size.extra["sizes"] == sorted(MODELS.values())
    assert by_size.columns["x"] == "non_embedding_params"
    (by_tokens,) = select(fits, "pretraining", "multiplicative", "full")
    assert by_tokens.rows == {"fitted": 10, "held_out": 8, "dropped": 0}
    assert by_tokens.where == "non_embedding_params == 100000"
    (by_tuning,) = select(fits, "tuning_size", "multiplicative", "lora")
    assert by_tuning.rows["fitted"] == 15


def test_lost_rows_are_counted_where_they_are_missing(fits):
    (smallest,) = [fit for fit in select(fits, "single", "power", "full") if fit.group["model"] == "s"]
    assert smallest.dropped_reasons == {"diverged: loss not finite": 1}
    assert select(fits, "single", "power", "lora")[0].dropped_reasons == {}


def test_the_right_law_beats_the_nearest_neighbour(fits):
    for method in TRUTHS:
        (joint,) = select(fits, "model_size", "multiplicative", method)
        assert joint.errors["held_out_mad"] < 0.5 * joint.errors["nearest_neighbour_mad"]
        assert joint.parameters["beta"] == pytest.approx(TRUTHS[method][2], rel=0.3)


def test_what_cannot_be_fitted_is_named(table):
    skipped = skipped_fits(table, HOLD_OUT)
    assert skipped == [
        "power by single for 2 groups (task=lab; method=full, lora; model=xl): every row is held out"
    ]
    few = skipped_fits(table.where("method == 'full' or model == 's'"), "finetune_examples >= 500")
    assert any(line.startswith("multiplicative by tuning_size for task=lab, method=lora: ") for line in few)
    assert "for 5 groups (task=lab: full s; full m; full l; full xl; lora s): law 'power' has 3" in few[0]


def test_a_study_that_holds_out_everything_asks_for_no_law(table):
    said = nothing_to_fit(table, "finetune_examples > 0")
    assert said == "All 83 runs are held out (finetune_examples > 0), so no law was asked for."
    assert skipped_fits(table, "finetune_examples > 0") == []
    assert fit_study(table, "finetune_examples > 0") == [] and summary_text([], []) == ""
    assert nothing_to_fit(table, HOLD_OUT) is None and nothing_to_fit(table, None) is None


def test_no_shared_pretraining_is_a_reason():
    rows = study()
    tokens = rows.cells["pretrain_tokens"].copy()
    tokens[rows.text("model") == "l"] = "12345"
    plans = study_plan(type(rows)(rows.source, {**rows.cells, "pretrain_tokens": tokens}, rows.lines), None)
    reasons = {plan.reason for plan in plans if plan.factor == "model_size"}
    assert reasons == {"no pretraining length is shared by all model sizes"}


def test_crossings_are_plain_and_right(fits):
    found = crossings(fits)
    json.dumps(found, allow_nan=False)
    joint = [entry for entry in found if entry["law"] == "multiplicative"]
    assert [entry["at"]["non_embedding_params"] for entry in joint] == sorted(MODELS.values())
    assert len([entry for entry in found if entry["law"] == "power"]) == 3
    # Equal floors and size exponents: full and lora tie at (40 / 9)^(1 / 0.2) examples at every size.
    tie = (40 / 9) ** 5
    near = joint[1]["crossings"]
    assert near and min(abs(np.log(c["size"] / tie)) for c in near) < 0.7


def test_summary_and_round_trip(fits, table, tmp_path):
    text = summary_text(fits, crossings(fits), skipped_fits(table, HOLD_OUT))
    for part in (
        "multiplicative by model_size",
        "nearest neighbour",
        "Critical finetuning sizes",
        "Not fitted",
    ):
        assert part in text
    back = read_fits(write_fits(tmp_path / "fits.json", fits))
    assert [fit.extra["factor"] for fit in back] == [fit.extra["factor"] for fit in fits]
    assert back[0].errors["nearest_neighbour_mad"] == fits[0].errors["nearest_neighbour_mad"]
    assert crossings(back)[0]["first"] == "full"


def test_nearest_neighbour_by_hand():
    sizes = {"x": np.array([1.0, 1.0, 10.0, 100.0]), "d": np.array([1.0, 1.0, 1.0, 1.0])}
    loss = np.array([4.0, 6.0, 3.0, 1.0])
    held = np.array([False, False, False, True])
    assert nearest_neighbour_error(sizes, loss, held) == pytest.approx(2.0)
    # Between 1 and 100, both as far away: their cells (5 and 1) are averaged to 3.
    tied = np.array([False, False, True, False])
    assert nearest_neighbour_error(sizes, np.array([4.0, 6.0, 3.5, 1.0]), tied) == pytest.approx(0.5)
    assert nearest_neighbour_error(sizes, loss, np.zeros(4, bool)) is None


def test_further_laws_are_fitted_by_their_roles(table):
    plans = study_plan(table, HOLD_OUT, further_laws=("rectified", "rectified_multiplicative", "additive"))
    usual = study_plan(table, HOLD_OUT)
    added = [plan for plan in plans if plan.law in ("rectified", "rectified_multiplicative")]
    assert len(plans) == len(usual) + len(added)
    by_law = {law: [plan.factor for plan in added if plan.law == law] for law in {p.law for p in added}}
    assert by_law["rectified"] == [plan.factor for plan in usual if plan.law == "power"]
    joint = [plan.factor for plan in usual if plan.law == "multiplicative"]
    assert by_law["rectified_multiplicative"] == joint
    with pytest.raises(InputError, match="a study has x and d"):
        study_plan(table, HOLD_OUT, further_laws=("loss_to_score",))
