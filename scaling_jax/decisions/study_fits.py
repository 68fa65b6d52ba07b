"""All fits of one study, from its results table.

For every task and method:

- `power` in the examples, per model size (factor "single");
- `multiplicative` and `additive` in model size and examples ("model_size"), at the pretraining length
  that all model sizes share;
- the same in pretraining tokens and examples ("pretraining"), at the model that has several lengths;
- `multiplicative` in tuning size and examples ("tuning_size"), where a method has several.

What cannot be fitted is named with its reason by `skipped_fits`, never left out in silence.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.critical_size import critical_sizes
from scaling_jax.errors import InputError
from scaling_jax.laws.design import describe
from scaling_jax.laws.fit import check_enough, fit_table
from scaling_jax.laws.law import find_law
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table

EXAMPLES = "finetune_examples"
JOINT_LAWS = ("multiplicative", "additive")


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
) -> list[Fit]:
    """Makes every fit that the table allows.

    Args:
        table: a study's `results.csv`, from `read_table`.
        hold_out: expression of the rows that are predicted, not fitted; None for none.
        seed: of the bootstrap.
        bootstrap: resamples. Rows are resampled, that is, seeds of one cell apart from each other: the
            noise between seeds is part of what the interval covers.
        size_column: the X of the model-size law.

    Returns:
        Fits whose `extra` holds `factor`, `fixed` and `sizes` (all values of X in the rows) and whose
        `errors` holds `nearest_neighbour_mad`.
    """
    planned = [plan for plan in study_plan(table, hold_out, size_column) if plan.reason is None]
    return [_fit(plan, hold_out, seed, bootstrap) for plan in planned]


def skipped_fits(table: Table, hold_out: str | None, size_column: str = "non_embedding_params") -> list[str]:
    """One sentence for every fit of the plan that the table does not allow."""
    return [
        f"{plan.law} by {plan.factor} for {describe(plan.group)}: {plan.reason}"
        for plan in study_plan(table, hold_out, size_column)
        if plan.reason is not None
    ]


def study_plan(
    table: Table, hold_out: str | None, size_column: str = "non_embedding_params"
) -> list[PlannedFit]:
    """What there is to fit, in the order task, method, factor.

    Raises:
        InputError: a column of `results.csv` is missing or holds text for numbers; no row has examples.
    """
    for column in ("task", "method", "loss", EXAMPLES, size_column):
        table.text(column)
    table = _with_column(_with_column(table, "pretrain_tokens"), "tuning_size")
    table = table.where(f"{EXAMPLES} > 0")
    if not len(table):
        raise InputError(f"{table.source}: no row that is done has {EXAMPLES} above 0")
    plans = []
    for group, rows in table.groups(("task", "method")):
        usual_tuning = _most_spread(rows, "tuning_size", (size_column, "pretrain_tokens", EXAMPLES))
        usual = _only(rows, {"tuning_size": usual_tuning})
        shared = _shared_pretraining(usual, size_column)
        plans += _by_model_size(usual, group, usual_tuning, shared, size_column, hold_out)
        plans += _by_pretraining(usual, group, usual_tuning, size_column, hold_out)
        plans += _by_tuning_size(rows, group, size_column, hold_out)
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
    lines = ["Fits (value [90% interval]; ? = not identified; errors are mean |loss - law|)"]
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


def _by_model_size(rows, group, tuning, shared, size_column, hold_out) -> list[PlannedFit]:
    plans = []
    for size_group, at_size in rows.groups((size_column,)):
        lengths = at_size.text("pretrain_tokens")
        length = shared if shared in set(lengths) else _largest(lengths)
        chosen = _only(at_size, {"pretrain_tokens": length})
        own = {**group, **({"model": chosen.text("model")[0]} if "model" in chosen else {}), **size_group}
        fixed = {"pretrain_tokens": length, "tuning_size": tuning}
        plans.append(_planned("single", "power", None, own, fixed, chosen, hold_out))
    if len(set(rows.text(size_column))) < 2:
        return plans
    for law in JOINT_LAWS:
        chosen = rows if shared is None else _only(rows, {"pretrain_tokens": shared})
        fixed = {"pretrain_tokens": shared or "", "tuning_size": tuning}
        plan = _planned("model_size", law, size_column, group, fixed, chosen, hold_out)
        if shared is None:
            plan = dataclasses.replace(plan, reason="no pretraining length is shared by all model sizes")
        plans.append(plan)
    return plans


def _by_pretraining(rows, group, tuning, size_column, hold_out) -> list[PlannedFit]:
    rows = rows.where("pretrain_tokens > 0")
    counts = {g[size_column]: len(set(r.text("pretrain_tokens"))) for g, r in rows.groups((size_column,))}
    if not counts or max(counts.values()) < 2:
        return []
    model = max(counts, key=counts.get)
    chosen = _only(rows, {size_column: model})
    fixed = {size_column: model, "tuning_size": tuning}
    return [
        _planned("pretraining", law, "pretrain_tokens", group, fixed, chosen, hold_out) for law in JOINT_LAWS
    ]


def _by_tuning_size(rows, group, size_column, hold_out) -> list[PlannedFit]:
    rows = rows.where("tuning_size > 0")
    cells = rows.groups((size_column, "pretrain_tokens"))
    counts = [len(set(cell.text("tuning_size"))) for _, cell in cells]
    if not counts or max(counts) < 2:
        return []
    fixed, chosen = cells[int(np.argmax(counts))]
    return [_planned("tuning_size", law, "tuning_size", group, fixed, chosen, hold_out) for law in JOINT_LAWS]


def _planned(factor, law, x, group, fixed, rows, hold_out) -> PlannedFit:
    reason = None
    columns = {"d": EXAMPLES} | ({"x": x} if x else {})
    held = rows.matches(hold_out) if hold_out else np.zeros(len(rows), bool)
    fitted = {role: rows.positive(column)[~held] for role, column in columns.items()}
    try:
        check_enough(rows, find_law(law), columns, fitted, group)
    except InputError as error:
        reason = str(error).removeprefix(f"{rows.source}: ")
    return PlannedFit(factor, law, x, group, fixed, rows, reason)


def _fit(plan: PlannedFit, hold_out, seed, bootstrap) -> Fit:
    columns = {"d": EXAMPLES} | ({"x": plan.x} if plan.x else {})
    by = tuple(plan.group)
    fit = fit_table(
        plan.rows, plan.law, columns, "loss", by=by, hold_out=hold_out, bootstrap=bootstrap, seed=seed
    )[0]
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


def _only(rows: Table, values: Mapping[str, str]) -> Table:
    """The rows with these values, and no others, also among the lost."""
    for group, members in rows.groups(tuple(values)):
        if group == dict(values):
            return members
    return rows.rows(np.zeros(len(rows), bool))


def _most_spread(rows: Table, column: str, over: Sequence[str]) -> str:
    """The value of a column that is there at the most cells of the other columns; the first on a tie."""
    cells: dict[str, set] = {}
    keys = zip(*(rows.text(name) for name in over), strict=True)
    for value, key in zip(rows.text(column), keys, strict=True):
        cells.setdefault(value, set()).add(key)
    return max(cells, key=lambda value: len(cells[value]))


def _shared_pretraining(rows: Table, size_column: str) -> str | None:
    """The largest pretraining length that every model size has, or None."""
    lengths = [set(at_size.text("pretrain_tokens")) for _, at_size in rows.groups((size_column,))]
    common = set.intersection(*lengths)
    return _largest(common) if common else None


def _largest(values) -> str:
    return max(values, key=lambda value: float(value or 0))


def _with_column(table: Table, column: str) -> Table:
    if column in table:
        return table
    empty = np.full(len(table), "", object)
    lost = table.lost if table.lost is None else _with_column(table.lost, column)
    return Table(table.source, {**table.cells, column: empty}, table.lines, lost)
