"""From checked rows to `Fit`s: the optimum, its draws, and everything that is said of them."""

import functools
import importlib.metadata
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws import diagnostics, uncertainty
from scaling_jax.laws.design import describe
from scaling_jax.laws.fit import Settings, errors_of, fitted_range
from scaling_jax.laws.law import Law
from scaling_jax.laws.problem import (
    Objective,
    Problem,
    float64_on_cpu,
    make_problem,
    parameters_of,
    predicted,
    slopes_at,
    value_at,
)
from scaling_jax.laws.results import Fit
from scaling_jax.laws.sample import Sample, typed_group
from scaling_jax.laws.solve import Optimum, best_point


def fit_samples(
    samples: Sequence[Sample],
    law: Law,
    settings: Settings,
    share: tuple[str, ...] = (),
    reference: str | None = None,
    where: str | None = None,
    frozen: Mapping[str, tuple[float, np.ndarray]] | None = None,
    same_runs: bool = False,
) -> list[Fit]:
    """Fits the samples, together where they share parameters.

    Args:
        samples: one per group; several only with shared parameters.
        law: the law.
        settings: how.
        share: names of the parameters that all samples have in common.
        reference: how `fits.json` names the law; its name for None.
        where: the expression that chose the rows, for the record.
        frozen: name -> (value, draws (settings.bootstrap,)) of parameters that are given.
        same_runs: whether a run that is in several samples has one noise and one weight.

    Returns:
        One `Fit` per sample.
    """
    frozen = dict(frozen or {})
    objective = Objective(law, settings.residual, settings.loss, len(samples), tuple(share), tuple(frozen))
    values = {name: value for name, (value, _) in frozen.items()}
    problem = _joined(objective, samples, settings.delta, values)
    _check_traceable(objective, problem)
    optimum = best_point(objective, problem, settings.back_end)
    uncertain = {
        name: np.repeat(np.asarray(own)[:, None], len(samples), axis=1) for name, (_, own) in frozen.items()
    }
    drawn = uncertainty.draw(
        objective,
        problem,
        optimum.point,
        settings.bootstrap,
        settings.level,
        _seed(settings.seed, samples),
        settings.intervals,
        _labels(samples, same_runs),
        uncertain,
        resampled=samples[0].clusters is not None,
    )
    solved = _Solved(
        objective,
        problem,
        settings,
        optimum,
        drawn,
        parameters_of(objective, problem, optimum.point, np),
        parameters_of(objective, problem._replace(frozen=uncertain), drawn.points, np),
        slopes_at(objective, problem, optimum.point)[problem.weights > 0],
        reference or law.name,
        where,
    )
    return [_fit(solved, sample, group) for group, sample in enumerate(samples)]


def _check_traceable(objective: Objective, problem: Problem) -> None:
    """Refuses a law that NumPy can evaluate and JAX cannot trace.

    Raises:
        InputError: with what JAX says, on one line.
    """
    point = jax.ShapeDtypeStruct((objective.coordinates,), np.float64)
    try:
        with float64_on_cpu():
            jax.eval_shape(functools.partial(predicted, objective), problem, point)
    except Exception as error:
        # Whatever a user's code raises under tracing.
        said = str(error).strip().split("\n")[0]
        raise InputError(
            f"law {objective.law.name!r} cannot be traced by JAX ({type(error).__name__}: {said}); write "
            "array.exp and the like, and no `if` on values"
        ) from error


@dataclass(frozen=True)
class _Solved:
    """One solved problem: parameters name -> (groups,), draws name -> (draws, groups)."""

    objective: Objective
    problem: Problem
    settings: Settings
    optimum: Optimum
    drawn: uncertainty.Draws
    parameters: Mapping[str, np.ndarray]
    draws: Mapping[str, np.ndarray]
    slopes: np.ndarray
    reference: str
    where: str | None


