"""The two-stage recipe of Zhang et al. (ICLR 2024), section 3, which gives their Table 4 from one table.

For each task and method: beta and E are shared by the model-size and the pretraining rows and fitted
with A and alpha of both (stage 1; given beta and E the two factors part, so their A and alpha are final).
They are then frozen, and A and alpha of the tuning size fitted to its rows (stage 2), as the paper leaves
tuning-size rows out of stage 1: their scaling is too weak to say anything of beta and E. What is
uncertain of beta and E stays uncertain in stage 2: each draw of it takes one draw of stage 1.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.design import describe
from scaling_jax.laws.factors import (
    EARLIER,
    EXAMPLES,
    MIXTURE,
    PRETRAINING,
    TUNING,
    FactorRows,
    blank_missing,
    lose_not_pretrained,
    model_size_rows,
    pretraining_rows,
    tuning_size_rows,
    with_column,
)
from scaling_jax.laws.fit import Settings, check_shared
from scaling_jax.laws.law import Law, find_law
from scaling_jax.laws.results import Fit
from scaling_jax.laws.sample import Sample, sample_rows, typed_group
from scaling_jax.laws.table import Table

SHARED = ("beta", "E")
_GROUPS = ("task", "method")


def fit_joint(
    table: Table,
    law: Law | str = "multiplicative",
    loss_column: str = "loss",
    size_column: str | None = None,
    where: str | None = None,
    hold_out: str | None = None,
    settings: Settings | None = None,
    share: Sequence[str] = SHARED,
    watch: Callable[[Sequence], Iterable] = iter,
) -> list[Fit]:
    """Fits all factors of every task and method by the two-stage recipe.

    Args:
        table: with the columns of `results.csv`: finetune_examples, a model size, and any of task, method,
            pretrain_tokens, tuning_size.
        law: with the roles x and d, and the shared parameters.
        loss_column: what the law describes.
        size_column: the model size; model_params, else non_embedding_params, for None.
        where: only rows where this expression is true.
        hold_out: rows where this expression is true are predicted, not fitted.
        settings: how.
        share: what stage 1 shares and stage 2 freezes.
        watch: wraps the list of groups as it is worked through, to show progress.

    Returns:
        One fit per task, method and factor; `group["factor"]` is model_size, pretraining or tuning_size.

    Raises:
        InputError: a column is missing; a task and method have neither two model sizes nor two pretraining
            lengths; too few rows.
    """
    reference = law if isinstance(law, str) else law.name
    law = find_law(law) if isinstance(law, str) else law
    if set(law.role_names) != {"x", "d"}:
        raise InputError(f"--recipe joint needs a law with the roles x and d; {law.name!r} has others")
    check_shared(law, share, _GROUPS)
    size_column = size_column or _size_column(table)
    for column in (EXAMPLES, size_column, loss_column):
        table.text(column)
    rows = _usable(table, size_column, where)
    if not len(rows):
        raise InputError(f"{table.source}: no row is left with {EXAMPLES} above 0")
    by = tuple(column for column in _GROUPS if column in rows)
    for group, members in rows.groups(by):
        _check_one_history(members, group)
    settings = settings or Settings()
    recipe = _Recipe(
        law, reference, loss_column, size_column, where, hold_out, settings or Settings(), tuple(share)
    )
    return [fit for group, members in watch(rows.groups(by)) for fit in _fit_group(group, members, recipe)]


def _check_one_history(rows: Table, group: Mapping) -> None:
    """Refuses models that were pretrained on several mixtures, or some of which were tuned before."""
    pretrained = lose_not_pretrained(rows)
    for column in (MIXTURE, EARLIER):
        values = sorted(set(pretrained.text(column))) if column in rows else []
        if len(values) > 1:
            shown = ", ".join(value or "empty" for value in values[:4])
            raise InputError(
                f"{rows.source}: {column!r} varies in the group {describe(dict(group))} ({shown}), which no "
                f"law may mix; add for example --where '{column} == \"{values[-1]}\"'"
            )


@dataclass(frozen=True)
class _Recipe:
    """What is the same for every group; see `fit_joint`."""

    law: Law
    reference: str
    loss_column: str
    size_column: str
    where: str | None
    hold_out: str | None
    settings: Settings
    share: tuple[str, ...]


def joint_rows(
    table: Table, fits: Sequence[Fit], size_column: str | None = None, where: str | None = None
) -> list[Table]:
    """The rows of every fit of `fit_joint`, held-out ones among them, for pictures."""
    size_column = size_column or _size_column(table)
    select = {
        "model_size": model_size_rows,
        "pretraining": pretraining_rows,
        "tuning_size": tuning_size_rows,
    }
    by = tuple(column for column in _GROUPS if column in table)
    groups = {
        tuple(typed_group(group).values()): rows
        for group, rows in _usable(table, size_column, where).groups(by)
    }
    found = []
    for fit in fits:
        own = groups[tuple(fit.group[column] for column in by)]
        found.append(select[fit.group["factor"]](own, size_column).rows)
    return found


def _size_column(table: Table) -> str:
    return "model_params" if "model_params" in table else "non_embedding_params"


def _usable(table: Table, size_column: str, where: str | None) -> Table:
    """The finetuned rows, with the columns that a table may lack; rows without a needed size are lost."""
    rows = with_column(with_column(table, PRETRAINING), TUNING).where(where)
    rows = rows.drop_missing([EXAMPLES, size_column]).where(f"{EXAMPLES} > 0")
    return blank_missing(blank_missing(rows, PRETRAINING), TUNING)


def _fit_group(group: Mapping, rows: Table, recipe: _Recipe) -> list[Fit]:
    from scaling_jax.laws.solution import fit_samples

    law, settings = recipe.law, recipe.settings
    size = recipe.size_column
    first = [found for found in (model_size_rows(rows, size), pretraining_rows(rows, size)) if found]
    if not first:
        raise InputError(
            f"{rows.source}: {describe(group)}: --recipe joint needs two model sizes or two "
            "pretraining lengths"
        )
    samples = [_sample(found, group, recipe) for found in first]
    named = {"reference": recipe.reference, "where": recipe.where}
    fits = fit_samples(samples, law, settings, recipe.share, same_runs=True, **named)
    last = tuning_size_rows(rows, size)
    if last is not None:
        frozen = {name: (fits[0].parameters[name], np.asarray(fits[0].draws[name])) for name in recipe.share}
        second = fit_samples([_sample(last, group, recipe)], law, settings, frozen=frozen, **named)[0]
        fits.append(second.with_identified({name: fits[0].identified[name] for name in recipe.share}))
    used = set().union(*(found.rows.lines.tolist() for found in (*first, last) if found is not None))
    unused = len(set(rows.lines.tolist()) - used)
    if not unused:
        return fits
    note = (
        f"{unused} rows of {describe(group)} belong to no factor: other tuning sizes or pretraining lengths"
    )
    return [replace(fit, notes=(*fit.notes, note)) for fit in fits]


def _sample(found: FactorRows, group: Mapping, recipe: _Recipe) -> Sample:
    if found.reason:
        raise InputError(f"{found.rows.source}: {describe(group)}: {found.reason}")
    columns = {"x": found.x, "d": EXAMPLES}
    own = {**group, "factor": found.factor}
    return sample_rows(
        found.rows,
        recipe.law,
        columns,
        recipe.loss_column,
        recipe.settings.residual,
        recipe.hold_out,
        group=own,
        given=recipe.share,
    )
