"""Fitting tables: contract of fits.json, errors, groups, hold-out, refusals, bad tables."""

import json

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.law import find_law, known_laws
from scaling_jax.laws.results import Fit, read_fits, write_fits
from scaling_jax.laws.table import read_table, table_of

COLUMNS = {"x": "model_params", "d": "finetune_examples"}
TRUTH = {"A": 60.0, "alpha": 0.12, "beta": 0.2, "E": 0.7}


def results(noise=0.005, seed=0, **extra):
    sizes, examples = (
        axis.ravel()
        for axis in np.meshgrid(np.geomspace(1e9, 16e9, 5), np.geomspace(1e3, 1e6, 6), indexing="ij")
    )
    loss = find_law("multiplicative").predict(TRUTH, {"x": sizes, "d": examples})
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))
    return {"model_params": sizes, "finetune_examples": examples, "loss": loss, **extra}


def quick(table, law="multiplicative", columns=None, **given):
    own = {name: given.pop(name) for name in list(given) if name in Settings.__dataclass_fields__}
    settings = Settings(**{"bootstrap": 64, **own})
    return fit_table(table, law, columns or COLUMNS, settings=settings, **given)


@pytest.fixture(scope="module")
def fit():
    return quick(table_of("results", results()), hold_out="model_params > 1e10")[0]


def test_the_object_of_fits_json(fit):
    content = json.loads(json.dumps(fit.to_json(), allow_nan=False))
    assert content["law"] == "multiplicative"
    assert content["columns"] == {"x": "model_params", "d": "finetune_examples", "y": "loss"}
    assert list(content["parameters"]) == ["A", "alpha", "beta", "E"]
    assert content["rows"] == {"fitted": 24, "held_out": 6, "dropped": 0}
    assert list(content["errors"]) == ["fitted_mad", "held_out_mad", "fitted_rmsd_log", "held_out_rmsd_log"]
    assert content["objective"]["kind"] == "huber_log"
    assert set(content["starts"]) == {"total", "agreeing"}
    for name, (low, high) in content["intervals"].items():
        assert low <= content["parameters"][name] <= high
    assert {"group", "status", "identified", "condition_number", "seed", "versions"} <= set(content)


def test_errors_are_those_of_the_formula(fit):
    data = results()
    law = find_law("multiplicative")
    gap = (
        law.predict(fit.parameters, {"x": data["model_params"], "d": data["finetune_examples"]})
        - data["loss"]
    )
    held = data["model_params"] > 1e10
    assert fit.errors["held_out_mad"] == pytest.approx(np.mean(np.abs(gap[held])))
    assert fit.errors["fitted_mad"] == pytest.approx(np.mean(np.abs(gap[~held])))
    logs = np.log1p(gap[held] / data["loss"][held])
    assert fit.errors["held_out_rmsd_log"] == pytest.approx(np.sqrt(np.mean(logs**2)))
    assert fit.objective["value"] > 0


def test_held_out_rows_never_touch_the_fit(fit):
    data = results()
    data["loss"] = np.where(data["model_params"] > 1e10, 100.0, data["loss"])
    other = quick(table_of("results", data), hold_out="model_params > 1e10")[0]
    assert other.parameters == fit.parameters
    assert other.intervals == fit.intervals
    assert other.errors["held_out_mad"] > 50


def test_round_trip(tmp_path, fit):
    marked = fit.with_extra(factor="model_size")
    (back,) = read_fits(write_fits(tmp_path / "fits.json", [marked]))
    assert read_fits(tmp_path)[0].parameters == fit.parameters
    assert isinstance(back, Fit)
    assert back.extra == {"factor": "model_size"}
    assert back.to_json() == marked.to_json()
    at = {"model_params": [1e9, 6.4e10], "finetune_examples": 1e5}
    for one, two in zip(fit.predict(at), back.predict(at), strict=True):
        np.testing.assert_allclose(one, two, rtol=1e-6)


def test_predictions_hold_the_truth_and_widen_outside(fit):
    value, low, high = fit.predict({"x": np.array([4e9, 1e12]), "d": np.array([3e4, 1e8])})
    truth = find_law("multiplicative").predict(TRUTH, {"x": np.array([4e9, 1e12]), "d": np.array([3e4, 1e8])})
    assert np.all(low < high)
    assert (high - low)[1] > 2 * (high - low)[0]
    np.testing.assert_allclose(value[0], truth[0], rtol=0.01)
    assert fit.beyond({"x": 4e9, "d": 3e4}) == []
    assert len(fit.beyond({"x": 1e12, "d": 1e8})) == 2


def test_same_seed_same_intervals_other_seed_others():
    table = table_of("results", results())
    one, two, three = (quick(table, seed=seed)[0] for seed in (1, 1, 2))
    assert one.to_json() == two.to_json()
    assert one.parameters == three.parameters
    assert one.intervals != three.intervals


