"""The optimum: closed forms, the trap, agreement of back ends and with SciPy."""

import jax
import numpy as np
import pytest
from scipy.optimize import minimize

from scaling_jax.laws.law import find_law
from scaling_jax.laws.polish import BACK_ENDS, polish
from scaling_jax.laws.problem import Objective, bounds_of, make_problem, parameters_of, residuals, value_at
from scaling_jax.laws.search import search
from scaling_jax.laws.solve import best_point

SIZES, EXAMPLES = (
    axis.ravel() for axis in np.meshgrid(np.geomspace(1e9, 16e9, 5), np.geomspace(1e3, 1e6, 9), indexing="ij")
)
GRID = {"x": SIZES, "d": EXAMPLES}
TRUTHS = {
    "power": {"A": 12.0, "beta": 0.2, "E": 0.7},
    "multiplicative": {"A": 60.0, "alpha": 0.12, "beta": 0.2, "E": 0.7},
    "additive": {"A": 1500.0, "B": 60.0, "alpha": 0.35, "beta": 0.4, "E": 0.9},
    "rectified": {"B": 60.0, "D_l": 30.0, "beta": 0.5, "E": 0.9},
    "rectified_multiplicative": {"A": 1e5, "alpha": 0.35, "D_l": 30.0, "beta": 0.5, "E": 0.9},
    "score_log": {"A": 2.0, "alpha": 0.3, "beta": 1.6},
    "bottleneck": {"alpha_N": 0.3, "alpha_D": 0.4, "N_C": 1e9, "D_C": 2e4},
}


def problem_of(name: str, noise: float, seed: int, truth=None):
    law = find_law(name)
    objective = Objective(law)
    columns = {role: GRID[role] for role in law.role_names}
    random = np.random.default_rng(seed)
    loss = law.predict(truth or TRUTHS[name], columns) * np.exp(noise * random.standard_normal(len(SIZES)))
    return objective, make_problem(objective, columns, loss), columns, loss


def scipy_reference(columns, loss, starts, delta=1e-3) -> float:
    """The tight multi-start reference for the multiplicative law: analytic gradient, centred logs, scaled."""
    logs = {role: np.log(values) - np.log(values).mean() for role, values in columns.items()}
    target = np.log(loss)

    def value_and_slope(at):
        a, alpha, beta, e = at
        first = np.exp(a - alpha * logs["x"] - beta * logs["d"])
        total = first + np.exp(e)
        error = np.log(total) - target
        inside = np.abs(error) <= delta
        value = np.sum(np.where(inside, 0.5 * error**2, delta * (np.abs(error) - 0.5 * delta)))
        by_error = np.where(inside, error, delta * np.sign(error)) / total
        slope = by_error @ np.stack(
            [first, -first * logs["x"], -first * logs["d"], np.full_like(first, np.exp(e))], 1
        )
        return 1e3 * value, 1e3 * slope

    options = {"ftol": 1e-15, "gtol": 1e-12, "maxiter": 300}
    bounds = [(None, None), (-1.0, 4.0), (0.0, 4.0), (-30.0, None)]
    found = [
        minimize(value_and_slope, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).fun
        for start in starts
    ]
    return min(found) / 1e3


