"""Tuning methods beside full tuning, as in Pu et al. 2023: quality by data scale, time, memory, ablations.

Shown where a task has three methods or more whose runs recorded what they cost. A method whose name begins
with that of another one (`lora_last_half`) is an ablation of it.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.reports import figures, words
from scaling_jax.reports.blocks import Bullets, Cell, Heading, Panels, Paragraph, Section, Table
from scaling_jax.reports.curves import colour_key, method_colour
from scaling_jax.reports.figures import Series
from scaling_jax.reports.study_data import Run, Study
from scaling_jax.reports.theme import Drawing

COSTS = ("tuning_params", "step_seconds", "peak_memory_bytes", "converged_step")
FULL = "full"
_FEWEST_METHODS = 3
_PANEL = (4.4, 3.3)


@dataclass(frozen=True)
class Comparison:
    """Finished runs of one task at one model, by method.

    Attributes:
        runs: method -> its runs, a method's ablations after it.
        parents: ablation -> method.
        examples: the numbers of finetuning examples, ascending.
    """

    task: str
    model: str
    runs: dict[str, list[Run]]
    parents: dict[str, str]
    examples: tuple[float, ...]

    @property
    def methods(self) -> list[str]:
        """Methods that are no ablations."""
        return [method for method in self.runs if method not in self.parents]

    def at(self, method: str, examples: float) -> list[Run]:
        """The method's runs, one per seed, on that many examples."""
        return [run for run in self.runs[method] if run["finetune_examples"] == examples]

    def loss(self, method: str, examples: float) -> float:
        """Mean test loss over the seeds; NaN where there is no run."""
        losses = [run.loss for run in self.at(method, examples)]
        return statistics.fmean(losses) if losses else math.nan

    def cost(self, method: str, measure: Callable[[Run], float], examples: float | None = None) -> float:
        """Median of a measure over the method's runs, on that many examples or all; NaN without runs."""
        runs = self.runs.get(method, []) if examples is None else self.at(method, examples)
        return statistics.median(map(measure, runs)) if runs else math.nan

    def of_full(self, method: str, measure: Callable[[Run], float], examples: float | None = None) -> float:
        """A measure over that of full tuning; NaN where full tuning was not run."""
        if FULL not in self.runs:
            return math.nan
        whole = self.cost(FULL, measure, examples)
        return self.cost(method, measure, examples) / whole if whole else math.nan


def compare(study: Study, task: str) -> Comparison | None:
    """What can be compared: the largest model and longest pretraining at which enough methods were run.

    Of a method with several tuning sizes, the smallest one.
    """
    runs = [run for run in study.done if run.task == task and all(name in run.numbers for name in COSTS)]
    places = sorted({(run["non_embedding_params"], run["pretrain_tokens"], run.model) for run in runs})
    for _, tokens, model in reversed(places):
        here = [run for run in runs if run.model == model and run["pretrain_tokens"] == tokens]
        by_method = {name: [run for run in here if run.method == name] for name in study.methods(task)}
        by_method = {name: _smallest(found) for name, found in by_method.items() if found}
        parents = words.ablations(by_method)
        if len(by_method) - len(parents) >= _FEWEST_METHODS:
            ordered = {name: by_method[name] for name in _in_families(by_method, parents)}
            examples = sorted({run["finetune_examples"] for found in ordered.values() for run in found})
            return Comparison(task, model, ordered, parents, tuple(examples))
    return None


def _smallest(runs: list[Run]) -> list[Run]:
    size = min(run.numbers.get("tuning_size", 0.0) for run in runs)
    return [run for run in runs if run.numbers.get("tuning_size", 0.0) == size]


def _in_families(methods: Sequence[str], parents: dict[str, str]) -> list[str]:
    """Full tuning first, then the others, each with its ablations behind it."""
    own = sorted((name for name in methods if name not in parents), key=lambda name: name != FULL)
    return [name for one in own for name in (one, *(part for part in methods if parents.get(part) == one))]


def section(study: Study) -> Section | None:
    """A figure, and findings and a table for each task; None where there is nothing to compare."""
    compared = [one for task in study.tasks if (one := compare(study, task))]
    if not compared:
        return None
    parts: list = [
        Panels(
            [_drawing(study, one) for one in compared],
            "Test loss by number of finetuning examples, ablations left out. Points are runs; lines join the "
            "means over seeds.",
        )
    ]
    for one in compared:
        if len(compared) > 1:
            parts.append(Heading(one.task))
        parts.append(Bullets([*_findings(one), *(_ablation(one, *pair) for pair in one.parents.items())]))
        parts.append(_table(study, one))
    about = (
        "Of full tuning's: the same measure of full tuning is 1. Step: median time of a training step. "
        "Memory: peak of a run. Converged: the first evaluated step with a dev loss within 1% of the run's "
        "best; time to it is that many steps at the run's own pace, compilation and evaluation not counted."
    )
    parts.append(Paragraph(about + _made_together(compared), quiet=True))
    return Section("comparison", "Comparison", "Methods compared: quality, time, memory", parts)


