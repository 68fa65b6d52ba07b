"""Which columns of a results table may vary under a fit, and the refusal when another one does.

A law over model size and examples means nothing if pretraining length also varied among its rows
and nobody said so. A design column that varies inside a group must be in the law, in `--by`, or
fixed by `--where`.
"""

from collections.abc import Iterable

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.laws.table import Table

# Columns of one entry are names of one factor.
FACTORS = (
    ("method",),
    ("task",),
    ("model", "model_params", "non_embedding_params"),
    ("pretrain_mixture",),
    ("pretrain_tokens",),
    ("after",),
    ("finetune_examples",),
    ("tuning_size",),
)


def check_design(table: Table, used: Iterable[str], group: dict) -> None:
    """Refuses a group in which a design column varies and nothing accounts for it.

    A column is accounted for when it is in `used` (the law's columns and `--by`), is another name of such a
    factor, or has one value for each value of a used column and the other way round.

    Raises:
        InputError: says which column varies, over which values, and what to add.
    """
    used = [column for column in used if column in table]
    for names in FACTORS:
        present = [name for name in names if name in table]
        if any(name in used for name in present):
            continue
        loose = [name for name in present if not _accounted(table.text(name), table, used)]
        if not loose:
            continue
        column = loose[0]
        values = np.unique(table.text(column).astype(str))
        shown = ", ".join(value or "empty" for value in values[:4]) + (", ..." if len(values) > 4 else "")
        inside = f" in the group {describe(group)}" if group else ""
        raise InputError(
            f"{table.source}: {column!r} varies{inside} ({shown}) but is neither in the law, nor in --by, "
            f"nor fixed by --where; add for example --by {column} or --where '{column} == {_example(values)}'"
        )


def describe(group: dict) -> str:
    """A group as text, for example "task=translation, method=lora"."""
    return ", ".join(f"{column}={value}" for column, value in group.items()) or "all rows"


def _accounted(values: np.ndarray, table: Table, used: list[str]) -> bool:
    if len(set(values)) < 2:
        return True
    for column in used:
        pairs = set(zip(values, table.text(column), strict=True))
        if len(pairs) == len(set(values)) == len(set(table.text(column))):
            return True
    return False


def _example(values: np.ndarray) -> str:
    value = next((value for value in values[::-1] if value), "")
    try:
        float(value)
        return value
    except ValueError:
        return f'"{value}"'
