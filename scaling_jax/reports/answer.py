"""The first screen: the answer in one sentence, its uncertainty, one picture, a few numbers."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.laws.results import Fit
from scaling_jax.reports import crossings, curves, held_out, words
from scaling_jax.reports.blocks import Fact, Picture
from scaling_jax.reports.evidence import bounds, find_fit, level, predict, rows_of, sizes, x_column
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


def answer(study: Study) -> Answer:
    """Made from the first task that has a joint law over model size; the other tasks add a paragraph each."""
    told = [(task, statement) for task in study.tasks if (statement := _statement(study, task))]
    if not told:
        return Answer(
            f"No joint law could be fitted to the {len(study.done)} finished runs of this study.",
            ["See below for the runs, what they cost, and which rows were left out."],
            [],
            _facts(study),
        )
    sentence, lead = told[0][1]
    lead = lead + [f"{words.capital(task)}: {more}" for task, (more, _) in told[1:]]
    pictures = [picture for task, _ in told[:1] if (picture := _picture(study, task))]
    return Answer(sentence, lead, pictures, _facts(study))


def _largest(study: Study, task: str) -> dict[str, tuple[Fit, float]]:
    """Every method's model-size fit with the largest size it was run at."""
    found = {}
    for method in study.methods(task):
        fit = find_fit(study, task, method, "model_size")
        if fit is not None:
            found[method] = (fit, max(sizes(fit, rows_of(study, fit))))
    return found


def stretches(study: Study, task: str) -> list[Stretch]:
    """Who is ahead where at the largest model, over the examples that every method was run with."""
    fits = _largest(study, task)
    low, high = _range(study, fits)
    grid = np.geomspace(low, high, 400)
    table = np.stack([predict(fit, x, grid)[0] for fit, x in fits.values()])
    best = np.argmin(table, axis=0)
    edges = [0, *(np.flatnonzero(np.diff(best)) + 1), grid.size]
    names = list(fits)
    return [
        Stretch(names[best[start]], grid[start], grid[min(end, grid.size - 1)])
        for start, end in itertools.pairwise(edges)
    ]


def _range(study: Study, fits: dict[str, tuple[Fit, float]]) -> tuple[float, float]:
    examples = [[run["finetune_examples"] for run, _ in rows_of(study, fit)] for fit, _ in fits.values()]
    return max(map(min, examples)), min(map(max, examples))


def _statement(study: Study, task: str) -> tuple[str, list[str]] | None:
    fits = _largest(study, task)
    if not fits:
        return None
    low, high = _range(study, fits)
    ahead = stretches(study, task)
    any_fit, x = next(iter(fits.values()))
    size = f"{words.count(x)} {words.column(x_column(any_fit))}"
    sentence = _sentence(study, task, ahead, x, size, low, high)
    at_top = {method: predict(fit, x, high) for method, (fit, x) in fits.items()}
    ranked = sorted(at_top, key=lambda method: at_top[method][0][0])
    told = [
        f"{words.method(method)} {words.loss(at_top[method][0][0])} "
        f"{words.between(at_top[method][1][0], at_top[method][2][0], words.loss)}".strip()
        for method in ranked
    ]
    lead = [
        f"Predicted test loss at {words.count(high)} examples and {size}, in {words.LOSS_UNIT} with "
        f"{level(study)} intervals: {'; '.join(told)}."
    ]
    lead.append(_certainty(ranked, at_top, high))
    return sentence, [text for text in lead if text]


def _sentence(
    study: Study, task: str, ahead: list[Stretch], x: float, size: str, low: float, high: float
) -> str:
    if len(ahead) == 1:
        only = len(study.methods(task)) == 1
        lead = "was the only method run" if only else "has the lowest predicted loss"
        return (
            f"{words.capital(words.method(ahead[0].method))} {lead} from {words.count(low)} to "
            f"{words.count(high)} examples at {size}."
        )
    told = []
    for before, after in itertools.pairwise(ahead):
        critical = crossings.find(crossings.read(study), task, {before.method, after.method}, x)
        interval = (
            f" ({level(study)} interval {words.roughly(critical.low)} to {words.roughly(critical.high)})"
            if critical and math.isfinite(critical.low) and math.isfinite(critical.high)
            else " (the place is uncertain)"
        )
        at = critical.at if critical and math.isfinite(critical.at) else before.high
        told.append(
            f"{words.method(before.method)} is predicted best up to about "
            f"{words.roughly(at)} examples{interval}"
        )
    return words.capital(f"{', then '.join(told)}, and {words.method(ahead[-1].method)} beyond, at {size}.")


def _certainty(ranked: list[str], at_top: dict, high: float) -> str:
    if len(ranked) < 2:
        return ""
    first, second = at_top[ranked[0]], at_top[ranked[1]]
    names = f"{words.method(ranked[0])} and {words.method(ranked[1])}"
    if first[2][0] < second[1][0]:
        return f"At {words.count(high)} examples the intervals of {names} do not overlap."
    return (
        f"At {words.count(high)} examples the intervals of {names} overlap: "
        "these runs do not settle which is better."
    )


def _picture(study: Study, task: str) -> Picture | None:
    ahead = stretches(study, task)
    _, x = next(iter(_largest(study, task).values()))
    marks = []
    for before, after in itertools.pairwise(ahead):
        critical = crossings.find(crossings.read(study), task, {before.method, after.method}, x)
        if critical and math.isfinite(critical.at):
            marks.append(Crossing(words.roughly(critical.at), critical.at, critical.low, critical.high))
    drawn = curves.methods_at_largest(study, task, marks)
    if drawn is None:
        return None
    bar = " The bar at the foot is the interval of the crossing." if marks else ""
    return Picture(
        *drawn,
        f"{drawn[0].title}. Each point is one run; hollow points were held out of the fit. Lines "
        f"are the fitted multiplicative law, bands its {level(study)} interval.{bar}",
    )


def _facts(study: Study) -> list[Fact]:
    methods = len({run.method for run in study.runs})
    found = [
        Fact(
            "Runs finished",
            f"{len(study.done)} of {len(study.runs)}",
            f"{methods} methods, {len({run.model for run in study.runs})} models",
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
