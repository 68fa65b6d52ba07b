"""Which rows of a results table belong to the law of one factor, everything else held fixed.

The factors of Zhang et al. (ICLR 2024), Table 1b: model size, pretraining tokens and tuning size, each
beside the finetuning examples. The model-size law takes the rows at the largest pretraining length that
all sizes share; the pretraining law those of the model with the most lengths; the tuning-size law those
of the model and length with the most tuning sizes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaling_jax.laws.table import Table

EXAMPLES, PRETRAINING, TUNING = "finetune_examples", "pretrain_tokens", "tuning_size"
MIXTURE, EARLIER = "pretrain_mixture", "after"
NOT_PRETRAINED = "not pretrained (pretrain_tokens 0)"


@dataclass(frozen=True)
class FactorRows:
    """The rows of one factor.

    Attributes:
        factor: "model_size", "pretraining" or "tuning_size".
        x: the column of the factor.
        rows: the rows.
        fixed: column -> the value that all rows have.
        reason: why there is no law of this factor; None where there may be one.
    """

    factor: str
    x: str
    rows: Table
    fixed: Mapping[str, str]
    reason: str | None = None


def model_size_rows(rows: Table, size_column: str) -> FactorRows | None:
    """The rows of the model-size law of one task and method; None where there is one model size."""
    usual, tuning = usual_tuning(rows, size_column)
    if len(set(usual.text(size_column))) < 2:
        return None
    shared = shared_pretraining(usual, size_column)
    if shared is None:
        fixed = {TUNING: tuning}
        reason = "no pretraining length is shared by all model sizes"
        return FactorRows("model_size", size_column, usual, fixed, reason)
    fixed = {PRETRAINING: shared, TUNING: tuning}
    return FactorRows("model_size", size_column, only(usual, {PRETRAINING: shared}), fixed)


def pretraining_rows(rows: Table, size_column: str) -> FactorRows | None:
    """The rows of the pretraining law of one task and method; None where no model has two lengths."""
    usual, tuning = usual_tuning(rows, size_column)
    usual = _above_zero(lose_not_pretrained(usual), PRETRAINING)
    counts = {
        group[size_column]: len(set(members.text(PRETRAINING)))
        for group, members in usual.groups((size_column,))
    }
    if not counts or max(counts.values()) < 2:
        return None
    model = max(counts, key=counts.get)
    fixed = {size_column: model, TUNING: tuning}
    return FactorRows("pretraining", PRETRAINING, only(usual, {size_column: model}), fixed)


def tuning_size_rows(rows: Table, size_column: str) -> FactorRows | None:
    """The rows of the tuning-size law of one task and method; None where there is one tuning size."""
    rows = _above_zero(rows, TUNING)
    cells = rows.groups((size_column, PRETRAINING)) if len(rows) else []
    counts = [len(set(cell.text(TUNING))) for _, cell in cells]
    if not counts or max(counts) < 2:
        return None
    fixed, chosen = cells[int(np.argmax(counts))]
    return FactorRows("tuning_size", TUNING, chosen, fixed)


def lose_not_pretrained(rows: Table) -> Table:
    """Moves the rows of models that were not pretrained to the lost: there is no logarithm of no tokens."""
    if PRETRAINING not in rows:
        return rows
    return rows.lose(rows.numbers(PRETRAINING) == 0, NOT_PRETRAINED)


def told_apart(
    tasks: Sequence[str],
    mixtures: Sequence[str],
    earlier: Sequence[str],
    tokens: Sequence[str],
    known: Collection[str],
) -> list[str]:
    """Names of the tasks that tell apart what is pretrained on several mixtures, and what was tuned before.

    What no law mixes then has a task of its own: `task@mixture`, `task@not_pretrained`,
    `task@after-full-d2000`; just `task` where a table has one mixture and nothing tuned before.

    Args:
        tasks: of the rows, as the other columns.
        mixtures: column `pretrain_mixture`, "" is the recipe without a name.
        earlier: column `after`.
        tokens: column `pretrain_tokens`, as text.
        known: every mixture of the study, those of failed runs among them.
    """
    several = len(set(known) - {""}) > 1
    found = []
    for task, mixture, before, seen in zip(tasks, mixtures, earlier, tokens, strict=True):
        name = mixture or ("not_pretrained" if seen in ("0", "0.0") else "")
        parts = [task, *([name] if several and name else []), *([f"after-{before}"] if before else [])]
        found.append("@".join(parts))
    return found


def usual_tuning(rows: Table, size_column: str) -> tuple[Table, str]:
    """The rows at the tuning size that is there at the most cells, and that size; the first on a tie."""
    cells: dict[str, set] = {}
    keys = zip(*(rows.text(name) for name in (size_column, PRETRAINING, EXAMPLES)), strict=True)
    for value, key in zip(rows.text(TUNING), keys, strict=True):
        cells.setdefault(value, set()).add(key)
    usual = max(cells, key=lambda value: len(cells[value]))
    return only(rows, {TUNING: usual}), usual


def shared_pretraining(rows: Table, size_column: str) -> str | None:
    """The largest pretraining length that every model size has, or None."""
    lengths = [set(at_size.text(PRETRAINING)) for _, at_size in rows.groups((size_column,))]
    common = set.intersection(*lengths)
    return largest(common) if common else None


def largest(values: Sequence[str]) -> str:
    """The largest of numbers written as text; an empty one counts as zero."""
    return max(values, key=lambda value: float(value or 0))


def only(rows: Table, values: Mapping[str, str]) -> Table:
    """The rows with these values, and no others, also among the lost."""
    lost = rows.lost if rows.lost is None else only(rows.lost, values)
    matching = [rows.text(column) == value for column, value in values.items()]
    return replace(rows.rows(np.logical_and.reduce(matching)), lost=lost)


def with_column(table: Table, column: str) -> Table:
    """The table with an empty column of that name where it has none."""
    if column in table:
        return table
    lost = table.lost if table.lost is None else with_column(table.lost, column)
    return replace(table, cells={**table.cells, column: np.full(len(table), "", object)}, lost=lost)


def blank_missing(table: Table, column: str) -> Table:
    """The table with "" for every word, such as NA, that says that a number was not measured."""
    missing = np.isnan(table.numbers(column))
    cells = np.where(missing, "", table.text(column)).astype(object)
    return replace(table, cells={**table.cells, column: cells})


def _above_zero(rows: Table, column: str) -> Table:
    """The rows with a number above zero in a column that may be empty throughout; no row is lost by it."""
    return rows.rows(rows.matches(f"{column} > 0"))
