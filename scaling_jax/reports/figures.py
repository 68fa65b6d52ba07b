"""The figures, each a function from plain series to a `Drawing`. Nothing here knows about studies or laws."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from scaling_jax.reports import theme
from scaling_jax.reports.theme import Drawing


@dataclass(frozen=True)
class Series:
    """One method or one size: measured points and a fitted line.

    Attributes:
        label: written at the right end of the line.
        colour: a light colour of `theme`.
        label_colour: of the label; lines of one pale to deep ramp take the ink's.
        x, y: measured points [n]; every seed is its own point.
        held_out: [n] bool, points the fit never saw (drawn hollow).
        line_x, line_y: the fitted law [m]; empty when there is none.
        low, high: its interval [m]; empty when there is none.
    """

    label: str
    colour: str
    x: np.ndarray
    y: np.ndarray
    held_out: np.ndarray
    label_colour: str = theme.INK
    line_x: np.ndarray = field(default_factory=lambda: np.empty(0))
    line_y: np.ndarray = field(default_factory=lambda: np.empty(0))
    low: np.ndarray = field(default_factory=lambda: np.empty(0))
    high: np.ndarray = field(default_factory=lambda: np.empty(0))


@dataclass(frozen=True)
class Baseline:
    """A value that lines are compared with, drawn dashed across the axes with its label."""

    label: str
    y: float


@dataclass(frozen=True)
class Crossing:
    """Where two lines tie on the x axis; `low`, `high` is the interval."""

    label: str
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Interval:
    """One row of an interval plot; NaN bounds are not drawn, `note` is written in their place."""

    group: str
    label: str
    colour: str
    value: float
    low: float
    high: float
    note: str = ""


def curves(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    *,
    size: tuple[float, float],
    heading: str = "",
    crossings: Sequence[Crossing] = (),
    baselines: Sequence[Baseline] = (),
    y_range: tuple[float, float] | None = None,
    x_ticks: Sequence[float] | None = None,
) -> Drawing:
    """Measured points and fitted lines with bands, against a logarithmic x axis.

    Args:
        size: width and height in inches.
        y_range: shared by panels that are compared with one another; None takes it from `series`.
        x_ticks: preferred tick positions; None prefers the measured x values, () round numbers.
    """
    figure, axes = theme.pyplot().subplots(figsize=size, layout="constrained")
    for one in series:
        _draw(axes, one)
    everything = np.concatenate([np.r_[one.x, one.line_x] for one in series])
    low, high = everything.min() / 1.15, everything.max() * 1.15
    preferred = _levels(series) if x_ticks is None else x_ticks
    theme.log_axis(axes.xaxis, low, high, preferred, most=5 if size[0] < 5 else 8)
    axes.set_ylim(y_range or span(series, [baseline.y for baseline in baselines]))
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(axis="x", visible=False)
    if heading:
        axes.set_title(heading)
    for crossing in crossings:
        _mark_crossing(axes, crossing)
    for baseline in baselines:
        _draw_baseline(axes, baseline)
    _label_ends(axes, series)
    return theme.finish(figure, name, title, description)


def span(series: Sequence[Series], others: Sequence[float] = ()) -> tuple[float, float]:
    """A y range that holds every point and line of `series` and `others`, but not wide bands' far ends."""
    values = np.concatenate([*(np.r_[one.y, one.line_y] for one in series), others])
    low, high = float(np.min(values)), float(np.max(values))
    margin = 0.06 * (high - low or abs(high) or 1.0)
    return low - margin, high + margin


def _levels(series: Sequence[Series]) -> list[float]:
    return sorted({float(value) for one in series for value in one.x})


