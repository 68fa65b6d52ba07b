"""The picture of one fit: data, law, interval band, held-out rows marked."""

from pathlib import Path

import numpy as np

from scaling_jax.files import write_bytes
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table

_CURVES = 6


def draw_fit(fit: Fit, rows: Table):
    """Loss against the law's last column, one curve per value of the others (at most six), as a Figure.

    Args:
        fit: the fit.
        rows: the rows of its group, held-out ones among them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    roles = fit.form.role_names
    along = roles[-1]
    sizes = {role: rows.positive(fit.columns[role]) for role in roles}
    loss = rows.positive(fit.columns["y"])
    held = rows.matches(fit.hold_out) if fit.hold_out else np.zeros(len(rows), bool)
    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    others = [role for role in roles if role != along]
    levels = (
        np.unique(np.stack([sizes[role] for role in others], axis=1), axis=0) if others else np.zeros((1, 0))
    )
    if len(levels) > _CURVES:
        levels = levels[np.linspace(0, len(levels) - 1, _CURVES).round().astype(int)]
    line = np.geomspace(sizes[along].min(), sizes[along].max(), 80)
    for position, level in enumerate(levels):
        colour = f"C{position}"
        here = np.ones(len(rows), bool)
        for role, value in zip(others, level, strict=True):
            here &= sizes[role] == value
        at = dict(zip(others, level, strict=True)) | {along: line}
        values, low, high = fit.predict(at)
        label = ", ".join(
            f"{fit.columns[role]} {value:.3g}" for role, value in zip(others, level, strict=True)
        )
        axes.fill_between(line, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(line, values, color=colour, label=label or fit.law)
        axes.plot(sizes[along][here & ~held], loss[here & ~held], "o", color=colour, markersize=4)
        axes.plot(
            sizes[along][here & held], loss[here & held], "o", color=colour, markersize=6, fillstyle="none"
        )
    if held.any():
        axes.plot([], [], "o", color="grey", fillstyle="none", label="held out")
    group = ", ".join(f"{column}={value}" for column, value in fit.group.items())
    # Column names and values come from the user's file: a $ in them is no mathematics.
    axes.set_title(f"{fit.equation}    {group}", fontsize=10, parse_math=False)
    axes.set_xscale("log")
    if loss.max() > 3 * loss.min():
        axes.set_yscale("log")
    if sizes[along].max() >= 10 * sizes[along].min():
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(fit.columns[along], parse_math=False)
    axes.set_ylabel(fit.columns["y"], parse_math=False)
    for text in axes.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
    return figure


def write_plot(fit: Fit, rows: Table, path: str | Path) -> Path:
    """Draws and writes the picture, a PNG, whole or not at all."""
    import io

    buffer = io.BytesIO()
    draw_fit(fit, rows).savefig(buffer, format="png", dpi=130)
    return write_bytes(path, buffer.getvalue())
