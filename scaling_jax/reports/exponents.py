"""The fitted parameters with their intervals, in the layout of Zhang et al. (ICLR 2024), Table 4."""

from scaling_jax.laws.results import Fit
from scaling_jax.reports import figures, words
from scaling_jax.reports.blocks import Bullets, Cell, Details, Heading, Panels, Paragraph, Section, Table
from scaling_jax.reports.curves import colour_key, method_colour
from scaling_jax.reports.evidence import bounds, factor_of, find_fit, level, single_fits
from scaling_jax.reports.figures import Interval
from scaling_jax.reports.study_data import Study
from scaling_jax.reports.theme import Drawing

# Printed symbol, factor, parameter of the law: the rows of Table 4.
ROWS = (
    ("Aₘ", "model_size", "A", "scale, model size"),
    ("αₘ", "model_size", "alpha", "model size"),
    ("Aₚ", "pretraining", "A", "scale, pretraining"),
    ("αₚ", "pretraining", "alpha", "pretraining"),
    ("Aₜ", "tuning_size", "A", "scale, tuning size"),
    ("αₜ", "tuning_size", "alpha", "tuning size"),
    ("E", "model_size", "E", "floor"),
    ("β", "model_size", "beta", "data"),
)
_SHARED = {"E", "beta"}


def section(study: Study) -> Section | None:
    """Forest plots and Table 4 for every task, then what the runs do not pin down; None without such laws.

    A task without a joint law has a table of the power laws of its models instead.
    """
    parts: list = []
    for task in study.tasks:
        drawings, table = _forests(study, task), _table(study, task) or _power_table(study, task)
        if table is None:
            continue
        if len(study.tasks) > 1:
            parts.append(Heading(task))
        if drawings:
            parts.append(Panels(drawings, _forest_caption(study)))
        parts.append(table)
    if not parts:
        return None
    unknown = unidentified(study)
    parts.append(Heading("What these runs do not pin down"))
    if unknown:
        names = [f"{law}: {words.several(symbol for symbol, _ in ones)}" for law, ones in unknown]
        reasons = [f"{law}, {symbol}: {reason}" for law, ones in unknown for symbol, reason in ones]
        parts += [Bullets(names), Details("Why", [Bullets(reasons)])]
    else:
        parts.append(Paragraph("Every parameter above is identified by the runs."))
    if skipped := _skipped(study):
        parts.append(Details(f"What could not be fitted ({len(skipped)})", [Bullets(skipped)]))
    return Section("exponents", "Exponents", "Exponents and floors, with intervals", parts)


def not_fitted_section(study: Study) -> Section | None:
    """Why there are no laws, where there are none; None where `section` says what could not be fitted."""
    skipped = _skipped(study)
    if not skipped or any(fit.law in ("multiplicative", "power") for fit in study.fits):
        return None
    return Section("not-fitted", "Not fitted", "Laws that could not be fitted, and why", [Bullets(skipped)])


def _skipped(study: Study) -> list[str]:
    return [str(reason) for reason in study.decision.get("skipped") or []]


def _forest_caption(study: Study) -> str:
    return (
        f"Dots are estimates, bars {level(study)} bootstrap intervals. αₘ: how fast loss falls with model "
        "size; αₚ: with pretraining tokens; β: with finetuning examples. An arrowhead marks an interval that "
        "runs past the edge of the figure."
    )


def _forests(study: Study, task: str) -> list[Drawing]:
    """One interval plot per exponent, so that each keeps its own scale."""
    found = []
    for symbol, factor, parameter, meaning in ROWS:
        if parameter not in ("alpha", "beta"):
            continue
        rows = []
        for method in study.methods(task):
            fit = find_fit(study, task, method, factor)
            if fit is None or parameter not in fit.parameters:
                continue
            low, high = bounds(fit, parameter)
            rows.append(
                Interval(
                    symbol,
                    words.method(method),
                    method_colour(study, method),
                    fit.parameters[parameter],
                    low,
                    high,
                )
            )
        if rows:
            name = f"exponent-{factor}-{parameter}-{task}".replace("_", "-")
            about = "; ".join(
                f"{row.label} {words.parameter(row.value)} "
                f"{words.between(row.low, row.high, words.parameter)}"
                for row in rows
            )
            found.append(
                figures.intervals(
                    name,
                    f"{symbol} ({meaning}) by method",
                    about,
                    rows,
                    f"{symbol}, exponent of {meaning}",
                    width=3.35,
                    limits=figures.limits(rows, 0.0),
                )
            )
    return found


