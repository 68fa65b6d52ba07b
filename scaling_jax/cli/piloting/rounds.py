"""What `scaling-jax pilot` does, step by step; every step is kept in the folder and not done twice."""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scaling_jax import configuration, files
from scaling_jax.decisions import pilot_rounds
from scaling_jax.decisions.beliefs import Noise, Rows, prior_of
from scaling_jax.decisions.pilot_design import BudgetTooSmall, Candidates, ladder
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.laws.law import find_law
from scaling_jax.laws.table import Table, read_table
from scaling_jax.studies import listed, step_costs
from scaling_jax.studies.listed import ListedRun
from scaling_jax.studies.pilot_inputs import Counted, Examples, Model, Pretraining, about_bases, make_inputs
from scaling_jax.studies.plan import Study
from scaling_jax.studies.runner import run_study
from scaling_jax.studies.step_costs import StepCosts
from scaling_jax.studies.worker import CONFIGURABLES
from scaling_jax.training.finetune import FinetuneSettings, settings_for
from scaling_jax.training.platform import worker_environment
from scaling_jax.tuning.method import method_names

SIZE = "non_embedding_params"
# Of the budget, at most, for the search of learning rates; it is made with at most so many examples.
_RATES_SHARE, _RATES_EXAMPLES = 0.2, 1024
# Runs are of at most this share of the target's examples: beyond it one might as well make the final run.
_LARGEST_SHARE = 0.5
# Loss after tuning over loss before, as a guess before anything is known.
_GAINED = 0.7


@dataclasses.dataclass(frozen=True)
class Request:
    """What the user asks for; see `cli.pilot`.

    Attributes:
        models: the first is the one to be tuned in the end, the others its family.
        target: examples of the final run; None is all there are.
        hours: device hours; None where `share` is given.
        share: of the cost of the final run; None where `hours` is given.
        smallest: of the data sizes.
        precision: relative width of an interval that is narrow enough.
        memory_gib, final_hours: what the final run may need; None is no limit.
    """

    models: tuple[Model, ...]
    examples: Examples
    counted: Counted
    methods: tuple[str, ...]
    target: int | None
    hours: float | None
    share: float | None
    vocabulary: Path | None
    pretraining: Pretraining
    execution: tuple[str, ...]
    smallest: int
    precision: float
    memory_gib: float | None
    final_hours: float | None
    gin_files: tuple[str, ...]
    bindings: tuple[str, ...]
    search_paths: tuple[str, ...]
    imports: tuple[str, ...]
    out: Path

    @property
    def target_examples(self) -> int:
        """Of the final run."""
        return self.counted.train if self.target is None else self.target

    def identity(self) -> dict[str, Any]:
        """What a folder belongs to; the budget may change."""
        return {
            "models": [model.given for model in self.models],
            "data": {path.name: files.sha256(path) for path in self.examples.given},
            "read_as": [*self.examples.fields, *self.examples.columns, self.examples.template],
            "lengths": list(self.examples.lengths),
            "methods": list(self.methods),
            "target": self.target_examples,
            "smallest": self.smallest,
            "limits": [self.memory_gib, self.final_hours],
            "execution": list(self.execution),
            "pretraining": [self.pretraining.tokens, self.pretraining.vocabulary],
            "gin": [*self.gin_files, *self.bindings, *self.imports],
        }


