"""Shared and frozen parameters, weights, the three losses, the joint recipe."""

import dataclasses

import numpy as np
import pytest
from scipy.optimize import linprog, minimize

from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.joint import fit_joint
from scaling_jax.laws.law import find_law
from scaling_jax.laws.problem import (
    Objective,
    make_problem,
    parameters_of,
    point_of,
    predicted,
    value_at,
)
from scaling_jax.laws.solve import best_point
from scaling_jax.laws.table import table_of

EXAMPLES = np.geomspace(1e3, 1e6, 9)
QUICK = Settings(bootstrap=40)


def two_factors(noise: float = 0.01, seed: int = 0):
    """Model size and pretraining tokens with the same beta and E: (columns, loss, group)."""
    law = find_law("multiplicative")
    random = np.random.default_rng(seed)
    parts = []
    for scale, alpha, sizes in (
        (2e4, 0.35, np.geomspace(1e9, 16e9, 5)),
        (2e3, 0.2, np.geomspace(8e10, 3e11, 5)),
    ):
        x, d = (axis.ravel() for axis in np.meshgrid(sizes, EXAMPLES, indexing="ij"))
        loss = law.predict({"A": scale, "alpha": alpha, "beta": 0.3, "E": 0.9}, {"x": x, "d": d})
        parts.append((x, d, loss * np.exp(noise * random.standard_normal(len(x)))))
    x, d, loss = (np.concatenate(column) for column in zip(*parts, strict=True))
    return {"x": x, "d": d}, loss, np.repeat([0, 1], 45)


def test_shared_parameters_against_scipy():
    columns, loss, group = two_factors()
    objective = Objective(find_law("multiplicative"), groups=2, shared=("beta", "E"))
    problem = make_problem(objective, columns, loss, group=group)
    best = best_point(objective, problem)
    centred = {role: np.log(values) for role, values in columns.items()}
    centred["x"] = centred["x"] - np.array([centred["x"][group == g].mean() for g in (0, 1)])[group]
    centred["d"] = centred["d"] - centred["d"].mean()

    def value(at):
        first = np.exp(at[group]) * np.exp(-at[2 + group] * centred["x"] - at[4] * centred["d"])
        error = np.abs(np.log(first + np.exp(at[5])) - np.log(loss))
        return 1e3 * np.sum(np.where(error <= 1e-3, 0.5 * error**2, 1e-3 * (error - 0.5e-3)))

    start = np.array([-1.0, -1.0, 0.3, 0.3, 0.3, -0.1])
    for _ in range(4):
        found = minimize(
            value, start, method="Nelder-Mead", options={"maxiter": 20_000, "xatol": 1e-12, "fatol": 1e-14}
        )
        start = found.x
    assert best.value <= found.fun / 1e3 * (1 + 1e-7)
    shared = parameters_of(objective, problem, best.point, np)
    assert shared["beta"][0] == shared["beta"][1] and shared["E"][0] == shared["E"][1]
    assert shared["alpha"] == pytest.approx(found.x[2:4], rel=1e-3)


def test_coordinates_and_parameters_are_inverse():
    columns, loss, group = two_factors()
    for shared in ((), ("beta", "E"), ("A", "alpha")):
        objective = Objective(find_law("multiplicative"), groups=2, shared=shared)
        problem = make_problem(objective, columns, loss, group=group)
        point = np.linspace(0.2, 0.9, objective.coordinates)
        back = point_of(objective, problem, parameters_of(objective, problem, point, np))
        np.testing.assert_allclose(
            predicted(objective, problem, back, np), predicted(objective, problem, point, np)
        )
        if "A" not in shared:
            np.testing.assert_allclose(back, point)


