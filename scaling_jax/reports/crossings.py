"""Which method is ahead where: the critical sizes of decision.json, as text, table and picture."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scaling_jax.errors import InputError
from scaling_jax.reports import figures, words
from scaling_jax.reports.blocks import Cell, Heading, Note, Panels, Paragraph, Section, Table
from scaling_jax.reports.evidence import level
from scaling_jax.reports.figures import Interval
from scaling_jax.reports.study_data import Study
from scaling_jax.reports.theme import INK, Drawing

_KEYS = (
    "task",
    "law",
    "factor",
    "first",
    "second",
    "at",
    "searched",
    "fitted",
    "crossings",
    "share_crossing",
)


@dataclass(frozen=True)
class Critical:
    """A number of examples at which two methods tie.

    Attributes:
        size: examples.
        low, high: its interval; 0 and infinity where it is open.
        below, above: the method with the lower loss on either side.
        outside: whether it lies outside the fitted sizes, so that it is an extrapolation.
    """

    size: float
    low: float
    high: float
    below: str
    above: str
    outside: bool


@dataclass(frozen=True)
class Pair:
    """Two methods compared at one model size; `ties` is empty when one is better throughout `searched`."""

    task: str
    law: str
    methods: tuple[str, str]
    column: str
    at: float
    searched: tuple[float, float]
    fitted: tuple[float, float]
    ties: tuple[Critical, ...]
    share: float
    better: str


def read(study: Study) -> list[Pair]:
    """The comparisons of decision.json that fix one size: by the joint law where there is one.

    Raises:
        InputError: an entry lacks a key.
    """
    found = []
    for entry in study.decision.get("crossings") or []:
        missing = [key for key in _KEYS if key not in entry]
        if missing:
            raise InputError(f"{study.folder / 'decision.json'}: a crossing has no {missing[0]!r}")
        if len(entry["at"]) == 1:
            found.append(_pair(entry))
    joint = [pair for pair in found if pair.law == "multiplicative"]
    return joint or found


def _pair(entry: Mapping) -> Pair:
    (column, at), (low, high) = next(iter(entry["at"].items())), entry["fitted"]
    ties = tuple(
        Critical(
            size=tie["size"],
            low=0.0 if tie["low"] is None else tie["low"],
            high=math.inf if tie["high"] is None else tie["high"],
            below=tie["better_below"],
            above=tie["better_above"],
            outside=not low <= tie["size"] <= high,
        )
        for tie in entry["crossings"]
    )
    return Pair(
        task=str(entry["task"]), law=entry["law"], methods=(entry["first"], entry["second"]), column=column,
        at=at, searched=tuple(entry["searched"]), fitted=(low, high), ties=ties,
        share=entry["share_crossing"], better=entry.get("better") or "",
    )  # fmt: skip


def find(study: Study, task: str, below: str, above: str, at: float, size: float) -> Critical | None:
    """The tie at model size `at` where `above` overtakes `below`, the nearest to `size` examples."""
    ties = [
        tie
        for pair in read(study)
        if pair.task == task and math.isclose(pair.at, at)
        for tie in pair.ties
        if (tie.below, tie.above) == (below, above)
    ]
    return min(ties, key=lambda tie: abs(math.log(tie.size / size)), default=None)


def interval_text(tie: Critical) -> str:
    """The interval in words; an open end is one that enough draws put beyond the range searched."""
    if tie.low <= 0 and math.isinf(tie.high):
        return "anywhere"
    if tie.low <= 0:
        return f"anywhere below {words.roughly(tie.high)}"
    if math.isinf(tie.high):
        return f"anywhere above {words.roughly(tie.low)}"
    return f"{words.roughly(tie.low)} to {words.roughly(tie.high)}"


def section(study: Study) -> Section | None:
    """A picture per pair of methods and a table; None when there are no two methods to compare."""
    pairs = read(study)
    if not pairs:
        return None
    parts: list = [
        Paragraph(
            "The critical size is the number of finetuning examples at which two methods have the same "
            "predicted loss. It comes from two fitted laws and is far less certain than either: its "
            f"{level(study)} interval is where the bootstrap draws put the tie."
        )
    ]
    for task in dict.fromkeys(pair.task for pair in pairs):
        if len(study.tasks) > 1:
            parts.append(Heading(task))
        own = [pair for pair in pairs if pair.task == task]
        drawings = [_drawing(task, methods, group) for methods, group in _by_methods(own).items()]
        parts.append(
            Panels(
                drawings,
                "By model size. The shaded range was fitted; beyond it a tie is an extrapolation. "
                "Arrowheads: the interval runs past the range that was searched.",
            )
        )
        parts.append(_table(task, own))
    if any(tie.outside for pair in pairs for tie in pair.ties):
        parts.append(
            Note("Some ties lie outside the fitted numbers of examples: they are a direction, not a place.")
        )
    return Section("methods", "Methods", "Where one method overtakes another", parts)


def _by_methods(pairs: Sequence[Pair]) -> dict[tuple[str, str], list[Pair]]:
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(pair.methods, []).append(pair)
    return groups


def _drawing(task: str, methods: tuple[str, str], pairs: Sequence[Pair]) -> Drawing:
    rows, about = [], []
    for pair in sorted(pairs, key=lambda pair: pair.at):
        label = words.count(pair.at)
        for tie in pair.ties:
            rows.append(Interval(label, label, INK, tie.size, tie.low, tie.high))
        if not pair.ties:
            note = f"no crossing: {words.method(pair.better)} ahead"
            rows.append(Interval(label, label, INK, math.nan, math.nan, math.nan, note))
        about.append(f"{label}: {_place(pair)}")
    title = f"{words.capital(words.method(methods[0]))} and {words.method(methods[1])}"
    return figures.intervals(
        f"crossing-{task}-{methods[0]}-{methods[1]}",
        f"{title}: critical number of examples by model size",
        f"{words.capital(words.column(pairs[0].column))}. {'; '.join(about)}.",
        rows,
        "Finetuning examples at the tie",
        width=3.35,
        limits=pairs[0].searched,
        logarithmic=True,
        heading=title,
        shaded=pairs[0].fitted,
    )


def _place(pair: Pair) -> str:
    if not pair.ties:
        return f"no crossing in range, {words.method(pair.better)} better throughout"
    return " and ".join(f"{words.roughly(tie.size)} ({interval_text(tie)})" for tie in pair.ties)


def _table(task: str, pairs: Sequence[Pair]) -> Table:
    rows = []
    for pair in pairs:
        names = f"{words.method(pair.methods[0])} / {words.method(pair.methods[1])}"
        size, share = words.count(pair.at), f"{100 * pair.share:.0f}%"
        for tie in pair.ties:
            place = Cell(words.roughly(tie.size), f"[{interval_text(tie)}]")
            ahead = (words.method(tie.below), words.method(tie.above))
            rows.append([names, size, place, *ahead, share, "extrapolated" if tie.outside else ""])
        if not pair.ties:
            better = words.method(pair.better)
            rows.append([names, size, "no crossing in range", better, better, share, ""])
    low, high = pairs[0].searched
    return Table(
        f"Critical sizes, {task}",
        ["Methods", "Size", "Tie at examples", "Better below", "above", "Draws that cross", ""],
        rows,
        text=(0, 3, 4, 6),
        caption=f"Ties between {words.roughly(low)} and {words.roughly(high)} examples, the range "
        f"searched, by the fitted {pairs[0].law} law. Size: {words.column(pairs[0].column)}.",
    )
