"""One fitting problem in coordinates in which it is well conditioned.

Raw parameters are badly conditioned: A in A X^-alpha D^-beta is the loss at X = D = 1, many orders
of magnitude outside the data, so that A and the exponents move together. The coordinate of a
linear parameter is therefore the size of its term **at the centre of the data** (the geometric mean
of each column), divided by the median loss. That is centring the logs, for any law that declares
its linear parameters. Nonlinear parameters are their own coordinates, or their logarithms.

Each function works with NumPy and, traced inside `jax.enable_x64`, with JAX: `array` says which.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax.laws.law import Law


class Problem(NamedTuple):
    """The data of one fit, as arrays; rows are padded with weight 0.

    Attributes:
        columns, logs: role -> (rows,), the sizes and their logarithms.
        loss: (rows,), positive.
        weights: (rows,), 0 for padding.
        centre: role -> scalar, the mean of the logarithms of the fitted rows.
        scale: scalar, the median loss.
        delta: scalar, where the Huber loss turns from square to absolute.
    """

    columns: Mapping[str, jax.Array]
    logs: Mapping[str, jax.Array]
    loss: jax.Array
    weights: jax.Array
    centre: Mapping[str, jax.Array]
    scale: jax.Array
    delta: jax.Array


def make_problem(law: Law, columns: Mapping[str, np.ndarray], loss: np.ndarray, delta: float) -> Problem:
    """Pads to a power of two rows, so that groups of similar size share compiled code."""
    rows = len(loss)
    padded = max(32, 1 << (rows - 1).bit_length())
    fill = padded - rows

    def pad(values, value):
        return np.concatenate([np.asarray(values, np.float64), np.full(fill, value)])

    centre = {role: np.mean(np.log(columns[role])) for role in law.role_names}
    padded_columns = {role: pad(columns[role], np.exp(centre[role])) for role in law.role_names}
    return Problem(
        columns=padded_columns,
        logs={role: np.log(values) for role, values in padded_columns.items()},
        loss=pad(loss, np.median(loss)),
        weights=pad(np.ones(rows), 0.0),
        centre=centre,
        scale=np.float64(np.median(loss)),
        delta=np.float64(delta),
    )


def parameters_of(law: Law, problem: Problem, point, array=jnp) -> dict:
    """The law's parameters at a point, (..., coordinates) -> name: (...); `array` is numpy or jax.numpy."""
    free = _nonlinear(law, point[..., len(law.linear) :], array)
    if not law.linear:
        return free
    at_centre = law.log_terms(free, problem.centre)
    linear = {
        name: point[..., position] * problem.scale * array.exp(-at_centre[position])
        for position, name in enumerate(law.linear)
    }
    return {name: (linear | free)[name] for name in law.parameter_names}


def bounds_of(law: Law, problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the coordinates, each (coordinates,).

    Linear parameters are bounded by 0 alone: the bound of a coordinate must not move with the exponents.
    """
    lower, upper = [0.0] * len(law.linear), [np.inf] * len(law.linear)
    for parameter in law.nonlinear:
        as_is = parameter.transform != "log"
        with np.errstate(divide="ignore"):
            lower.append(parameter.lower if as_is else np.log(parameter.lower))
            upper.append(parameter.upper if as_is else np.log(parameter.upper))
    return np.array(lower), np.array(upper)


def centred_terms(law: Law, problem: Problem, nonlinear, array=jnp):
    """The terms over their value at the centre, times the scale, (..., nonlinear) -> (..., rows, linear)."""
    free = _nonlinear(law, nonlinear, array)
    per_row = {name: value[..., None] for name, value in free.items()}
    shape = (*nonlinear.shape[:-1], *problem.loss.shape)
    terms = zip(law.log_terms(per_row, problem.logs), law.log_terms(per_row, problem.centre), strict=True)
    ratios = [array.broadcast_to(array.exp(term - centre), shape) for term, centre in terms]
    return problem.scale * array.stack(ratios, axis=-1)


def predicted(law: Law, problem: Problem, point, array=jnp):
    """The loss by the law at every row, (..., coordinates) -> (..., rows)."""
    count = len(law.linear)
    if count:
        terms = centred_terms(law, problem, point[..., count:], array)
        return array.sum(terms * point[..., None, :count], axis=-1)
    per_row = {name: value[..., None] for name, value in _nonlinear(law, point, array).items()}
    return law.predict(per_row, problem.columns, array)


def residuals(law: Law, residual: str, problem: Problem, point, array=jnp):
    """Predicted minus measured, of the logs (`residual` "log") or of the losses ("linear"), (..., rows)."""
    values = predicted(law, problem, point, array)
    if residual == "log":
        return array.log(array.maximum(values, 1e-300)) - array.log(problem.loss)
    return values - problem.loss


def huber(residual, delta, array=jnp):
    """r^2/2 up to delta, then delta (|r| - delta/2)."""
    size = array.abs(residual)
    return array.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def objective(law: Law, residual: str, problem: Problem, point, array=jnp):
    """The weighted sum of Huber losses of the residuals, (..., coordinates) -> (...)."""
    lost = huber(residuals(law, residual, problem, point, array), problem.delta, array)
    return array.sum(problem.weights * lost, axis=-1)


# These programs run for milliseconds: half of a cold fit was LLVM's optimizer.
COMPILER_OPTIONS = {"xla_llvm_disable_expensive_passes": True}


@functools.partial(jax.jit, static_argnames=("law", "residual"), compiler_options=COMPILER_OPTIONS)
def _slopes(law, residual, problem, point):
    return jax.jacfwd(functools.partial(residuals, law, residual, problem))(point)


def slopes_at(law: Law, residual: str, problem: Problem, point: np.ndarray) -> np.ndarray:
    """Derivatives of the residuals by the coordinates, (padded rows, coordinates)."""
    with jax.enable_x64(True):
        return np.asarray(_slopes(law, residual, problem, np.asarray(point, np.float64)))


def _nonlinear(law: Law, nonlinear, array) -> dict:
    found = {}
    for position, parameter in enumerate(law.nonlinear):
        value = nonlinear[..., position]
        found[parameter.name] = array.exp(value) if parameter.transform == "log" else value
    return found