def test_frozen_parameters_are_not_fitted():
    columns, loss, group = two_factors()
    first = {role: values[group == 0] for role, values in columns.items()}
    objective = Objective(find_law("multiplicative"), frozen=("beta", "E"))
    problem = make_problem(
        objective, first, loss[group == 0], frozen={"beta": np.array([0.25]), "E": np.array([0.8])}
    )
    best = best_point(objective, problem)
    found = parameters_of(objective, problem, best.point, np)
    assert found["beta"][0] == 0.25 and found["E"][0] == 0.8
    free = Objective(find_law("multiplicative"))
    assert best.value > best_point(free, make_problem(free, first, loss[group == 0])).value
    # Nothing near it is better: it is the optimum of what was left free.
    for move in (1e-3, -1e-3):
        for coordinate in range(objective.coordinates):
            near = best.point.copy()
            near[coordinate] += move
            assert value_at(objective, problem, near, np) > best.value


def test_share_through_a_table():
    columns, loss, group = two_factors()
    table = table_of("t", {**columns, "loss": loss, "factor": group})
    roles = {"x": "x", "d": "d"}
    fits = fit_table(table, "multiplicative", roles, by=("factor",), share=("beta", "E"), settings=QUICK)
    assert fits[0].parameters["beta"] == fits[1].parameters["beta"]
    assert fits[0].intervals["E"] == fits[1].intervals["E"]
    assert fits[0].shared == ("beta", "E")
    values = [fit.objective["value"] for fit in fits]
    assert sum(values) == pytest.approx(fits[0].objective["joint_value"])
    apart = fit_table(table, "multiplicative", roles, by=("factor",), settings=QUICK)
    assert sum(fit.objective["value"] for fit in apart) < sum(values)

    # What is shared is known better.
    def width(fit):
        return fit.intervals["beta"][1] - fit.intervals["beta"][0]

    assert width(fits[1]) < width(apart[1])
    with pytest.raises(InputError, match="no parameter 'bta'"):
        fit_table(table, "multiplicative", roles, by=("factor",), share=("bta",))
    with pytest.raises(InputError, match="--share needs --by"):
        fit_table(table, "multiplicative", roles, where="factor == 0", share=("beta",))


def test_weights_count_as_repeated_rows():
    d = np.geomspace(1e2, 1e5, 12)
    random = np.random.default_rng(0)
    loss = (12 * d**-0.2 + 0.7) * np.exp(0.01 * random.standard_normal(12))
    times = random.integers(1, 4, 12)
    weighted = table_of("t", {"d": d, "loss": loss, "n": times})
    repeated = table_of("t", {"d": np.repeat(d, times), "loss": np.repeat(loss, times)})
    one = fit_table(weighted, "power", {"d": "d"}, weights="n", settings=QUICK)[0]
    two = fit_table(repeated, "power", {"d": "d"}, settings=QUICK)[0]
    assert one.parameters == pytest.approx(two.parameters, rel=1e-5)
    with pytest.raises(InputError, match="column 'n': 0 is not above zero"):
        fit_table(
            table_of("t", {"d": d, "loss": loss, "n": [0] + [1] * 11}), "power", {"d": "d"}, weights="n"
        )


def test_absolute_loss_against_a_linear_program():
    """log S = log C - k L is linear: least absolute deviations are a linear program."""
    x = np.linspace(1.0, 4.0, 25)
    random = np.random.default_rng(1)
    score = 60 * np.exp(-0.5 * x + 0.1 * random.standard_t(2, 25))
    objective = Objective(find_law("loss_to_score"), "log", "absolute")
    problem = make_problem(objective, {"x": x}, score)
    best = best_point(objective, problem)
    rows = len(x)
    design = np.stack([np.ones(rows), -x], axis=1)
    limits = np.block([[design, -np.eye(rows)], [-design, -np.eye(rows)]])
    target = np.concatenate([np.log(score), -np.log(score)])
    costs = np.concatenate([np.zeros(2), np.ones(rows)])
    bounds = [(None, None)] * 2 + [(0, None)] * rows
    exact = linprog(costs, limits, target, bounds=bounds)
    assert best.value == pytest.approx(exact.fun, rel=1e-5)


