"""The plan of a pilot, for a terminal."""

from collections.abc import Mapping
from typing import Any

from scaling_jax.cli.piloting.request import SIZE, Ready
from scaling_jax.cli.piloting.rounds import clock, explained, workers_text
from scaling_jax.cli.piloting.state import GAINED, state_of
from scaling_jax.cli.predict import aligned
from scaling_jax.decisions import pilot_rounds
from scaling_jax.decisions.pilot_design import BudgetTooSmall


def plan_lines(made: Ready, record: Mapping[str, Any]) -> list[str]:
    """The plan: costs, the runs of the whole budget, and what intervals they are expected to give."""
    state = state_of(made, record)
    try:
        planned = pilot_rounds.whole(state)
    except BudgetTooSmall as error:
        raise explained(error, made) from error
    request = made.request
    lines = [
        f"target: {request.target_examples:,} examples ({request.counted.train:,} are here), "
        f"model {made.bases[0]['model']} with {made.bases[0]['model_params']:,} parameters",
        f"budget: {made.budget / 3600:.3g} device hours, {clock(made.budget / made.workers)} on "
        f"{workers_text(made)}; {state.spent / made.budget:.0%} spent",
        "",
    ]
    table = [("model", "method", "step", "compilation", "learning rates", "final run")]
    for base in made.bases:
        for method in made.methods:
            costs = made.costs[base["base"], method]
            first = base is made.bases[0]
            table.append(
                (
                    base["model"],
                    method,
                    f"{1000 * costs.step_seconds:.3g} ms",
                    f"{costs.compile_seconds:.1f} s",
                    f"{clock(made.rate_seconds(method))}" if first else "",
                    f"up to {clock(made.final_seconds(method))}" if first else "",
                )
            )
    lines += [
        aligned(table),
        f"(a step was timed for each; rates are searched on {made.rate_examples} examples)",
        "",
    ]
    lines.append(aligned(_grid(made, state, planned)))
    lines += ["", *(f"{method} is left out: {why}" for method, why in made.excluded.items()), *dearer(made)]
    widths = ", ".join(f"{method} {width:.3g}" for method, width in planned.widths.items())
    lines += [
        "",
        f"{planned.runs} runs, {clock(planned.seconds)} of device time with rates and compilation",
        f"expected width of the 90% interval of the loss at the target, nats: {widths}",
    ]
    if planned.differences:
        widths = ", ".join(f"{' - '.join(pair)} {width:.3g}" for pair, width in planned.differences.items())
        lines.append(f"of differences: {widths}")
    lines.append(
        f"as it looks before any run, at a loss of about {_level(made):.3g}; what follows the first round is "
        "planned again after it"
    )
    return lines


def _level(made: Ready) -> float:
    return GAINED * min(cost.start_loss for cost in made.costs.values())


def _grid(made: Ready, state: pilot_rounds.State, planned) -> list[tuple[str, ...]]:
    """Seeds by data size (rows), model and method (columns)."""
    sizes = sorted({int(d) for own in state.candidates.values() for d in own.sizes["d"]})
    columns = [(base, method) for base in made.bases for method in made.methods]
    head = [f"{base['model']} {method}" if len(made.bases) > 1 else method for base, method in columns]
    table = [("examples", *head)]
    for size in sizes:
        cells = []
        for base, method in columns:
            own = state.candidates[method]
            here = own.sizes["d"] == size
            if "x" in own.sizes:
                here &= own.sizes["x"] == base[SIZE]
            count = int(planned.counts[method][here].sum())
            cells.append(f"{count}" if count else "")
        if any(cells):
            table.append((f"{size:,}", *cells))
    table[0] = (table[0][0], *(f"{name} (seeds)" for name in table[0][1:]))
    return table


def dearer(made: Ready) -> list[str]:
    """A line where a pilot costs more than what it is to save."""
    final = sum(made.final_seconds(method) for method in made.methods)
    if made.budget < final:
        return []
    return [
        f"note: the final run by every method takes up to {clock(final)} of device time, less than this "
        "budget: making them all answers more surely"
    ]
