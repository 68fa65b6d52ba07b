"""All fits of one study, from its results table.

For every task and method:

- `power` in the examples, per model size (factor "single");
- `multiplicative` and `additive` in model size and examples ("model_size"), at the pretraining length
  that all model sizes share;
- the same in pretraining tokens and examples ("pretraining"), at the model that has several lengths;
- `multiplicative` in tuning size and examples ("tuning_size"), where a method has several.

What cannot be fitted is named with its reason by `skipped_fits`, never left out in silence; a study that
holds out all of its runs asks for no law, which `nothing_to_fit` says.
"""

import dataclasses
import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.critical_size import critical_sizes
from scaling_jax.errors import InputError
from scaling_jax.laws.design import describe
from scaling_jax.laws.factors import (
    EARLIER,
    EXAMPLES,
    MIXTURE,
    PRETRAINING,
    TUNING,
    FactorRows,
    largest,
    model_size_rows,
    only,
    pretraining_rows,
    shared_pretraining,
    told_apart,
    tuning_size_rows,
    usual_tuning,
    with_column,
)
from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.law import find_law
from scaling_jax.laws.results import Fit
from scaling_jax.laws.sample import check_enough
from scaling_jax.laws.table import Table

JOINT_LAWS = ("multiplicative", "additive")
# Groups that are no combination of values are named one by one, no more of them than this.
_MOST_LISTED = 8


@dataclass(frozen=True)
class PlannedFit:
    """One fit to be made.

    Attributes:
        factor: "single", "model_size", "pretraining" or "tuning_size".
        law: its name.
        x: the column of the law's x, or None for `power`.
        group: column -> value; what `where` fixes apart from the group is in `fixed`.
        fixed: column -> value held fixed, so that nothing but the law's columns varies.
        rows: the rows, held-out ones among them.
        reason: why it cannot be fitted, or None.
    """

    factor: str
    law: str
    x: str | None
    group: Mapping[str, str]
    fixed: Mapping[str, str]
    rows: Table
    reason: str | None


def fit_study(
    table: Table,
    hold_out: str | None,
    seed: int = 0,
    bootstrap: int = 1000,
    size_column: str = "non_embedding_params",
    further_laws: Sequence[str] = (),
) -> list[Fit]:
    """Makes every fit that the table allows.

    Args:
        table: a study's `results.csv`, from `read_table`.
        hold_out: expression of the rows that are predicted, not fitted; None for none.
        seed: of the bootstrap.
        bootstrap: draws behind the intervals; the noise between seeds is part of what they cover.
        size_column: the X of the model-size law.
        further_laws: laws beside those above, by name or "path/to/file.py:name": one in d alone is fitted per
            model size, one in x and d by every factor.

    Returns:
        Fits whose `extra` holds `factor`, `fixed` and `sizes` (all values of X in the rows) and whose
        `errors` holds `nearest_neighbour_mad`.
    """
    plans = study_plan(table, hold_out, size_column, further_laws)
    planned = [plan for plan in plans if plan.reason is None]
    return [_fit(plan, hold_out, seed, bootstrap) for plan in planned]


def skipped_fits(
    table: Table,
    hold_out: str | None,
    size_column: str = "non_embedding_params",
    further_laws: Sequence[str] = (),
) -> list[str]:
    """What of the plan the table does not allow, one sentence for all laws and groups of one reason.

    Arguments as for `fit_study`. Empty where no law is asked for; see `nothing_to_fit`.
    """
    if nothing_to_fit(table, hold_out):
        return []
    groups: dict[tuple, list[Mapping[str, str]]] = {}
    for plan in study_plan(table, hold_out, size_column, further_laws):
        if plan.reason is not None:
            groups.setdefault((plan.factor, plan.reason, plan.law), []).append(plan.group)
    laws: dict[tuple, list[str]] = {}
    for (factor, reason, law), members in groups.items():
        laws.setdefault((factor, reason, _groups_text(members)), []).append(law)
    return [
        f"{' and '.join(names)} by {factor} for {members}: {reason}"
        for (factor, reason, members), names in laws.items()
    ]