def test_squared_loss_against_scipy():
    from scipy.optimize import curve_fit

    d = np.geomspace(1e2, 1e6, 20)
    loss = 12 * d**-0.3 + 0.7 + 0.01 * np.random.default_rng(2).standard_normal(20)
    table = table_of("t", {"d": d, "loss": loss})
    settings = Settings(residual="linear", loss="squared", bootstrap=400)
    fit = fit_table(table, "power", {"d": "d"}, settings=settings)[0]
    found, covariance = curve_fit(lambda d, a, b, e: a * d**-b + e, d, loss, p0=[10, 0.3, 0.5])
    assert list(fit.parameters.values()) == pytest.approx(list(found), rel=1e-4)
    assert list(fit.standard_errors.values()) == pytest.approx(np.sqrt(np.diagonal(covariance)), rel=0.3)


def study_rows(noise=0.003, seed=0):
    """A small grid: model sizes, pretraining lengths and ranks, two methods."""
    random = np.random.default_rng(seed)
    rows = []
    for method, beta in (("full", 0.3), ("lora", 0.2)):
        cells = [(n, 4e9, 8) for n in (1e7, 4e7, 1.6e8)]
        cells += [(1e7, tokens, 8) for tokens in (1e9, 2e9)]
        cells += [(1e7, 4e9, rank) for rank in (2, 32)] if method == "lora" else []
        for n, tokens, rank in cells:
            for d in np.geomspace(1e3, 1e5, 6):
                reducible = 300 * n**-0.25 * (tokens / 4e9) ** -0.15 * (rank / 8) ** -0.01 * d**-beta
                loss = (reducible + 0.8) * np.exp(noise * random.standard_normal())
                rows.append((method, n, tokens, rank if method == "lora" else "", d, loss))
    names = ("method", "model_params", "pretrain_tokens", "tuning_size", "finetune_examples", "loss")
    return dict(zip(names, zip(*rows, strict=True), strict=True))


def test_the_joint_recipe():
    fits = fit_joint(table_of("study", study_rows()), settings=Settings(bootstrap=100))
    found = {(fit.group["method"], fit.group["factor"]): fit for fit in fits}
    assert list(found) == [
        ("full", "model_size"),
        ("full", "pretraining"),
        ("lora", "model_size"),
        ("lora", "pretraining"),
        ("lora", "tuning_size"),
    ]
    for method, beta in (("full", 0.3), ("lora", 0.2)):
        size, pretraining = found[method, "model_size"], found[method, "pretraining"]
        assert size.parameters["beta"] == pretraining.parameters["beta"] == pytest.approx(beta, rel=0.15)
        assert size.parameters["E"] == pretraining.parameters["E"]
        assert size.parameters["alpha"] == pytest.approx(0.25, rel=0.2)
        assert pretraining.parameters["alpha"] == pytest.approx(0.15, rel=0.25)
    last = found["lora", "tuning_size"]
    assert last.parameters["beta"] == found["lora", "model_size"].parameters["beta"]
    assert last.frozen == ("beta", "E")
    assert last.parameters["alpha"] == pytest.approx(0.01, abs=0.01)
    # Stage 1's uncertainty of beta is stage 2's.
    assert last.intervals["beta"] == found["lora", "model_size"].intervals["beta"]
    assert last.rows["fitted"] == 18 and found["lora", "model_size"].rows["fitted"] == 18


def test_stage_one_is_final_for_its_factors():
    """Given beta and E the factors part: refitting one with both frozen changes nothing (Zhang et al.)."""
    data = study_rows()
    fits = fit_joint(table_of("study", data), settings=QUICK)
    rows = table_of("study", data).where('method == "full" and pretrain_tokens == 4e9')
    objective = Objective(find_law("multiplicative"), frozen=("beta", "E"))
    columns = {"x": rows.numbers("model_params"), "d": rows.numbers("finetune_examples")}
    frozen = {name: np.array([fits[0].parameters[name]]) for name in ("beta", "E")}
    problem = make_problem(objective, columns, rows.numbers("loss"), frozen=frozen)
    again = parameters_of(objective, problem, best_point(objective, problem).point, np)
    assert again["alpha"][0] == pytest.approx(fits[0].parameters["alpha"], rel=1e-4)
    assert again["A"][0] == pytest.approx(fits[0].parameters["A"], rel=1e-3)


