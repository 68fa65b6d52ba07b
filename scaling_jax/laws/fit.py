"""Fitting a law to a table: from rows to parameters, intervals, errors and what is not identified."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.design import check_design, describe
from scaling_jax.laws.law import Law, find_law
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table

_AGREEMENT = 1e-6
_POLISHED = 3


@dataclass(frozen=True)
class Settings:
    """How a law is fitted.

    Attributes:
        residual: "log" (of log loss, as Hoffmann et al.) or "linear" (of the loss, as Zhang et al., Eq. 2).
        delta: where the Huber loss turns from square to absolute, in units of the residual.
        bootstrap: resamples for the intervals.
        seed: of the resamples.
        cluster: column whose equal values are resampled together, or None for rows.
        level: of the intervals.
        back_end: of the polish; see `polish.BACK_ENDS`.
    """

    residual: str = "log"
    delta: float = 1e-3
    bootstrap: int = 1000
    seed: int = 0
    cluster: str | None = None
    level: float = 0.9
    back_end: str = "jaxopt"

    def __post_init__(self):
        """Refuses values that mean nothing."""
        if self.residual not in ("log", "linear"):
            raise InputError(f"residual {self.residual!r} is neither 'log' nor 'linear'")
        if not self.delta > 0 or not 0 < self.level < 1 or self.bootstrap < 20:
            raise InputError("delta must be above 0, the level between 0 and 1, the bootstrap at least 20")


def fit_table(
    table: Table,
    law: Law | str,
    columns: Mapping[str, str],
    loss_column: str = "loss",
    by: Sequence[str] = (),
    where: str | None = None,
    hold_out: str | None = None,
    residual: str = "log",
    delta: float = 1e-3,
    bootstrap: int = 1000,
    seed: int = 0,
    cluster: str | None = None,
) -> list[Fit]:
    """Fits a law to each group of rows.

    Args:
        table: from `read_table`.
        law: a `Law`, its name, or "path/to/file.py:name".
        columns: role -> column, for example {"x": "model_params", "d": "finetune_examples"}.
        loss_column: the losses, above zero.
        by: columns whose values form the groups.
        where: only rows where this expression is true.
        hold_out: rows where this expression is true are not fitted but predicted.
        residual, delta, bootstrap, seed, cluster: see `Settings`.

    Returns:
        One `Fit` per group, in order of first appearance.

    Raises:
        InputError: a column is missing or holds what it must not; a design column varies and is not accounted
            for (see `design.check_design`); too few rows.
    """
    reference = law if isinstance(law, str) else law.name
    law = find_law(law) if isinstance(law, str) else law
    settings = Settings(residual, delta, bootstrap, seed, cluster)
    _check_roles(law, columns)
    for column in (*columns.values(), loss_column, *by, *([cluster] if cluster else [])):
        table.text(column)
    chosen = table.where(where)
    if not len(chosen):
        reason = f"no row is left by --where {where!r}" if where else "no row has status 'done'"
        raise InputError(f"{table.source}: {reason}")
    groups = chosen.groups(by)
    for group, rows in groups:
        check_design(rows, (*columns.values(), *by), group)
    notes = {"law": reference, "where": where, "hold_out": hold_out}
    return [
        fit_rows(rows, law, columns, loss_column, settings, hold_out, group, notes) for group, rows in groups
    ]


def fit_rows(
    rows: Table,
    law: Law,
    columns: Mapping[str, str],
    loss_column: str,
    settings: Settings,
    hold_out: str | None,
    group: Mapping,
    notes: Mapping,
) -> Fit:
    """Fits one group; the design is the caller's affair. See `fit_table`."""
    # Imported here: `fit.py` is imported by verbs that only predict, and JAX takes most of a second.
    from scaling_jax.laws import diagnostics, uncertainty
    from scaling_jax.laws.problem import make_problem, parameters_of, slopes_at

    sizes = {role: rows.positive(columns[role]) for role in law.role_names}
    loss = rows.positive(loss_column)
    held = rows.matches(hold_out) if hold_out else np.zeros(len(rows), bool)
    fitted = {role: values[~held] for role, values in sizes.items()}
    check_enough(rows, law, columns, fitted, group)
    problem = make_problem(law, fitted, loss[~held], settings.delta)
    point, value, agreeing, total = best_point(law, problem, settings)
    clusters = rows.text(settings.cluster)[~held] if settings.cluster else None
    points = uncertainty.bootstrap(law, settings, problem, point, int(np.sum(~held)), clusters)
    parameters = parameters_of(law, problem, point, np)
    draws = parameters_of(law, problem, points, np)
    intervals = {
        name: uncertainty.interval(draws[name], settings.level, float(value))
        for name, value in parameters.items()
    }
    slopes = slopes_at(law, settings.residual, problem, point)[: int(np.sum(~held))]
    known = diagnostics.identified(law, problem, point, points, parameters, intervals, slopes)
    unknown = [name for name, state in known.items() if state is not True]
    return Fit(
        law=notes.get("law") or law.name,
        equation=law.equation,
        group=_typed_group(group),
        columns={**{role: columns[role] for role in law.role_names}, "y": loss_column},
        parameters={name: float(value) for name, value in parameters.items()},
        intervals=intervals,
        level=settings.level,
        objective={"kind": f"huber_{settings.residual}", "delta": settings.delta, "value": value},
        rows={
            "fitted": int(np.sum(~held)),
            "held_out": int(np.sum(held)),
            "dropped": sum(rows.dropped.values()),
        },
        dropped_reasons=dict(rows.dropped),
        errors=_errors(law, parameters, sizes, loss, held),
        status="identified" if not unknown else f"not identified: {', '.join(unknown)}",
        identified=known,
        starts={"total": total, "agreeing": agreeing},
        condition_number=diagnostics.condition(slopes)[0],
        fitted_range={role: (float(values.min()), float(values.max())) for role, values in fitted.items()},
        where=notes.get("where"),
        hold_out=hold_out,
        cluster=settings.cluster,
        bootstrap=settings.bootstrap,
        seed=settings.seed,
        versions=_versions(),
        draws={name: np.asarray(values) for name, values in draws.items()},
        extra={},
    )