def starts(count: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    low, high = np.array([-4.0, 0.0, 0.0, -3.0]), np.array([2.0, 1.5, 1.5, 0.5])
    return low + (high - low) * random.random((count, 4))


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_noise_free_data_give_back_the_law(name):
    objective, problem, _, _ = problem_of(name, 0.0, 0)
    best = best_point(objective, problem)
    found = parameters_of(objective, problem, best.point, np)
    for parameter, truth in TRUTHS[name].items():
        assert found[parameter][0] == pytest.approx(truth, rel=1e-4), parameter
    assert best.value < 1e-12


@pytest.mark.parametrize("seed", range(100, 103))
def test_never_above_the_tight_scipy_reference(seed):
    random = np.random.default_rng(seed)
    truth = {
        "A": float(10 ** random.uniform(1, 4)),
        "alpha": random.uniform(0.05, 0.5),
        "beta": random.uniform(0.03, 0.4),
        "E": random.uniform(0.1, 1.5),
    }
    objective, problem, columns, loss = problem_of("multiplicative", 0.01, seed, truth)
    assert best_point(objective, problem).value <= scipy_reference(columns, loss, starts(5, seed)) * (
        1 + 1e-8
    )


def test_the_trap_does_not_catch_us():
    """Weak exponents on raw coordinates have a second basin in which one-start fits end (found by search)."""
    objective, problem, columns, loss = problem_of("multiplicative", 0.01, TRAP_SEED, TRAP)
    raw = {role: np.log(values) for role, values in columns.items()}

    def raw_value(at):
        a, alpha, beta, e = at
        with np.errstate(over="ignore"):
            total = np.exp(a - alpha * raw["x"] - beta * raw["d"]) + np.exp(e)
            error = np.abs(np.log(total) - np.log(loss))
        return np.sum(np.where(error <= 1e-3, 0.5 * error**2, 1e-3 * (error - 0.5e-3)))

    caught = minimize(raw_value, [5.0, 0.5, 0.5, 0.0], method="L-BFGS-B").fun
    value = best_point(objective, problem).value
    reference = scipy_reference(columns, loss, starts(8, 7))
    assert caught > 1.5 * reference
    assert value <= reference * (1 + 1e-9)


TRAP, TRAP_SEED = {"A": 60.0, "alpha": 0.12, "beta": 0.20, "E": 0.7}, 3


@pytest.mark.parametrize("name", sorted(TRUTHS))
def test_back_ends_reach_the_same_optimum(name):
    objective, problem, _, _ = problem_of(name, 0.01, 5)
    points, values = search(objective, problem, iterations=25)
    found = {back_end: polish(objective, problem, points[0], back_end) for back_end in BACK_ENDS}
    best = min(value for _, value in found.values())
    for back_end, (_, value) in found.items():
        assert value == pytest.approx(best, rel=1e-6), back_end
        assert value <= values[0]


def test_a_parameter_may_end_at_its_bound():
    """Without a floor in the data the floor is zero, exactly, and the polish keeps it there."""
    objective, problem, _, _ = problem_of("power", 0.005, 2, {"A": 8.0, "beta": 0.3, "E": 0.0})
    truth_value = float(value_at(objective, problem, np.array([1.0, 0.0, 0.3]), np))
    best = best_point(objective, problem)
    lower, upper = bounds_of(objective)
    assert np.all((lower <= best.point) & (best.point <= upper))
    assert best.value < truth_value


def test_linear_residuals_are_of_the_loss():
    made, problem, columns, loss = problem_of("power", 0.01, 1)
    objective = Objective(made.law, residual="linear")
    point = np.array([0.4, 0.6, 0.2])
    parameters = {name: value[0] for name, value in parameters_of(objective, problem, point, np).items()}
    gap = made.law.predict(parameters, columns) - loss
    np.testing.assert_allclose(residuals(objective, problem, point, np)[: len(loss)], gap, rtol=1e-9)


def test_scale_of_the_units_does_not_matter():
    objective, problem, columns, loss = problem_of("multiplicative", 0.01, 4)
    other = make_problem(objective, {"x": columns["x"] * 1e-9, "d": columns["d"] * 1e3}, loss)
    one, two = (best_point(objective, each) for each in (problem, other))
    assert one.value == pytest.approx(two.value, rel=1e-9)
    np.testing.assert_allclose(one.point, two.point, rtol=1e-4)


def test_float64_stays_inside():
    objective, problem, _, _ = problem_of("power", 0.01, 1)
    best_point(objective, problem)
    assert not jax.config.jax_enable_x64
    assert jax.numpy.ones(3).dtype == np.float32
