"""Replays pilots on a table of results: fits the small sizes, predicts, chooses, compares with the largest.

Every rule is judged at the largest size that all curves have: errors, how often intervals hold what was
measured, and what choosing by the prediction would have cost, beside taking the best at the largest pilot
size and AtS of Lin et al. (2024).
"""

import argparse
import json
from pathlib import Path

from scaling_jax.errors import InputError

SUMMARY = "replay pilots on measured curves: coverage, error, regret"
EXAMPLE = """  scaling-jax backtest results.csv --d finetune_examples --y loss --by model,method \\
      --select method --ends 1/8,1/32 --out backtest
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `backtest` takes."""
    parser.add_argument("table", help="a table of results; rows whose status is not done are left out")
    parser.add_argument("--d", default="finetune_examples", metavar="COLUMN", help="the sizes")
    parser.add_argument("--y", default="loss", metavar="COLUMN", help="what is predicted, lower is better")
    parser.add_argument("--by", required=True, metavar="A,B", help="one curve for each combination of these")
    parser.add_argument(
        "--select", metavar="A", help="choose among curves along these (default: all of --by)"
    )
    parser.add_argument(
        "--ends", default="1/8,1/32,1/128,1/512", help="where pilots end, of the largest size"
    )
    parser.add_argument("--law", default="", metavar="P,Q", help="forms to average (default: three of d)")
    parser.add_argument("--fold", metavar="COLUMN", help="cross-validate over this (default: each curve)")
    parser.add_argument("--where", metavar="EXPRESSION", help="only rows where this holds")
    parser.add_argument(
        "--derive", action="append", default=[], metavar="NAME=EXPRESSION", help="adds a column"
    )
    parser.add_argument("--draws", type=int, default=100, help="behind the intervals, per curve and form")
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument("--out", metavar="DIR", help="write backtest.json, backtest.md and backtest.png here")
    parser.add_argument("--json", action="store_true", help="print the object instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Replays, writes and prints."""
    from scaling_jax.decisions.backtest import FORMS, backtest
    from scaling_jax.decisions.backtest_text import markdown, table_text
    from scaling_jax.decisions.rolling import curves_of
    from scaling_jax.files import write_json, write_text
    from scaling_jax.laws.table import read_table
    from scaling_jax.training.platform import keep_compiled

    by, ends = _names(arguments.by), _ends(arguments.ends)
    select = _names(arguments.select) if arguments.select is not None else by
    for column in select:
        if column not in by:
            raise InputError(f"--select {column}: not one of --by {arguments.by}")
    table = read_table(arguments.table)
    for assignment in arguments.derive:
        table = table.derive(assignment)
    keep_compiled()
    curves = curves_of(table, {"d": arguments.d}, arguments.y, by, arguments.where)
    folds = _folds(table, arguments, by, curves) if arguments.fold else None
    found = backtest(
        curves,
        str(arguments.table),
        by,
        select,
        ends,
        _names(arguments.law) or FORMS,
        folds,
        arguments.draws,
        arguments.seed,
    )
    written = []
    if arguments.out:
        from scaling_jax.decisions.backtest_plot import write_backtest_plot

        out = Path(arguments.out)
        written.append(write_json(out / "backtest.json", found.to_json()))
        written.append(write_text(out / "backtest.md", markdown(found) + "\n"))
        written.append(write_backtest_plot(found, out / "backtest.png"))
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1, allow_nan=False))
        return 0
    print(table_text(found))
    for path in written:
        print(f"wrote {path}")
    return 0


def _ends(text: str) -> list[float]:
    """Reads "1/8,0.05".

    Raises:
        InputError: not shares.
    """
    found = []
    for part in text.split(","):
        above, slash, below = part.strip().partition("/")
        try:
            found.append(float(above) / float(below) if slash else float(above))
        except (ValueError, ZeroDivisionError) as error:
            raise InputError(
                f"--ends {text!r}: {part.strip()!r} is not a share such as 1/8 or 0.05"
            ) from error
    if len(set(found)) < len(found):
        raise InputError(f"--ends {text!r}: a share is given twice")
    return found


def _folds(table, arguments, by, curves) -> list[str]:
    """The fold of each curve.

    Raises:
        InputError: the column varies inside a curve.
    """
    table.text(arguments.fold)
    rows = table.where(arguments.where)
    labels = {}
    for group, own in rows.groups(by):
        values = set(own.text(arguments.fold))
        if len(values) > 1:
            raise InputError(
                f"--fold {arguments.fold}: varies inside a curve ({', '.join(sorted(values)[:3])})"
            )
        labels[tuple(group.values())] = values.pop()
    return [labels[tuple(group.values())] for group in curves.groups]


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]