@dataclasses.dataclass(frozen=True)
class Ready:
    """A request with what it needs made and measured.

    Attributes:
        store: of the examples.
        bases: of `about_bases`, as the request's models.
        costs: (base folder, method) -> costs.
        rate_examples: of the search of learning rates.
        workers: that make runs at the same time.
    """

    request: Request
    store: Path
    bases: Sequence[Mapping[str, Any]]
    costs: Mapping[tuple[str, str], StepCosts]
    budget: float
    rate_examples: int
    rates: Mapping[str, Sequence[float]]
    workers: int

    @property
    def methods(self) -> tuple[str, ...]:
        """Those that keep the limits of the final run."""
        return tuple(method for method in self.request.methods if method not in self.excluded)

    @property
    def excluded(self) -> dict[str, str]:
        """Method -> which limit of the final run it does not keep."""
        found = {}
        for method in self.request.methods:
            needs = []
            memory, hours = self.memory_gib(method), self.final_seconds(method) / 3600
            if self.request.memory_gib and memory and memory > self.request.memory_gib:
                needs.append(f"{memory:.3g} GiB of memory, the limit is {self.request.memory_gib:g}")
            if self.request.final_hours and hours > self.request.final_hours:
                needs.append(f"{hours:.3g} hours, the limit is {self.request.final_hours:g}")
            if needs:
                found[method] = f"the final run needs {' and '.join(needs)}"
        return found

    def memory_gib(self, method: str) -> float | None:
        """Of a step of the final run, on one device, by XLA's account."""
        size = self.costs[self.bases[0]["base"], method].memory_bytes
        return None if size is None else size / 2**30

    @property
    def law(self) -> str:
        """Of the data alone, or with a family of models of both sizes."""
        return "power" if len(self.bases) == 1 else "multiplicative"

    @property
    def target(self) -> dict[str, float]:
        """Role -> size of the final run."""
        d = {"d": float(self.request.target_examples)}
        return d if len(self.bases) == 1 else {"x": float(self.bases[0][SIZE]), **d}

    def settings(self, method: str) -> FinetuneSettings:
        """How a method is trained."""
        return settings_for(method)

    def final_seconds(self, method: str) -> float:
        """Of the final run, if it does not stop early."""
        costs = self.costs[self.bases[0]["base"], method]
        seconds = step_costs.run_seconds(self.settings(method), costs, self.request.target_examples)
        return seconds + costs.compile_seconds

    def rate_seconds(self, method: str) -> float:
        """Of the search of its learning rate."""
        smallest = min(self.bases, key=lambda base: base[SIZE])["base"]
        each = step_costs.run_seconds(self.settings(method), self.costs[smallest, method], self.rate_examples)
        return each * len(self.rates.get(method, ()))


def claim(request: Request) -> dict[str, Any]:
    """The record of the folder, `pilot.json`; a new one in a new folder.

    Raises:
        InputError: the folder holds another pilot, or something else.
    """
    path, identity = request.out / "pilot.json", request.identity()
    if path.exists():
        known = files.read_json(path)
        changed = [name for name in identity if known["request"].get(name) != identity[name]]
        if changed:
            raise InputError(
                f"{request.out} holds a pilot of another {changed[0]} ({known['request'].get(changed[0])}): "
                "give a new --out, or the command it was made with (only the budget may change)"
            )
        return known
    if request.out.exists() and any(request.out.iterdir()):
        raise InputError(f"{request.out} is not empty and holds no pilot: give a new --out")
    record = {"request": identity, "rounds": [], "ended": ""}
    files.write_json(path, record)
    return record


def parse(request: Request, lines: Sequence[str] = ()) -> None:
    """Parses the training settings, then what the pilot binds, then the user's bindings."""
    text = "".join(f"include {path!r}\n" for path in request.gin_files) + "\n".join(lines) + "\n"
    path = files.write_text(request.out / "study.gin", text)
    imports = [CONFIGURABLES, *request.imports]
    configuration.parse([str(path)], request.bindings, request.search_paths, imports)


def check_size(request: Request) -> np.ndarray:
    """The candidate data sizes, ascending.

    Raises:
        InputError: too few examples, or a target inside the pilot.
    """
    target, train = request.target_examples, request.counted.train
    largest = min(train, int(_LARGEST_SHARE * target))
    sizes = ladder(largest, request.smallest)
    least = 8 * request.smallest
    if largest >= least:
        return sizes
    if train >= target or request.target is None:
        raise InputError(
            f"a target of {target:,} examples lies inside a pilot, whose sizes are {request.smallest} to at "
            f"least {least} and at most half of the target: tune on all {target:,} by every method instead, "
            f"or give --smallest {max(1, largest // 8)}"
        )
    raise InputError(
        f"{request.examples.train}: {train} examples to tune on, a pilot needs at least {least} "
        f"(--smallest {request.smallest}): give more, or --smallest {max(1, train // 8)}"
    )


