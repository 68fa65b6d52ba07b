"""Fits scaling laws to a table of results (.csv, .tsv or .jsonl), with intervals and held-out error.

Several laws are compared at rows that none of them has seen: `--law power,rectified --rolling d`.
`--recipe joint` fits all factors of a study by the two stages of Zhang et al. (2024), their Table 4.
"""

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path

from scaling_jax.errors import InputError

SUMMARY = "fit scaling laws to a table of results, or compare laws"
EXAMPLE = """  scaling-jax fit results.csv --law multiplicative --x model_params --d finetune_examples \\
      --y loss --by task,method --where 'finetune_examples > 0' --hold_out 'model_params >= 1.6e10' --out fits
  scaling-jax fit results.csv --law power,rectified --d finetune_examples --by model --rolling d
  scaling-jax fit results.csv --recipe joint --residual linear --out table4
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `fit` takes."""
    parser.add_argument("table", help="a table; rows whose status is not done are left out and counted")
    rows = parser.add_argument_group("rows and columns")
    rows.add_argument("--x", metavar="COLUMN", help="model size, pretraining tokens or tuning size")
    rows.add_argument("--d", metavar="COLUMN", help="finetuning examples (or the one size of `power`)")
    rows.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="ROLE=COLUMN",
        help="a column for any other role of a law",
    )
    rows.add_argument("--y", default="loss", metavar="COLUMN", help="what the law describes (default: loss)")
    rows.add_argument("--by", default="", metavar="A,B", help="one fit for each combination of these columns")
    rows.add_argument("--where", metavar="EXPRESSION", help="only rows where this holds")
    rows.add_argument(
        "--derive",
        action="append",
        default=[],
        metavar="NAME=EXPRESSION",
        help="adds a column, e.g. t = flop / n",
    )
    rows.add_argument("--weights", metavar="COLUMN", help="how much each row counts")
    _add_laws(parser)
    _add_fitting(parser)
    parser.add_argument("--out", metavar="DIR", help="write fits.json and a picture of every fit here")
    parser.add_argument("--json", action="store_true", help="print fits.json instead of tables")


def _add_laws(parser: argparse.ArgumentParser) -> None:
    laws = parser.add_argument_group("laws")
    laws.add_argument(
        "--law",
        help="power, multiplicative, additive, rectified, rectified_multiplicative, score_log, "
        "loss_to_score, bottleneck, path/to/file.py:name, or several of them with commas between",
    )
    laws.add_argument("--share", default="", metavar="P,Q", help="parameters that all --by groups share")
    laws.add_argument(
        "--recipe",
        choices=("joint",),
        help="joint: beta and E shared over model size and pretraining, then frozen for the tuning size",
    )
    laws.add_argument("--hold_out", metavar="EXPRESSION", help="rows that are predicted, not fitted")
    laws.add_argument(
        "--hold_out_largest", metavar="ROLE[=N]", help="hold out the N (1) largest values, e.g. d or x=2"
    )
    laws.add_argument(
        "--rolling", metavar="ROLE", help="fit the k smallest sizes, predict the next, for every k"
    )


def _add_fitting(parser: argparse.ArgumentParser) -> None:
    fitting = parser.add_argument_group("how it is fitted")
    fitting.add_argument(
        "--residual", default="log", choices=("log", "linear"), help="of log loss, or of the loss"
    )
    fitting.add_argument(
        "--loss", default="huber", choices=("huber", "squared", "absolute"), help="of the residuals"
    )
    fitting.add_argument("--delta", type=float, default=1e-3, help="where the Huber loss becomes absolute")
    fitting.add_argument("--bootstrap", type=int, default=1000, help="draws for the intervals")
    fitting.add_argument(
        "--intervals",
        choices=("simulated", "rows", "sandwich"),
        help="losses simulated from the law (to 1,000 rows), rows resampled, or sandwich (above 10,000)",
    )
    fitting.add_argument("--level", type=float, default=0.9, help="of the intervals")
    fitting.add_argument("--cluster", metavar="COLUMN", help="resample rows of one value together, e.g. seed")
    fitting.add_argument("--seed", type=int, default=0, help="of the draws")


