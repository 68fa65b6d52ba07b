"""One fitting problem in coordinates in which it is well conditioned.

Raw parameters are badly conditioned: A in A X^-alpha D^-beta is the loss at X = D = 1, many orders
of magnitude outside the data, so that A and the exponents move together. The coordinate of a
linear parameter is therefore the size of its term **at the centre of the data** (the geometric mean
of each column), divided by the median loss. That is centring the logs, for any law that declares
its linear parameters. Nonlinear parameters are their own coordinates, or their logarithms.

Rows may belong to several groups that share some parameters: a shared parameter has one coordinate,
any other one a coordinate per group, and a frozen one none, as its value is part of the data.

Each function works with NumPy and, traced inside `float64_on_cpu`, with JAX: `array` says which.
"""

import contextlib
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from scaling_jax.laws.law import Law, Parameter

RESIDUALS = ("log", "linear")
LOSSES = ("huber", "squared", "absolute")
# A Huber loss that never leaves its square, or leaves it at once.
_SQUARED_DELTA, _ABSOLUTE_DELTA = 1e30, 1e-7


@dataclass(frozen=True)
class Objective:
    """What is minimised, apart from the data; hashable, so that compiled programs are kept by it.

    Attributes:
        law: the law.
        residual: "log" (predicted minus measured, of the logarithms) or "linear" (of the losses).
        loss: "huber", "squared" or "absolute", of the residuals.
        groups: how many groups of rows have parameters of their own.
        shared: names of the parameters that all groups have in common.
        frozen: names of the parameters that are given, not fitted.
    """

    law: Law
    residual: str = "log"
    loss: str = "huber"
    groups: int = 1
    shared: tuple[str, ...] = ()
    frozen: tuple[str, ...] = ()

    @property
    def linear(self) -> tuple[str, ...]:
        """Linear parameters that are fitted, in order."""
        return tuple(name for name in self.law.linear if name not in self.frozen)

    @property
    def nonlinear(self) -> tuple[Parameter, ...]:
        """The other parameters that are fitted, in order."""
        return tuple(parameter for parameter in self.law.nonlinear if parameter.name not in self.frozen)

    @property
    def fitted(self) -> tuple[str, ...]:
        """Names of all fitted parameters, in the order of their coordinates."""
        return (*self.linear, *(parameter.name for parameter in self.nonlinear))

    def width(self, name: str) -> int:
        """How many coordinates a fitted parameter has."""
        return 1 if name in self.shared else self.groups

    @property
    def positions(self) -> dict[str, slice]:
        """Where the coordinates of each fitted parameter are."""
        found, first = {}, 0
        for name in self.fitted:
            found[name] = slice(first, first + self.width(name))
            first = found[name].stop
        return found

    @property
    def coordinates(self) -> int:
        """How many coordinates there are."""
        return sum(self.width(name) for name in self.fitted)

    def coordinate(self, name: str, group: int) -> int | None:
        """Which coordinate is that of a parameter in a group; None for a frozen one."""
        if name in self.frozen:
            return None
        return self.positions[name].start + (0 if name in self.shared else group)


class Problem(NamedTuple):
    """The data of one fit, as arrays; rows are padded with weight 0.

    Attributes:
        columns, logs: role -> (rows,), the sizes and their logarithms.
        loss: (rows,), positive where residuals are of logarithms.
        weights: (rows,), 0 for padding.
        group: (rows,), the group of each row.
        centre: role -> (groups,), the means of the logarithms of the fitted rows.
        frozen: name -> (groups,), values of the frozen parameters.
        scale: scalar, the median size of the losses.
        delta: scalar, where the Huber loss turns from square to absolute.
    """

    columns: Mapping[str, jax.Array]
    logs: Mapping[str, jax.Array]
    loss: jax.Array
    weights: jax.Array
    group: jax.Array
    centre: Mapping[str, jax.Array]
    frozen: Mapping[str, jax.Array]
    scale: jax.Array
    delta: jax.Array


