"""Multiplicative against additive on points that neither fit saw, in the layout of Zhang et al., Table 6."""

import itertools
import math
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Comparison:
    """Both joint laws of one task, factor and method.

    Attributes:
        fitted: mean absolute deviation on fitted points, (multiplicative, additive).
        held_out: on held-out points, (multiplicative, additive, nearest fitted neighbour); NaN where unknown.
        points: (fitted, held out).
    """

    task: str
    factor: str
    method: str
    fitted: tuple[float, float]
    held_out: tuple[float, float, float]
    points: tuple[int, int]


def compare(study: Study) -> list[Comparison]:
    """Every pair of joint laws that the study allows."""
    found = []
    for task, factor in itertools.product(study.tasks, FACTORS):
        for method in study.methods(task):
            first, second = (find_fit(study, task, method, factor, law) for law in LAWS)
            if first is None:
                continue
            errors = [first.errors, second.errors if second else {}]
            fitted = tuple(_number(one.get("fitted_mad")) for one in errors)
            held = tuple(_number(one.get("held_out_mad")) for one in errors)
            points = (first.rows["fitted"], first.rows["held_out"])
            found.append(Comparison(task, factor, method, fitted, (*held, nearest(first)), points))
    return found


def section(study: Study) -> Section | None:
    """The table of deviations, who wins how often, and predicted against measured; None without a joint
    law."""
    heading = "Multiplicative or additive? Judged on held-out points"
    compared = compare(study)
    if not compared:
        return None
    parts: list = [Paragraph(_verdict(compared))]
    drawings = [drawing for task in study.tasks for drawing in _scatters(study, task)]
    if drawings:
        parts.append(
            Panels(
                drawings,
                "Held-out points only: no fit saw them. On the line, the prediction is exact; below it, "
                "the law promised a lower loss than was measured.",
            )
        )
    caption = (
        f"Mean absolute deviation, {words.LOSS_UNIT}. mult.: multiplicative law; add.: additive law, which "
        "has one parameter more; nearest: predict with the measured loss of the closest fitted point. Bold: "
        "the smallest on held-out points."
    )
    rows = [_row(study, one) for one in compared] + ([_mean_row(compared)] if len(compared) > 1 else [])
    label = "Fitted and held-out deviation by law"
    parts.append(Table(label, _HEADER, rows, text=(0, 1), groups=_GROUPS, caption=caption))
    return Section("held-out", "Held-out error", heading, parts)


def _row(study: Study, one: Comparison) -> list:
    label = words.factor(one.factor) + (f", {one.task}" if len(study.tasks) > 1 else "")
    method = Cell(words.method(one.method), key=colour_key(study, one.method))
    return [label, method, *map(str, one.points), *_deviations(one.fitted, one.held_out)]


def _mean_row(compared: list[Comparison]) -> list:
    fitted, held_out = ([one.fitted for one in compared], [one.held_out for one in compared])
    return [
        Cell("mean", best=True),
        "",
        "",
        "",
        *_deviations(np.mean(fitted, axis=0), np.mean(held_out, axis=0)),
    ]


def _deviations(fitted, held_out) -> list:
    best = min((value for value in held_out if math.isfinite(value)), default=math.nan)
    return [
        *[words.error(value) for value in fitted],
        *[Cell(words.error(value), best=value == best) for value in held_out],
    ]


def nearest(fit: Fit) -> float:
    """Held-out mean absolute deviation of predicting with the nearest fitted neighbour."""
    return _number(fit.errors.get("nearest_neighbour_mad"))


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _verdict(compared: list[Comparison]) -> str:
    table = np.array([one.held_out for one in compared])
    table = table[np.isfinite(table[:, :2]).all(axis=1)]
    if not len(table):
        return "There is no held-out point on which to compare the two joint laws."
    closer = {
        law: int(np.sum(table[:, position] < table[:, 1 - position])) for position, law in enumerate(LAWS)
    }
    better = max(LAWS, key=closer.get)
    told = (
        f"On held-out points each law is closer in {closer[better]} comparisons"
        if closer[LAWS[0]] == closer[LAWS[1]]
        else f"On held-out points the {better} law is closer in {closer[better]} of {len(table)} comparisons"
    )
    means = table[:, :2].mean(axis=0)
    told += f" (mean deviation {words.error(means[0])} multiplicative, {words.error(means[1])} additive)."
    known = table[np.isfinite(table[:, 2])]
    if len(known):
        beaten = int(np.sum(known[:, 0] < known[:, 2]))
        beside = "The multiplicative law predicts better than the nearest fitted neighbour"
        told += f" {beside} in {beaten} of {len(known)}."
    return f"{told} Points were chosen as held out before any fit was made."


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
