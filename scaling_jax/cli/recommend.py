"""Recommends a method at a target, from fits or from any table of results, under limits.

A table is fitted first; fits.json is taken as it is and needs no JAX. With --prior alone: what published
studies would advise where nothing was measured.
"""

import argparse
import json
from pathlib import Path

from scaling_jax.errors import InputError

_SIZES = ("model_params", "non_embedding_params")
SUMMARY = "which method to take at a target, how sure, at what cost"
EXAMPLE = """  scaling-jax recommend fits.json --at 'model_params=1e9,finetune_examples=2e5' \\
      --costs results.csv --memory_gib 80 --hours 8 --out decision.json
  scaling-jax recommend --prior --task generation --examples 2000 --memory_gib 40
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `recommend` takes."""
    parser.add_argument("source", nargs="?", help="fits.json or its folder, or a table of results")
    parser.add_argument("--at", metavar="A=1,B=2", help="the target: values of the laws' columns")
    parser.add_argument("--methods", metavar="A,B", help="choose among these (default: all)")
    parser.add_argument("--between", default="method", metavar="COLUMN", help="choose along this column")
    rows = parser.add_argument_group("of a table")
    rows.add_argument("--d", default="finetune_examples", metavar="COLUMN", help="examples")
    rows.add_argument("--x", metavar="COLUMN", help="model size (default: that of --at, if it varies)")
    rows.add_argument("--y", default="loss", metavar="COLUMN", help="what is fitted (default: loss)")
    rows.add_argument("--by", metavar="A,B", help="one forecast for each combination (default: task,method)")
    rows.add_argument("--where", metavar="EXPRESSION", help="only rows where this holds")
    rows.add_argument("--score", metavar="COLUMN", help="also predict this score, from the loss")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--memory_gib", type=float, help="memory of one device")
    limits.add_argument("--hours", type=float, help="training time, on the device that was measured")
    limits.add_argument("--checkpoint_mib", type=float, help="what is stored of a tuned model")
    limits.add_argument("--costs", metavar="TABLE", help="results with cost columns (default: the table)")
    sure = parser.add_argument_group("how sure")
    sure.add_argument("--sure", type=float, default=0.8, help="probability that counts as clear")
    sure.add_argument("--indifferent", type=float, default=0.005, help="relative loss that does not matter")
    sure.add_argument(
        "--discrepancy",
        type=float,
        metavar="SHARE",
        help="error of the change beyond the fitted sizes, for fits that state none (default: 0.15)",
    )
    prior = parser.add_argument_group("before anything is measured")
    prior.add_argument("--prior", action="store_true", help="what published studies would advise")
    prior.add_argument("--task", help="classification or generation")
    prior.add_argument("--examples", type=float, help="with --prior alone: how many")
    parser.add_argument("--out", metavar="FILE", help="write decision.json, or add to one")
    parser.add_argument("--json", action="store_true", help="print the object instead of text")


def run(arguments: argparse.Namespace) -> int:
    """Recommends, writes and prints."""
    from scaling_jax.decisions.limits import Limits

    limits = Limits(arguments.memory_gib, arguments.hours, arguments.checkpoint_mib)
    if arguments.source is None:
        return _prior(arguments, limits)
    return _recommend(arguments, limits)


def _prior(arguments, limits) -> int:
    import dataclasses

    from scaling_jax.cli.predict import parse_at
    from scaling_jax.decisions.prior import prior_advice
    from scaling_jax.decisions.recommendation_text import prior_text
    from scaling_jax.laws.results import plain

    if not arguments.prior or arguments.examples is None:
        raise InputError("give fits.json or a table of results, or --prior with --examples N")
    size = parse_at(arguments.at).get("model_params") if arguments.at else None
    advice = prior_advice(arguments.examples, arguments.task, limits, size)
    print(json.dumps(plain(dataclasses.asdict(advice)), indent=1) if arguments.json else prior_text(advice))
    return 0