def _draw(axes, one: Series) -> None:
    if one.low.size:
        axes.fill_between(one.line_x, one.low, one.high, color=one.colour, alpha=0.16, linewidth=0)
    if one.line_x.size:
        axes.plot(one.line_x, one.line_y, color=one.colour, linewidth=1.6, solid_capstyle="round")
    fitted = ~one.held_out
    axes.plot(
        one.x[fitted], one.y[fitted], "o", markersize=3.6, color=one.colour, markeredgewidth=0, alpha=0.9
    )
    axes.plot(
        one.x[one.held_out],
        one.y[one.held_out],
        "o",
        markersize=4.4,
        markerfacecolor=theme.PAPER,
        markeredgecolor=one.colour,
        markeredgewidth=1.2,
    )


def _draw_baseline(axes, baseline: Baseline) -> None:
    axes.axhline(baseline.y, color=theme.MUTED, linewidth=1.1, linestyle=(0, (4, 3)))
    axes.annotate(
        baseline.label,
        (0.0, baseline.y),
        xycoords=axes.get_yaxis_transform(),
        xytext=(3, 3),
        textcoords="offset points",
        va="bottom",
        ha="left",
        fontsize=8,
        color=theme.MUTED,
    )


def _mark_crossing(axes, crossing: Crossing) -> None:
    """A bar at the foot of the axes over the interval, a tick at the estimate."""
    foot = axes.get_xaxis_transform()
    low, high = axes.get_xlim()
    axes.plot(
        [max(crossing.low, low), min(crossing.high, high)],
        [0.03, 0.03],
        transform=foot,
        color=theme.MUTED,
        linewidth=3,
        alpha=0.45,
        solid_capstyle="butt",
    )
    axes.plot([crossing.at, crossing.at], [0.0, 0.06], transform=foot, color=theme.INK, linewidth=1.2)
    axes.annotate(
        crossing.label,
        (crossing.at, 0.07),
        xycoords=foot,
        ha="center",
        va="bottom",
        fontsize=8,
        color=theme.MUTED,
    )


def _label_ends(axes, series: Sequence[Series]) -> None:
    """Writes each series' label beside its last point, moved apart vertically so that none overlap."""
    low, high = axes.get_ylim()
    axes_height = axes.figure.get_size_inches()[1] * 72 * 0.78
    gap = 10.5 / axes_height * (high - low)
    ends = []
    for one in series:
        x, y = (one.line_x, one.line_y) if one.line_x.size else (one.x, one.y)
        if x.size:
            ends.append([float(np.clip(y[np.argmax(x)], low, high)), one])
    ends.sort(key=lambda end: end[0])
    for before, after in itertools.pairwise(ends):
        after[0] = max(after[0], before[0] + gap)
    for after, before in itertools.pairwise(ends[::-1]):
        if after[0] > high:
            after[0] = high
        before[0] = min(before[0], after[0] - gap)
    for height, one in ends:
        axes.annotate(
            one.label,
            (1.0, height),
            xycoords=axes.get_yaxis_transform(),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            ha="left",
            color=one.label_colour,
            fontsize=8.5,
            annotation_clip=False,
        )