def make_problem(
    objective: Objective,
    columns: Mapping[str, np.ndarray],
    loss: np.ndarray,
    delta: float = 1e-3,
    weights: np.ndarray | None = None,
    group: np.ndarray | None = None,
    frozen: Mapping[str, np.ndarray] | None = None,
    room: int = 0,
) -> Problem:
    """Pads to a power of two rows, so that tables of similar size share compiled code.

    Args:
        objective: what is minimised.
        columns: role -> (rows,), above zero.
        loss: (rows,).
        delta: of the Huber loss; the other losses take none.
        weights: (rows,), not negative; 1 for None.
        group: (rows,), 0 .. groups - 1; all 0 for None.
        frozen: name -> (groups,).
        room: rows that padding must at least make room for.
    """
    law, rows = objective.law, len(loss)
    group = np.zeros(rows, np.int32) if group is None else np.asarray(group, np.int32)
    logs = {role: np.log(np.asarray(columns[role], np.float64)) for role in law.role_names}
    members = np.bincount(group, minlength=objective.groups)
    centre = {
        role: np.bincount(group, values, minlength=objective.groups) / members
        for role, values in logs.items()
    }
    fill = max(32, 1 << (max(rows, room) - 1).bit_length()) - rows

    def pad(values, value):
        return np.concatenate([np.asarray(values), np.full(fill, value, np.asarray(values).dtype)])

    padded = {role: pad(values, centre[role][0]) for role, values in logs.items()}
    return Problem(
        columns={role: np.exp(values) for role, values in padded.items()},
        logs=padded,
        loss=pad(np.asarray(loss, np.float64), np.median(loss)),
        weights=pad(np.ones(rows) if weights is None else np.asarray(weights, np.float64), 0.0),
        group=pad(group, 0),
        centre=centre,
        frozen={name: np.asarray((frozen or {})[name], np.float64) for name in objective.frozen},
        scale=np.float64(np.median(np.abs(loss)) or 1.0),
        delta=np.float64({"squared": _SQUARED_DELTA, "absolute": _ABSOLUTE_DELTA}.get(objective.loss, delta)),
    )


def parameters_of(objective: Objective, problem: Problem, point, array=jnp) -> dict:
    """The law's parameters at a point, (..., coordinates) -> name: (..., groups)."""
    free = _nonlinear(objective, problem, point, array)
    found = dict(free)
    for name, term in zip(objective.law.linear, _at_centre(objective, problem, free, array), strict=True):
        if name in objective.frozen:
            found[name] = problem.frozen[name]
        else:
            found[name] = _coordinates(objective, name, point) * problem.scale * array.exp(-term)
    shape = (*point.shape[:-1], objective.groups)
    return {name: array.broadcast_to(found[name], shape) for name in objective.law.parameter_names}


