"""The losses of tasks that no law was fitted to and whose methods are not compared: points, means joined."""

import statistics
from collections.abc import Sequence

import numpy as np

from scaling_jax.reports import figures, method_comparison, theme, words
from scaling_jax.reports.evidence import curve_fit
from scaling_jax.reports.figures import Series
from scaling_jax.reports.study_data import Run, Study
from scaling_jax.reports.theme import Drawing

_PANEL = (3.35, 3.0)


def tasks(study: Study) -> list[str]:
    """Tasks with finished runs whose losses no other part of the page shows."""
    if study.decision.get("valuing_pretraining"):
        return []
    return [task for task in study.tasks if _runs(study, task) and not _shown(study, task)]


def statements(study: Study) -> list[str]:
    """One sentence for each such task: who had the lowest test loss at how many examples, at its largest
    model and longest pretraining."""
    return [_lowest(study, task) for task in tasks(study)]


def panels(study: Study, task: str) -> list[Drawing]:
    """One panel per method, one line per model and pretraining; none where all runs have as many examples."""
    drawn = {}
    for method in study.methods(task):
        runs = [run for run in _runs(study, task) if run.method == method]
        if len({run["finetune_examples"] for run in runs}) > 1:
            drawn[method] = _lines(runs)
    if not drawn:
        return []
    y_range = figures.span([line for lines in drawn.values() for line in lines])
    return [_panel(task, method, lines, y_range) for method, lines in drawn.items()]


def means(runs: Sequence[Run], column: str = "loss") -> tuple[np.ndarray, np.ndarray]:
    """(numbers of examples ascending, mean of the column over the runs of each)."""
    sizes = sorted({run["finetune_examples"] for run in runs})
    values = [
        statistics.fmean(run[column] for run in runs if run["finetune_examples"] == size) for size in sizes
    ]
    return np.array(sizes), np.array(values)


def _runs(study: Study, task: str) -> list[Run]:
    return [run for run in study.done if run.task == task and run["finetune_examples"] > 0]


def _shown(study: Study, task: str) -> bool:
    fitted = any(curve_fit(study, task, method) for method in study.methods(task))
    return fitted or method_comparison.compare(study, task) is not None


def _lowest(study: Study, task: str) -> str:
    runs = _runs(study, task)
    size, tokens = max((run["non_embedding_params"], run["pretrain_tokens"]) for run in runs)
    runs = [run for run in runs if (run["non_embedding_params"], run["pretrain_tokens"]) == (size, tokens)]
    best: dict[float, tuple[float, str]] = {}
    for method in dict.fromkeys(run.method for run in runs):
        for examples, loss in zip(*means([run for run in runs if run.method == method]), strict=True):
            best[examples] = min(best.get(examples, (np.inf, "")), (loss, words.method(method)))
    return f"Lowest test loss on {task} at {runs[0].model}: {words.winners(best, words.loss)}."


def _lines(runs: Sequence[Run]) -> list[Series]:
    places: dict[tuple, list[Run]] = {}
    for run in runs:
        key = (run["non_embedding_params"], run["pretrain_tokens"], run.numbers.get("tuning_size", 0.0))
        places.setdefault((*key, run.model), []).append(run)
    lengths, tuned = ({key[position] for key in places} for position in (1, 2))
    found = []
    for position, key in enumerate(sorted(places)):
        own = places[key]
        parts = [key[3]]
        parts += [f"{words.count(key[1])} tokens"] if len(lengths) > 1 else []
        parts += [f"size {key[2]:g}"] if len(tuned) > 1 else []
        x = np.array([run["finetune_examples"] for run in own])
        y = np.array([run.loss for run in own])
        line_x, line_y = means(own)
        colour = theme.ordered(position, len(places))
        found.append(
            Series(", ".join(parts), colour, x, y, np.zeros(x.size, bool), line_x=line_x, line_y=line_y)
        )
    return found


def _panel(task: str, method: str, lines: Sequence[Series], y_range: tuple[float, float]) -> Drawing:
    about = "; ".join(
        f"{line.label}: {words.loss(line.line_y[0])} at {words.count(line.line_x[0])} examples, "
        f"{words.loss(line.line_y[-1])} at {words.count(line.line_x[-1])}"
        for line in lines
    )
    return figures.curves(
        f"measured-{task}-{method}",
        f"{words.method(method)}: measured test loss against finetuning examples, {task}",
        about,
        lines,
        "Finetuning examples",
        f"Test loss ({words.LOSS_UNIT})",
        size=_PANEL,
        heading=words.capital(words.method(method)),
        y_range=y_range,
    )