def intervals(
    name: str,
    title: str,
    description: str,
    rows: Sequence[Interval],
    x_label: str,
    *,
    width: float,
    truth: tuple[str, float] | None = None,
    limits: tuple[float, float],
    logarithmic: bool = False,
    heading: str = "",
    shaded: tuple[float, float] | None = None,
) -> Drawing:
    """Estimates with intervals, one line each, grouped; `truth` draws a labelled vertical line.

    Args:
        width: inches.
        limits: x range; intervals that leave it are cut there and end in an arrowhead.
        shaded: a range of x to set off, such as the one that was fitted.
        logarithmic: whether the x axis is logarithmic (counts) or linear (parameters).
    """
    height = 0.62 + 0.235 * len(rows) + 0.16 * len({row.group for row in rows})
    figure, axes = theme.pyplot().subplots(
        figsize=(width, height + (0.2 if truth else 0)), layout="constrained"
    )
    low, high = limits
    positions, position, group = [], 0.0, rows[0].group
    for row in rows:
        position += 1.0 + (0.7 if row.group != group else 0.0)
        group = row.group
        positions.append(position)
        _draw_interval(axes, row, position, low, high)
    if truth:
        axes.axvline(truth[1], color=theme.TRUTH, linewidth=1.2)
        axes.annotate(
            truth[0],
            (truth[1], 1.0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8.5,
            color=theme.TRUTH,
        )
    axes.set_yticks(positions, [row.label for row in rows])
    axes.set_ylim(position + 0.8, 0.2)
    if logarithmic:
        theme.log_axis(axes.xaxis, low, high, most=5)
    else:
        axes.set_xlim(low, high)
        axes.xaxis.get_major_locator().set_params(nbins=5)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    axes.set_xlabel(x_label)
    axes.tick_params(axis="y", labelcolor=theme.INK)
    if heading:
        axes.set_title(heading)
    if shaded:
        axes.axvspan(*shaded, color=theme.MUTED, alpha=0.12, linewidth=0)
    return theme.finish(figure, name, title, description)


def limits(rows: Sequence[Interval], anchor: float) -> tuple[float, float]:
    """X range with `anchor`, every estimate and the bars, but without a bar that would flatten the rest."""
    values = [row.value for row in rows] + [anchor]
    reach = 2.5 * (max(values) - min(values) or abs(anchor) or 1.0)
    ends = [end for row in rows for end in (row.low, row.high) if np.isfinite(end)]
    low = max(min(values + ends), min(values) - reach)
    high = min(max(values + ends), max(values) + reach)
    margin = 0.06 * (high - low or 1.0)
    return (low if low == anchor == 0 else low - margin), high + margin


def _draw_interval(axes, row: Interval, height: float, low: float, high: float) -> None:
    if not (np.isnan(row.low) or np.isnan(row.high)):
        left, right = np.clip([row.low, row.high], low, high)
        axes.plot(
            [left, right],
            [height, height],
            color=row.colour,
            linewidth=2.2,
            alpha=0.55,
            solid_capstyle="butt",
        )
        for cut, edge, marker in ((row.low < low, low, "<"), (row.high > high, high, ">")):
            if cut:
                axes.plot(
                    [edge],
                    [height],
                    marker,
                    color=row.colour,
                    markersize=4.5,
                    markeredgewidth=0,
                    clip_on=False,
                )
    if row.note:
        axes.annotate(
            row.note,
            (0.5, height),
            xycoords=axes.get_yaxis_transform(),
            ha="center",
            va="center",
            fontsize=8,
            color=theme.MUTED,
        )
    if low <= row.value <= high:
        axes.plot([row.value], [height], "o", color=row.colour, markersize=5, markeredgewidth=0)


def predicted_against_measured(
    name: str,
    title: str,
    description: str,
    series: Sequence[Series],
    unit: str,
    *,
    heading: str,
    limits: tuple[float, float],
) -> Drawing:
    """A square scatter of predicted (`y`) against measured (`x`) with the line of equality."""
    figure, axes = theme.pyplot().subplots(figsize=(3.35, 3.3), layout="constrained")
    axes.plot(limits, limits, color=theme.MUTED, linewidth=0.9)
    for one in series:
        axes.plot(
            one.x,
            one.y,
            "o",
            markersize=4.4,
            markerfacecolor=theme.PAPER,
            markeredgecolor=one.colour,
            markeredgewidth=1.2,
            label=one.label,
        )
    axes.set_xlim(limits)
    axes.set_ylim(limits)
    axes.set_aspect("equal")
    axes.set_xlabel(f"measured ({unit})")
    axes.set_ylabel(f"predicted ({unit})")
    axes.set_title(heading)
    axes.legend(loc="upper left", handletextpad=0.1, borderaxespad=0.2, labelspacing=0.3, fontsize=8.5)
    return theme.finish(figure, name, title, description)
