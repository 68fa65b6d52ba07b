"""recommend: the choice, its probability, limits, gains, the pair of runs, and what is refused."""

import dataclasses

import numpy as np
import pytest

from scaling_jax.decisions.forecast import DISCREPANCY
from scaling_jax.decisions.limits import Limits
from scaling_jax.decisions.recommendation import recommend
from scaling_jax.decisions.recommendation_text import full_text, sentence
from scaling_jax.errors import InputError
from scaling_jax.laws.results import plain, stated
from scaling_jax.laws.table import table_of

AT = {"finetune_examples": 1e5}


def made(method, parameters, law="power", spread=0.003, task="t", **extra):
    """A fit with these parameters and draws around them."""
    random = np.random.default_rng(sum(map(ord, method)))
    draws = {name: value * np.exp(spread * random.standard_normal(400)) for name, value in parameters.items()}
    columns = {"d": "finetune_examples", "y": "loss"}
    fitted = {"d": (1e2, 1e4)}
    if "alpha" in parameters:
        columns["x"], fitted["x"] = "model_params", (1e6, 1e8)
    fit = stated(law, columns, parameters, draws, fitted, {"task": task, "method": method})
    return dataclasses.replace(fit, extra=extra)


@pytest.fixture(scope="module")
def fits():
    return [
        made("full", {"A": 20.0, "beta": 0.4, "E": 1.0}),
        made("lora", {"A": 5.0, "beta": 0.2, "E": 1.0}),
        made("prompt", {"A": 4.0, "beta": 0.1, "E": 1.1}),
    ]


@pytest.fixture(scope="module")
def costs():
    """Memory and time of a constant and a part that grows with the model; stored bytes with its root."""
    rows = [(m, n, d) for m in ("full", "lora", "prompt") for n in (1e6, 1e7, 1e8) for d in (1e3, 1e4)]
    factor = {"full": 4.0, "lora": 1.0, "prompt": 0.5}
    return table_of(
        "costs",
        {
            "method": [m for m, _, _ in rows],
            "model_params": [n for _, n, _ in rows],
            "finetune_examples": [d for _, _, d in rows],
            "peak_memory_bytes": [2**30 + 8 * factor[m] * n for m, n, _ in rows],
            "checkpoint_bytes": [1e3 * factor[m] * n**0.5 for m, n, _ in rows],
        },
    )


def test_the_lowest_expected_loss_is_chosen(fits):
    found = recommend(fits, AT)
    assert (found.choice, found.status) == ("full", "clear")
    assert found.probability_best > 0.98
    assert [candidate.method for candidate in found.candidates] == ["full", "lora", "prompt"]
    chosen = found.candidate("full")
    assert chosen.loss.value == pytest.approx(1.0 + 20.0 * 1e5**-0.4)
    assert chosen.loss.low < chosen.loss.value < chosen.loss.high
    assert found.regret.value < 1e-3 and found.runs is None
    assert not found.interpolation and "outside the fitted" in chosen.extrapolates[0]
    assert "take full" in sentence(found)


def test_shares_and_regret_are_those_of_the_draws():
    close = [
        made("a", {"A": 5.0, "beta": 0.2, "E": 1.00}, spread=0.01),
        made("b", {"A": 5.0, "beta": 0.2, "E": 1.01}, spread=0.01),
    ]
    found = recommend(close, AT, discrepancy=0.0)
    draws = [fit.draw_predictions({"d": np.array(1e5)}) for fit in close]
    assert found.probability_best == pytest.approx(np.mean(draws[0] < draws[1]))
    assert found.regret.value == pytest.approx(np.mean(draws[0] - np.minimum(*draws)))
    assert found.status == "cannot tell"
    assert set(found.runs.methods) == {"a", "b"}
    assert found.runs.sure > found.runs.now == found.probability_best
    assert "cannot tell a from b" in sentence(found) and "To tell more: run" in full_text(found)
    assert recommend(close, AT, indifferent=0.2).status == "alike"


