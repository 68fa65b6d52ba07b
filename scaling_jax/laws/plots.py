"""The picture of one fit: data, law, interval band, held-out rows marked, residuals below."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from scaling_jax.files import write_bytes
from scaling_jax.laws.results import Fit
from scaling_jax.laws.table import Table

# Up to so many values of the other columns each get their own colour; more are a scale of colours.
_LEVELS = 6
_POINTS = 2000


def draw_fit(fit: Fit, rows: Table):
    """The losses against the law's last column, with curves of the law, and residuals below, as a Figure.

    Args:
        fit: the fit.
        rows: the rows of its group, held-out ones among them. Of a long table a sample is shown.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    used = [fit.columns[role] for role in (*fit.form.role_names, "y")]
    rows = rows.drop_missing(used).drop_undecided(fit.hold_out or None)
    shown = rows.rows(_sample(len(rows)))
    along, others = fit.form.role_names[-1], fit.form.role_names[:-1]
    sizes = {role: shown.positive(fit.columns[role]) for role in fit.form.role_names}
    loss = shown.numbers(fit.columns["y"])
    held = shown.matches(fit.hold_out) if fit.hold_out else np.zeros(len(shown), bool)
    figure = Figure(figsize=(7.0, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    levels, colours, scale = _levels(sizes, others)
    line = np.geomspace(sizes[along].min(), sizes[along].max(), 80)
    for level, colour in zip(levels, colours, strict=True):
        at = dict(zip(others, level, strict=True)) | {along: line}
        values, low, high = fit.predict(at)
        named = zip(others, level, strict=True)
        label = ", ".join(f"{fit.columns[role]} {value:.3g}" for role, value in named)
        above.fill_between(line, low, high, color=colour, alpha=0.2, linewidth=0)
        above.plot(line, values, color=colour, label=label or fit.law)
    points = _point_colours(sizes, others, levels, colours, scale)
    gap = loss - fit.predict(sizes)[0]
    for axes, heights in ((above, loss), (below, gap)):
        axes.scatter(sizes[along][~held], heights[~held], s=14, c=points[~held], linewidths=0)
        axes.scatter(sizes[along][held], heights[held], s=26, facecolors="none", edgecolors=points[held])
    if held.any():
        above.scatter([], [], s=26, facecolors="none", edgecolors="grey", label="held out")
    if len(shown) < len(rows):
        above.scatter([], [], s=0, label=f"{len(shown)} of {len(rows)} rows shown")
    below.axhline(0.0, color="grey", linewidth=0.8)
    _dress(fit, above, below, sizes[along], loss)
    return figure


def write_plot(fit: Fit, rows: Table, path: str | Path) -> Path:
    """Draws and writes the picture, a PNG, whole or not at all."""
    import io

    buffer = io.BytesIO()
    draw_fit(fit, rows).savefig(buffer, format="png", dpi=130)
    return write_bytes(path, buffer.getvalue())


def _sample(rows: int) -> np.ndarray:
    """Positions of the rows to show, the same ones each time."""
    if rows <= _POINTS:
        return np.arange(rows)
    return np.sort(np.random.default_rng(0).choice(rows, _POINTS, replace=False))


def _levels(sizes: Mapping[str, np.ndarray], others: tuple[str, ...]):
    """(values of the other columns to draw curves at, their colours, whether colours are a scale)."""
    if not others:
        return np.zeros((1, 0)), ["C0"], False
    cells = np.stack([sizes[role] for role in others], axis=1)
    levels = np.unique(cells, axis=0)
    if len(levels) <= _LEVELS:
        return levels, [f"C{position}" for position in range(len(levels))], False
    order = cells[np.lexsort(cells.T[::-1])]
    chosen = order[np.linspace(0, len(order) - 1, _LEVELS).round().astype(int)]
    return chosen, list(_scale_colours(chosen[:, 0], cells[:, 0])), True


def _scale_colours(values: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Colours of sizes on a logarithmic scale over `among`, (values, 4)."""
    from matplotlib import colormaps

    low, high = np.log(among.min()), np.log(among.max())
    return colormaps["viridis"](0.92 * (np.log(values) - low) / max(high - low, 1e-12))


def _point_colours(sizes, others, levels, colours, scale) -> np.ndarray:
    """The colour of each row, (rows, 4): of its level, or on the scale of the first other column."""
    from matplotlib.colors import to_rgba

    rows = len(next(iter(sizes.values())))
    if scale:
        return _scale_colours(sizes[others[0]], sizes[others[0]])
    found = np.tile(to_rgba(colours[0]), (rows, 1))
    for level, colour in zip(levels, colours, strict=True):
        here = np.ones(rows, bool)
        for role, value in zip(others, level, strict=True):
            here &= sizes[role] == value
        found[here] = to_rgba(colour)
    return found


def _dress(fit: Fit, above, below, along: np.ndarray, loss: np.ndarray) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    group = ", ".join(f"{column}={value}" for column, value in fit.group.items())
    # Column names and values come from the user's file: a $ in them is no mathematics.
    above.set_title(f"{fit.equation}    {group}", fontsize=10, parse_math=False)
    above.set_xscale("log")
    if loss.min() > 0 and loss.max() > 3 * loss.min():
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        above.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        above.yaxis.set_minor_formatter(NullFormatter())
    if along.max() >= 10 * along.min():
        above.xaxis.set_minor_formatter(NullFormatter())
    else:
        above.xaxis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)))
        above.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        above.xaxis.set_minor_formatter(NullFormatter())
    below.set_xlabel(fit.columns[fit.form.role_names[-1]], parse_math=False)
    above.set_ylabel(fit.columns["y"], parse_math=False)
    below.set_ylabel("residual", fontsize=8)
    below.tick_params(axis="y", labelsize=7)
    for text in above.legend(fontsize=8).get_texts():
        text.set_parse_math(False)