def check(request: Request) -> None:
    """What can be checked before anything is made.

    Raises:
        InputError: see `check_size`; gin files or bindings that cannot be parsed; an unknown method.
    """
    check_size(request)
    imports = [CONFIGURABLES, *request.imports]
    configuration.parse(request.gin_files, request.bindings, request.search_paths, imports)
    known = method_names()
    for method in request.methods:
        if method not in known:
            raise InputError(f"--methods: no tuning method {method!r}{did_you_mean(method, known)}")


def ready(request: Request, say: Callable[[str], None]) -> Ready:
    """Makes bases and store, measures costs, and says what the budget is."""
    sizes = check_size(request)
    parse(request)
    store = make_inputs(
        request.models,
        request.examples,
        request.counted.cuts,
        request.vocabulary,
        request.pretraining,
        request.execution,
        request.out,
        say,
    )
    bases = about_bases(request.models)
    if len({base[SIZE] for base in bases}) < len(bases):
        raise InputError("--models: two of the models have the same size; a family varies it")
    costs = _costs(request, store, bases, int(sizes[-1]), say)
    rates = _rates(request.methods)
    made = Ready(request, store, bases, costs, 0.0, int(sizes[0]), rates, _workers())
    if not made.methods:
        told = "; ".join(f"{method}: {why}" for method, why in made.excluded.items())
        raise InputError(f"no method keeps the limits of the final run: {told}")
    budget = _budget(made)
    return dataclasses.replace(made, budget=budget, rate_examples=_rate_examples(made, sizes, budget))


def _budget(made: Ready) -> float:
    request = made.request
    if request.hours is not None:
        return request.hours * 3600
    return request.share * max(made.final_seconds(method) for method in made.methods)


def _rate_examples(made: Ready, sizes: np.ndarray, budget: float) -> int:
    """The largest size whose search stays within its share of the budget; else the smallest there is."""
    found = int(sizes[0])
    for size in sizes[sizes <= _RATES_EXAMPLES]:
        trial = dataclasses.replace(made, rate_examples=int(size))
        if sum(trial.rate_seconds(method) for method in made.methods) <= _RATES_SHARE * budget:
            found = int(size)
    return found


def _rates(methods: Sequence[str]) -> dict[str, list[float]]:
    """The rates that are tried of each method; one whose gin file names none keeps its own."""
    import gin

    try:
        rates = gin.query_parameter("LearningRateSearch.rates")
    except ValueError:
        return {}
    return {method: list(rates[method]) for method in methods if method in rates}


def _workers() -> int:
    """Processes that a study starts: one for each core, one for an accelerator."""
    from scaling_jax.studies.runner import _backend

    on_cpu = _backend(worker_environment()) == "cpu"
    return len(os.sched_getaffinity(0)) if on_cpu else 1


def _costs(
    request: Request, store: Path, bases: Sequence[Mapping], examples: int, say: Callable[[str], None]
) -> dict[tuple[str, str], StepCosts]:
    path = request.out / "costs.json"
    known = step_costs.read_costs(path)
    wanted = {
        f"{base['model']} {method}": (base["base"], method) for base in bases for method in request.methods
    }
    missing = [name for name in wanted if name not in known]
    if missing:
        say(f"measuring the cost of a step: {', '.join(missing)}")
        config = files.write_text(request.out / "measured.gin", configuration.resolved())
        runs = [(base, str(store), method, examples) for base, method in (wanted[name] for name in missing)]
        found = step_costs.measured(config, runs, worker_environment(), request.imports)
        known |= dict(zip(missing, found, strict=True))
        step_costs.write_costs(path, known)
    return {key: known[name] for name, key in wanted.items()}


# From what is known to what is planned.


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
        priors={method: prior_of(law, centre, _GAINED * start) for method in candidates},
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
    cells = _cells(made, own)
    for number, (base, d) in enumerate(cells):
        counts[number] = sum(
            run.method == method and (run.base, run.finetune_examples) == (base, d) for run in runs
        )
    return counts


def _cells(made: Ready, own: Candidates) -> list[tuple[str, int]]:
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


# Rounds.


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
        cells = _cells(made, state.candidates[method])
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