def run(arguments: argparse.Namespace) -> int:
    """Fits, writes and prints."""
    from scaling_jax.laws.table import read_table
    from scaling_jax.training.platform import keep_compiled

    out = Path(arguments.out) if arguments.out else None
    if out is not None and (out / "study.json").exists():
        raise InputError(f"{out} holds a study; write the fits to another folder")
    if bool(arguments.law) == bool(arguments.recipe):
        raise InputError("give --law, or --recipe joint (which takes the multiplicative law)")
    table = read_table(arguments.table)
    keep_compiled()
    for assignment in arguments.derive:
        table = table.derive(assignment)
    laws = _names(arguments.law or "")
    if len(set(laws)) < len(laws):
        raise InputError(f"--law {arguments.law}: a law is named twice")
    if arguments.recipe:
        return _run_joint(arguments, table, out)
    if len(laws) > 1 or arguments.rolling:
        return _run_choice(arguments, table, laws, out)
    return _run_one(arguments, table, laws[0], out)


def _run_one(arguments, table, law: str, out: Path | None) -> int:
    from scaling_jax.cli.fit_text import fit_text
    from scaling_jax.cli.progress import watched
    from scaling_jax.laws.fit import fit_table

    given = _given(arguments)
    share = _names(arguments.share)
    fits = fit_table(table, law, _columns(arguments), share=share, watch=watched("fits"), **given)
    written = _write(out, fits, _drawn_rows(table, arguments, given["by"]))
    _print(arguments, [fit.to_json() for fit in fits], "\n\n".join(map(fit_text, fits)), written)
    return 0


def _run_choice(arguments, table, laws: list[str], out: Path | None) -> int:
    from scaling_jax.cli.fit_text import choice_text, fit_text
    from scaling_jax.cli.progress import watched
    from scaling_jax.files import write_json
    from scaling_jax.laws.choose import choose_held_out, choose_rolling
    from scaling_jax.laws.fit import fit_table, samples_of
    from scaling_jax.laws.law import find_law

    if arguments.share:
        raise InputError("--share belongs to one law; several laws are compared without it")
    if arguments.rolling and (arguments.hold_out or arguments.hold_out_largest):
        raise InputError("--rolling chooses what is held out; leave out --hold_out and --hold_out_largest")
    forms, given, columns = {name: find_law(name) for name in laws}, _given(arguments), _columns(arguments)
    own = {
        name: {role: column for role, column in columns.items() if role in form.role_names}
        for name, form in forms.items()
    }
    samples = {name: samples_of(table, forms[name], own[name], **given) for name in laws}
    fits = {name: fit_table(table, name, own[name], watch=watched(name), **given) for name in laws}
    choices = []
    for position in range(len(samples[laws[0]])):
        here = {name: samples[name][position] for name in laws}
        if arguments.rolling:
            role = _role(arguments.rolling, columns)
            without = [name for name, form in forms.items() if role not in form.role_names]
            if without:
                raise InputError(f"--rolling {arguments.rolling}: law {without[0]!r} has no role {role!r}")
            choices.append(choose_rolling(_widest(here), forms, role, given["settings"], watched("rolling")))
        else:
            fitted = {name: fits[name][position] for name in laws}
            choices.append(choose_held_out(here, fitted, given["settings"]))
    made = [fit for name in laws for fit in fits[name]]
    written = _write(out, made, _drawn_rows(table, arguments, given["by"]) * len(laws))
    if out is not None:
        written.append(write_json(out / "choice.json", [choice.to_json() for choice in choices]))
    content = {"fits": [fit.to_json() for fit in made], "choices": [choice.to_json() for choice in choices]}
    text = "\n\n".join([*map(fit_text, made), *map(choice_text, choices)])
    _print(arguments, content, text, written)
    return 0


def _widest(samples: Mapping):
    """The sample that has the columns of every law.

    Raises:
        InputError: no law's columns are those of all others.
    """
    widest = max(samples.values(), key=lambda sample: len(sample.sizes))
    for name, sample in samples.items():
        if set(sample.sizes) - set(widest.sizes):
            raise InputError(f"law {name!r} has columns that another law lacks; compare them by --hold_out")
    return widest


