"""Predicts losses from fitted laws, with intervals of the law (one more run scatters around it)."""

import argparse
import json

from scaling_jax.errors import InputError

SUMMARY = "predict losses from fits.json"
EXAMPLE = """  scaling-jax predict fits.json --at 'model_params=1.6e10,finetune_examples=1e6'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `predict` takes."""
    parser.add_argument("fits", help="fits.json, or the folder that holds it")
    parser.add_argument(
        "--at",
        action="append",
        required=True,
        metavar="A=1,B=2",
        help="values of the law's columns; a column of the groups picks fits; may be repeated",
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of a table")


def run(arguments: argparse.Namespace) -> int:
    """Predicts and prints."""
    from scaling_jax.laws.results import plain, read_fits

    fits = read_fits(arguments.fits)
    rows = []
    for text in arguments.at:
        at = parse_at(text)
        matching = pick(fits, at)
        if not matching:
            raise InputError(f"--at {text!r}: no fit in {arguments.fits} has such a group")
        # A study's fits have laws in different columns: those whose columns are given answer.
        answering = [fit for fit in matching if not fit.missing(at)] or matching[:1]
        rows += [_predicted(fit, at) for fit in answering]
    if arguments.json:
        print(json.dumps(plain(rows), indent=1, allow_nan=False))
        return 0
    described = {row["y"] for row in rows}
    heading = described.pop() if len(described) == 1 else "predicted"
    table = [("law", "group", "at", heading, f"{100 * fits[0].level:.0f}% interval", "")]
    for row in rows:
        shown = [", ".join(f"{k}={v}" for k, v in row["group"].items())]
        shown.append(", ".join(f"{column}={value:g}" for column, value in row["at"].items()))
        interval = f"{row['low']:.5g} to {row['high']:.5g}"
        table.append((row["law"], *shown, f"{row['loss']:.5g}", interval, "; ".join(row["extrapolates"])))
    print(aligned(table))
    return 0


def parse_at(text: str) -> dict[str, float | str]:
    """Reads "column=value,column=value"; numbers where they are.

    Raises:
        InputError: not of that form, or a column twice.
    """
    found: dict[str, float | str] = {}
    for part in text.split(","):
        column, separator, value = part.partition("=")
        column, value = column.strip(), value.strip()
        if not separator or not column or not value:
            raise InputError(f"--at {text!r}: {part.strip()!r} is not COLUMN=VALUE")
        if column in found:
            raise InputError(f"--at {text!r}: {column!r} is given twice")
        try:
            found[column] = float(value)
        except ValueError:
            found[column] = value
    return found


def pick(fits, at) -> list:
    """The fits whose groups agree with `at` in every column that both name.

    Raises:
        InputError: `at` names a column that is in no fit.
    """
    from scaling_jax.errors import did_you_mean

    known = {column for fit in fits for column in (*fit.group, *fit.columns, *fit.columns.values())}
    for column in at:
        if column not in known:
            raise InputError(f"--at: no fit has a column {column!r}{did_you_mean(column, known)}")
    return [fit for fit in fits if all(_same(fit.group[c], at[c]) for c in fit.group if c in at)]


def _same(value, given) -> bool:
    """Whether two values are equal, as numbers where both are."""
    try:
        return float(value) == float(given)
    except (TypeError, ValueError):
        return str(value) == str(given)


def aligned(rows: list[tuple]) -> str:
    """Rows of text in columns as wide as their widest cell."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)


def _predicted(fit, at) -> dict:
    value, low, high = (float(part) for part in fit.predict(at))
    used = {fit.columns[role]: float(values) for role, values in fit.column_values(at).items()}
    return {
        "law": fit.law,
        "group": dict(fit.group),
        "at": used,
        "y": fit.columns["y"],
        "loss": value,
        "low": low,
        "high": high,
        "level": fit.level,
        "extrapolates": fit.beyond(at),
    }
