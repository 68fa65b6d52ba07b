"""What a pilot or `recommend` advises: the sentence of the first screen, and its section.

Read from `recommendation` of decision.json (docs/decision.md), as `decisions.recommendation` writes it. A
page with one begins with it; without one nothing changes.
"""

from collections.abc import Mapping, Sequence

from scaling_jax.decisions.recommendation_text import Wording, worded
from scaling_jax.errors import InputError
from scaling_jax.reports import words
from scaling_jax.reports.blocks import Bullets, Cell, Heading, Note, Paragraph, Section, Table
from scaling_jax.reports.study_data import Study

_KEYS = (
    *("at", "choice", "status", "probability_best", "regret", "relaxed", "candidates", "level"),
    *("gains", "crossings", "runs", "prior", "notes", "loss_column"),
)
_COSTS = (
    ("memory_gib", "Memory of one device, GiB"),
    ("hours", "Training, hours"),
    ("checkpoint_mib", "Stored, MiB"),
)


def read(study: Study) -> Mapping | None:
    """The recommendation, or None where none was made.

    Raises:
        InputError: it lacks a key.
    """
    found = study.decision.get("recommendation")
    if found is None:
        return None
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise InputError(f"{study.folder / 'decision.json'}: the recommendation has no {missing[0]!r}")
    return found


def statements(study: Study) -> list[str]:
    """The answer in one sentence, then what would tell more; empty without a recommendation."""
    found = read(study)
    if found is None:
        return []
    told = [worded(found, Wording(words.method, _place, _loss))]
    if found["runs"]:
        told.append(f"To tell more: {found['runs']['why']}.")
    return told


def section(study: Study) -> Section | None:
    """The candidates, what more data or a larger model would buy, and the prior."""
    found = read(study)
    if found is None:
        return None
    parts: list = [Paragraph(_target(found)), _candidates(found)]
    excluded = [
        f"{words.capital(words.method(one['method']))}: {why}"
        for one in found["candidates"]
        for why in [*one["excluded_by"], *_unchecked(one)]
    ]
    if excluded:
        parts.append(Bullets(excluded))
    extrapolated = list(dict.fromkeys(why for one in found["candidates"] for why in one["extrapolates"]))
    if extrapolated:
        parts.append(Note(f"The target is an extrapolation: {words.several(extrapolated)}."))
    if found["gains"]:
        parts += [Heading("What more would buy"), Bullets([_gain(gain, found) for gain in found["gains"]])]
    if found["crossings"]:
        parts.append(Heading("Where methods tie"))
        parts.append(
            Bullets(
                [
                    f"{words.capital(words.method(one['first']))} and {words.method(one['second'])}: "
                    f"{one['text']}."
                    for one in found["crossings"]
                ]
            )
        )
    if found["prior"]:
        parts.append(Heading("What published studies would advise (not these runs)"))
        tried = words.several([words.method(name) for name in found["prior"]["methods"]])
        parts.append(Paragraph(f"In this order: {tried}."))
        parts.append(Bullets(list(found["prior"]["statements"])))
    parts += [Paragraph(note, quiet=True) for note in found["notes"]]
    return Section("recommendation", "Recommendation", "Which method to take", parts)


def _loss(column: str, value: Mapping) -> str:
    bounds = "" if value["low"] is None else f" {words.between(value['low'], value['high'], words.loss)}"
    return f"{words.column(column)} {words.loss(value['value'])}{bounds}"


def _place(target: Mapping) -> str:
    at = [
        f"{value} ({words.column(column)})"
        if isinstance(value, str)
        else f"{words.count(value)} {words.column(column)}"
        for column, value in target.items()
    ]
    return words.several(at)


def _target(found: Mapping) -> str:
    return (
        f"Predicted at {_place(found['at'])}, with {found['level']:.0%} intervals. The probability of being "
        "the best is the share of the draws of the fitted laws in which a method has the lowest loss among "
        "those that keep the limits."
    )


def _candidates(found: Mapping) -> Table:
    costs = [
        (key, label) for key, label in _COSTS if any(one["cost"].get(key) for one in found["candidates"])
    ]
    scored = any(one["score"] for one in found["candidates"])
    header = ["Method", words.capital(words.column(found["loss_column"]))]
    header += ["Score"] if scored else []
    header += ["Best with probability", *(label for _, label in costs)]
    rows = []
    for one in found["candidates"]:
        best = one["method"] == found["choice"]
        row = [Cell(words.method(one["method"]), best=best), _estimate(one["loss"])]
        row += [_estimate(one["score"])] if scored else []
        row.append("excluded" if one["excluded_by"] else f"{one['probability_best']:.0%}")
        rows.append([*row, *(_estimate(one["cost"].get(key)) for key, _ in costs)])
    return Table("Methods at the target", header, rows)


def _estimate(value: Mapping | None) -> Cell:
    if not value:
        return Cell("–")
    low, high = value["low"], value["high"]
    interval = "" if low is None or high is None else words.between(low, high, words.number)
    return Cell(words.number(value["value"], 4), interval)


def _unchecked(candidate: Mapping) -> Sequence[str]:
    return [f"whether it keeps {name} is not known (not measured)" for name in candidate["unchecked"]]


def _gain(gain: Mapping, found: Mapping) -> str:
    change = gain["loss"]
    bounds = "" if change["low"] is None else f" [{change['low']:+.3g}, {change['high']:+.3g}]"
    return (
        f"{words.capital(gain['change'])}: {words.column(found['loss_column'])} "
        f"{change['value']:+.3g}{bounds} with {words.method(found['choice'])}."
    )