def test_groups_are_fitted_apart():
    first, second = results(), results(seed=1)
    data = {name: np.concatenate([first[name], second[name]]) for name in first}
    data["method"] = ["full"] * 30 + ["lora"] * 30
    fits = quick(table_of("results", data), by=("method",))
    assert [fit.group for fit in fits] == [{"method": "full"}, {"method": "lora"}]
    alone = quick(table_of("results", first))[0]
    assert fits[0].parameters == pytest.approx(alone.parameters, rel=1e-9)


def test_clusters_are_resampled_together():
    """Equal rows in one cluster carry the information of one row."""
    data = {name: np.repeat(values, 4) for name, values in results(noise=0.01).items()}
    data["run"] = np.repeat(np.arange(30), 4)
    table = table_of("results", data)
    apart, together = quick(table)[0], quick(table, cluster="run")[0]

    def width(fit):
        return fit.intervals["beta"][1] - fit.intervals["beta"][0]

    assert width(together) > 1.4 * width(apart)


def test_what_the_data_cannot_tell_is_said():
    """A loss that stays in its power phase does not show its floor."""
    examples = np.repeat(np.geomspace(1e3, 1e6, 10), 3)
    loss = 4 * examples**-0.05 * np.exp(0.01 * np.random.default_rng(3).standard_normal(30))
    table = table_of("results", {"finetune_examples": examples, "loss": loss})
    (fit,) = quick(table, "power", {"d": "finetune_examples"})
    assert fit.identified["E"] is not True
    assert "E" in fit.identified["E"]
    assert fit.status.startswith("not identified")


def test_as_many_rows_as_parameters_identify_nothing():
    table = table_of("few", {"d": [1e2, 1e3, 1e4], "loss": [3.0, 2.0, 1.6]})
    (fit,) = quick(table, "power", {"d": "d"})
    assert all("no more rows than parameters" in reason for reason in fit.identified.values())


def test_columns_that_move_together_cannot_be_told_apart():
    sizes = np.geomspace(1e2, 1e5, 12)
    table = table_of("tied", {"x": sizes, "d": sizes, "loss": 12 * sizes**-0.2 + 0.7})
    (fit,) = quick(table, "multiplicative", {"x": "x", "d": "d"})
    assert "cannot tell alpha from beta apart" in fit.identified["alpha"]
    assert fit.parameters["alpha"] + fit.parameters["beta"] == pytest.approx(0.2, rel=1e-3)
    json.dumps(fit.to_json(), allow_nan=False)


@pytest.mark.parametrize("unit", [1e-200, 1e200])
def test_extreme_units(unit):
    sizes = np.geomspace(1e2, 1e5, 12)
    table = table_of("odd", {"d": sizes, "loss": unit * (12 * sizes**-0.2 + 0.7)})
    (fit,) = quick(table, "power", {"d": "d"})
    assert fit.parameters["E"] == pytest.approx(0.7 * unit, rel=1e-6)


def test_an_outlier_has_little_pull():
    sizes = np.geomspace(1e2, 1e5, 12)
    loss = 12 * sizes**-0.2 + 0.7
    loss[3] = 50.0
    (fit,) = quick(table_of("odd", {"d": sizes, "loss": loss}), "power", {"d": "d"})
    assert fit.parameters["beta"] == pytest.approx(0.2, rel=0.01)


def test_linear_residuals_minimise_the_loss_itself():
    table = table_of("results", results())
    log, linear = (quick(table, residual=kind)[0] for kind in ("log", "linear"))
    assert linear.objective["kind"] == "huber_linear"
    assert log.parameters["beta"] != linear.parameters["beta"]
    assert linear.parameters["beta"] == pytest.approx(0.2, rel=0.1)


# What a fit refuses.


def study_rows(**changed):
    data = results()
    rows = {
        "task": ["lab"] * 30,
        "method": ["lora"] * 30,
        "model": [f"m{size:.0f}" for size in data["model_params"]],
        "non_embedding_params": data["model_params"] * 0.9,
        "pretrain_tokens": ["1e6"] * 30,
        "tuning_size": ["4"] * 30,
        "seed": list(range(30)),
        **data,
    }
    return table_of("results", {**rows, **changed})


def test_names_of_one_factor_and_seeds_are_no_variation():
    assert len(quick(study_rows())) == 1


@pytest.mark.parametrize("column", ["method", "task", "pretrain_tokens", "tuning_size"])
def test_a_design_column_that_varies_is_refused(column):
    table = study_rows(**{column: ["1", "2"] * 15})
    with pytest.raises(InputError) as error:
        quick(table)
    assert f"{column!r} varies" in str(error.value)
    assert f"--by {column}" in str(error.value) and "--where" in str(error.value)
    assert len(quick(table, where=f"{column} == 1")) == 1
    assert len(quick(table, by=(column,))) == 2


def test_a_law_in_examples_alone_refuses_several_models():
    with pytest.raises(InputError, match="'model' varies"):
        quick(study_rows(), "power", {"d": "finetune_examples"})
    assert len(quick(study_rows(), "power", {"d": "finetune_examples"}, by=("model_params",))) == 5


