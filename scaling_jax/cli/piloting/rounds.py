"""The rounds of a pilot: planned, made as a study, kept in `pilot.json` and never made twice."""

import dataclasses
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.cli.piloting.request import SIZE, Ready, parse
from scaling_jax.cli.piloting.state import cells_of, state_of
from scaling_jax.decisions import pilot_rounds
from scaling_jax.decisions.pilot_design import BudgetTooSmall
from scaling_jax.errors import InputError
from scaling_jax.studies import listed
from scaling_jax.studies.listed import ListedRun
from scaling_jax.studies.plan import Study
from scaling_jax.studies.runner import run_study


def explained(error: BudgetTooSmall, made: Ready) -> InputError:
    """What to give instead of a budget that is too small."""
    minutes = {method: seconds / 60 for method, seconds in error.each.items()}
    cheapest = min(minutes, key=minutes.get)
    each = ", ".join(f"{method} {value:.3g}" for method, value in minutes.items())
    least = math.ceil(error.least / 3.6 * 1.02) / 1000
    alone = math.ceil(minutes[cheapest] / 60 * 1020) / 1000
    fewer = f"; fewer --methods need less, {cheapest} alone {alone:g} hours" if len(minutes) > 1 else ""
    return InputError(
        f"a budget of {made.budget / 3600:.4g} device hours is too small to fit a law to; the least that "
        f"would do is --hours {least:g} (minutes: {each}){fewer}"
    )


def study_lines(made: Ready) -> list[str]:
    """Gin of the study that makes the runs."""
    smallest = min(made.bases, key=lambda base: base[SIZE])["base"]
    rates = {method: made.rates[method] for method in made.methods if method in made.rates}
    lines = [
        "Study.name = 'pilot'",
        "Study.grids = [@ListedRuns()]",
        f"ListedRuns.file = {str((made.request.out / 'runs.json').absolute())!r}",
        f"Study.finetune_store = {str(made.store)!r}",
        "FinetuneSettings.keep_checkpoint = 'none'",
        f"LearningRateSearch.base = {smallest!r}",
        f"LearningRateSearch.finetune_examples = {made.rate_examples}",
        f"LearningRateSearch.rates = {rates!r}",
    ]
    return [*lines, "Study.learning_rates = @LearningRateSearch()"] if rates else lines


def runs_of(made: Ready, planned: pilot_rounds.Round, state: pilot_rounds.State) -> list[ListedRun]:
    """The runs that a round adds to those that are made."""
    found = []
    for method, counts in planned.counts.items():
        cells = cells_of(made, state.candidates[method])
        for (base, d), before, wanted in zip(cells, state.made[method], counts, strict=True):
            found += [ListedRun(base, method, d, seed) for seed in range(int(before), int(wanted))]
    return found


def begun(made: Ready, record: Mapping[str, Any]) -> tuple[Ready, dict[str, Any]]:
    """Fixes what must not change once runs are made, and counts rounds anew under another budget."""
    record = dict(record)
    record.setdefault("rate_examples", made.rate_examples)
    if record.get("budget_seconds") != made.budget:
        record |= {"budget_seconds": made.budget, "first_round": len(record["rounds"]), "ended": ""}
    record |= {"bases": list(made.bases), "law": made.law, "workers": made.workers}
    files.write_json(made.request.out / "pilot.json", record)
    return dataclasses.replace(made, rate_examples=record["rate_examples"]), record


def run_rounds(made: Ready, record: dict[str, Any], say: Callable[[str], None]) -> None:
    """Makes round after round until the pilot has ended; `record` is kept in `pilot.json`.

    Raises:
        InputError: the budget is too small, or what the study refuses.
    """
    path = made.request.out / "pilot.json"
    while True:
        last = record["rounds"][-1] if record["rounds"] else None
        if last is None or last["finished"]:
            state = state_of(made, record)
            try:
                planned = pilot_rounds.next_round(state)
            except BudgetTooSmall as error:
                raise explained(error, made) from error
            _say_dropped(planned, state, say)
            if planned.ended:
                record["ended"] = planned.ended
                record["chances"], record["dropped"] = dict(planned.chances), dict(planned.dropped)
                record["spent_seconds"] = state.spent
                files.write_json(path, record)
                say(f"the pilot has ended: {planned.ended}")
                return
            last = _entry(made, planned, state)
            record["rounds"].append(last)
            files.write_json(path, record)
        _make(made, record, last, say)
        last["finished"] = True
        files.write_json(path, record)


def _entry(made: Ready, planned: pilot_rounds.Round, state: pilot_rounds.State) -> dict[str, Any]:
    """A round for the record, before it is made."""
    runs, plan = runs_of(made, planned, state), planned.plan
    return {
        "number": planned.number,
        "runs": [dataclasses.asdict(run) for run in runs],
        "seconds_planned": planned.seconds,
        "spent_before": state.spent,
        "runs_planned_in_all": plan.runs,
        "expected_widths": dict(plan.widths),
        "expected_difference_widths": {" - ".join(pair): w for pair, w in plan.differences.items()},
        "chances_before": dict(planned.chances),
        "noise_before": planned.noise,
        "dropped": dict(planned.dropped),
        "finished": False,
    }


def _say_dropped(planned: pilot_rounds.Round, state: pilot_rounds.State, say: Callable[[str], None]) -> None:
    for method, why in planned.dropped.items():
        if method not in state.dropped:
            say(f"{method} gets no more runs: {why}")


def _make(
    made: Ready, record: Mapping[str, Any], last: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    runs = [ListedRun(**run) for entry in record["rounds"] for run in entry["runs"]]
    listed.write_runs(made.request.out / "runs.json", runs)
    number = len(record["rounds"])
    say(
        f"round {number}: {len(last['runs'])} runs, about {clock(last['seconds_planned'] / made.workers)} on "
        f"{workers_text(made)}; {last['spent_before'] / made.budget:.0%} of the budget spent, at most "
        f"{clock((made.budget - last['spent_before']) / made.workers)} left in all"
    )
    parse(made.request, study_lines(made))
    began = time.monotonic()
    result = run_study(
        configuration.call(Study),
        made.request.out / "study",
        made.request.imports,
        lambda line: say(f"  {line}"),
    )
    counts = ", ".join(f"{count} {status}" for status, count in sorted(result.statuses.items()))
    say(f"  {counts}; {clock(time.monotonic() - began)}")


def workers_text(made: Ready) -> str:
    """How many runs are made at the same time."""
    return "1 worker" if made.workers == 1 else f"{made.workers} workers"


def clock(seconds: float) -> str:
    """A duration for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