def _run_joint(arguments, table, out: Path | None) -> int:
    from scaling_jax.cli.fit_text import table4_text
    from scaling_jax.cli.progress import watched
    from scaling_jax.laws.joint import SHARED, fit_joint, joint_rows

    for name in ("x", "d", "by", "weights", "cluster", "rolling", "hold_out_largest"):
        if getattr(arguments, name):
            raise InputError(f"--recipe joint finds its rows and columns by itself; leave out --{name}")
    columns = _columns(arguments)
    unknown = [role for role in columns if role != "model_size"]
    if unknown:
        raise InputError(f"--recipe joint knows --column model_size=COLUMN, not {unknown[0]!r}")
    given = _given(arguments)
    fits = fit_joint(
        table,
        "multiplicative",
        given["loss_column"],
        columns.get("model_size"),
        given["where"],
        given["hold_out"],
        given["settings"],
        _names(arguments.share) or SHARED,
        watched("tasks and methods"),
    )
    rows = joint_rows(table, fits, columns.get("model_size"), given["where"]) if out is not None else []
    written = _write(out, fits, rows)
    _print(arguments, [fit.to_json() for fit in fits], table4_text(fits), written)
    return 0


def _given(arguments) -> dict:
    """The arguments of `fit_table` that do not hang on the law."""
    from scaling_jax.laws.fit import Settings

    settings = Settings(
        residual=arguments.residual,
        loss=arguments.loss,
        delta=arguments.delta,
        intervals=arguments.intervals,
        bootstrap=arguments.bootstrap,
        seed=arguments.seed,
        level=arguments.level,
    )
    largest = None
    if arguments.hold_out_largest:
        role, separator, count = arguments.hold_out_largest.partition("=")
        if separator and not count.strip().isdigit():
            raise InputError(f"--hold_out_largest {arguments.hold_out_largest!r} is not ROLE or ROLE=N")
        columns = _columns(arguments)
        largest = (columns[_role(role, columns)], int(count) if separator else 1)
    return {
        "loss_column": arguments.y,
        "by": tuple(_names(arguments.by)),
        "where": arguments.where,
        "hold_out": arguments.hold_out,
        "settings": settings,
        "weights": arguments.weights,
        "cluster": arguments.cluster,
        "largest": largest,
    }


def _drawn_rows(table, arguments, by: tuple[str, ...]) -> list:
    """Every group's rows for its picture: those that are fitted or held out."""
    rows = table.where(arguments.where)
    rows = rows.drop_missing([arguments.weights]) if arguments.weights else rows
    return [members for _, members in rows.groups(by)]


def _write(out: Path | None, fits: list, rows: list) -> list[Path]:
    """Writes fits.json and a picture of every fit with its rows; returns the paths."""
    if out is None:
        return []
    from scaling_jax.laws.plots import write_plot
    from scaling_jax.laws.results import write_fits

    written = [write_fits(out / "fits.json", fits)]
    for position, (fit, own) in enumerate(zip(fits, rows, strict=True)):
        written.append(write_plot(fit, own, out / f"{_file_name(fit, position)}.png"))
    return written


def _print(arguments, content, text: str, written: list[Path]) -> None:
    if arguments.json:
        print(json.dumps(content, indent=1, allow_nan=False))
        return
    print(text)
    for path in written:
        print(f"wrote {path}")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _role(given: str, columns: Mapping[str, str]) -> str:
    """A role named by itself or by its column.

    Raises:
        InputError: neither.
    """
    for role, column in columns.items():
        if given.strip() in (role, column):
            return role
    known = ", ".join(f"{role} ({column})" for role, column in columns.items())
    raise InputError(f"{given.strip()!r} is no role of the fit; there are {known}")


def _columns(arguments: argparse.Namespace) -> dict[str, str]:
    columns = {role: column for role, column in (("x", arguments.x), ("d", arguments.d)) if column}
    for given in arguments.column:
        role, separator, column = given.partition("=")
        if not separator or not role.strip() or not column.strip():
            raise InputError(f"--column {given!r} is not ROLE=COLUMN")
        if role.strip() in columns:
            raise InputError(f"--column {given!r}: the role {role.strip()!r} has a column already")
        columns[role.strip()] = column.strip()
    return columns


def _file_name(fit, position: int) -> str:
    words = [fit.form.name, *(str(value) for value in fit.group.values())]
    return f"{position:02d}_" + re.sub(r"[^A-Za-z0-9._]+", "-", "_".join(words))[:80]
