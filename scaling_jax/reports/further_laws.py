"""Laws that were asked for beside the usual ones, with their errors beside the multiplicative law's."""

from scaling_jax.laws.results import Fit
from scaling_jax.reports import words
from scaling_jax.reports.blocks import Cell, Paragraph, Section, Table
from scaling_jax.reports.curves import colour_key
from scaling_jax.reports.study_data import Study

USUAL = ("power", "multiplicative", "additive")
_HEADER = ["Law", "Varies", "Method", "fitted", "held out", "usual law, held out", "Parameters"]


def section(study: Study) -> Section | None:
    """One row per fit of a further law; None where there is none."""
    further = [fit for fit in study.fits if fit.law not in USUAL]
    if not further:
        return None
    equations = {fit.law: fit.equation for fit in further}
    parts: list = [Paragraph(f"{_short(law)}: {equation}.") for law, equation in equations.items()]
    caption = (
        f"Mean absolute deviation, {words.LOSS_UNIT}. Beside it that of the usual law of the same points: "
        "multiplicative, or the power law for one model. Bold: the smaller on held-out points. "
        "A question mark: the data do not identify the parameter."
    )
    rows = [_row(study, fit) for fit in further]
    parts.append(Table("Further laws", _HEADER, rows, text=(0, 1, 2, 6), caption=caption))
    return Section("further-laws", "Further laws", "Laws that were asked for beside the usual ones", parts)


def _row(study: Study, fit: Fit) -> list:
    usual = _usual(study, fit)
    own, other = fit.errors["held_out_mad"], usual.errors["held_out_mad"] if usual else None
    known = own is not None and other is not None
    factor = fit.extra["factor"]
    varies = str(fit.group.get("model", "")) if factor == "single" else words.factor(factor)
    return [
        _short(fit.law),
        varies,
        Cell(words.method(fit.group["method"]), key=colour_key(study, fit.group["method"])),
        words.error(fit.errors["fitted_mad"]),
        Cell(_shown(own), best=known and own < other),
        Cell(_shown(other), best=known and other <= own),
        ", ".join(_parameter(fit, name) for name in fit.parameters),
    ]


def _usual(study: Study, fit: Fit) -> Fit | None:
    law = "power" if fit.extra["factor"] == "single" else "multiplicative"
    same = (fit.extra["factor"], dict(fit.group))
    return next(
        (one for one in study.fits if one.law == law and (one.extra["factor"], dict(one.group)) == same), None
    )


def _parameter(fit: Fit, name: str) -> str:
    low, high = fit.intervals[name]
    mark = "" if fit.identified[name] is True else "?"
    return f"{name}{mark} {fit.parameters[name]:.3g} [{low:.3g}, {high:.3g}]"


def _shown(value: float | None) -> str:
    return "none" if value is None else words.error(value)


def _short(law: str) -> str:
    """A law of a file by its name there."""
    return law.rpartition(":")[2]
