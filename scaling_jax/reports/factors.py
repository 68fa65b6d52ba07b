"""Model size against pretraining data: which lowers the loss more when it grows by the same factor."""

import numpy as np

from scaling_jax.laws.results import Fit
from scaling_jax.reports import curves, figures, theme, words
from scaling_jax.reports.blocks import Heading, Panels, Paragraph, Section, Table
from scaling_jax.reports.evidence import bounds, find_fit, level, predict, rows_of, x_column
from scaling_jax.reports.figures import Series
from scaling_jax.reports.study_data import Study
from scaling_jax.reports.theme import Drawing

_FACTORS = ("model_size", "pretraining")
_COLOURS = {"model_size": theme.category(5), "pretraining": theme.category(4)}


def section(study: Study) -> Section | None:
    """None when the study varied only one of the two."""
    parts: list = []
    for task in study.tasks:
        pairs = {
            method: (
                find_fit(study, task, method, "model_size"),
                find_fit(study, task, method, "pretraining"),
            )
            for method in study.methods(task)
        }
        pairs = {method: pair for method, pair in pairs.items() if all(pair)}
        if not pairs:
            continue
        if len(study.tasks) > 1:
            parts.append(Heading(task))
        parts.append(Paragraph(_verdict(pairs)))
        drawings = [
            drawing for method, pair in pairs.items() if (drawing := _relative(study, task, method, pair))
        ]
        if drawings:
            parts.append(
                Panels(
                    drawings,
                    "Loss at one number of examples as one factor grows and the other stays: "
                    "model size against pretraining tokens, each relative to the smallest of the study. "
                    "Lines are the fitted laws. Hollow points were held out.",
                )
            )
        parts.append(_table(study, task, pairs))
        panels = curves.panels(study, task, "pretraining")
        if panels:
            parts.append(Heading("Loss against examples by pretraining"))
            parts.append(
                Panels(
                    panels,
                    f"One line per number of pretraining tokens, at one model size. Bands are "
                    f"{level(study)} intervals of the fitted law.",
                )
            )
    return Section("factors", "Pretraining", "More pretraining, or a larger model?", parts) if parts else None


def _verdict(pairs: dict[str, tuple[Fit, Fit]]) -> str:
    larger, apart = 0, 0
    for model_fit, pretraining_fit in pairs.values():
        larger += model_fit.parameters["alpha"] > pretraining_fit.parameters["alpha"]
        apart += bounds(model_fit, "alpha")[0] > bounds(pretraining_fit, "alpha")[1]
    return (
        f"αₘ exceeds αₚ for {larger} of {len(pairs)} methods; for {apart} of them their intervals do not "
        "overlap. αₘ > αₚ means that doubling the model takes a larger share off the reducible loss than "
        "doubling its pretraining, over the sizes of this study."
    )


def _table(study: Study, task: str, pairs: dict[str, tuple[Fit, Fit]]) -> Table:
    rows = []
    for method, pair in pairs.items():
        row = [words.capital(words.method(method))]
        for fit in pair:
            alpha, (low, high) = fit.parameters["alpha"], bounds(fit, "alpha")
            row.append(
                f"{_saved(alpha)}  {words.between(_save(low), _save(high), lambda value: f'{value:.1f}%')}"
            )
        rows.append(row)
    return Table(
        f"Effect of doubling, {task}",
        ["Method", "Model size doubled", "Pretraining tokens doubled"],
        rows,
        caption=f"Share of the reducible loss (loss above E) that one doubling removes; {level(study)} "
        "intervals.",
    )


def _save(alpha: float) -> float:
    return 100 * (1 - 2.0**-alpha)


def _saved(alpha: float) -> str:
    return f"{_save(alpha):.1f}%"


def _relative(study: Study, task: str, method: str, pair: tuple[Fit, Fit]) -> Drawing | None:
    """Both factors on one axis, as multiples of their smallest value, at the most examples both have."""
    tables = [rows_of(study, fit) for fit in pair]
    shared = set.intersection(*({run["finetune_examples"] for run, _ in rows} for rows in tables))
    if not shared:
        return None
    examples = max(shared)
    drawn = []
    for factor, fit, rows in zip(_FACTORS, pair, tables, strict=True):
        rows = [(run, hidden) for run, hidden in rows if run["finetune_examples"] == examples]
        x = np.array([run[x_column(fit)] for run, _ in rows])
        grid = np.geomspace(x.min(), x.max(), 40)
        value, low, high = predict(fit, grid, examples)
        drawn.append(
            Series(
                words.factor(factor).split()[0],
                _COLOURS[factor],
                x / x.min(),
                np.array([run.loss for run, _ in rows]),
                np.array([hidden for _, hidden in rows], bool),
                _COLOURS[factor],
                grid / x.min(),
                value,
                low,
                high,
            )
        )
    about = "; ".join(
        f"{one.label}: {words.loss(one.line_y[0])} down to {words.loss(one.line_y[-1])} over "
        f"{one.line_x[-1]:.3g} times"
        for one in drawn
    )
    return figures.curves(
        f"relative-{task}-{method}",
        f"{words.method(method)}: loss as model or pretraining grows",
        about,
        drawn,
        "Times the smallest of the study",
        f"Test loss ({words.LOSS_UNIT})",
        size=(3.35, 3.0),
        x_ticks=(),
        heading=f"{words.capital(words.method(method))}, {words.count(examples)} examples",
    )
