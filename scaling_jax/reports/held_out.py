"""Multiplicative against additive on points that neither fit saw, in the layout of Zhang et al., Table 6."""

import math

import numpy as np

from scaling_jax.laws.results import Fit
from scaling_jax.reports import figures, words
from scaling_jax.reports.blocks import Cell, Panels, Paragraph, Section, Table
from scaling_jax.reports.curves import colour_key, method_colour
from scaling_jax.reports.evidence import find_fit, predict, rows_of, x_column
from scaling_jax.reports.figures import Series
from scaling_jax.reports.study_data import Study
from scaling_jax.reports.theme import Drawing

LAWS = ("multiplicative", "additive")
FACTORS = ("model_size", "pretraining", "tuning_size")
_GROUPS = (("", 2), ("Points", 2), ("Deviation, fitted", 2), ("Deviation, held out", 3))
_HEADER = ["Varies", "Method", "fitted", "held out", "mult.", "add.", "mult.", "add.", "nearest"]


def section(study: Study) -> Section:
    """The table of deviations, who wins how often, and predicted against measured."""
    rows, wins = [], {"multiplicative": 0, "additive": 0, "beaten": 0, "neighbours": 0, "pairs": 0}
    drawings: list[Drawing] = []
    for task in study.tasks:
        for factor in FACTORS:
            for method in study.methods(task):
                fits = {law: find_fit(study, task, method, factor, law) for law in LAWS}
                if fits["multiplicative"] is not None:
                    rows.append(_row(study, task, factor, method, fits, wins))
        drawings += _scatters(study, task)
    if not rows:
        return Section(
            "held-out",
            "Held-out error",
            "Multiplicative or additive?",
            [Paragraph("No joint law was fitted.")],
        )
    parts = [Paragraph(_verdict(wins))]
    if drawings:
        parts.append(
            Panels(
                drawings,
                "Held-out points only: no fit saw them. On the line, the "
                "prediction is exact; below it, the law promised a lower loss than was measured.",
            )
        )
    parts.append(
        Table(
            "Fitted and held-out deviation by law",
            _HEADER,
            rows,
            text=(0, 1),
            groups=_GROUPS,
            caption=f"Mean absolute deviation, {words.LOSS_UNIT}. mult.: multiplicative law; add.: additive "
            "law; nearest: predict with the measured loss of the closest fitted point. Bold: the smallest on "
            "held-out points.",
        )
    )
    parts.append(
        Paragraph(
            "The additive law has one more parameter than the multiplicative one, so it should fit the "
            "fitted points at least as well; held-out points are the comparison that counts.",
            quiet=True,
        )
    )
    return Section(
        "held-out", "Held-out error", "Multiplicative or additive? Judged on held-out points", parts
    )


def _row(study: Study, task: str, factor: str, method: str, fits: dict[str, Fit | None], wins: dict) -> list:
    first = fits["multiplicative"]
    errors = {law: fit.errors if fit else {} for law, fit in fits.items()}
    held = [_number(errors[law].get("held_out_mad")) for law in LAWS]
    held.append(nearest(first))
    best = min((value for value in held if math.isfinite(value)), default=math.nan)
    if all(math.isfinite(value) for value in held[:2]):
        wins["pairs"] += 1
        wins[LAWS[int(held[1] < held[0])]] += 1
        wins["beaten"] += held[0] < held[2]
        wins["neighbours"] += math.isfinite(held[2])
    label = words.factor(factor) + (f", {task}" if len(study.tasks) > 1 else "")
    return [
        label,
        Cell(words.method(method), key=colour_key(study, method)),
        str(first.rows["fitted"]),
        str(first.rows["held_out"]),
        *[words.error(_number(errors[law].get("fitted_mad"))) for law in LAWS],
        *[Cell(words.error(value), best=value == best) for value in held],
    ]


def nearest(fit: Fit) -> float:
    """Held-out mean absolute deviation of predicting with the nearest fitted neighbour."""
    return _number(fit.errors.get("nearest_neighbour_mad"))


def _number(value) -> float:
    return math.nan if value is None else float(value)


def _verdict(wins: dict) -> str:
    if not wins["pairs"]:
        return "There is no held-out point on which to compare the two joint laws."
    better = max(LAWS, key=lambda law: wins[law])
    told = (
        f"On held-out points the {better} law is closer in {wins[better]} of {wins['pairs']} comparisons"
        if wins["multiplicative"] != wins["additive"]
        else f"On held-out points the two laws are closer in {wins['additive']} comparisons each"
    )
    beside = (
        f" The multiplicative law predicts better than the nearest fitted neighbour in {wins['beaten']} of "
        f"{wins['neighbours']}."
        if wins["neighbours"]
        else ""
    )
    return f"{told}.{beside} Points were chosen as held out before any fit was made."


def _scatters(study: Study, task: str) -> list[Drawing]:
    """Predicted against measured of both laws over all factors, on the same axes."""
    by_law = {law: _held_out_series(study, task, law) for law in LAWS}
    values = [np.r_[one.x, one.y] for found in by_law.values() for one in found]
    if not values:
        return []
    everything = np.concatenate(values)
    margin = 0.05 * (np.ptp(everything) or 1.0)
    limits = (float(everything.min() - margin), float(everything.max() + margin))
    drawings = []
    for law, found in by_law.items():
        if found:
            about = "; ".join(
                f"{one.label}: {one.x.size} points, mean absolute deviation "
                f"{words.error(float(np.mean(np.abs(one.y - one.x))))}"
                for one in found
            )
            drawings.append(
                figures.predicted_against_measured(
                    f"predicted-{law}-{task}",
                    f"{words.capital(law)} law: predicted against measured loss",
                    about,
                    found,
                    words.LOSS_UNIT,
                    heading=words.capital(law),
                    limits=limits,
                )
            )
    return drawings


def _held_out_series(study: Study, task: str, law: str) -> list[Series]:
    found = []
    for method in study.methods(task):
        measured, predicted = [], []
        for factor in FACTORS:
            fit = find_fit(study, task, method, factor, law)
            for run, hidden in rows_of(study, fit) if fit else []:
                if hidden:
                    measured.append(run.loss)
                    predicted.append(float(predict(fit, run[x_column(fit)], run["finetune_examples"])[0][0]))
        if measured:
            x, y = np.array(measured), np.array(predicted)
            found.append(
                Series(words.method(method), method_colour(study, method), x, y, np.ones(x.size, bool))
            )
    return found