def test_a_column_tied_one_to_one_to_a_used_one_is_no_variation():
    data = results()
    assert len(quick(study_rows(pretrain_tokens=data["model_params"] * 20))) == 1


@pytest.mark.parametrize(
    ("changed", "settings", "message"),
    [
        ({"loss": ["x"] + ["1"] * 29}, {}, "results:2: column 'loss': 'x' is not a number"),
        ({"loss": ["inf"] + ["1"] * 29}, {}, "results:2: column 'loss'"),
        ({"loss": [1.0] * 29 + [0.0]}, {}, "results:31: column 'loss': 0.0 is not above zero"),
        ({"loss": [1.0] * 29 + [-2.0]}, {}, "results:31: column 'loss': -2.0 is not above zero"),
        ({"finetune_examples": [0] * 30}, {}, "--where 'finetune_examples > 0'"),
        ({"model_params": [-1] * 30}, {}, "column 'model_params': -1 is not above zero"),
        ({}, {"columns": {"x": "model_parms", "d": "finetune_examples"}}, "did you mean 'model_params'"),
        ({}, {"columns": {"x": "model_params"}}, "also needs --d COLUMN"),
        ({}, {"columns": {**COLUMNS, "z": "seed"}}, "has no role 'z'"),
        ({}, {"loss_column": "bleu"}, "no column 'bleu'"),
        ({}, {"law": "multiplicativ"}, "did you mean 'multiplicative'"),
        ({}, {"where": "model_params > 1e20"}, "no row is left by --where"),
        ({}, {"where": "seed < 3"}, "3 rows to fit, but law 'multiplicative' has 4 parameters"),
        ({}, {"hold_out": "seed >= 3"}, "3 rows to fit"),
        ({}, {"where": "model_params < 1.5e9"}, "column 'model_params' has one value (1e+09)"),
        ({}, {"by": ("nothing",)}, "no column 'nothing'"),
        ({}, {"cluster": "nothing"}, "no column 'nothing'"),
        ({}, {"residual": "square"}, "neither 'log' nor 'linear'"),
        ({}, {"delta": 0.0}, "delta must be above 0"),
        ({"status": ["failed"] * 30}, {}, "no row has status 'done'"),
    ],
)
def test_bad_input(changed, settings, message):
    table = study_rows(**changed)
    with pytest.raises(InputError) as error:
        quick(table, **settings)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "not a list of fits"),
        ("[]", "not a list of fits"),
        ('[{"law": "power"}]', "a fit lacks"),
        ("[", "not JSON"),
    ],
)
def test_bad_fits_json(tmp_path, content, message):
    path = tmp_path / "fits.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        read_fits(path)


def test_fewer_rows_than_parameters_in_a_file(tmp_path):
    path = tmp_path / "few.csv"
    path.write_text("model_params,finetune_examples,loss\n1e9,1e3,2\n2e9,1e3,1.9\n")
    with pytest.raises(InputError, match="few.csv: 2 rows to fit"):
        quick(read_table(path))


# Laws.


def test_every_law_file_registers_itself():
    assert {"power", "multiplicative", "additive"} <= set(known_laws())


def test_a_law_outside_the_package(tmp_path):
    """A data-constrained law without linear parameters: no basis, multistart search."""
    path = tmp_path / "mine.py"
    path.write_text(
        "from scaling_jax.laws.law import Law, Parameter\n"
        "def formula(p, c, array):\n"
        "    return (p['C'] / c['n']) ** p['a'] + p['floor']\n"
        "mine = Law('mine', 'L = (C / n)^a + floor', 'a test', (('n', 'size'),),\n"
        "    (Parameter('C', 'scale', 1e-6, starts=(1e2, 1e7), transform='log'),\n"
        "     Parameter('a', 'exponent', 0.0, 3.0), Parameter('floor', 'floor', 0.0, starts=(0.1, 2.0))),\n"
        "    formula=formula)\n"
    )
    n = np.geomspace(1e3, 1e6, 20)
    loss = (5e4 / n) ** 0.3 + 0.8
    table = table_of("mine", {"size": n, "loss": loss})
    (fit,) = quick(table, f"{path}:mine", {"n": "size"})
    assert fit.parameters == pytest.approx({"C": 5e4, "a": 0.3, "floor": 0.8}, rel=1e-3)
    (back,) = read_fits(write_fits(tmp_path / "fits.json", [fit]))
    assert float(back.predict({"size": 1e4})[0]) == pytest.approx(5**0.3 + 0.8, rel=1e-3)
    with pytest.raises(InputError, match="did you mean 'mine'"):
        find_law(f"{path}:mime")
    with pytest.raises(InputError, match="no such file"):
        find_law("nowhere.py:mine")


def test_a_hold_out_that_names_a_column_empty_for_another_method_costs_it_no_row():
    table = study_rows(method=["full"] * 30, rank=[""] * 30)
    fits = quick(table, hold_out='model_params > 1e10 or (method == "lora" and rank == 16)')
    assert fits[0].rows == quick(table, hold_out="model_params > 1e10")[0].rows
    assert fits[0].rows["dropped"] == 0
