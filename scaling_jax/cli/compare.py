"""Compares two methods (or values of another column): which is better below and above which size."""

import argparse
import itertools
import json

from scaling_jax.cli.predict import aligned, parse_at, pick
from scaling_jax.errors import InputError

SUMMARY = "compare two methods' fitted laws: critical data sizes"
EXAMPLE = """  scaling-jax compare fits.json --methods full,lora --at 'model_params=1e9'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `compare` takes."""
    parser.add_argument("fits", help="fits.json, or its folder; the fits must be --by method")
    parser.add_argument("--methods", metavar="A,B", help="which values to compare (default: all pairs)")
    parser.add_argument(
        "--between",
        default="method",
        metavar="COLUMN",
        help="the --by column whose values are compared (default: method)",
    )
    parser.add_argument(
        "--at", default="", metavar="A=1,B=2", help="values of the law's other columns, and of group columns"
    )
    parser.add_argument(
        "--range", metavar="LOW,HIGH", help="sizes to search (default: well beyond the fitted)"
    )
    parser.add_argument("--json", action="store_true", help="print a list of objects instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Compares all pairs of methods asked for and prints."""
    from scaling_jax.laws.results import plain, read_fits

    at = parse_at(arguments.at) if arguments.at else {}
    search_range = _range(arguments.range)
    between = arguments.between
    read = read_fits(arguments.fits)
    fits = [fit for fit in pick(read, at) if between in fit.group]
    methods = _methods(arguments, fits, read)
    pairs = [pair for pair in itertools.combinations(fits, 2) if _comparable(*pair, methods, between)]
    if not pairs:
        raise InputError(
            f"no two fits differ in {between} alone; fit with --by {between} (or --by task,{between})"
        )
    # A study's fits have laws in different columns: those whose columns are given answer.
    answering = [pair for pair in pairs if not pair[0].missing({"d": 1.0, **at})] or pairs[:1]
    found = [_compared(first, second, at, search_range, between) for first, second in answering]
    if arguments.json:
        print(json.dumps(plain(found), indent=1, allow_nan=False))
        return 0
    print("\n\n".join(_text(entry) for entry in found))
    return 0


def _compared(first, second, at: dict, search_range, between: str) -> dict:
    from scaling_jax.decisions.critical_size import critical_sizes, difference

    needed = {
        column: value for column, value in at.items() if column in (*first.columns, *first.columns.values())
    }
    along = {"d", first.columns.get("d")}
    fixed = {column: value for column, value in needed.items() if column not in along}
    group = {column: value for column, value in first.group.items() if column != between}
    compared = critical_sizes(first, second, fixed, search_range, between=between)
    entry = {"law": first.law, "group": group} | compared.to_json()
    if fixed != needed:
        value, low, high = difference(first, second, needed)
        lead = value if first.form.better == "lower" else -value
        better = entry["first"] if lead < 0 else entry["second"] if lead > 0 else None
        entry["difference"] = {
            "at": needed,
            "y": first.columns["y"],
            "value": value,
            "low": low,
            "high": high,
        }
        entry["difference"]["better"] = better
    return entry


def _text(entry: dict) -> str:
    fixed = [f"{column}={value}" for column, value in entry["group"].items()]
    where = ", ".join(fixed + [f"{column}={value:g}" for column, value in entry["at"].items()])
    rows = [(f"{entry['first']} and {entry['second']}", f"{entry['law']}{': ' + where if where else ''}")]
    lines = [aligned(rows), f"  {entry['text']}"]
    if entry.get("difference"):
        gap = entry["difference"]
        at = ", ".join(f"{column}={value:g}" for column, value in gap["at"].items())
        told = f"{gap['better']} is better" if gap["better"] else "no difference"
        sure = "" if gap["low"] * gap["high"] > 0 else " (the interval holds zero: the data do not tell)"
        lines.append(
            f"  at {at}: {gap['y']} of {entry['first']} minus {entry['second']} {gap['value']:+.4g} "
            f"[{gap['low']:+.4g}, {gap['high']:+.4g}]: {told}{sure}"
        )
    form = entry["closed_form"]
    if form and form["H"] is not None:
        lines.append(f"  equal reducible loss at D = {form['H']:.3g} * X^{form['gamma']:.3g} (Eq. 3)")
    return "\n".join(lines)


def _methods(arguments, fits, read) -> set[str]:
    from scaling_jax.errors import did_you_mean

    between = arguments.between
    known = {str(fit.group[between]) for fit in fits}
    if not known:
        columns = {column for fit in read for column in fit.group}
        raise InputError(
            f"{arguments.fits}: no fit has {between!r} in its group{did_you_mean(between, columns)}; "
            f"fit with --by {between}"
        )
    if not arguments.methods:
        return known
    chosen = [name.strip() for name in arguments.methods.split(",")]
    for name in chosen:
        if name not in known:
            raise InputError(f"--methods: no fit of {between} {name!r}{did_you_mean(name, known)}")
    if len(set(chosen)) < 2:
        raise InputError("--methods needs two names, for example full,lora")
    return set(chosen)


def _comparable(first, second, methods: set[str], between: str) -> bool:
    one, two = dict(first.group), dict(second.group)
    names = str(one.pop(between)), str(two.pop(between))
    # A study's fits of one law differ in what they hold fixed and in the column of X.
    same = (one, first.law, dict(first.columns)) == (two, second.law, dict(second.columns))
    return same and names[0] != names[1] and set(names) <= methods


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--range {text!r} is not LOW,HIGH, for example 100,1e7") from error
    return low, high
