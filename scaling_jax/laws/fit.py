"""Fitting a law to a table: from rows to parameters, intervals, errors and what is not identified."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.design import check_design
from scaling_jax.laws.factors import PRETRAINING, lose_not_pretrained
from scaling_jax.laws.law import Law, find_law
from scaling_jax.laws.results import Fit
from scaling_jax.laws.sample import Sample, hold_out_largest, sample_rows
from scaling_jax.laws.table import Table


@dataclass(frozen=True)
class Settings:
    """How a law is fitted.

    Attributes:
        residual: "log" (of log loss, as Hoffmann et al.) or "linear" (of the loss, as Zhang et al., Eq. 2).
        loss: of the residuals: "huber", "squared" or "absolute".
        delta: where the Huber loss turns from square to absolute, in units of the residual.
        intervals: "simulated", "rows" or "sandwich" (see `uncertainty`); None chooses by the rows.
        bootstrap: draws for the intervals.
        seed: of the draws.
        level: of the intervals.
        back_end: of the polish; see `polish.BACK_ENDS`.
    """

    residual: str = "log"
    loss: str = "huber"
    delta: float = 1e-3
    intervals: str | None = None
    bootstrap: int = 1000
    seed: int = 0
    level: float = 0.9
    back_end: str = "jaxopt"

    def __post_init__(self):
        """Refuses values that mean nothing."""
        if self.residual not in ("log", "linear"):
            raise InputError(f"residual {self.residual!r} is neither 'log' nor 'linear'")
        if self.loss not in ("huber", "squared", "absolute"):
            raise InputError(f"loss {self.loss!r}: one of huber, squared, absolute")
        if self.seed < 0:
            raise InputError(f"seed {self.seed}: a seed is not negative")
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
    settings: Settings | None = None,
    share: Sequence[str] = (),
    weights: str | None = None,
    cluster: str | None = None,
    largest: tuple[str, int] | None = None,
    watch: Callable[[Sequence], Iterable] = iter,
) -> list[Fit]:
    """Fits a law to each group of rows.

    Args:
        table: from `read_table`.
        law: a `Law`, its name, or "path/to/file.py:name".
        columns: role -> column, for example {"x": "model_params", "d": "finetune_examples"}.
        loss_column: what the law describes.
        by: columns whose values form the groups.
        where: only rows where this expression is true.
        hold_out: rows where this expression is true are not fitted but predicted.
        settings: how.
        share: parameters that all groups have in common.
        weights: column of the rows' weights.
        cluster: column whose equal values are resampled together.
        largest: (column, n): the rows with the n largest values in their group are held out.
        watch: wraps the list of groups as it is worked through, to show progress.

    Returns:
        One `Fit` per group, in order of first appearance.

    Raises:
        InputError: a column is missing or holds what it must not; a design column varies and is not accounted
            for (see `design.check_design`); too few rows; an unknown parameter is shared.
    """
    from scaling_jax.laws.solution import fit_samples

    reference = law if isinstance(law, str) else law.name
    law = find_law(law) if isinstance(law, str) else law
    settings = settings or Settings()
    check_shared(law, share, by)
    samples = samples_of(
        table, law, columns, loss_column, settings, by, where, hold_out, weights, cluster, largest, share
    )
    jobs = [samples] if share else [[sample] for sample in samples]
    return [
        fit
        for job in watch(jobs)
        for fit in fit_samples(job, law, settings, tuple(share), reference, where=where)
    ]


def samples_of(
    table: Table,
    law: Law,
    columns: Mapping[str, str],
    loss_column: str,
    settings: Settings,
    by: Sequence[str] = (),
    where: str | None = None,
    hold_out: str | None = None,
    weights: str | None = None,
    cluster: str | None = None,
    largest: tuple[str, int] | None = None,
    share: Sequence[str] = (),
) -> list[Sample]:
    """The groups of a table, checked; arguments and errors as for `fit_table`."""
    check_roles(law, columns)
    if hold_out and largest:
        raise InputError("give --hold_out or --hold_out_largest, not both")
    for column in (*columns.values(), loss_column, *by, *(name for name in (weights, cluster) if name)):
        table.text(column)
    chosen = table.where(where)
    if PRETRAINING in columns.values():
        chosen = lose_not_pretrained(chosen)
    if not len(chosen):
        reason = f"no row is left by --where {where!r}" if where else "no row has status 'done'"
        raise InputError(f"{table.source}: {reason}")
    found = []
    for group, rows in chosen.groups(by):
        check_design(rows, (*columns.values(), *by), group)
        held = hold_out_largest(rows, *largest) if largest else hold_out
        found.append(
            sample_rows(
                rows, law, columns, loss_column, settings.residual, held, weights, cluster, group, share
            )
        )
    return found


def check_roles(law: Law, columns: Mapping[str, str]) -> None:
    """Refuses columns that are not the law's.

    Raises:
        InputError: a role has no column, or a column is given for a role that the law does not have.
    """
    missing = [role for role in law.role_names if not columns.get(role)]
    if missing:
        meaning = dict(law.roles)
        needed = ", ".join(f"{_flag(role)} ({meaning[role]})" for role in missing)
        raise InputError(f"law {law.name!r} ({law.equation}) also needs {needed}")
    unused = [role for role, column in columns.items() if column and role not in law.role_names]
    if unused:
        raise InputError(
            f"law {law.name!r} ({law.equation}) has no role {unused[0]!r}; leave out {_flag(unused[0])}"
        )


def check_shared(law: Law, share: Sequence[str], by: Sequence[str]) -> None:
    """Refuses to share what cannot be shared.

    Raises:
        InputError: an unknown parameter, all of them, or no `--by` that makes groups.
    """
    from scaling_jax.errors import did_you_mean

    for name in share:
        if name not in law.parameter_names:
            raise InputError(
                f"--share: law {law.name!r} has no parameter {name!r}"
                f"{did_you_mean(name, law.parameter_names)}"
            )
    if share and not by:
        raise InputError("--share needs --by: parameters are shared by the groups that --by makes")


def _flag(role: str) -> str:
    return f"--{role} COLUMN" if role in ("x", "d") else f"--column {role}=COLUMN"


def fitted_range(sample: Sample) -> dict[str, tuple[float, float]]:
    """Role -> (smallest, largest) fitted."""
    return {role: (float(values.min()), float(values.max())) for role, values in sample.fitted.items()}


def errors_of(law: Law, parameters: Mapping, sample: Sample) -> dict[str, float | None]:
    """Mean absolute deviation of the loss and root mean square of the log, fitted and held out."""
    found = {}
    with np.errstate(all="ignore"):
        predicted = np.asarray(law.predict(parameters, sample.sizes), np.float64)
        predicted = np.broadcast_to(predicted, sample.loss.shape)
        for name, rows in (("fitted", ~sample.held), ("held_out", sample.held)):
            gap = np.abs(predicted[rows] - sample.loss[rows])
            logs = np.log(np.maximum(predicted[rows], 1e-300) / sample.loss[rows])
            found[f"{name}_mad"] = float(np.mean(gap)) if len(gap) else None
            usable = len(gap) and np.all(sample.loss[rows] > 0)
            found[f"{name}_rmsd_log"] = float(np.sqrt(np.mean(logs**2))) if usable else None
    return {
        name: found[name] for name in ("fitted_mad", "held_out_mad", "fitted_rmsd_log", "held_out_rmsd_log")
    }
