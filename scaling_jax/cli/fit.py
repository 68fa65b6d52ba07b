"""Fits a scaling law to a table of results (.csv, .tsv or .jsonl), with intervals and held-out error."""

import argparse
import json
import re
from pathlib import Path

from scaling_jax.errors import InputError

SUMMARY = "fit a scaling law to a table of results"
EXAMPLE = """  scaling-jax fit results.csv --law multiplicative --x model_params --d finetune_examples \\
      --y loss --by task,method --where 'finetune_examples > 0' --hold_out 'model_params >= 1.6e10' --out fits
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `fit` takes."""
    parser.add_argument(
        "table", help="a .csv, .tsv or .jsonl file; rows whose status is not done are left out"
    )
    parser.add_argument(
        "--law", required=True, help="power, multiplicative, additive, or path/to/file.py:name"
    )
    parser.add_argument("--x", metavar="COLUMN", help="model size, pretraining tokens or tuning size")
    parser.add_argument("--d", metavar="COLUMN", help="finetuning examples (or the one size of `power`)")
    parser.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="ROLE=COLUMN",
        help="a column for any other role of a law",
    )
    parser.add_argument("--y", default="loss", metavar="COLUMN", help="the loss (default: loss)")
    parser.add_argument(
        "--by", default="", metavar="A,B", help="one fit for each combination of these columns"
    )
    parser.add_argument("--where", metavar="EXPRESSION", help="only rows where this holds")
    parser.add_argument(
        "--derive",
        action="append",
        default=[],
        metavar="NAME=EXPRESSION",
        help="adds a column, e.g. t = flop / n",
    )
    parser.add_argument("--hold_out", metavar="EXPRESSION", help="rows that are predicted, not fitted")
    parser.add_argument(
        "--residual", default="log", choices=("log", "linear"), help="of log loss, or of the loss"
    )
    parser.add_argument("--delta", type=float, default=1e-3, help="where the Huber loss becomes absolute")
    parser.add_argument("--bootstrap", type=int, default=1000, help="resamples for the intervals")
    parser.add_argument("--cluster", metavar="COLUMN", help="resample rows of one value together, e.g. seed")
    parser.add_argument("--seed", type=int, default=0, help="of the resamples")
    parser.add_argument("--out", metavar="DIR", help="write fits.json and a picture of every fit here")
    parser.add_argument("--json", action="store_true", help="print fits.json instead of tables")


def run(arguments: argparse.Namespace) -> int:
    """Fits, writes and prints."""
    from scaling_jax.laws.fit import fit_table
    from scaling_jax.laws.results import write_fits
    from scaling_jax.laws.table import read_table

    out = Path(arguments.out) if arguments.out else None
    if out is not None and (out / "study.json").exists():
        raise InputError(f"{out} holds a study; write the fits to another folder")
    table = read_table(arguments.table)
    for assignment in arguments.derive:
        table = table.derive(assignment)
    by = tuple(name.strip() for name in arguments.by.split(",") if name.strip())
    fits = fit_table(
        table,
        arguments.law,
        _columns(arguments),
        arguments.y,
        by=by,
        where=arguments.where,
        hold_out=arguments.hold_out,
        residual=arguments.residual,
        delta=arguments.delta,
        bootstrap=arguments.bootstrap,
        seed=arguments.seed,
        cluster=arguments.cluster,
    )
    written = []
    if out is not None:
        from scaling_jax.laws.plots import write_plot

        written.append(write_fits(out / "fits.json", fits))
        groups = table.where(arguments.where).groups(by)
        for position, (fit, (_, rows)) in enumerate(zip(fits, groups, strict=True)):
            written.append(write_plot(fit, rows, out / f"{_file_name(fit, position)}.png"))
    if arguments.json:
        print(json.dumps([fit.to_json() for fit in fits], indent=1, allow_nan=False))
    else:
        print("\n\n".join(fit_text(fit) for fit in fits))
        for path in written:
            print(f"wrote {path}")
    return 0


def fit_text(fit) -> str:
    """One fit as an aligned table."""
    roles = ", ".join(f"{role.upper()} = {column}" for role, column in fit.columns.items() if role != "y")
    group = ", ".join(f"{column}={value}" for column, value in fit.group.items())
    counts = (
        f"{fit.rows['fitted']} rows fitted, {fit.rows['held_out']} held out, {fit.rows['dropped']} dropped"
    )
    reasons = ", ".join(f"{count} {reason}" for reason, count in fit.dropped_reasons.items())
    lines = [f"{fit.equation}" + (f"    [{group}]" if group else "")]
    lines.append(f"  L = {fit.columns['y']}, {roles}; {counts}{f' ({reasons})' if reasons else ''}")
    lines.append(f"  {'parameter':<10} {'value':>11}   {100 * fit.level:.0f}% interval")
    for name, value in fit.parameters.items():
        low, high = fit.intervals[name]
        known = fit.identified[name]
        note = "" if known is True else f"   not identified: {known}"
        lines.append(f"  {name:<10} {value:>11.5g}   {low:>10.4g} to {high:<10.4g}{note}".rstrip())
    lines.append(f"  {'error':<10} {'mean |loss - law|':>18} {'RMS of log':>12}")
    for name in ("fitted", "held_out"):
        if fit.errors[f"{name}_mad"] is not None:
            label = name.replace("_", " ")
            lines.append(
                f"  {label:<10} {fit.errors[f'{name}_mad']:>18.5f} {fit.errors[f'{name}_rmsd_log']:>12.5f}"
            )
    lines.append(
        f"  Huber sum {fit.objective['value']:.6g} (delta {fit.objective['delta']:g}, "
        f"{fit.objective['kind']}); {fit.starts['agreeing']} of {fit.starts['total']} starts agree; "
        f"condition number {fit.condition_number:.2g}"
    )
    return "\n".join(lines)


def _columns(arguments: argparse.Namespace) -> dict[str, str]:
    columns = {role: column for role, column in (("x", arguments.x), ("d", arguments.d)) if column}
    for given in arguments.column:
        role, separator, column = given.partition("=")
        if not separator or not role.strip() or not column.strip():
            raise InputError(f"--column {given!r} is not ROLE=COLUMN")
        columns[role.strip()] = column.strip()
    return columns


def _file_name(fit, position: int) -> str:
    words = [fit.form.name, *(str(value) for value in fit.group.values())]
    return f"{position:02d}_" + re.sub(r"[^A-Za-z0-9._]+", "-", "_".join(words))[:80]