def test_the_recipe_refuses_what_it_cannot_do():
    data = study_rows()
    with pytest.raises(InputError, match="no column 'finetune_examples'"):
        fit_joint(table_of("t", {key: value for key, value in data.items() if key != "finetune_examples"}))
    with pytest.raises(InputError, match="two model sizes or two pretraining lengths"):
        fit_joint(table_of("t", data), where="model_params == 1e7 and pretrain_tokens == 4e9")
    with pytest.raises(InputError, match="roles x and d"):
        fit_joint(table_of("t", data), "power")
    with pytest.raises(InputError, match="every parameter is frozen"):
        objective = Objective(find_law("power"), frozen=("A", "beta", "E"))
        columns = {"d": EXAMPLES}
        frozen = {name: np.ones(1) for name in objective.frozen}
        best_point(objective, make_problem(objective, columns, EXAMPLES**-0.1, frozen=frozen))


def test_shared_fits_scale_with_the_groups():
    """Nine groups with a shared exponent: more coordinates than the unrolled solver takes."""
    random = np.random.default_rng(0)
    group = np.repeat(np.arange(9), 12)
    d = np.tile(np.geomspace(1e2, 1e6, 12), 9)
    scale, floor = np.linspace(5, 20, 9)[group], np.linspace(0.5, 1.5, 9)[group]
    loss = (scale * d**-0.25 + floor) * np.exp(0.003 * random.standard_normal(108))
    objective = Objective(find_law("power"), groups=9, shared=("beta",))
    problem = make_problem(objective, {"d": d}, loss, group=group)
    assert objective.coordinates == 19
    best = best_point(objective, problem)
    found = parameters_of(objective, problem, best.point, np)
    assert found["beta"][0] == pytest.approx(0.25, rel=0.05)
    truth = {"A": np.linspace(5, 20, 9), "beta": np.full(9, 0.25), "E": np.linspace(0.5, 1.5, 9)}
    assert best.value < float(value_at(objective, problem, point_of(objective, problem, truth), np))
    assert dataclasses.is_dataclass(best)


def test_each_group_has_its_own_noise():
    """A quiet and a noisy group that share an exponent: the quiet one's floor stays well known."""
    random = np.random.default_rng(0)
    d = np.tile(np.geomspace(1e2, 1e6, 12), 2)
    group = np.repeat([0, 1], 12)
    loss = (12 * d**-0.3 + 0.8) * np.exp(np.where(group, 0.03, 0.001) * random.standard_normal(24))
    table = table_of("t", {"d": d, "loss": loss, "g": group})
    settings = Settings(bootstrap=200)
    quiet, noisy = fit_table(table, "power", {"d": "d"}, by=("g",), share=("beta",), settings=settings)

    def width(fit):
        return fit.intervals["E"][1] - fit.intervals["E"][0]

    assert width(noisy) > 3 * width(quiet)


def test_clusters_must_be_more_than_parameters():
    d = np.tile(np.geomspace(1e2, 1e5, 8), 3)
    rows = {"d": d, "loss": 12 * d**-0.2 + 0.7, "seed": np.repeat([0, 1, 2], 8)}
    with pytest.raises(InputError, match="3 clusters cannot show how uncertain 3 parameters are"):
        fit_table(table_of("t", rows), "power", {"d": "d"}, cluster="seed", settings=QUICK)
    rows["seed"] = np.tile(np.arange(8), 3)
    simulated = Settings(bootstrap=40, intervals="simulated")
    with pytest.raises(InputError, match="cannot be simulated"):
        fit_table(table_of("t", rows), "power", {"d": "d"}, cluster="seed", settings=simulated)


def test_rows_of_no_factor_and_missing_sizes_are_told():
    data = study_rows()
    data = {key: list(values) for key, values in data.items()}
    data["finetune_examples"][0] = ""
    data["pretrain_tokens"][-1] = "NA"
    fits = fit_joint(table_of("study", data), settings=QUICK)
    assert fits[0].dropped_reasons == {"no value in column 'finetune_examples'": 1}
    assert any("belong to no factor" in note for note in fits[-1].notes)
