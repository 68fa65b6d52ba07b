"""A recommendation in words: one sentence, and the whole answer for a terminal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from scaling_jax.decisions.costs import Cost
from scaling_jax.decisions.forecast import Estimate
from scaling_jax.decisions.prior import Prior
from scaling_jax.decisions.recommendation import Recommendation

_COSTS = (("memory_gib", "GiB", "memory"), ("hours", "h", "time"), ("checkpoint_mib", "MiB", "stored"))


def to_json(found: Recommendation) -> dict:
    """The object `recommendation` of decision.json: all of it, with the sentence as `text`."""
    return found.to_json() | {"text": sentence(found)}


@dataclass(frozen=True)
class Wording:
    """How a reader's place names things.

    Attributes:
        name: a method in words.
        place: the target, from column -> value.
        loss: the loss column and an estimate {value, low, high}, in words.
    """

    name: Callable[[str], str]
    place: Callable[[Mapping], str]
    loss: Callable[[str, Mapping], str]


def sentence(found: Recommendation) -> str:
    """The answer with its uncertainty, one sentence, for a terminal."""
    return worded(found.to_json(), Wording(str, point, lambda column, loss: f"{column} {_bounded(loss)}"))


def worded(found: Mapping, wording: Wording) -> str:
    """The same sentence of the object `recommendation` of decision.json, in a wording."""
    where, along = f"At {wording.place(found['at'])}", found["along"]
    if found["choice"] is None:
        return f"{where} no {along} keeps the limits; {found['relaxed']}."
    chosen = next(one for one in found["candidates"] if one["method"] == found["choice"])
    name, loss = wording.name(found["choice"]), wording.loss(found["loss_column"], chosen["loss"])
    if found["status"] == "only one":
        return f"{where} {name} is the only {along} that can be chosen: {loss}."
    sure = found["probability_best"]
    often = "in every draw of the fitted laws" if sure == 1 else f"with probability {sure:.0%}"
    if found["status"] == "clear":
        return f"{where} take {name}: {loss}, the best {often}."
    if found["status"] == "alike":
        return (
            f"{where} it matters little: {name} has the lowest expected loss ({loss}), and at most "
            f"{found['regret']['high']:.3g} is lost by it."
        )
    rivals = [one["method"] for one in found["candidates"] if not one["excluded_by"]]
    other = (found["runs"] or {"methods": rivals})["methods"][1]
    return f"{where} these runs cannot tell {name} from {wording.name(other)}: {name} is the best {often}."


def _bounded(estimate: Mapping) -> str:
    return shown(Estimate(**estimate))


def full_text(found: Recommendation) -> str:
    """Everything, for a terminal."""
    lines = [sentence(found)]
    if found.runs is not None:
        lines.append(f"To tell more: {found.runs.why}.")
    lines += [f"Note: {note}." for note in found.notes]
    lines += ["", *_table(found)]
    lines += _about(found)
    if found.regret is not None and found.status != "only one":
        lines.append(f"expected regret of {found.choice}: {shown(found.regret)}")
    if found.interpolation:
        lines.append("the target lies inside the fitted sizes: an interpolation")
    lines += [
        f"{gain.change}: {found.loss_column} {shown(gain.loss, signed=True)} ({found.choice})"
        for gain in found.gains
    ]
    lines += [f"{one.first} and {one.second}: {one.text()}" for one in found.crossings]
    if found.prior is not None:
        lines += ["", prior_text(found.prior, measured=True)]
    return "\n".join(lines)


def prior_text(prior: Prior, measured: bool = False) -> str:
    """Advice from the literature, named as such."""
    head = (
        "Prior (published studies, not these runs)"
        if measured
        else "Prior (published studies; nothing was measured here)"
    )
    lines = [f"{head}: try {', '.join(prior.methods)}"]
    lines += [f"  {statement}" for statement in prior.statements]
    lines += [f"  without {method}: {why}" for method, why in prior.excluded.items()]
    return "\n".join(lines)


def shown(estimate: Estimate, signed: bool = False) -> str:
    """A number with its interval."""
    sign = "+" if signed else ""
    if estimate.low is None:
        return f"{estimate.value:{sign}.4g}"
    return f"{estimate.value:{sign}.4g} [{estimate.low:{sign}.4g}, {estimate.high:{sign}.4g}]"


def point(at) -> str:
    """A point in words."""
    return ", ".join(f"{column}={value:,.12g}" for column, value in at.items())


def _table(found: Recommendation) -> list[str]:
    scored = any(candidate.score for candidate in found.candidates)
    rows = [
        [found.along, f"{found.loss_column} [{found.level:.0%}]", *(["score"] if scored else []), "best"]
        + [f"{told} ({unit})" for _, unit, told in _COSTS]
    ]
    for one in found.candidates:
        score = [shown(one.score) if one.score else ""] if scored else []
        best = "excluded" if one.excluded_by else f"{one.probability_best:.0%}"
        rows.append([one.method, shown(one.loss), *score, best, *_costs(one.cost)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _costs(cost: Cost) -> list[str]:
    found = (getattr(cost, name) for name, _, _ in _COSTS)
    return [shown(estimate) if estimate else "" for estimate in found]


def _about(found: Recommendation) -> list[str]:
    """What is to be known of the table's numbers; what holds for several methods is said once."""
    told: dict[str, list[str]] = {}
    for one in found.candidates:
        lines = [f"excluded: {why}" for why in one.excluded_by]
        lines += [f"not measured, so not checked: --{name}" for name in one.unchecked]
        lines += [f"extrapolated: {why}" for why in one.extrapolates]
        lines += [
            f"{name} from {text}"
            for name, text in one.cost.how.items()
            if getattr(one.cost, name) is not None
        ]
        for line in lines:
            told.setdefault(line, []).append(one.method)
    everyone = len(found.candidates)
    return [
        line if len(methods) == everyone else f"{line} ({', '.join(methods)})"
        for line, methods in told.items()
    ]
