"""The first screen: the answer in one sentence, its uncertainty, one picture, a few numbers."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.critical_size import difference
from scaling_jax.laws.results import Fit
from scaling_jax.reports import (
    crossings,
    curves,
    held_out,
    measured,
    method_comparison,
    recommended,
    scores,
    valuing_pretraining,
    words,
)
from scaling_jax.reports.blocks import Fact, Picture
from scaling_jax.reports.evidence import bounds, curve_fit, find_fit, level, predict, rows_of, x_column
from scaling_jax.reports.exponents import owner
from scaling_jax.reports.figures import Crossing
from scaling_jax.reports.study_data import Study


@dataclass(frozen=True)
class Answer:
    """The first screen: the sentence, paragraphs below it, the picture, a few numbers."""

    sentence: str
    lead: Sequence[str]
    parts: Sequence
    facts: Sequence[Fact]


@dataclass(frozen=True)
class Stretch:
    """A range of examples [low, high] over which `method` has the lowest predicted loss."""

    method: str
    low: float
    high: float


@dataclass(frozen=True)
class Contest:
    """The methods of a task at the largest model that all of them were run with.

    Attributes:
        fits: method -> its law; the joint law where there is one.
        column: results column of the size.
        size: of that model.
        low, high: the range of examples.
    """

    task: str
    fits: dict[str, Fit]
    column: str
    size: float
    low: float
    high: float


def answer(study: Study) -> Answer:
    """A recommendation where there is one; else made from the first task that has a law, with a paragraph
    for each other task."""
    usual = _measured_answer(study)
    advised = recommended.statements(study)
    if not advised:
        return usual
    lead = [*advised[1:], usual.sentence, *usual.lead]
    return Answer(advised[0], lead, usual.parts, usual.facts)


def _measured_answer(study: Study) -> Answer:
    contests = [contest for task in study.tasks if (contest := _contest(study, task))]
    valued = valuing_pretraining.statements(study)
    if not contests:
        asked = study.decision.get("no_law")
        no_law = asked or f"No law could be fitted to the {len(study.done)} finished runs of this study."
        found = [*valued, *method_comparison.statements(study), *measured.statements(study)]
        found += [] if valued else scores.statements(study)
        if not found:
            return Answer(no_law, [], [], _facts(study))
        # Data valued by laws of their own: that the usual ones were not fitted is nothing to begin with.
        rest = [] if not asked and (study.fits or valued) else [no_law]
        return Answer(found[0], [*found[1:], *rest], [], _facts(study))
    if valued and all(len(contest.fits) == 1 for contest in contests):
        # One method: what the study asks is what it was pretrained on.
        return Answer(valued[0], valued[1:], [], _facts(study))
    sentence, lead = _statement(study, contests[0])
    lead = lead + [f"{words.capital(contest.task)}: {_sentence(study, contest)}" for contest in contests[1:]]
    lead += valued
    return Answer(sentence, lead, [_picture(study, contests[0])], _facts(study))


def _contest(study: Study, task: str) -> Contest | None:
    fits = {method: fit for method in study.methods(task) if (fit := curve_fit(study, task, method))}
    if not fits:
        return None
    column = next((x_column(fit) for fit in fits.values() if "x" in fit.columns), "non_embedding_params")
    tables = {method: rows_of(study, fit) for method, fit in fits.items()}
    levels = [{run[column] for run, _ in rows} for rows in tables.values()]
    common = set.intersection(*levels)
    size = max(common) if common else min(map(max, levels))
    examples = [[run["finetune_examples"] for run, _ in rows] for rows in tables.values()]
    low, high = max(map(min, examples)), min(map(max, examples))
    if low >= high:  # the methods were run on ranges that do not meet: compare over all of it
        low, high = min(map(min, examples)), max(map(max, examples))
    return Contest(task, fits, column, size, low, high)


def stretches(contest: Contest) -> list[Stretch]:
    """Who is ahead where at the largest model, over the range of the contest."""
    grid = np.geomspace(contest.low, contest.high, 400)
    table = np.stack([predict(fit, contest.size, grid)[0] for fit in contest.fits.values()])
    best = np.argmin(table, axis=0)
    edges = [0, *(np.flatnonzero(np.diff(best)) + 1), grid.size]
    names = list(contest.fits)
    return [
        Stretch(names[best[start]], float(grid[start]), float(grid[min(end, grid.size - 1)]))
        for start, end in itertools.pairwise(edges)
    ]


def _statement(study: Study, contest: Contest) -> tuple[str, list[str]]:
    high = contest.high
    at_top = {method: predict(fit, contest.size, high) for method, fit in contest.fits.items()}
    ranked = sorted(at_top, key=lambda method: at_top[method][0][0])
    told = [
        f"{words.method(method)} {words.loss(value[0])} {words.between(low[0], top[0], words.loss)}"
        for method, (value, low, top) in ((method, at_top[method]) for method in ranked)
    ]
    lead = (
        f"Predicted test loss at {words.count(high)} examples ({words.LOSS_UNIT}, {level(study)} intervals): "
    )
    return _sentence(study, contest), [f"{lead}{'; '.join(told)}. {_certainty(contest, ranked)}".strip()]


def _sentence(study: Study, contest: Contest) -> str:
    ahead = stretches(contest)
    size = f"At {words.count(contest.size)} {words.column(contest.column)}"
    span = f"from {words.count(contest.low)} to {words.count(contest.high)} finetuning examples"
    if len(contest.fits) == 1:
        return f"{size}, {words.method(ahead[0].method)} was the only method run, {span}."
    if len(ahead) == 1:
        return f"{size}, {words.method(ahead[0].method)} has the lowest predicted loss {span}."
    told = []
    for before, after in itertools.pairwise(ahead):
        tie = crossings.find(study, contest.task, before.method, after.method, contest.size, before.high)
        at = tie.size if tie else before.high
        place = (
            f"{level(study)} interval {crossings.interval_text(tie)}"
            if tie
            else "how sure, the fits do not say"
        )
        told.append(
            f"{words.method(before.method)} up to about {words.roughly(at)} finetuning examples ({place})"
        )
    last = words.method(ahead[-1].method)
    return f"{size}, the method with the lowest predicted loss is {', then '.join(told)}, and {last} beyond."


def _certainty(contest: Contest, ranked: list[str]) -> str:
    """How far the best is ahead of the next at the most examples, and how often the draws agree."""
    if len(ranked) < 2:
        return ""
    at = {"x": contest.size, "d": contest.high}
    first, second = (contest.fits[method] for method in ranked[:2])
    gap, low, high = difference(second, first, at)
    draws = [fit.draw_predictions(fit.column_values(at)) for fit in contest.fits.values()]
    count = min(map(len, draws))
    wins = np.argmin(np.stack([draw[:count] for draw in draws]), axis=0)
    share = float(np.mean(wins == list(contest.fits).index(ranked[0])))
    often = "all" if share == 1 else f"{share:.0%}"
    told = (
        f"There {words.method(ranked[0])} leads {words.method(ranked[1])} by {words.loss(gap)} "
        f"{words.between(low, high, words.loss)} and is the best in {often} of the bootstrap draws"
    )
    return told + (": these runs do not settle which is better." if low <= 0 <= high else ".")


def _picture(study: Study, contest: Contest) -> Picture:
    ties = [
        crossings.find(study, contest.task, before.method, after.method, contest.size, before.high)
        for before, after in itertools.pairwise(stretches(contest))
    ]
    marks = [Crossing(words.roughly(tie.size), tie.size, tie.low, tie.high) for tie in ties if tie]
    drawn = curves.methods_at(study, contest.task, contest.fits, contest.column, contest.size, marks)
    bar = " The bar at the foot is the interval of the crossing." if marks else ""
    law = next(iter(contest.fits.values())).law
    return Picture(
        *drawn,
        f"{drawn[0].title}. Each point is one run; hollow points were held out of the fit. Lines are the "
        f"fitted {law} law, bands its {level(study)} interval.{bar}",
    )


def _facts(study: Study) -> list[Fact]:
    methods, models = len({run.method for run in study.runs}), len({run.model for run in study.runs})
    found = [
        Fact(
            "Runs finished",
            f"{len(study.done)} of {len(study.runs)}",
            f"{words.number_of(methods, 'method')}, {words.number_of(models, 'model')}",
        )
    ]
    fits = [
        fit
        for task in study.tasks
        for method in study.methods(task)
        if (fit := find_fit(study, task, method, "model_size"))
    ]
    errors = [error for fit in fits if (error := fit.errors.get("held_out_mad")) is not None]
    others = [value for fit in fits if math.isfinite(value := held_out.nearest(fit))]
    if errors:
        about = f"nearest neighbour: {words.error(float(np.mean(others)))}" if others else ""
        found.append(Fact("Held-out error of the joint law", words.error(float(np.mean(errors))), about))
    entropy = (study.facts.get("entropy_per_target_token") or {}).get("test")
    if fits and entropy is not None:
        method = str(fits[0].group["method"])
        fit = owner(study, study.tasks[0], method, "model_size", "E")
        low, high = bounds(fit, "E")
        found.append(
            Fact(
                f"Fitted floor E, {words.method(method)}",
                words.loss(fit.parameters["E"]),
                f"{words.between(low, high, words.loss)}; true entropy {words.loss(entropy)}",
            )
        )
    total = sum(run.numbers.get("train_seconds", 0.0) for run in study.done)
    found.append(
        Fact("Finetuning time, all runs", words.seconds(total), str(study.description.get("device") or ""))
    )
    return found