def _made_together(compared: Sequence[Comparison]) -> str:
    """What to know where a vmapped program made several runs: their costs are not those of a run alone."""
    at_once = [
        (words.method(method), run.numbers.get("runs_at_once", 1.0))
        for one in compared
        for method, runs in one.runs.items()
        for run in runs
    ]
    together = dict.fromkeys(method for method, count in at_once if count > 1)
    if not together:
        return ""
    most = max(count for _, count in at_once)
    return (
        f" Runs of {words.several(together)} were made up to {most:.0f} at a time: their seconds are a "
        "share, their memory is that of all together, so neither compares with that of a run made alone "
        "(Study.cohort = 1)."
    )


def statements(study: Study) -> list[str]:
    """One sentence for each task that can be compared: who had the lowest test loss at how many examples."""
    return [_lowest_losses(one) for task in study.tasks if (one := compare(study, task))]


def _time_to_converge(run: Run) -> float:
    return run["converged_step"] * run["step_seconds"]


def _column(name: str) -> Callable[[Run], float]:
    return lambda run: run[name]


def _lowest_losses(one: Comparison) -> str:
    best = {}
    for examples in one.examples:
        losses = {method: one.loss(method, examples) for method in one.methods}
        losses = {method: loss for method, loss in losses.items() if math.isfinite(loss)}
        if losses:
            winner = min(losses, key=losses.__getitem__)
            best[examples] = (losses[winner], words.method(winner))
    return f"Lowest test loss on {one.task} at {one.model}: {words.winners(best, words.loss)}."


def _findings(one: Comparison) -> list[str]:
    """Who is best at which number of examples, and who is cheapest."""
    found = [_lowest_losses(one)]
    for measure, said in (("peak_memory_bytes", "Least memory"), ("step_seconds", "Fastest step")):
        shares = {method: one.of_full(method, _column(measure)) for method in one.methods}
        shares = {method: share for method, share in shares.items() if math.isfinite(share)}
        if shares:
            winner = min(shares, key=shares.__getitem__)
            of_full = "" if winner == FULL else f", {shares[winner]:.2f} of full tuning's"
            found.append(f"{said}: {words.method(winner)}{of_full}.")
    return found


def _ablation(one: Comparison, ablation: str, method: str) -> str:
    """The loss of an ablation less that of its method, by number of examples."""
    differences = [
        f"{difference:+.3f} at {words.count(examples)}".replace("-", "−")
        for examples in one.examples
        if math.isfinite(difference := one.loss(ablation, examples) - one.loss(method, examples))
    ]
    trained = _column("tuning_params")
    share = one.cost(ablation, trained) / one.cost(method, trained)
    told = f"; test loss {words.several(differences)} examples" if differences else ""
    return f"{words.method(ablation)} trains {share:.0%} of what {words.method(method)} trains{told}."


def _table(study: Study, one: Comparison) -> Table:
    sizes = [words.count(examples) for examples in one.examples]
    groups = (
        ("", 2),
        ("Test loss at examples", len(sizes)),
        ("Of full tuning's", 2),
        ("Time to converge, of full tuning's", len(sizes)),
        ("Converged at step", len(sizes)),
    )
    lowest = {examples: _lowest(one, examples) for examples in one.examples}
    rows = [
        [
            Cell(words.method(method), key=colour_key(study, method)),
            words.count(one.cost(method, _column("tuning_params"))),
            *[_loss_cell(one.loss(method, examples), lowest[examples]) for examples in one.examples],
            words.number(one.of_full(method, _column("step_seconds")), 2),
            words.number(one.of_full(method, _column("peak_memory_bytes")), 2),
            *[words.number(one.of_full(method, _time_to_converge, size), 2) for size in one.examples],
            *[words.count(one.cost(method, _column("converged_step"), size)) for size in one.examples],
        ]
        for method in one.runs
    ]
    header = ["Method", "Trained", *sizes, "step", "memory", *sizes, *sizes]
    caption = (
        f"{one.task}, {one.model}. Loss in {words.LOSS_UNIT}, mean over seeds; the rest are medians. "
        "Bold: lowest."
    )
    return Table(f"Methods compared, {one.task}", header, rows, groups=groups, caption=caption)


def _lowest(one: Comparison, examples: float) -> float:
    return min(
        (loss for name in one.runs if math.isfinite(loss := one.loss(name, examples))), default=math.nan
    )


def _loss_cell(loss: float, lowest: float) -> Cell:
    return Cell(words.loss(loss), best=loss == lowest)


def _drawing(study: Study, one: Comparison) -> Drawing:
    drawn = [_series(study, one, method) for method in one.methods]
    description = "; ".join(
        f"{line.label}: {words.loss(line.line_y[0])} at {words.count(line.line_x[0])} examples, "
        f"{words.loss(line.line_y[-1])} at {words.count(line.line_x[-1])}"
        for line in drawn
    )
    return figures.curves(
        f"comparison-{one.task}",
        f"Test loss against finetuning examples by tuning method, {one.task}, {one.model}",
        description,
        drawn,
        "Finetuning examples",
        f"Test loss ({words.LOSS_UNIT})",
        size=_PANEL,
        heading=one.task,
    )


def _series(study: Study, one: Comparison, method: str) -> Series:
    colour = method_colour(study, method)
    runs = one.runs[method]
    means = [(size, one.loss(method, size)) for size in one.examples if one.at(method, size)]
    line_x, line_y = np.array(means).T
    x = np.array([run["finetune_examples"] for run in runs])
    y = np.array([run.loss for run in runs])
    return Series(
        words.method(method), colour, x, y, np.zeros(x.size, bool), colour, line_x=line_x, line_y=line_y
    )
