"""A recommendation in words: one sentence, and the whole answer for a terminal."""

from scaling_jax.decisions.costs import Cost
from scaling_jax.decisions.forecast import Estimate
from scaling_jax.decisions.prior import Prior
from scaling_jax.decisions.recommendation import Recommendation

_COSTS = (("memory_gib", "GiB", "memory"), ("hours", "h", "time"), ("checkpoint_mib", "MiB", "stored"))


def to_json(found: Recommendation) -> dict:
    """The object `recommendation` of decision.json: all of it, with the sentence as `text`."""
    return found.to_json() | {"text": sentence(found)}


def sentence(found: Recommendation) -> str:
    """The answer with its uncertainty, one sentence."""
    at = point(found.at)
    if found.choice is None:
        return f"At {at} no {found.along} keeps the limits; {found.relaxed}."
    chosen = found.candidate(found.choice)
    told = f"{found.loss_column} {shown(chosen.loss, found.level)}"
    if found.status == "only one":
        return f"At {at} {found.choice} is the only {found.along} that can be chosen: {told}."
    if found.status == "clear":
        return f"At {at} take {found.choice}: {told}, the best with probability {found.probability_best:.0%}."
    rivals = [one.method for one in found.candidates if one.method != found.choice and not one.excluded_by]
    if found.status == "alike":
        return (
            f"At {at} it matters little: {found.choice} has the lowest expected {found.loss_column} "
            f"({shown(chosen.loss, found.level)}), and at most {found.regret.high:.3g} is lost by it."
        )
    runner = found.runs.methods[1] if found.runs else rivals[0]
    return (
        f"At {at} these runs cannot tell {found.choice} from {runner}: {found.choice} is the best with "
        f"probability {found.probability_best:.0%}."
    )


def full_text(found: Recommendation) -> str:
    """Everything, for a terminal."""
    lines = [sentence(found)]
    if found.runs is not None:
        lines.append(f"To tell more: {found.runs.why}.")
    lines += [f"Note: {note}." for note in found.notes]
    lines += ["", *_table(found)]
    lines += _about(found)
    if found.regret is not None and found.status != "only one":
        lines.append(f"expected regret of {found.choice}: {shown(found.regret, found.level)}")
    if found.interpolation:
        lines.append("the target lies inside the fitted sizes: an interpolation")
    lines += [
        f"{gain.change}: {found.loss_column} {shown(gain.loss, found.level, signed=True)} ({found.choice})"
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


def shown(estimate: Estimate, level: float, signed: bool = False) -> str:
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
        score = [shown(one.score, found.level) if one.score else ""] if scored else []
        best = "excluded" if one.excluded_by else f"{one.probability_best:.0%}"
        rows.append([one.method, shown(one.loss, found.level), *score, best, *_costs(one.cost, found.level)])
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def _costs(cost: Cost, level: float) -> list[str]:
    found = (getattr(cost, name) for name, _, _ in _COSTS)
    return [shown(estimate, level) if estimate else "" for estimate in found]


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
