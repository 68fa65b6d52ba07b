"""The answer of record: a quasi-Newton polish of the best points of the search.

The objective is divided by its value at the start and the coordinates are whitened by the
Gauss-Newton matrix there, so that a library's tolerances mean what they say: on the raw problem
(objective near 1e-4) the default tolerances stop early, sometimes at the wrong optimum.

`minimise` is the only place that knows an optimisation library.
"""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax.laws.problem import (
    QUICKEST_OPTIONS,
    Objective,
    Problem,
    bounds_of,
    float64_on_cpu,
    residuals,
    slopes_at,
    value_at,
)

BACK_ENDS = ("jaxopt", "optax", "scipy")
_ITERATIONS = 200
_ROUNDS = 4


def polish(objective: Objective, problem: Problem, point: np.ndarray, back_end: str = "jaxopt"):
    """Improves one point; coordinates that lie at a bound stay there.

    Returns:
        (point, value), never worse than what was given.
    """
    lower, upper = bounds_of(objective)
    point = np.clip(point, lower, upper)
    value = float(value_at(objective, problem, point, np))
    for _ in range(_ROUNDS):
        frame = _frame(objective, problem, point)
        with float64_on_cpu():
            white = np.asarray(minimise(objective, problem, frame, back_end))
        reached = _from_white(white, frame)
        moved = np.clip(reached, lower, upper)
        with np.errstate(all="ignore"):
            after = float(value_at(objective, problem, moved, np))
        if not after <= value:
            break
        point, value = moved, after
        if np.array_equal(moved, reached):
            break
        # A coordinate ran into its bound: hold it there and let the others settle.
    return point, value


def minimise(objective: Objective, problem: Problem, frame, back_end: str) -> jax.Array:
    """Minimises `_white_objective` from the origin by the library named; (coordinates,)."""
    return {"jaxopt": _by_jaxopt, "optax": _by_optax, "scipy": _by_scipy}[back_end](objective, problem, frame)


def _frame(objective, problem, point):
    """(origin, whitening matrix, objective at the origin); rows of coordinates at a bound are zero."""
    lower, upper = bounds_of(objective)
    free = np.where((point <= lower) | (point >= upper), 0.0, 1.0)
    errors = residuals(objective, problem, point, np)
    slopes = slopes_at(objective, problem, point) * free
    robust = problem.weights * np.minimum(1.0, problem.delta / np.maximum(np.abs(errors), 1e-300))
    value = np.maximum(value_at(objective, problem, point, np), 1e-30)
    matrix = (slopes.T * robust) @ slopes / value
    size = np.sqrt(np.diagonal(matrix))
    size = np.where(size > 0, size, 1.0)
    scaled = matrix / np.outer(size, size) + np.diag(1.0 - free)
    eigenvalues, vectors = np.linalg.eigh(scaled)
    whitening = (vectors / np.sqrt(np.maximum(eigenvalues, 1e-10))) * (free / size)[:, None]
    return point, whitening, value


def _from_white(white, frame):
    origin, whitening, _ = frame
    return origin + whitening @ white


def _white_objective(white, objective, problem, frame):
    value = value_at(objective, problem, _from_white(white, frame)) / frame[2]
    # Far outside the data's range a line search may leave the numbers; a large finite value turns it back.
    return jnp.where(jnp.isfinite(value), value, 1e30)


@functools.lru_cache(maxsize=64)
def _jaxopt_runner(objective):
    with warnings.catch_warnings():
        # "JAXopt is no longer maintained": known, and why it is behind `minimise`.
        warnings.simplefilter("ignore", DeprecationWarning)
        import jaxopt

    def run(white, problem, frame):
        solver = jaxopt.LBFGS(
            lambda w, p, f: _white_objective(w, objective, p, f),
            maxiter=_ITERATIONS,
            # Of the gradient where the objective is 1: what is left below it is rounding.
            tol=1e-7,
            # Compiles in a third of the time of "zoom". On raw coordinates it finds wrong optima; from the
            # search's optimum in whitened ones it agrees with the other back ends to 12 digits (tested).
            linesearch="backtracking",
            implicit_diff=False,
        )
        return solver.run(white, problem, frame).params

    return jax.jit(run, compiler_options=QUICKEST_OPTIONS)


def _by_jaxopt(objective, problem, frame):
    return _jaxopt_runner(objective)(np.zeros(len(frame[0])), problem, frame)


@functools.partial(jax.jit, static_argnames=("objective",))
def _by_optax(objective, problem, frame):
    import optax

    solver = optax.lbfgs()

    def value_of(white):
        return _white_objective(white, objective, problem, frame)

    value_and_slope = optax.value_and_grad_from_state(value_of)

    def step(_, carried):
        white, state = carried
        value, slope = value_and_slope(white, state=state)
        updates, state = solver.update(slope, state, white, value=value, grad=slope, value_fn=value_of)
        return optax.apply_updates(white, updates), state

    start = jnp.zeros(len(frame[0]))
    return jax.lax.fori_loop(0, _ITERATIONS, step, (start, solver.init(start)))[0]


def _by_scipy(objective, problem, frame):
    from scipy.optimize import minimize

    slope = _value_and_slope(objective)
    found = minimize(
        lambda white: tuple(np.asarray(part, np.float64) for part in slope(white, problem, frame)),
        np.zeros(len(frame[0])),
        jac=True,
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-12, "maxiter": 5000},
    )
    return jnp.asarray(found.x)


@functools.lru_cache(maxsize=64)
def _value_and_slope(objective):
    return jax.jit(jax.value_and_grad(lambda w, p, f: _white_objective(w, objective, p, f)))