def _joined(objective: Objective, samples: Sequence[Sample], delta: float, frozen: Mapping) -> Problem:
    """The samples' fitted rows as one problem."""
    fitted = [~sample.held for sample in samples]

    def join(arrays):
        return np.concatenate([array[rows] for array, rows in zip(arrays, fitted, strict=True)])

    return make_problem(
        objective,
        {role: join([sample.sizes[role] for sample in samples]) for role in objective.law.role_names},
        join([sample.loss for sample in samples]),
        delta,
        join([sample.weights for sample in samples]),
        np.repeat(np.arange(len(samples)), [int(rows.sum()) for rows in fitted]),
        {name: np.full(len(samples), value) for name, value in frozen.items()},
    )


def _seed(seed: int, samples: Sequence[Sample]) -> list[int]:
    """Draws of one group are independent of another's, and the same for every law of one group.

    `compare` subtracts the draws of two methods, `choose` those of two laws.
    """
    label = "; ".join(describe(dict(sample.group)) for sample in samples)
    return [seed, zlib.crc32(label.encode())]


def _labels(samples: Sequence[Sample], same_runs: bool) -> np.ndarray | None:
    """What shares noise or is resampled together: named clusters, or the runs that several samples hold."""
    if samples[0].clusters is not None:
        named = np.concatenate([sample.clusters[~sample.held] for sample in samples])
        # A row without a label is a cluster of its own.
        own = [f"\0{position}" for position in range(len(named))]
        return np.array([label or other for label, other in zip(named, own, strict=True)])
    if not same_runs:
        return None
    return np.concatenate([sample.runs[~sample.held] for sample in samples])


def _fit(solved: _Solved, sample: Sample, group: int) -> Fit:
    objective, settings = solved.objective, solved.settings
    law, drawn = objective.law, solved.drawn
    parameters = {name: float(values[group]) for name, values in solved.parameters.items()}
    draws = {name: np.asarray(values)[:, group] for name, values in solved.draws.items()}
    intervals = {
        name: uncertainty.interval(draws[name], settings.level, value) for name, value in parameters.items()
    }
    known = diagnostics.identified(
        objective, group, solved.optimum.point, drawn.points, parameters, intervals, solved.slopes
    )
    unknown = [name for name, state in known.items() if state is not True]
    alone = solved.problem._replace(weights=solved.problem.weights * (solved.problem.group == group))
    value = float(value_at(objective, alone, solved.optimum.point, np))
    joint = {"joint_value": solved.optimum.value} if objective.groups > 1 else {}
    return Fit(
        law=solved.reference,
        equation=law.equation,
        group=typed_group(sample.group),
        columns=dict(sample.columns),
        parameters=parameters,
        intervals=intervals,
        standard_errors={name: _spread(values) for name, values in draws.items()},
        level=settings.level,
        interval_method=drawn.method,
        objective={
            "kind": f"{settings.loss}_{settings.residual}",
            "delta": settings.delta if settings.loss == "huber" else None,
            "value": value if objective.groups > 1 else solved.optimum.value,
        }
        | joint,
        rows={
            "fitted": int(np.sum(~sample.held)),
            "held_out": int(np.sum(sample.held)),
            "dropped": sum(sample.dropped.values()),
        },
        dropped_reasons=dict(sample.dropped),
        errors=errors_of(law, parameters, sample),
        status="identified" if not unknown else f"not identified: {', '.join(unknown)}",
        identified=known,
        shared=objective.shared,
        frozen=objective.frozen,
        starts={"total": solved.optimum.starts, "agreeing": solved.optimum.agreeing},
        condition_number=diagnostics.condition(solved.slopes)[0],
        fitted_range=fitted_range(sample),
        where=solved.where,
        hold_out=sample.hold_out,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        notes=(*sample.notes, *([drawn.note] if drawn.note else [])),
        versions=_versions(),
        draws=draws,
        extra={},
    )


def _spread(values: np.ndarray) -> float:
    """Standard deviation, also of numbers whose squares are none."""
    largest = np.max(np.abs(values))
    return float(largest * np.std(values / largest)) if largest > 0 else 0.0


@functools.cache
def _versions() -> dict[str, str]:
    import scaling_jax

    found = {name: importlib.metadata.version(name) for name in ("jax", "jaxopt", "numpy")}
    return found | {"scaling_jax": scaling_jax.__version__}