def _table(study: Study, task: str) -> Table | None:
    methods = study.methods(task)
    rows = []
    for symbol, factor, parameter, meaning in ROWS:
        fits = [owner(study, task, method, factor, parameter) for method in methods]
        if not any(fits):
            continue
        cells = [Cell("–") if fit is None else _cell(fit, parameter) for fit in fits]
        rows.append([Cell(symbol), meaning, *cells])
    if not rows:
        return None
    header = ["", "of", *[words.capital(words.method(method)) for method in methods]]
    return Table(
        f"Fitted parameters of the multiplicative law, {task}",
        header,
        rows,
        text=(0, 1),
        caption=f"Multiplicative law L = A · X⁻ᵅ · D⁻ᵝ + E, {words.LOSS_UNIT}; {level(study)} intervals "
        "in brackets. ? marks a parameter the runs do not identify.",
    )


def _power_table(study: Study, task: str) -> Table | None:
    """The law in the examples alone, of every method and model; None where there is none."""
    fits = [fit for method in study.methods(task) for fit in single_fits(study, task, method)]
    fits = [fit for fit in fits if fit.law == "power" and not _has_joint(study, task)]
    if not fits:
        return None
    rows = [
        [
            Cell(words.method(str(fit.group["method"])), key=colour_key(study, str(fit.group["method"]))),
            str(fit.group.get("model", "")),
            *(_cell(fit, parameter) for parameter in ("A", "beta", "E")),
            *(words.error(fit.errors.get(name)) for name in ("fitted_mad", "held_out_mad")),
        ]
        for fit in fits
    ]
    return Table(
        f"Fitted parameters of the power law by model, {task}",
        ["Method", "Model", "A", "β", "E", "fitted", "held out"],
        rows,
        text=(0, 1),
        groups=(("", 5), ("Deviation", 2)),
        caption=f"Power law L = A · D⁻ᵝ + E of each model, {words.LOSS_UNIT}; {level(study)} intervals in "
        "brackets. ? marks a parameter the runs do not identify.",
    )


def _has_joint(study: Study, task: str) -> bool:
    return any(fit.law == "multiplicative" and fit.group.get("task") == task for fit in study.fits)


def owner(study: Study, task: str, method: str, factor: str, parameter: str) -> Fit | None:
    """The fit a table cell is read from; β and E are shared, so any factor's fit has them."""
    factors = [factor] + (["pretraining", "tuning_size"] if parameter in _SHARED else [])
    found = (find_fit(study, task, method, one) for one in factors)
    return next((fit for fit in found if fit is not None and parameter in fit.parameters), None)


def _cell(fit: Fit, parameter: str) -> Cell:
    mark = "" if fit.identified.get(parameter, True) is True else " ?"
    return Cell(
        words.parameter(fit.parameters[parameter]) + mark,
        words.between(*bounds(fit, parameter), words.parameter),
    )


def unidentified(study: Study) -> list[tuple[str, list[tuple[str, str]]]]:
    """For each fit of the tables that leaves parameters open: its name, and (symbol, reason) of each."""
    symbols = {(factor, parameter): symbol for symbol, factor, parameter, _ in ROWS}
    letters = {"alpha": "α", "beta": "β"}
    found = []
    for fit in study.fits:
        if fit.law != ("multiplicative" if _has_joint(study, str(fit.group.get("task"))) else "power"):
            continue
        where = f"{fit.group.get('task')}, " if len(study.tasks) > 1 else ""
        of = str(fit.group.get("model")) if fit.law == "power" else f"{words.factor(factor_of(fit))} law"
        law = f"{where}{words.method(str(fit.group.get('method')))}, {of}"
        open_ones = [
            (symbols.get((factor_of(fit), name), letters.get(name, name)), str(reason))
            for name, reason in fit.identified.items()
            if reason is not True
        ]
        if open_ones:
            found.append((law, open_ones))
    return found
