"""Scores of what the tuned models wrote: BLEU, ROUGE, a judge's and others, on the runs' task and elsewhere.

A column of results.csv that names a score is one of the run's own task; columns after `record` are of further
evaluations (`flores_bleu`) or of a score's parts (`judge_math`).
"""

import itertools
import math
import re
from collections.abc import Sequence

import numpy as np

from scaling_jax.decisions.valuing_pretraining import SCORES, score_name
from scaling_jax.reports import figures, theme, words
from scaling_jax.reports.blocks import Cell, Heading, Panels, Paragraph, Section, Table
from scaling_jax.reports.curves import colour_key, method_colour
from scaling_jax.reports.figures import Series
from scaling_jax.reports.measured import means
from scaling_jax.reports.study_data import KNOWN, Run, Study
from scaling_jax.reports.theme import Drawing

_PANEL = (4.4, 3.3)
_OF_AN_EVALUATION = re.compile(rf"(.+?)_({'|'.join(map(re.escape, (*SCORES, 'loss')))}|judge_.+)")
_ABOUT = (
    "Of what the tuned models wrote at their best step; how each score was computed is in the record of the "
    "run. BLEU, chrF, ROUGE, exact match and accuracy are 0 to 100, a judge's score is 0 to 1; higher is "
    "better, except for losses."
)


def section(study: Study) -> Section | None:
    """Figures and a table per evaluation for each task; None where no run has a score."""
    parts: list = []
    runs_of = _by_task(study)
    for task, runs in runs_of.items():
        names = columns(runs)
        if not names:
            continue
        if len(runs_of) > 1:
            parts.append(Heading(task))
        drawings = [
            drawing for name in names if not _is_part(name) for drawing in _drawings(study, runs, name)
        ]
        if drawings:
            parts.append(Panels(drawings, _caption(drawings)))
        by_evaluation = itertools.groupby(sorted(names, key=_evaluation), _evaluation)
        parts += [_table(study, task, evaluation, runs, list(own)) for evaluation, own in by_evaluation]
    if not parts:
        return None
    parts.append(Paragraph(_ABOUT, quiet=True))
    return Section("scores", "Scores", "Scores of the tuned models", parts)


def statements(study: Study) -> list[str]:
    """One sentence for each task with scores: who had the highest at how many examples, at its largest
    model."""
    found = []
    for task, runs in _by_task(study).items():
        names = [name for name in columns(runs) if not _evaluation(name) and not _is_part(name)]
        if names:
            found.append(_highest(task, names[0], runs))
    return found


def columns(runs: Sequence[Run]) -> list[str]:
    """The scores that some of the runs have: of the run's own task first, then as the table has them."""
    header = list(runs[0].cells) if runs else []
    after = header.index("record") + 1 if "record" in header else len(header)
    further = [name for name in header[after:] if name not in KNOWN]
    names = dict.fromkeys([*(name for name in SCORES if name in header), *further])
    return [name for name in names if any(name in run.numbers for run in runs)]


def _by_task(study: Study) -> dict[str, list[Run]]:
    """Finished runs by task, whatever their models were pretrained on."""
    found: dict[str, list[Run]] = {}
    for run in study.done:
        found.setdefault(run.task.split("@")[0], []).append(run)
    return found


def _evaluation(column: str) -> str:
    """The name of the evaluation a column is of; empty for the run's own task."""
    found = None if _own(column) else _OF_AN_EVALUATION.fullmatch(column)
    return found.group(1) if found else ""


def _score(column: str) -> str:
    found = None if _own(column) else _OF_AN_EVALUATION.fullmatch(column)
    return found.group(2) if found else column


def _own(column: str) -> bool:
    return column in SCORES or column.startswith("judge_")


def _is_part(column: str) -> bool:
    """Whether it is a judge's score of one class of questions: in the table, not worth a figure each."""
    return _score(column).startswith("judge_") and _score(column) != "judge_score"


def _label(column: str) -> str:
    return words.heading(score_name(_score(column)))


def _full_label(column: str) -> str:
    evaluation = _evaluation(column)
    return f"{_label(column)}, {evaluation}" if evaluation else _label(column)


def _shown(column: str, value: float) -> str:
    return words.loss(value) if _score(column) == "loss" else words.number(value)


def _better(column: str):
    return min if _score(column) == "loss" else max


def _origin(run: Run) -> str:
    """What a run started from, where that has a name: its mixture, or the run before it."""
    mixture = run.cells.get("pretrain_mixture") or ""
    name = mixture or ("not pretrained" if run["pretrain_tokens"] == 0 else "")
    after = run.cells.get("after") or ""
    return ", ".join(filter(None, (name, f"after {after}" if after else "")))


def _highest(task: str, column: str, runs: Sequence[Run]) -> str:
    runs = [run for run in runs if column in run.numbers]
    size = max(run["non_embedding_params"] for run in runs)
    runs = [run for run in runs if run["non_embedding_params"] == size]
    best: dict[float, tuple[float, str]] = {}
    for key, own in _places(runs).items():
        name = words.method(key[0]) + (f" from {_origin(own[0])}" if _origin(own[0]) else "")
        for examples, value in zip(*means(own, column), strict=True):
            best[examples] = max(best.get(examples, (-math.inf, "")), (value, name))
    told = words.winners(best, lambda value: _shown(column, value))
    return f"Highest {score_name(column)} on {task} at {runs[0].model}: {told}."