def nothing_to_fit(table: Table, hold_out: str | None) -> str | None:
    """Says that a study holds out all of its runs, so that it asks for no law; None where it does not.

    Args:
        table: a study's `results.csv`, from `read_table`.
        hold_out: expression of the rows that are held out.

    Raises:
        InputError: the expression cannot be read, or names a column that is not there.
    """
    rows = table.where(f"{EXAMPLES} > 0")
    if not hold_out or not len(rows) or not rows.matches(hold_out).all():
        return None
    return f"All {len(rows)} runs are held out ({hold_out}), so no law was asked for."


def study_plan(
    table: Table,
    hold_out: str | None,
    size_column: str = "non_embedding_params",
    further_laws: Sequence[str] = (),
) -> list[PlannedFit]:
    """What there is to fit, in the order task, method, factor; arguments as for `fit_study`.

    Raises:
        InputError: a column of `results.csv` is missing or holds text for numbers; no row has examples; a
            further law has other roles than x and d.
    """
    single, joint = _by_roles(further_laws)
    for column in ("task", "method", "loss", EXAMPLES, size_column):
        table.text(column)
    for column in (PRETRAINING, TUNING, MIXTURE, EARLIER):
        table = with_column(table, column)
    known = {*table.text(MIXTURE), *(table.lost.text(MIXTURE) if table.lost else ())}
    table = _told_apart(table.where(f"{EXAMPLES} > 0"), known)
    if not len(table):
        raise InputError(f"{table.source}: no row that is done has {EXAMPLES} above 0")
    plans = []
    for group, rows in table.groups(("task", "method")):
        plans += _by_model_size(rows, group, size_column, hold_out, ("power", *single))
        for select in (model_size_rows, pretraining_rows, tuning_size_rows):
            plans += _by_factor(select(rows, size_column), group, hold_out, (*JOINT_LAWS, *joint))
    return plans


def nearest_neighbour_error(
    sizes: Mapping[str, np.ndarray], loss: np.ndarray, held: np.ndarray
) -> float | None:
    """Mean absolute error at the held-out rows of the loss of the nearest fitted cell.

    Distance is Euclidean in the logarithms of the sizes; cells at equal distance are averaged, and so are the
    rows of a cell. A law must beat this to be worth having. None without held-out rows.

    Args:
        sizes: role -> (rows,).
        loss: (rows,).
        held: (rows,) of bool.
    """
    if not held.any() or held.all():
        return None
    logs = np.stack([np.log(values) for values in sizes.values()], axis=1)
    cells, index = np.unique(logs[~held], axis=0, return_inverse=True)
    index = index.reshape(-1)
    means = np.bincount(index, loss[~held]) / np.bincount(index)
    distances = np.linalg.norm(logs[held][:, None] - cells[None], axis=-1)
    nearest = distances <= distances.min(axis=1, keepdims=True) + 1e-9
    predicted = (nearest * means).sum(axis=1) / nearest.sum(axis=1)
    return float(np.mean(np.abs(predicted - loss[held])))


def crossings(fits: Sequence[Fit]) -> list[dict]:
    """Critical sizes of every pair of methods at every model size: plain dicts, for `decision.json`.

    From the `power` law of each model size and from the multiplicative law by model size. Keys: task, law,
    factor and those of `critical_size.Comparison`.
    """
    found = []
    chosen = [
        fit
        for fit in fits
        if (fit.extra.get("factor"), fit.law) in (("single", "power"), ("model_size", "multiplicative"))
    ]
    for first, second in itertools.combinations(chosen, 2):
        one, two = (dict(fit.group) for fit in (first, second))
        methods = one.pop("method"), two.pop("method")
        if one != two or first.law != second.law or methods[0] == methods[1]:
            continue
        column = first.columns.get("x")
        shared = sorted(set(first.extra["sizes"]) & set(second.extra["sizes"]))
        places = [{column: size} for size in shared] if column else [{}]
        for at in places:
            comparison = critical_sizes(first, second, at).to_json()
            fixed = {key: value for key, value in one.items() if key not in ("task", "model")}
            found.append(
                {"task": one.get("task"), "law": first.law, "factor": first.extra["factor"]}
                | comparison
                | {"at": fixed | comparison["at"]}
            )
    return found