def test_twice_the_examples_and_the_next_model():
    fit = made("lora", {"A": 50.0, "alpha": 0.2, "beta": 0.2, "E": 1.0}, "multiplicative")
    found = recommend([fit], {"model_params": 1e9, **AT})
    assert found.status == "only one"
    changes = {gain.change: gain.loss.value for gain in found.gains}
    reducible = 50.0 * 1e9**-0.2 * 1e5**-0.2
    assert changes["twice the examples"] == pytest.approx(reducible * (2**-0.2 - 1))
    assert changes["a model of 2e+09 parameters (twice the size)"] == pytest.approx(reducible * (2**-0.2 - 1))
    assert changes["one more example"] == pytest.approx(-0.2 * reducible / 1e5, rel=1e-3)


def test_limits_exclude_and_say_what_would_admit(fits, costs):
    at = {**AT, "model_params": 1e9}
    joint = [
        made("full", {"A": 20.0, "alpha": 0.01, "beta": 0.4, "E": 1.0}, "multiplicative"),
        made("lora", {"A": 5.0, "alpha": 0.01, "beta": 0.2, "E": 1.0}, "multiplicative"),
    ]
    free = recommend(joint, at, costs=costs)
    assert free.choice == "full"
    assert free.candidate("full").cost.memory_gib.value == pytest.approx(1 + 32e9 / 2**30, rel=0.01)
    assert free.candidate("lora").cost.checkpoint_mib.value == pytest.approx(1e3 * 1e9**0.5 / 2**20, rel=0.01)
    assert free.candidate("full").cost.hours is None
    found = recommend(joint, at, Limits(memory_gib=16.0), costs)
    assert found.choice == "lora"
    assert "the limit is 16" in found.candidate("full").excluded_by[0]
    none = recommend(joint, at, Limits(memory_gib=4.0, checkpoint_mib=10.0), costs)
    assert (none.choice, none.status) == (None, "no method fits")
    assert none.relaxed.endswith("would admit lora") and "--memory_gib 8." in none.relaxed
    assert all(candidate.excluded_by for candidate in none.candidates)
    unknown = recommend(joint, at, Limits(hours=1.0), costs)
    assert unknown.candidate("full").unchecked == ("hours",)


def test_forms_are_averaged_and_widened():
    one = made("lora", {"A": 5.0, "beta": 0.2, "E": 1.0}, weight=0.75)
    two = made("lora", {"B": 6.0, "D_l": 1.0, "beta": 0.3, "E": 1.0}, "rectified", weight=0.25)
    low, high = sorted(float(fit.predict(AT)[0]) for fit in (one, two))
    found = recommend([one, two], AT, discrepancy=0.0).candidates[0]
    assert low < found.loss.value < high
    assert found.laws == {"power": 0.75, "rectified": 0.25}
    wide = [dataclasses.replace(fit, extra={**fit.extra, "discrepancy": 0.3}) for fit in (one, two)]
    wider = recommend(wide, AT).candidates[0].loss
    assert wider.high - wider.low > 1.2 * (found.loss.high - found.loss.low)
    inside = {"finetune_examples": 1e4}
    assert recommend(wide, inside).candidates[0].loss == recommend([one, two], inside).candidates[0].loss
    # What states none gets the learned one.
    assert recommend([one, two], AT).candidates[0].discrepancy == DISCREPANCY


def test_a_change_along_the_model_size_counts_four_times():
    """Without scatter the interval is the discrepancy's: |change| over both columns, the model's fourfold."""
    fit = made("lora", {"A": 50.0, "alpha": 0.2, "beta": 0.2}, "pure_multiplicative", spread=0.0)

    def spread(size, examples):
        at = {"model_params": size, "finetune_examples": examples}
        loss = recommend([fit], at, discrepancy=0.1).candidates[0].loss
        return np.log(loss.high / loss.low)

    assert spread(1e8, 1e4) == 0.0
    data, model = spread(1e8, 2e4), spread(2e8, 1e4)
    assert model == pytest.approx(4 * data, rel=0.01)
    assert spread(2e8, 2e4) == pytest.approx(np.hypot(data, model), rel=0.01)
    doubled = spread(1e8, 4e4)
    away = 1 / np.log2(1e4 / 1e2)
    assert doubled / data == pytest.approx(2 * np.sqrt((1 + 2 * away) / (1 + away)), rel=0.01)