def _places(runs: Sequence[Run]) -> dict[tuple, list[Run]]:
    """Runs that differ in examples and seed alone, by (method, size, model, origin, tokens, tuning size).

    Ascending, origins as the table has them.
    """
    origins = list(dict.fromkeys(map(_origin, runs)))
    found: dict[tuple, list[Run]] = {}
    for run in runs:
        sizes = (run["pretrain_tokens"], run.numbers.get("tuning_size", 0.0))
        key = (run.method, run["non_embedding_params"], run.model, _origin(run), *sizes)
        found.setdefault(key, []).append(run)
    ordered = sorted(found, key=lambda key: (*key[:3], origins.index(key[3]), *key[4:]))
    return {key: found[key] for key in ordered}


def _table(study: Study, task: str, evaluation: str, runs: Sequence[Run], names: Sequence[str]) -> Table:
    runs = [run for run in runs if any(name in run.numbers for name in names)]
    places = _places(runs)
    examples = sorted({run["finetune_examples"] for run in runs})
    # Position in the key, heading, text of it: shown where the runs differ in it.
    about = (
        (3, "Started from", lambda origin: origin or "–"),
        (4, "Pretraining tokens", words.count),
        (5, "Tuning size", lambda size: words.count(size or None)),
    )
    about = [entry for entry in about if len({key[entry[0]] for key in places}) > 1]
    cells = {
        (key, name, size): _values(own, name, size)
        for key, own in places.items()
        for name, size in itertools.product(names, examples)
    }
    rows = []
    for key in places:
        row = [Cell(words.method(key[0]), key=colour_key(study, key[0])), key[2]]
        row += [text(key[position]) for position, _, text in about]
        rivals = [other for other in places if other[1:3] == key[1:3]]
        row += [_cell(cells, key, name, size, rivals) for name in names for size in examples]
        rows.append(row)
    sizes = [words.count(size) for size in examples]
    seeds = any(len(values) > 1 for values in cells.values())
    caption = f"{evaluation or task}: by finetuning examples" + (
        ", mean over seeds [lowest, highest]" if seeds else ""
    )
    return Table(
        f"Scores, {evaluation or task}",
        ["Method", "Model", *(heading for _, heading, _ in about), *sizes * len(names)],
        rows,
        text=(0, 1, 2) if any(position == 3 for position, _, _ in about) else (0, 1),
        groups=(("", 2 + len(about)), *((_label(name), len(sizes)) for name in names)),
        caption=f"{caption}. Bold: the best at the model.",
        tall=len(rows) > 30,
    )


def _values(runs: Sequence[Run], column: str, examples: float) -> list[float]:
    return [run[column] for run in runs if run["finetune_examples"] == examples and column in run.numbers]


def _cell(cells: dict, key: tuple, name: str, size: float, rivals: Sequence[tuple]) -> Cell:
    values = cells[key, name, size]
    if not values:
        return Cell("–")
    others = [float(np.mean(cells[other, name, size])) for other in rivals if cells[other, name, size]]
    mean = float(np.mean(values))
    ends = words.between(min(values), max(values), lambda end: _shown(name, end)) if len(values) > 1 else ""
    return Cell(_shown(name, mean), ends, best=len(others) > 1 and mean == _better(name)(others))


def _caption(drawings: Sequence[Drawing]) -> str:
    several = "s" if len(drawings) > 1 else ""
    return (
        f"The figure{several} of the largest model, after its longest pretraining. Points are runs; lines "
        "join the means over seeds. Variants of a method are in the table alone."
    )


def _drawings(study: Study, runs: Sequence[Run], column: str) -> list[Drawing]:
    """A score against examples: a panel per origin with a line per method; of one method, a line per origin.

    Empty where there is one number of examples.
    """
    runs = [run for run in runs if column in run.numbers and run["finetune_examples"] > 0]
    variants = words.ablations({run.method for run in runs})
    runs = [run for run in runs if run.method not in variants]
    if len({run["finetune_examples"] for run in runs}) < 2:
        return []
    largest = max(run["non_embedding_params"] for run in runs)
    runs = [run for run in runs if run["non_embedding_params"] == largest]
    groups: dict[tuple[str, str], list[Run]] = {}
    for key, own in _places(
        runs
    ).items():  # the longest pretraining comes last, the smallest tuning size first
        before = groups.get((key[3], key[0]))
        if before is None or before[0]["pretrain_tokens"] < key[4]:
            groups[key[3], key[0]] = own
    origins, methods = (list(dict.fromkeys(key[position] for key in groups)) for position in (0, 1))
    if len(methods) == 1:
        lines = [
            _series(origin or words.method(method), theme.category(origins.index(origin)), own, column)
            for (origin, method), own in groups.items()
        ]
        return [_drawing(runs[0], column, "", lines)]
    found = []
    for origin in origins:
        lines = [
            _series(words.method(method), method_colour(study, method), own, column)
            for (one, method), own in groups.items()
            if one == origin
        ]
        found.append(_drawing(runs[0], column, origin, lines))
    return found


def _series(label: str, colour: str, runs: Sequence[Run], column: str) -> Series:
    x = np.array([run["finetune_examples"] for run in runs])
    y = np.array([run[column] for run in runs])
    line_x, line_y = means(runs, column)
    return Series(label, colour, x, y, np.zeros(x.size, bool), colour, line_x=line_x, line_y=line_y)


def _drawing(run: Run, column: str, origin: str, lines: Sequence[Series]) -> Drawing:
    about = "; ".join(
        f"{line.label}: {_shown(column, line.line_y[0])} at {words.count(line.line_x[0])} examples, "
        f"{_shown(column, line.line_y[-1])} at {words.count(line.line_x[-1])}"
        for line in lines
    )
    task, label = run.task.split("@")[0], _full_label(column)
    place = f"{run.model}, {origin}" if origin else run.model
    return figures.curves(
        "-".join(filter(None, ("score", column, task, origin))),
        f"{label} against finetuning examples, {task}, {place}",
        about,
        lines,
        "Finetuning examples",
        label,
        size=_PANEL,
        heading=f"{label}, {origin}" if origin else label,
    )
