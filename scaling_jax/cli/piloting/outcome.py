"""The end of a pilot: fits, recommendation, report, and the commands of the final run."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scaling_jax import configuration, files
from scaling_jax.cli.piloting.request import SIZE, Ready, parse
from scaling_jax.cli.piloting.rounds import clock
from scaling_jax.cli.piloting.state import results
from scaling_jax.decisions.limits import Limits
from scaling_jax.decisions.pilot_fits import fit_pilot_groups
from scaling_jax.decisions.recommendation import Recommendation, recommend
from scaling_jax.decisions.recommendation_text import full_text, sentence, to_json
from scaling_jax.errors import InputError
from scaling_jax.laws.results import Fit, write_fits
from scaling_jax.laws.table import Table
from scaling_jax.reports.update import update_report

_ROLES = {"d": "finetune_examples"}
# What peft has an adapter for; anything else is merged.
_ADAPTERS = ("lora", "ia3", "prompt")


@dataclass(frozen=True)
class Outcome:
    """What came out.

    Attributes:
        recommendation: of the fits.
        not_fitted: method -> why it has no fit.
        page: the report.
        commands: of the final run and of what is exported.
    """

    recommendation: Recommendation
    not_fitted: Mapping[str, str]
    page: Path
    commands: tuple[str, ...]


def concluded(made: Ready, record: Mapping[str, Any]) -> Outcome:
    """Fits, recommends and writes OUT/fits.json, OUT/decision.json, OUT/final.gin and the study's report.

    Raises:
        InputError: no run ended well, or no method has enough of them for a law.
    """
    out, table = made.request.out, results(made)
    if table is None or not len(table):
        raise InputError(f"{out}/study: no run ended well; see the reasons in {out}/study/results.csv")
    fits, not_fitted = _fits(made, table)
    if not fits:
        raise InputError(f"no law could be fitted: {'; '.join(not_fitted.values())}")
    write_fits(out / "fits.json", fits)
    at = {_ROLES["d"]: made.target["d"]} | ({SIZE: made.target["x"]} if "x" in made.target else {})
    limits = Limits(memory_gib=made.request.memory_gib, hours=made.request.final_hours)
    found = recommend(fits, at, limits, costs=table)
    page = update_report(out / "study", recommendation=to_json(found)).page
    method = found.choice or fits[0].group["method"]
    commands = _commands(made, method)
    about = {
        "recommendation": to_json(found),
        "pilot": {
            "spent_seconds": record["spent_seconds"],
            "ended": record["ended"],
            "dropped": record["dropped"],
            "final_seconds": {method: made.final_seconds(method) for method in made.methods},
            "excluded": made.excluded,
            "not_fitted": dict(not_fitted),
            "commands": list(commands),
        },
    }
    files.write_json(out / "decision.json", about)
    return Outcome(found, not_fitted, page, commands)


def _fits(made: Ready, table: Table) -> tuple[list[Fit], dict[str, str]]:
    """(fits, why others have none): a method that failed must not hide the others."""
    roles = _ROLES | ({"x": SIZE} if len(made.bases) > 1 else {})
    where = f"method in ({', '.join(json.dumps(method) for method in made.methods)},)"
    fits, short = fit_pilot_groups(table, roles, where=where)
    ran = set(table.text("method"))
    missing = {method: f"{method}: no run of it ended well" for method in made.methods if method not in ran}
    return fits, missing | {method: f"{method}: {why}" for method, why in short.items()}


def _commands(made: Ready, method: str) -> tuple[str, ...]:
    """Writes OUT/final.gin and says how the final run is made and exported."""
    request = made.request
    base = made.bases[0]["base"]
    known = files.read_json(request.out / "study" / "study.json")["learning_rates"]
    examples = min(request.target_examples, request.counted.train)
    parse(
        request,
        [
            f"FinetuneRun.base = {base!r}",
            f"FinetuneRun.store = {str(made.store)!r}",
            f"FinetuneRun.method = {method!r}",
            f"FinetuneRun.examples = {examples}",
            f"FinetuneRun.learning_rate = {known.get(method)!r}",
            "FinetuneSettings.keep_checkpoint = 'best'",
        ],
    )
    config = files.write_text(request.out / "final.gin", configuration.resolved())
    final = request.out / "final"
    imports = [part for name in request.imports for part in ("--gin_import", name)]
    tune = ["scaling-jax", "finetune", "--gin_file", str(config), *imports, "--out", str(final)]
    checkpoint = str(final / "checkpoint")
    if method in _ADAPTERS:
        of = ["--base", request.models[0].given] if request.models[0].kind == "foreign" else []
        export = ["scaling-jax", "convert", checkpoint, str(request.out / "adapter"), "--to", "adapter", *of]
    else:
        merged = str(request.out / "merged")
        export = ["scaling-jax", "convert", checkpoint, merged, "--to", "hugging_face"]
    return shlex.join(tune), shlex.join(export)


def outcome_lines(made: Ready, record: Mapping[str, Any], found: Outcome) -> list[str]:
    """What came out, for a terminal: a few lines first, the evidence after them."""
    request = made.request
    lines = ["", sentence(found.recommendation)]
    lines += [f"{method} was not tried: {why}" for method, why in made.excluded.items()]
    lines += [f"{method} was stopped early: {why}" for method, why in record["dropped"].items()]
    lines += [f"not fitted: {why}" for why in found.not_fitted.values()]
    method = found.recommendation.choice or made.methods[0]
    lines.append(
        f"the pilot took {clock(record['spent_seconds'])} of device time; the final run by {method} takes up "
        f"to {clock(made.final_seconds(method))}, by every method "
        f"{clock(sum(made.final_seconds(one) for one in made.methods))}"
    )
    if request.target_examples > request.counted.train:
        lines.append(
            f"the target of {request.target_examples:,} examples is more than the {request.counted.train:,} "
            "here, on all of which the command below tunes"
        )
    lines += ["the final run, and its export:", *(f"  {command}" for command in found.commands)]
    lines += ["", full_text(found.recommendation).split("\n", 2)[2]]
    lines += ["", f"report: {found.page}", f"decision: {request.out / 'decision.json'}"]
    return lines