def test_a_curve_that_bends_is_said():
    fits = [
        made("lora", {"A": 5.0, "beta": 0.2, "E": 1.0}, weight=0.6),
        made("lora", {"B": 6.0, "D_l": 1.0, "beta": 0.3, "E": 1.0}, "rectified", weight=0.4),
    ]
    assert "has not been one power" in recommend(fits, AT).notes[0]
    assert "has not been one power" in full_text(recommend(fits, AT))
    assert recommend(fits[:1], AT).notes == ()
    assert recommend(fits, {"finetune_examples": 5e3}).notes == ()


def test_forms_without_weights_count_by_their_held_out_errors():
    one = made("lora", {"A": 5.0, "beta": 0.2, "E": 1.0})
    two = made("lora", {"B": 6.0, "D_l": 1.0, "beta": 0.3, "E": 1.0}, "rectified")
    errors = [dict(fit.errors) | {"held_out_rmsd_log": e} for fit, e in ((one, 0.01), (two, 0.02))]
    fits = [dataclasses.replace(fit, errors=own) for fit, own in zip((one, two), errors, strict=True)]
    assert recommend(fits, AT).candidates[0].laws == pytest.approx({"power": 0.8, "rectified": 0.2})


def test_costs_that_say_nothing(fits):
    """NaN is not measured; zero is no measurement; text is refused with its line."""
    rows = {"method": ["full", "lora"], "model_params": [1e6, 1e6], "finetune_examples": [1e3, 1e3]}
    silent = table_of("costs", {**rows, "peak_memory_bytes": ["NaN", "0"]})
    found = recommend(fits, AT, Limits(memory_gib=1.0), silent)
    assert found.candidate("full").cost.memory_gib is None
    assert found.candidate("full").unchecked == ("memory_gib",)
    words = table_of("costs", {**rows, "peak_memory_bytes": ["much", "5"]})
    with pytest.raises(InputError, match="costs:2: column 'peak_memory_bytes': 'much' is not a number"):
        recommend(fits, AT, costs=words)
    with pytest.raises(InputError, match="no column 'method'"):
        recommend(fits, AT, costs=table_of("costs", {"peak_memory_bytes": [1e9]}))


def test_json_is_plain(fits):
    content = recommend(fits, AT).to_json()
    assert content == plain(content)
    assert content["candidates"][0]["loss"]["low"] < content["candidates"][0]["loss"]["high"]


@pytest.mark.parametrize(
    ("at", "options", "message"),
    [
        ({}, {}, "--at needs 'finetune_examples'"),
        ({"finetune_exmples": 1e4}, {}, "did you mean 'finetune_examples'"),
        ({"finetune_examples": -1.0}, {}, "above zero"),
        (AT, {"methods": ["loar"]}, "did you mean 'lora'"),
        (AT, {"along": "model"}, "no fit has 'model' in its group"),
        (AT, {"sure": 0.2}, "between 0.5 and 1"),
    ],
)
def test_refusals(fits, at, options, message):
    with pytest.raises(InputError, match=message):
        recommend(fits, at, **options)


def test_a_column_of_the_costs_alone(fits, costs):
    """The size of a pilot's one model prices the run; the laws do not know it."""
    found = recommend(fits, {**AT, "model_params": 1e8}, costs=costs)
    assert found.candidate("lora").cost.memory_gib.value == pytest.approx(1 + 8e8 / 2**30, rel=0.01)
    assert "model_params" not in found.at
    with pytest.raises(InputError, match="say nothing of 1e\\+09"):
        recommend(fits, {**AT, "model_params": 1e9}, costs=costs)


def test_a_target_inside_the_fitted_sizes_is_an_interpolation(fits):
    found = recommend(fits, {"finetune_examples": 5e3})
    assert found.interpolation and "an interpolation" in full_text(found)


def test_tasks_are_not_mixed(fits):
    other = made("lora", {"A": 5.0, "beta": 0.2, "E": 1.0}, task="u")
    with pytest.raises(InputError, match="several task"):
        recommend([*fits, other], AT)
    with pytest.raises(InputError, match="different task"):
        recommend([fits[0], other], AT)
    assert recommend([*fits, other], {**AT, "task": "u"}).status == "only one"


def test_a_limit_above_zero():
    with pytest.raises(InputError, match="above zero"):
        Limits(memory_gib=-1.0)