def best_point(law: Law, problem, settings: Settings) -> tuple[np.ndarray, float, int, int]:
    """The optimum of record: (point, objective, starts that agree with it, starts).

    The search improves the starts; the back end polishes the best few; the lowest objective wins.
    """
    from scaling_jax.laws.polish import polish
    from scaling_jax.laws.search import search

    points, values = search(law, settings.residual, problem)
    if not np.isfinite(values[0]):
        raise InputError(f"law {law.name!r} gives no finite loss at any start; check the columns' units")
    distinct = [0]
    for position in range(1, len(points)):
        away = [np.max(np.abs(points[position] - points[kept])) > 1e-4 for kept in distinct]
        if all(away) and np.isfinite(values[position]) and len(distinct) < _POLISHED:
            distinct.append(position)
    polished = [polish(law, settings.residual, problem, points[p], settings.back_end) for p in distinct]
    point, value = min(polished, key=lambda pair: pair[1])
    agreeing = int(np.sum(values <= value * (1 + _AGREEMENT) + 1e-15))
    return point, float(value), agreeing, len(values)


def _check_roles(law: Law, columns: Mapping[str, str]) -> None:
    missing = [role for role in law.role_names if not columns.get(role)]
    if missing:
        meaning = dict(law.roles)
        needed = ", ".join(f"--{role} COLUMN ({meaning[role]})" for role in missing)
        raise InputError(f"law {law.name!r} ({law.equation}) also needs {needed}")
    unused = [role for role, column in columns.items() if column and role not in law.role_names]
    if unused:
        raise InputError(
            f"law {law.name!r} ({law.equation}) has no role {unused[0]!r}; leave out --{unused[0]}"
        )


def check_enough(rows: Table, law: Law, columns: Mapping, fitted: Mapping, group: Mapping) -> None:
    """Refuses fewer rows than parameters, and a column with one value.

    Args:
        columns: role -> column.
        fitted: role -> sizes of the rows that are not held out.

    Raises:
        InputError: says how many rows there are and how many are needed.
    """
    count = len(next(iter(fitted.values())))
    inside = f" in the group {describe(dict(group))}" if group else ""
    if count < len(law.parameters):
        raise InputError(
            f"{rows.source}: {count} rows to fit{inside}, but law {law.name!r} has "
            f"{len(law.parameters)} parameters; it needs at least as many rows (that are not held out)"
        )
    for role, values in fitted.items():
        if len(np.unique(values)) < 2:
            raise InputError(
                f"{rows.source}: column {columns[role]!r} has one value ({values[0]:g}) in the rows "
                f"to fit{inside}; law {law.name!r} needs at least two"
            )


def _errors(law: Law, parameters, sizes, loss, held) -> dict[str, float | None]:
    """Mean absolute deviation of the loss and root mean square of the log, fitted and held out."""
    predicted = np.asarray(law.predict(parameters, sizes), np.float64)
    found = {}
    for name, rows in (("fitted", ~held), ("held_out", held)):
        gap = np.abs(predicted[rows] - loss[rows])
        logs = np.log(np.maximum(predicted[rows], 1e-300) / loss[rows])
        found[f"{name}_mad"] = float(np.mean(gap)) if len(gap) else None
        found[f"{name}_rmsd_log"] = float(np.sqrt(np.mean(logs**2))) if len(gap) else None
    return {
        name: found[name] for name in ("fitted_mad", "held_out_mad", "fitted_rmsd_log", "held_out_rmsd_log")
    }


def _typed_group(group: Mapping) -> dict:
    typed = {}
    for column, value in group.items():
        try:
            number = float(value)
            typed[column] = int(number) if number.is_integer() else number
        except (TypeError, ValueError, OverflowError):
            typed[column] = value
    return typed


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "jaxopt", "numpy")} | {
        "scaling_jax": _own()
    }


def _own() -> str:
    import scaling_jax

    return scaling_jax.__version__