def _recommend(arguments, limits) -> int:
    from scaling_jax.cli.predict import parse_at
    from scaling_jax.decisions.recommendation import recommend
    from scaling_jax.decisions.recommendation_text import full_text, to_json

    if not arguments.at:
        raise InputError("give --at, for example --at 'model_params=1e9,finetune_examples=2e5'")
    at = parse_at(arguments.at)
    fits, scores, costs = _read(arguments, at)
    found = recommend(
        fits,
        at,
        limits,
        costs,
        arguments.between,
        arguments.sure,
        arguments.indifferent,
        scores,
        arguments.task,
        _names(arguments.methods),
        next_size=_next_size(costs, at),
        discrepancy=arguments.discrepancy,
    )
    written = [_write(arguments.out, found)] if arguments.out else []
    # Limits that nothing keeps are answered, and no script takes that for a choice.
    code = 0 if found.choice else 2
    if arguments.json:
        print(json.dumps(to_json(found), indent=1, allow_nan=False))
        return code
    print(full_text(found))
    for path in written:
        print(f"wrote {path}")
    return code


def _read(arguments, at):
    """(fits, fits of the score by method, table of costs): read, or made from a table."""
    from scaling_jax.decisions.score_fits import fit_scores, split_scores
    from scaling_jax.laws.results import read_fits
    from scaling_jax.laws.table import read_table

    source = Path(arguments.source)
    if source.is_dir() or source.suffix == ".json":
        beside = (source if source.is_dir() else source.parent) / "results.csv"
        costs = arguments.costs or (beside if beside.is_file() else None)
        table = read_table(costs) if costs else None
        fits, scores = split_scores(read_fits(source), arguments.between)
        where = arguments.where
    else:
        from scaling_jax.decisions.pilot_fits import fit_pilot
        from scaling_jax.training.platform import keep_compiled

        keep_compiled()
        own = read_table(source)
        columns = _columns(arguments, own, at)
        by = _by(arguments, own, columns)
        fits = fit_pilot(own, columns, arguments.y, by, arguments.where, along=arguments.between)
        table, scores, where = read_table(arguments.costs) if arguments.costs else own, {}, arguments.where
    if arguments.score:
        if table is None:
            raise InputError("--score needs a table with the scores: give --costs TABLE")
        loss = fits[0].columns["y"]
        scores = fit_scores(table, arguments.score, loss, arguments.between, at, where)
    return fits, scores, table


def _next_size(table, at) -> float | None:
    """The smallest model of the table that is larger than the target's; None where there is none."""
    size = next((name for name in _SIZES if name in at), None)
    if table is None or size is None or size not in table or not isinstance(at[size], float):
        return None
    larger = [value for value in table.numbers(size).tolist() if value > at[size]]
    return min(larger) if larger else None


def _columns(arguments, table, at) -> dict[str, str]:
    """The laws' columns: the examples, and the size named in --at or --x where the table has several."""
    columns = {"d": arguments.d}
    size = arguments.x or next((name for name in _SIZES if name in at and name in table), None)
    if size is None:
        return columns
    if len(set(table.text(size))) > 1:
        return columns | {"x": size}
    if arguments.x:
        raise InputError(f"{table.source}: column {size!r} has one value; leave out --x")
    return columns


def _by(arguments, table, columns) -> list[str]:
    if arguments.by is not None:
        by = _names(arguments.by)
    else:
        by = [name for name in ("task", arguments.between) if name in table]
    if arguments.between not in by:
        table.text(arguments.between)
        raise InputError(f"--by {arguments.by}: {arguments.between!r} must be among them")
    return by


def _names(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _write(out: str, found):
    """decision.json with the recommendation; what else a file there says is kept."""
    from scaling_jax.decisions.recommendation_text import to_json
    from scaling_jax.files import read_json, write_json

    path = Path(out)
    content = read_json(path) if path.exists() else {}
    if not isinstance(content, dict):
        raise InputError(f"{path} is not a decision.json (an object); write to another file")
    return write_json(path, content | {"recommendation": to_json(found)})
