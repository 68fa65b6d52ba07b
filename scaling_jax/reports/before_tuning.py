"""Models as they are before they are tuned: scores with no example, or with a few of them in the prompt."""

import csv

from scaling_jax.errors import InputError
from scaling_jax.reports import words
from scaling_jax.reports.blocks import Section, Table
from scaling_jax.reports.study_data import Study

_ABOUT = (
    *("base_id", "task", "model", "model_params", "non_embedding_params"),
    *("pretrain_mixture", "pretrain_tokens", "status", "reason", "record"),
)


def section(study: Study) -> Section | None:
    """One row per model and task of bases.csv; None where a study evaluated no model before tuning.

    Raises:
        InputError: bases.csv lacks a column, or a cell is no number.
    """
    path = study.folder / "bases.csv"
    if not path.is_file():
        return None
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    missing = [name for name in _ABOUT if rows and name not in rows[0]]
    if missing:
        raise InputError(f"{path}: no column {missing[0]!r}; give the folder that `scaling-jax study` wrote")
    measured = [name for name in (rows[0] if rows else ()) if name not in _ABOUT]
    measured = [name for name in measured if any(row[name] for row in rows)]
    if not measured:
        return None
    table = Table(
        "Models before tuning",
        ["Model", "Mixture", "Pretraining tokens", "Task", *(words.column(name) for name in measured)],
        [
            [
                row["model"],
                row["pretrain_mixture"] or "–",
                words.count(_number(path, row, "pretrain_tokens")),
                row["task"],
                *(words.number(_number(path, row, name)) for name in measured),
            ]
            for row in rows
        ],
        text=(0, 1, 3),
        caption="The same evaluations as of tuned models, made of their bases; from bases.csv.",
    )
    return Section("before", "Before tuning", "What the models do before they are tuned", [table])


def _number(path, row: dict[str, str], column: str) -> float | None:
    try:
        return float(row[column]) if row[column] else None
    except ValueError as error:
        raise InputError(f"{path}: column {column!r}: {row[column]!r} is not a number") from error
