"""A back-test as a table for a terminal or a page of documentation."""

from collections.abc import Sequence

from scaling_jax.decisions.backtest import AVERAGE, Backtest, Replay
from scaling_jax.decisions.choices import pairs_text, total

_HEADINGS = (
    *("rule", "median", "mean", "median loss"),
    *("law 80/90", "shipped 80/90", "crossed 80/90", "width"),
    *("r", "RelAcc", "regret"),
)


def table_text(found: Backtest) -> str:
    """One table per end: errors, coverage, selection."""
    lines = [
        f"{found.source}: {found.names['y']} at {found.target:,.0f} {found.names['d']}, curves by "
        f"{', '.join(found.by)}"
        + (f", the lowest chosen along {', '.join(found.select)}" if found.select else ", nothing chosen")
    ]
    for end in dict.fromkeys(replay.end for replay in found.replays):
        own = [replay for replay in found.replays if replay.end == end]
        first = own[0]
        lines += [
            "",
            f"pilots that end at 1/{1 / end:.4g} of it ({first.sizes} sizes), {first.curves} curves"
            + (f"; average of {_weights(first)}" if first.weights else ""),
            *_aligned([_HEADINGS, *(row(replay) for replay in own)]),
        ]
    told = pairs_text(total([replay.pairs for replay in found.replays if replay.rule == AVERAGE]))
    if told:
        lines += [
            "",
            "of two curves the likelier one was the better one, by its stated probability (average):",
        ]
        lines += [f"  {told}"]
    return "\n".join([*lines, "", _LEGEND.format(others=found.folds - 1)])


_LEGEND = """\
median, mean: |log predicted - log measured|; median loss: |predicted - measured|.
80/90: how many % of the curves the 80% and 90% intervals hold: those of the law alone, those that recommend
gives (shipped), and with the discrepancy learned from the outcomes of the other {others} folds (crossed).
width: of the shipped 90% interval over the loss, median; r: Pearson x 100;
RelAcc: (worst - chosen) / (worst - best) x 100; regret: measured loss of the chosen above the best."""


def row(replay: Replay) -> tuple[str, ...]:
    """The cells of one rule, as text; empty where it has none."""
    coverage = [_pair(replay.coverage.get(name)) for name in ("law", "shipped", "crossed")]
    width = replay.width.get("shipped")
    return (
        replay.rule,
        f"{replay.median_log:.4f}",
        f"{replay.mean_log:.4f}",
        f"{replay.median_loss:.4f}",
        *coverage,
        "" if width is None else f"{width:.3f}",
        _percent(replay.pearson),
        _percent(replay.relative_accuracy),
        "" if replay.regret is None else f"{replay.regret:.4f}",
    )


def markdown(found: Backtest) -> str:
    """The same as one Markdown table, a column for the end."""
    lines = ["| end | " + " | ".join(_HEADINGS) + " |", "|" + "---|" * (len(_HEADINGS) + 1)]
    for replay in found.replays:
        lines.append(f"| 1/{1 / replay.end:.4g} | " + " | ".join(row(replay)) + " |")
    return "\n".join(lines)


def _weights(replay: Replay) -> str:
    return ", ".join(f"{name} {weight:.2f}" for name, weight in replay.weights.items())


def _pair(coverage) -> str:
    return "" if not coverage else "/".join(f"{100 * share:.0f}" for share in coverage.values())


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(cells[place]) for cells in rows) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in rows
    ]