def summary_text(fits: Sequence[Fit], crossings: Sequence[Mapping], skipped: Sequence[str] = ()) -> str:
    """The fits, the held-out errors beside the nearest neighbour's, and the crossings, for the terminal."""
    lines = ["Fits (value [90% interval]; ? = not identified; errors are mean |loss - law|)"] if fits else []
    for fit in fits:
        cells = []
        for name, value in fit.parameters.items():
            low, high = fit.intervals[name]
            mark = "" if fit.identified[name] is True else "?"
            cells.append(f"{name}{mark} {value:.3g} [{low:.3g}, {high:.3g}]")
        errors = fit.errors
        held = ""
        if errors["held_out_mad"] is not None:
            held = f", held out {errors['held_out_mad']:.4f}"
            if errors.get("nearest_neighbour_mad") is not None:
                held += f" (nearest neighbour {errors['nearest_neighbour_mad']:.4f})"
        factor = fit.extra.get("factor", "")
        lines.append(f"  {describe(fit.group)}: {fit.law} by {factor}")
        lines.append(f"    {'  '.join(cells)}")
        lines.append(f"    error fitted {errors['fitted_mad']:.4f}{held}; {fit.rows['fitted']} rows")
    if crossings:
        lines.append("Critical finetuning sizes")
    for entry in crossings:
        at = ", ".join(f"{column}={value:g}" for column, value in entry["at"].items())
        lines.append(
            f"  {entry['task']}, {at}: {entry['first']} and {entry['second']} ({entry['law']}): "
            + entry["text"]
        )
    if skipped:
        lines.append("Not fitted")
        lines += [f"  {reason}" for reason in skipped]
    return "\n".join(lines)


def _groups_text(groups: Sequence[Mapping[str, str]]) -> str:
    """Groups as text: those that are every combination of some values by these values, else one by one."""
    if len(groups) == 1:
        return describe(dict(groups[0]))
    columns = list(groups[0])
    if "model" in columns:  # the size that follows says the same
        columns = columns[: columns.index("model") + 1]
    different = {column: [group[column] for group in groups] for column in columns}
    distinct = {column: list(dict.fromkeys(found)) for column, found in different.items()}
    if math.prod(map(len, distinct.values())) == len(groups):
        told = [f"{column}={', '.join(found)}" for column, found in distinct.items()]
        return f"{len(groups)} groups ({'; '.join(told)})"
    shared = {column: found[0] for column, found in distinct.items() if len(found) == 1}
    rows = zip(*(found for column, found in different.items() if column not in shared), strict=True)
    told = [" ".join(row) for row in rows]
    listed = "; ".join(told[:_MOST_LISTED]) + (
        f" and {len(told) - _MOST_LISTED} more" if len(told) > _MOST_LISTED else ""
    )
    return f"{len(groups)} groups ({describe(shared) + ': ' if shared else ''}{listed})"


def _told_apart(table: Table, known: Collection[str]) -> Table:
    """Tasks renamed by what their models went through before, so that no law mixes it."""
    lost = None if table.lost is None else _told_apart(table.lost, known)
    columns = [table.text(column) for column in ("task", MIXTURE, EARLIER, PRETRAINING)]
    tasks = np.array([*told_apart(*columns, known), ""], object)[:-1]
    return dataclasses.replace(table, cells={**table.cells, "task": tasks}, lost=lost)


def _by_roles(further_laws: Sequence[str]) -> tuple[list[str], list[str]]:
    """(laws in d alone, laws in x and d), without those that are fitted anyway."""
    single, joint = [], []
    for name in further_laws:
        roles = set(find_law(name).role_names)
        if roles not in ({"d"}, {"x", "d"}):
            raise InputError(f"law {name!r} has the roles {', '.join(sorted(roles))}; a study has x and d")
        if name not in ("power", *JOINT_LAWS):
            (single if roles == {"d"} else joint).append(name)
    return single, joint


