"""Scores from losses: a relation for each method, so that a predicted loss becomes a predicted score.

Zhang et al. (ICLR 2024), Table 7: loss and score mostly go together (Pearson -0.8 to -0.99), but not always
(-0.18 for full tuning of En-De over model size). So a relation that the rows do not show is said, not used.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings, fit_table
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table

LAW = "loss_to_score"
# Fewer rows show no relation; a weaker correlation of logarithms is none.
_FEWEST, _CORRELATION = 5, 0.5


def split_scores(fits: Sequence[Fit], along: str) -> tuple[list[Fit], dict[str, Fit]]:
    """(fits of losses, method -> fit of a score by the loss) of a file that may hold both."""
    losses = [fit for fit in fits if "y" in fit.columns and not _relates(fit)]
    scores = {str(fit.group[along]): fit for fit in fits if _relates(fit) and along in fit.group}
    return losses, scores


def fit_scores(
    table: Table, score: str, loss: str, along: str, at: Mapping, where: str | None = None
) -> dict[str, Fit]:
    """Fits the score by the loss for each method that shows a relation.

    Args:
        table: results with both columns.
        score, loss: columns.
        along: the method's column.
        at: the target; a task in it picks rows.
        where: only rows where this expression is true.

    Returns:
        Method -> fit; a method without five rows or without a falling relation is left out.

    Raises:
        InputError: a column is missing, the methods have no score at all, tasks are mixed.
    """
    rows = table.where(where)
    for column in (score, loss, along):
        rows.text(column)
    if "task" in rows:
        if "task" in at:
            rows = rows.rows(rows.text("task") == str(at["task"]))
        elif len(set(rows.text("task"))) > 1:
            tasks = ", ".join(sorted(set(rows.text("task")))[:4])
            raise InputError(
                f"{table.source}: scores of several tasks ({tasks}) are not mixed; add task to --at"
            )
    rows = rows.drop_missing([score, loss])
    rows = rows.rows(rows.numbers(score) > 0) if len(rows) else rows
    if not len(rows):
        raise InputError(f"{table.source}: no row has both {score!r} and {loss!r} above zero")
    found = {}
    for group, own in rows.groups((along,)):
        losses, scores = own.positive(loss), own.positive(score)
        if len(own) < _FEWEST or np.ptp(losses) == 0 or np.ptp(scores) == 0:
            continue
        if np.corrcoef(losses, np.log(scores))[0, 1] > -_CORRELATION:
            continue
        # Rows of all sizes: the relation is of the loss, whatever made it.
        bare = Table(own.source, {name: own.cells[name] for name in (score, loss)}, own.lines)
        settings = Settings(loss="squared", bootstrap=300)
        found[group[along]] = fit_table(bare, LAW, {"x": loss}, score, settings=settings)[0]
    return found


def _relates(fit: Fit) -> bool:
    return fit.law == LAW