def bounds_of(objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper bounds of the coordinates, each (coordinates,).

    Linear parameters are bounded by 0 alone: the bound of a coordinate must not move with the exponents.
    """
    lower, upper = [], []
    for name in objective.linear:
        lower += [0.0] * objective.width(name)
        upper += [np.inf] * objective.width(name)
    for parameter in objective.nonlinear:
        as_is = parameter.transform != "log"
        width = objective.width(parameter.name)
        with np.errstate(divide="ignore"):
            lower += [parameter.lower if as_is else np.log(parameter.lower)] * width
            upper += [parameter.upper if as_is else np.log(parameter.upper)] * width
    return np.array(lower), np.array(upper)


def term_ratios(objective: Objective, problem: Problem, nonlinear, array=jnp):
    """The terms of the fitted linear parameters over their value at the centre, times the scale.

    Args:
        nonlinear: name -> (..., groups), from `_nonlinear`, frozen ones among them.

    Returns:
        Name -> (..., rows).
    """
    terms = zip(
        objective.law.linear,
        _terms_at_rows(objective, problem, nonlinear, array),
        _at_centre(objective, problem, nonlinear, array),
        strict=True,
    )
    return {
        name: problem.scale * array.exp(term - _at_rows(objective, problem, centre))
        for name, term, centre in terms
        if name not in objective.frozen
    }


def frozen_part(objective: Objective, problem: Problem, nonlinear, array=jnp):
    """The part of the loss that comes from frozen linear parameters, (..., rows) or 0."""
    terms = zip(objective.law.linear, _terms_at_rows(objective, problem, nonlinear, array), strict=True)
    return sum(
        (
            _at_rows(objective, problem, problem.frozen[name]) * array.exp(term)
            for name, term in terms
            if name in objective.frozen
        ),
        0.0,
    )


def predicted(objective: Objective, problem: Problem, point, array=jnp):
    """The loss by the law at every row, (..., coordinates) -> (..., rows)."""
    free = _nonlinear(objective, problem, point, array)
    if not objective.law.linear:
        per_row = {name: _at_rows(objective, problem, value) for name, value in free.items()}
        values = objective.law.predict(per_row, problem.columns, array)
        return array.broadcast_to(values, (*point.shape[:-1], *problem.loss.shape))
    total = frozen_part(objective, problem, free, array)
    for name, ratio in term_ratios(objective, problem, free, array).items():
        total = total + _at_rows(objective, problem, _coordinates(objective, name, point)) * ratio
    return array.broadcast_to(total, (*point.shape[:-1], *problem.loss.shape))


def residuals(objective: Objective, problem: Problem, point, array=jnp):
    """Predicted minus measured, of the logs or of the losses, (..., rows)."""
    values = predicted(objective, problem, point, array)
    if objective.residual == "log":
        return array.log(array.maximum(values, 1e-300)) - array.log(problem.loss)
    return values - problem.loss


def huber(residual, delta, array=jnp):
    """r^2/2 up to delta, then delta (|r| - delta/2)."""
    size = array.abs(residual)
    return array.where(size <= delta, 0.5 * size**2, delta * (size - 0.5 * delta))


def value_at(objective: Objective, problem: Problem, point, array=jnp):
    """The weighted sum of losses of the residuals, (..., coordinates) -> (...).

    The sum of Huber losses, of squares, or of absolute values (short of half of 1e-7 a row).
    """
    lost = huber(residuals(objective, problem, point, array), problem.delta, array)
    unit = {"huber": 1.0, "squared": 2.0, "absolute": 1.0 / _ABSOLUTE_DELTA}[objective.loss]
    return unit * array.sum(problem.weights * lost, axis=-1)


# These programs run for milliseconds; most of a cold fit is their compilation. Options of a jaxlib newer than
# those tested may be refused by it, so it gets none.
_TESTED = jax.__version_info__ < (0, 11)
COMPILER_OPTIONS = (
    {"xla_llvm_disable_expensive_passes": True, "xla_cpu_use_fusion_emitters": False} if _TESTED else {}
)
QUICKEST_OPTIONS = (
    {"xla_backend_optimization_level": 0, "xla_cpu_use_fusion_emitters": False} if _TESTED else {}
)


@contextlib.contextmanager
def float64_on_cpu():
    """Within it JAX computes in float64 and on the processor: accelerators gain nothing, a TPU has none."""
    try:
        processor = jax.devices("cpu")[0]
    except RuntimeError:
        # JAX was told to see an accelerator alone.
        processor = None
    with jax.enable_x64(True), jax.default_device(processor):
        yield


@functools.partial(jax.jit, static_argnames=("objective",), compiler_options=QUICKEST_OPTIONS)
def _slopes(objective, problem, point):
    return jax.jacfwd(functools.partial(residuals, objective, problem))(point)


def slopes_at(objective: Objective, problem: Problem, point: np.ndarray) -> np.ndarray:
    """Derivatives of the residuals by the coordinates, (padded rows, coordinates)."""
    with float64_on_cpu():
        return np.asarray(_slopes(objective, problem, np.asarray(point, np.float64)))


def point_of(objective: Objective, problem: Problem, parameters: Mapping[str, np.ndarray]) -> np.ndarray:
    """The coordinates of parameters, name: (groups,) -> (coordinates,); the mean for a shared one."""
    free = {p.name: np.asarray(parameters[p.name], np.float64) for p in objective.law.nonlinear}
    centres = dict(zip(objective.law.linear, _at_centre(objective, problem, free, np), strict=True))
    point = []
    for name in objective.linear:
        values = np.asarray(parameters[name]) / problem.scale * np.exp(centres[name])
        point.append(np.mean(values, keepdims=True) if name in objective.shared else values)
    for parameter in objective.nonlinear:
        values = free[parameter.name]
        values = np.log(values) if parameter.transform == "log" else values
        point.append(np.mean(values, keepdims=True) if parameter.name in objective.shared else values)
    return np.concatenate(point) if point else np.zeros(0)


def nonlinear_at(objective: Objective, problem: Problem, coordinates, array=jnp) -> dict:
    """Nonlinear parameters, name -> (..., groups), from their coordinates alone, (..., nonlinear)."""
    first = objective.coordinates - sum(objective.width(p.name) for p in objective.nonlinear)
    blank = array.zeros((*coordinates.shape[:-1], first))
    return _nonlinear(objective, problem, array.concatenate([blank, coordinates], axis=-1), array)


def _coordinates(objective: Objective, name: str, point):
    """(..., coordinates) -> (..., groups), or (..., 1) for a shared parameter."""
    return point[..., objective.positions[name]]


def _nonlinear(objective: Objective, problem: Problem, point, array) -> dict:
    """Name -> (..., groups) or (..., 1) of every nonlinear parameter, frozen ones among them."""
    found = {}
    for parameter in objective.law.nonlinear:
        if parameter.name in objective.frozen:
            found[parameter.name] = problem.frozen[parameter.name]
        else:
            value = _coordinates(objective, parameter.name, point)
            found[parameter.name] = array.exp(value) if parameter.transform == "log" else value
    return found


def _at_rows(objective: Objective, problem: Problem, value):
    """(..., groups) -> (..., rows), or as it is, to broadcast, where there is one value for all groups."""
    return value if np.shape(value)[-1] == 1 else value[..., problem.group]


def _terms_at_rows(objective: Objective, problem: Problem, nonlinear, array):
    per_row = {name: _at_rows(objective, problem, value) for name, value in nonlinear.items()}
    return objective.law.log_terms(per_row, problem.logs, array)


def _at_centre(objective: Objective, problem: Problem, nonlinear, array):
    """Logs of the terms at each group's centre, each (..., groups); their mean for a shared parameter."""
    if not objective.law.linear:
        return ()
    found = []
    terms = objective.law.log_terms(nonlinear, problem.centre, array)
    for name, term in zip(objective.law.linear, terms, strict=True):
        term = array.asarray(term)
        term = term[..., None] if term.ndim == 0 else term
        if name in objective.shared and np.shape(term)[-1] > 1:
            term = array.mean(term, axis=-1, keepdims=True)
        found.append(term)
    return tuple(found)
