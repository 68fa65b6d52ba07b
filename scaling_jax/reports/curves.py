"""Loss against finetuning examples: the series behind the first picture and the panels per method."""

from collections.abc import Mapping, Sequence

import numpy as np

from scaling_jax.laws.results import Fit
from scaling_jax.reports import figures, theme, words
from scaling_jax.reports.evidence import find_fit, predict, rows_of, single_fits, sizes, x_column
from scaling_jax.reports.figures import Crossing, Series
from scaling_jax.reports.study_data import Run, Study
from scaling_jax.reports.theme import Drawing

_WIDE, _NARROW, _PANEL = (9.0, 4.1), (3.9, 3.5), (3.35, 3.0)


def method_colour(study: Study, method: str) -> str:
    """The light colour of a method, the same in every figure of a study; a variant has its method's."""
    names = list(dict.fromkeys(run.method for run in study.runs))
    parents = words.ablations(names)
    own = [name for name in names if name not in parents]
    return theme.category(own.index(parents.get(method, method)))


def colour_key(study: Study, method: str) -> str:
    """The CSS colour of a method's dot in a table."""
    return theme.css_colour(method_colour(study, method))


def series(
    label: str, colour: str, label_colour: str, rows: Sequence[tuple[Run, bool]], fit: Fit | None, x: float
) -> Series:
    """Rows as points over examples, with the law at size `x` when there is a fit."""
    examples = np.array([run["finetune_examples"] for run, _ in rows])
    loss = np.array([run.loss for run, _ in rows])
    held_out = np.array([hidden for _, hidden in rows], bool)
    if fit is None:
        return Series(label, colour, examples, loss, held_out, label_colour)
    grid = np.geomspace(examples.min(), examples.max(), 60)
    value, low, high = predict(fit, x, grid)
    return Series(label, colour, examples, loss, held_out, label_colour, grid, value, low, high)


def methods_at(
    study: Study, task: str, fits: Mapping[str, Fit], column: str, size: float, crossings: Sequence[Crossing]
) -> tuple[Drawing, Drawing]:
    """Loss against examples of every method at one model size: for wide and for narrow screens."""
    drawn, model = [], ""
    for method, fit in fits.items():
        rows = [(run, hidden) for run, hidden in rows_of(study, fit) if run[column] == size]
        if not rows:
            continue
        model = model or rows[0][0].model
        colour = method_colour(study, method)
        drawn.append(series(words.method(method), colour, colour, rows, fit, size))
    place = f"{model} ({words.count(size)} {words.column(column)})"
    title = f"Test loss against finetuning examples by method, {place}"
    description = "; ".join(
        f"{one.label}: {words.loss(one.line_y[0])} at {words.count(one.line_x[0])} examples, "
        f"{words.loss(one.line_y[-1])} at {words.count(one.line_x[-1])}"
        for one in drawn
        if one.line_y.size
    )
    return tuple(
        figures.curves(
            f"{name}-{task}",
            title,
            description,
            drawn,
            "Finetuning examples",
            f"Test loss ({words.LOSS_UNIT})",
            size=inches,
            crossings=crossings,
        )
        for name, inches in (("methods", _WIDE), ("methods-narrow", _NARROW))
    )


def panels(study: Study, task: str, factor: str) -> list[Drawing]:
    """One panel per method: loss against examples, one line per size of `factor`, on one y range.

    Without a joint law over model size, every model keeps the law fitted to it alone.
    """
    drawn = {
        method: lines for method in study.methods(task) if (lines := _lines(study, task, method, factor))
    }
    if not drawn:
        return []
    y_range = figures.span([line for lines in drawn.values() for line in lines])
    return [_panel(study, task, factor, method, lines, y_range) for method, lines in drawn.items()]


def _lines(study: Study, task: str, method: str, factor: str) -> list[Series]:
    fit = find_fit(study, task, method, factor)
    if fit is None:
        alone = single_fits(study, task, method) if factor == "model_size" else []
        return [
            series(str(one.group.get("model", "")), theme.ordered(position, len(alone)), theme.INK,
                   rows_of(study, one), one, 1.0)
            for position, one in enumerate(alone)
        ]  # fmt: skip
    rows = rows_of(study, fit)
    levels = sizes(fit, rows)
    return [
        series(words.count(size), theme.ordered(position, len(levels)), theme.INK,
               [(run, hidden) for run, hidden in rows if run[x_column(fit)] == size], fit, size)
        for position, size in enumerate(levels)
    ]  # fmt: skip


def _panel(
    study: Study, task: str, factor: str, method: str, lines: Sequence[Series], y_range: tuple[float, float]
) -> Drawing:
    ends = "; ".join(
        f"{line.label}: {words.loss(line.line_y[0])} down to {words.loss(line.line_y[-1])}" for line in lines
    )
    return figures.curves(
        f"{factor.replace('_', '-')}-{task}-{method}",
        f"{words.method(method)}: test loss against finetuning examples, one line per {words.factor(factor)}",
        f"From the fewest to the most examples, by the fitted law: {ends}.",
        lines,
        "Finetuning examples",
        f"Test loss ({words.LOSS_UNIT})",
        size=_PANEL,
        heading=words.capital(words.method(method)),
        y_range=y_range,
    )