def _by_model_size(rows, group, size_column, hold_out, laws) -> list[PlannedFit]:
    plans = []
    usual, tuning = usual_tuning(rows, size_column)
    shared = shared_pretraining(usual, size_column)
    for size_group, at_size in usual.groups((size_column,)):
        lengths = at_size.text(PRETRAINING)
        length = shared if shared in set(lengths) else largest(lengths)
        chosen = only(at_size, {PRETRAINING: length})
        own = {**group, **({"model": chosen.text("model")[0]} if "model" in chosen else {}), **size_group}
        fixed = {PRETRAINING: length, TUNING: tuning}
        plans += [_planned("single", law, None, own, fixed, chosen, hold_out) for law in laws]
    return plans


def _by_factor(found: FactorRows | None, group, hold_out, laws) -> list[PlannedFit]:
    if found is None:
        return []
    plans = []
    for law in laws:
        plan = _planned(found.factor, law, found.x, group, found.fixed, found.rows, hold_out)
        plans.append(dataclasses.replace(plan, reason=found.reason or plan.reason))
    return plans


def _planned(factor, law, x, group, fixed, rows, hold_out) -> PlannedFit:
    columns = {"d": EXAMPLES} | ({"x": x} if x else {})
    held = rows.matches(hold_out) if hold_out else np.zeros(len(rows), bool)
    fitted = {role: rows.positive(column)[~held] for role, column in columns.items()}
    if held.all() and len(rows):
        reason = "every row is held out"
    else:
        reason = _too_few_cells(law, fitted) or _refusal(rows.source, law, columns, fitted)
    return PlannedFit(factor, law, x, group, fixed, rows, reason)


def _too_few_cells(law: str, fitted: Mapping[str, np.ndarray]) -> str | None:
    """Why rows that repeat few sizes, as seeds do, cannot show the parameters of a law; None if they can.

    The text is one for all groups, however many sizes each has, so that it is said once of all of them.
    """
    cells = len(set(zip(*fitted.values(), strict=True)))
    needed = len(find_law(law).parameters)
    if cells >= needed:
        return None
    return (
        f"law {law!r} has {needed} parameters and needs as many different sizes that are not held out; "
        "there are fewer"
    )


def _refusal(source: str, law: str, columns: Mapping[str, str], fitted: Mapping) -> str | None:
    try:
        # Without the group, which the plan names: one reason is then one text for all groups that have it.
        check_enough(source, find_law(law), columns, fitted, {})
        return None
    except InputError as error:
        return str(error).removeprefix(f"{source}: ")


def _fit(plan: PlannedFit, hold_out, seed, bootstrap) -> Fit:
    columns = {"d": EXAMPLES} | ({"x": plan.x} if plan.x else {})
    by = tuple(plan.group)
    settings = Settings(bootstrap=bootstrap, seed=seed)
    fit = fit_table(plan.rows, plan.law, columns, "loss", by=by, hold_out=hold_out, settings=settings)[0]
    held = plan.rows.matches(hold_out) if hold_out else np.zeros(len(plan.rows), bool)
    sizes = {role: plan.rows.positive(column) for role, column in columns.items()}
    baseline = nearest_neighbour_error(sizes, plan.rows.positive("loss"), held)
    fixed = {column: float(value) for column, value in plan.fixed.items() if value != ""}
    where = " and ".join(f"{column} == {value:.17g}" for column, value in fixed.items())
    varied = sizes["x"] if plan.x else sizes["d"]
    return dataclasses.replace(
        fit,
        where=where or None,
        errors={**fit.errors, "nearest_neighbour_mad": baseline},
        extra={"factor": plan.factor, "fixed": fixed, "sizes": [float(size) for size in np.unique(varied)]},
    )
