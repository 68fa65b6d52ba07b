"""The picture of a back-test: predicted against measured with intervals, a panel for each end."""

import io
from pathlib import Path

import numpy as np

from scaling_jax.decisions.backtest import AVERAGE, Backtest
from scaling_jax.files import write_bytes


def draw_backtest(found: Backtest, rule: str = AVERAGE):
    """Measured against predicted loss of every curve, with the 90% interval that a user gets, as a Figure.

    Below: the median error of every rule.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    replays = [replay for replay in found.replays if replay.rule == rule]
    figure = Figure(figsize=(3.1 * len(replays), 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, len(replays), squeeze=False, height_ratios=(3, 2))
    values = np.concatenate([np.array(list(r.predictions.values()))[:, [0, 3]].ravel() for r in replays])
    low, high = values.min() * 0.97, values.max() * 1.03
    for axes, replay in zip(above, replays, strict=True):
        predicted, bottom, top, measured = np.array(list(replay.predictions.values())).T
        outside = (measured < bottom) | (measured > top)
        for chosen, colour, label in ((~outside, "C0", "measured inside"), (outside, "C3", "outside")):
            spread = np.abs(np.stack([bottom, top]) - predicted)[:, chosen]
            axes.errorbar(
                measured[chosen],
                predicted[chosen],
                yerr=spread,
                fmt="o",
                markersize=3,
                linewidth=0.8,
                color=colour,
                label=f"{label}: {int(chosen.sum())}",
            )
        axes.plot([low, high], [low, high], color="grey", linewidth=0.8)
        axes.set(xlim=(low, high), ylim=(low, high))
        axes.set_title(f"pilot to 1/{1 / replay.end:.4g}, {replay.sizes} sizes", fontsize=9)
        axes.set_xlabel(f"measured {found.names['y']}", fontsize=8, parse_math=False)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, loc="upper left")
    above[0].set_ylabel(f"predicted {found.names['y']}, 90% interval", fontsize=8, parse_math=False)
    _errors(below, found, [replay.end for replay in replays])
    figure.suptitle(
        f"{found.names['y']} at {found.target:,.0f} {found.names['d']}", fontsize=10, parse_math=False
    )
    return figure


def write_backtest_plot(found: Backtest, path: str | Path) -> Path:
    """Draws and writes the picture, a PNG, whole or not at all."""
    buffer = io.BytesIO()
    draw_backtest(found).savefig(buffer, format="png", dpi=130)
    return write_bytes(path, buffer.getvalue())


def _errors(panels, found: Backtest, ends) -> None:
    """A bar for each rule: its median error."""
    for axes, end in zip(panels, ends, strict=True):
        own = [replay for replay in found.replays if replay.end == end]
        names = [replay.rule for replay in own]
        axes.barh(range(len(own)), [replay.median_log for replay in own], color="C0", height=0.6)
        axes.set_yticks(range(len(own)), names if axes is panels[0] else [""] * len(own), fontsize=7)
        axes.invert_yaxis()
        axes.tick_params(axis="x", labelsize=7)
        axes.set_xlabel("median |log error|", fontsize=8)
