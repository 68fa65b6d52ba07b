"""What a pilot has come to, read from its folder, as its next round is planned from it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from scaling_jax import files
from scaling_jax.cli.piloting.request import SIZE, Ready, check_size
from scaling_jax.decisions import pilot_rounds
from scaling_jax.decisions.beliefs import Noise, Rows, prior_of
from scaling_jax.decisions.pilot_design import Candidates
from scaling_jax.laws.law import find_law
from scaling_jax.laws.table import Table, read_table
from scaling_jax.studies import step_costs
from scaling_jax.studies.listed import ListedRun

# Loss after tuning over loss before, as a guess before anything is known.
GAINED = 0.7


def state_of(made: Ready, record: Mapping[str, Any]) -> pilot_rounds.State:
    """What the pilot has come to, by its folder."""
    sizes = check_size(made.request)
    rows, shares, seconds = _finished(made)
    law = find_law(made.law)
    candidates = {method: _candidates(made, method, sizes, shares[method]) for method in made.methods}
    first = next(iter(candidates.values()))
    centre = {role: math.sqrt(values.min() * values.max()) for role, values in first.sizes.items()}
    start = min(cost.start_loss for cost in made.costs.values())
    rounds = record["rounds"]
    since = rounds[record.get("first_round", 0) :]
    return pilot_rounds.State(
        candidates=candidates,
        priors={method: prior_of(law, centre, GAINED * start) for method in candidates},
        target=made.target,
        rows=rows,
        made={method: _made(made, method, own, rounds) for method, own in candidates.items()},
        noise=Noise(centre["d"]),
        fixed_seconds={method: _fixed_seconds(made, method) for method in candidates},
        budget=made.budget,
        spent=seconds,
        dropped=rounds[-1]["dropped"] if rounds else {},
        precision=made.request.precision,
        number=len(since) + 1,
    )


def _candidates(made: Ready, method: str, sizes: np.ndarray, share: float) -> Candidates:
    settings = made.settings(method)
    cells = [(base, int(size)) for base in made.bases for size in sizes]
    seconds = [
        step_costs.run_seconds(settings, made.costs[base["base"], method], d, share) for base, d in cells
    ]
    columns = {"d": np.array([float(d) for _, d in cells])}
    if len(made.bases) > 1:
        columns = {"x": np.array([float(base[SIZE]) for base, _ in cells]), **columns}
    return Candidates(columns, np.array(seconds))


def _fixed_seconds(made: Ready, method: str) -> float:
    """Compilation for every model, once, as compiled programs are kept; and the search of the rate."""
    compiled = sum(made.costs[base["base"], method].compile_seconds for base in made.bases)
    return compiled + made.rate_seconds(method)


def _made(made: Ready, method: str, own: Candidates, rounds: Sequence[Mapping]) -> np.ndarray:
    counts = np.zeros(len(own), int)
    runs = [ListedRun(**run) for entry in rounds for run in entry["runs"]]
    cells = cells_of(made, own)
    for number, (base, d) in enumerate(cells):
        counts[number] = sum(
            run.method == method and (run.base, run.finetune_examples) == (base, d) for run in runs
        )
    return counts


def cells_of(made: Ready, own: Candidates) -> list[tuple[str, int]]:
    """(base folder, examples) of every cell."""
    bases = {float(base[SIZE]): base["base"] for base in made.bases}
    one = made.bases[0]["base"]
    of = [bases[x] for x in own.sizes["x"]] if "x" in own.sizes else [one] * len(own)
    return list(zip(of, own.sizes["d"].astype(int).tolist(), strict=True))


def _finished(made: Ready) -> tuple[dict[str, Rows], dict[str, float], float]:
    """(rows by method, share of the planned steps that runs made, seconds spent)."""
    methods, folder = made.methods, made.request.out / "study"
    shares: dict[str, list[tuple[float, float]]] = {method: [] for method in methods}
    models = {base["model"]: base["base"] for base in made.bases}
    spent, began = 0.0, set()
    for path in sorted(folder.glob("*/*/record.json")):
        entry = files.read_json(path)
        if "costs" not in entry or entry.get("kind") != "finetuning":
            continue
        costs = made.costs[models[entry["model"]], entry["method"]]
        began.add((entry["model"], entry["method"]))
        spent += step_costs.recorded_seconds(entry, costs)
        planned = made.settings(entry["method"]).steps(entry["finetune_examples"])
        shares[entry["method"]].append((entry["results"]["steps"], planned))
    spent += sum(made.costs[models[model], method].compile_seconds for model, method in began)
    # As planned where nothing is known; of what was made, the share of all steps.
    share = {
        m: (sum(a for a, _ in own) / sum(b for _, b in own) if own else 1.0) for m, own in shares.items()
    }
    return _rows(made), share, spent


def _rows(made: Ready) -> dict[str, Rows]:
    table = results(made)
    roles = {"d": "finetune_examples"} | ({"x": SIZE} if len(made.bases) > 1 else {})
    found = {}
    for method in made.methods:
        nothing = np.zeros(0)
        found[method] = Rows({role: nothing for role in roles}, nothing)
        if table is None:
            continue
        own = table.rows(table.text("method") == method)
        if len(own):
            found[method] = Rows(
                {role: own.positive(name) for role, name in roles.items()}, own.positive("loss")
            )
    return found


def results(made: Ready) -> Table | None:
    """The runs so far; None before the first."""
    path = made.request.out / "study" / "results.csv"
    return read_table(path) if path.exists() else None
