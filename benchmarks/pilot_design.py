"""Does the grid that a pilot designs for a budget beat an evenly spaced ladder of the same cost?

Two answers. `--truths N` simulates: laws whose parameters are drawn at random, three methods, noise and a
misfit at every size, runs that cost a constant and a part in proportion to their examples. `--replay
results.csv` takes runs that were made (any results table): the largest size of each curve is held out as
the target, and the runs of a pilot are picked out of the others, by design and by ladders that cost no more.

Compared are, for the same budget:
  pilot      rounds, each designed by what the runs before it have shown
  at once    one design, by what is believed before any run
  doubling   every size twice the last, one seed, from the smallest as far as the budget pays
  3 seeds    the same with three seeds
  best even  of all evenly spaced ladders (any sizes, any seeds) the best by the designer's own criterion
Widths are those of the 90% interval of the loss at the target in the forecast that a pilot ends with
(`fit_pilot`, `recommend`): the mean over the methods, that of the method which is truly the best there (a
pilot's later rounds spend on what may be the best), and the mean of the differences of two methods. A narrow
interval that misses is no better: `score` is the width with what it misses by, at the price that makes it
proper.

    python benchmarks/pilot_design.py --truths 60
    python benchmarks/pilot_design.py --replay runs/quickstart/results.csv --budgets 0.25,0.5,1
"""

import argparse
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scaling_jax.decisions import pilot_rounds
from scaling_jax.decisions.beliefs import Noise, Rows, prior_of
from scaling_jax.decisions.pilot_design import (
    BudgetTooSmall,
    Candidates,
    Problem,
    design,
    even_ladders,
    ladder,
)
from scaling_jax.errors import InputError
from scaling_jax.laws.fit import Settings
from scaling_jax.laws.law import find_law

LAW = find_law("power")
LEVEL, DRAWS = 0.9, 200
# The simulated task: sizes of a pilot, the final run, seconds of a run.
SIZES, TARGET = ladder(32768, 32, 2.0), 65536.0
METHODS = {"full": 1.0, "lora": 0.8, "prompt": 0.7}
SECONDS = (1.0, 0.02)
BUDGETS = (0.05, 0.1, 0.25, 0.5)
MISFIT = 0.003


@dataclass(frozen=True)
class Curves:
    """What a pilot may run, of several methods, and what comes out.

    Attributes:
        candidates: method -> cells and costs.
        loss: (method, cell, seed) -> loss of that run.
        target: examples, and method -> the loss there.
    """

    candidates: Mapping[str, Candidates]
    loss: Callable[[str, int, int], float]
    target: float
    truth: Mapping[str, float]

    @property
    def problem(self) -> Problem:
        """Before any run; the guess of the loss is a measured one, as a pilot has it."""
        d = np.concatenate([own.sizes["d"] for own in self.candidates.values()])
        centre = {"d": float(np.sqrt(d.min() * d.max()))}
        level = max(self.loss(method, 0, 0) for method in self.candidates) * 0.8
        methods = tuple(self.candidates)
        return Problem(
            self.candidates,
            {method: prior_of(LAW, centre, level) for method in methods},
            {"d": self.target},
            Noise(centre["d"]),
            dict.fromkeys(methods, 1.0),
            {method: np.zeros(len(own), int) for method, own in self.candidates.items()},
            dict.fromkeys(methods, 0.0),
        )

    def rows(self, counts: Mapping[str, np.ndarray]) -> dict[str, Rows]:
        """The runs of a design."""
        found = {}
        for method, own in counts.items():
            cells = [(cell, seed) for cell, count in enumerate(own) for seed in range(int(count))]
            d = np.array([self.candidates[method].sizes["d"][cell] for cell, _ in cells])
            found[method] = Rows({"d": d}, np.array([self.loss(method, cell, seed) for cell, seed in cells]))
        return found


def simulated(seed: int) -> Curves:
    """Three laws, noise that falls or rises with the data, and a misfit at every size."""
    random = np.random.default_rng(seed)
    centre = np.sqrt(SIZES[0] * SIZES[-1])
    noise, slope = np.exp(random.uniform(np.log(0.004), np.log(0.02))), random.uniform(-0.3, 0.1)
    level, truths = random.uniform(1.5, 4.0), {}
    for method in METHODS:
        beta, share = np.exp(random.uniform(np.log(0.05), np.log(0.6))), random.uniform(0.2, 0.8)
        own = level * random.uniform(0.92, 1.08)
        truths[method] = {"A": own * share * centre**beta, "beta": beta, "E": own * (1 - share)}
    errors = {
        method: noise * (SIZES[:, None] / centre) ** slope * random.standard_normal((len(SIZES), 5))
        + MISFIT * random.standard_normal((len(SIZES), 1))
        for method in METHODS
    }

    def loss(method: str, cell: int, run: int) -> float:
        return float(LAW.predict(truths[method], {"d": SIZES[cell]}) * np.exp(errors[method][cell, run]))

    candidates = {
        method: Candidates({"d": SIZES.astype(float)}, SECONDS[0] + factor * SECONDS[1] * SIZES)
        for method, factor in METHODS.items()
    }
    truth = {method: float(LAW.predict(own, {"d": TARGET})) for method, own in truths.items()}
    return Curves(candidates, loss, TARGET, truth)


def by_rounds(curves: Curves, budget: float) -> dict[str, np.ndarray]:
    """The pilot's way; every method is kept to the end, so that widths can be compared."""
    given = curves.problem
    state = pilot_rounds.State(
        given.candidates,
        given.beliefs,
        given.target,
        curves.rows(given.made),
        given.made,
        given.noise,
        given.fixed_seconds,
        budget,
        precision=1e-9,
        unlikely=-1.0,
    )
    while True:
        planned = pilot_rounds.next_round(state)
        if planned.ended:
            return dict(state.made)
        counts, spent = planned.counts, state.spent + planned.seconds
        state = pilot_rounds.after(state, planned, made=counts, rows=curves.rows(counts), spent=spent)


def doubling(curves: Curves, budget: float, seeds: int) -> dict[str, np.ndarray] | None:
    """From the smallest size of every method, each at least twice the last, as far as the budget pays."""
    first = next(iter(curves.candidates.values()))
    order = np.argsort(first.sizes["d"])
    chosen = []
    for cell in order:
        if not chosen or first.sizes["d"][cell] >= 1.9 * first.sizes["d"][chosen[-1]]:
            chosen.append(cell)
    best = None
    for count in range(len(LAW.parameters) + 1, len(chosen) + 1):
        counts = {}
        for method, own in curves.candidates.items():
            counts[method] = np.zeros(len(own), int)
            counts[method][chosen[:count]] = min(seeds, own.seeds)
        seconds = sum(float(counts[method] @ own.seconds) for method, own in curves.candidates.items())
        if seconds <= budget:
            best = counts
    return best


def designs(curves: Curves, budget: float) -> dict[str, dict[str, np.ndarray] | None]:
    """All that are compared; None where the budget does not pay for one."""
    given = curves.problem
    even = even_ladders(given, budget)
    several = all(own.seeds >= 3 for own in curves.candidates.values())
    return {
        "pilot": by_rounds(curves, budget),
        "at once": dict(design(given, budget).counts),
        "doubling": doubling(curves, budget, 1),
        "3 seeds": doubling(curves, budget, 3) if several else None,
        "best even": dict(even[0].counts) if even else None,
    }


def judged(curves: Curves, counts: Mapping[str, np.ndarray], seed: int) -> dict[str, float]:
    """What the pilot's own forecast of these runs gives: widths, errors at the target, whether it holds."""
    from scaling_jax.decisions.forecast import forecasts_of
    from scaling_jax.decisions.pilot_fits import fit_pilot
    from scaling_jax.laws.table import table_of

    columns = {"method": [], "finetune_examples": [], "loss": []}
    for method, rows in curves.rows(counts).items():
        columns["method"] += [method] * len(rows)
        columns["finetune_examples"] += rows.sizes["d"].tolist()
        columns["loss"] += rows.loss.tolist()
    settings = Settings(loss="squared", bootstrap=DRAWS, seed=seed, level=LEVEL)
    role = {"d": "finetune_examples"}
    fits = fit_pilot(table_of("pilot", columns), role, by=("method",), settings=settings)
    at = {"finetune_examples": curves.target}
    found = {one.name: one for one in forecasts_of(fits, at)}
    estimates = {method: one.estimate(at, LEVEL) for method, one in found.items()}
    draws = {method: one.draws(at) for method, one in found.items()}
    level = np.mean(list(curves.truth.values()))
    gaps = [
        np.subtract(*np.percentile(draws[one] - draws[two], [95, 5])) / level
        for one, two in itertools.combinations(draws, 2)
    ]
    best = min(estimates, key=lambda method: estimates[method].value)
    truth = curves.truth
    widths = {method: (own.high - own.low) / truth[method] for method, own in estimates.items()}
    return {
        "width": float(np.mean(list(widths.values()))),
        "best": float(widths[min(truth, key=truth.get)]),
        "difference": float(np.mean(gaps)) if gaps else float("nan"),
        "error": float(np.mean([abs(own.value - truth[m]) / truth[m] for m, own in estimates.items()])),
        "holds": float(np.mean([own.low <= truth[m] <= own.high for m, own in estimates.items()])),
        "score": float(np.mean([interval_score(own, truth[m]) / truth[m] for m, own in estimates.items()])),
        "regret": (truth[best] - min(truth.values())) / level,
    }


def interval_score(estimate, truth: float) -> float:
    """Width, and 2 / (1 - level) times what the truth is outside by (Gneiting and Raftery 2007, eq. 43).

    The least expected one has the interval that is as narrow as it may be: one that is too narrow pays for
    what it misses.
    """
    missed = max(estimate.low - truth, truth - estimate.high, 0.0)
    return estimate.high - estimate.low + 2 / (1 - LEVEL) * missed


def compared(
    cases: Mapping[int, Curves], budgets: Sequence[float], said: Callable[[str], None], out: Path | None
) -> list[dict]:
    """One entry for each budget, case and design, kept in `out`; a budget is a share of `full_cost`."""
    found, began = [], time.monotonic()
    for done, (number, curves) in enumerate(cases.items(), 1):
        for share in budgets:
            try:
                made = designs(curves, share * full_cost(curves))
            except BudgetTooSmall as error:
                said(f"case {number}, budget {share:g}: {error}")
                continue
            for name, counts in made.items():
                if counts is None:
                    continue
                seconds = sum(float(counts[m] @ own.seconds) for m, own in curves.candidates.items())
                entry = judged(curves, counts, number) | {
                    "case": number,
                    "budget": share,
                    "design": name,
                    "seconds": seconds / full_cost(curves),
                    "runs": int(sum(own.sum() for own in counts.values())),
                }
                found.append(entry)
        said(f"{done}/{len(cases)} cases, {time.monotonic() - began:.0f} s")
        if out:
            out.write_text(json.dumps(found, indent=1))
    return found


def full_cost(curves: Curves) -> float:
    """Seconds of the final run by the costliest method, by a line through the costs of its cells."""
    costs = []
    for own in curves.candidates.values():
        order = np.argsort(own.sizes["d"])
        d, seconds = own.sizes["d"][order], own.seconds[order]
        slope = (seconds[-1] - seconds[-2]) / (d[-1] - d[-2]) if len(d) > 1 else 0.0
        costs.append(seconds[-1] + max(slope, 0.0) * (curves.target - d[-1]))
    return max(costs)


def replayed(
    path: str, seeds: Sequence[int], cost: str = "train_seconds", examples: str = "finetune_examples"
) -> list[Curves]:
    """Curves of a results table: one case for each task and model, its methods together.

    The seeds of the table are shuffled for each of `seeds`, which gives as many cases; the target is the
    largest size, whose runs no pilot may take.

    Raises:
        InputError: no group has enough sizes.
    """
    from scaling_jax.laws.table import read_table

    table = read_table(path)
    by = [name for name in ("task", "model", "pretrain_tokens", "pretrain_mixture", "after") if name in table]
    found = []
    for _, members in table.groups(by):
        methods = members.groups(("method",)) if "method" in members else [({"method": "all"}, members)]
        curves = {group["method"]: _curve(rows, examples, cost) for group, rows in methods}
        largest = max(max(curve) for curve in curves.values())
        curves = {
            method: curve
            for method, curve in curves.items()
            if largest in curve and len(curve) >= len(LAW.parameters) + 3
        }
        if not curves:
            continue
        found += [_case(curves, largest, seed) for seed in seeds]
    if not found:
        raise InputError(
            f"{path}: no task and model has {len(LAW.parameters) + 3} sizes with the largest among them"
        )
    return found


def _curve(rows, examples: str, cost: str) -> dict[float, tuple[list[float], float]]:
    """Examples -> (losses of its runs, mean cost); the cost is the examples where it was not measured."""
    seconds = rows.numbers(cost) if cost in rows else rows.numbers(examples)
    found = {}
    for d in np.unique(rows.positive(examples)):
        here = rows.numbers(examples) == d
        found[float(d)] = (rows.positive("loss")[here].tolist(), float(np.mean(seconds[here])))
    return found


def _case(curves: Mapping[str, Mapping], largest: float, seed: int) -> Curves:
    random = np.random.default_rng(seed)
    sizes = {method: [d for d in sorted(curve) if d < largest] for method, curve in curves.items()}
    losses = {
        method: [random.permutation(curves[method][d][0]).tolist() for d in own]
        for method, own in sizes.items()
    }
    candidates = {}
    for method, own in sizes.items():
        seconds = np.array([curves[method][d][1] for d in own])
        runs = min(len(found) for found in losses[method])
        candidates[method] = Candidates({"d": np.array(own)}, seconds, seeds=runs)
    truth = {method: float(np.mean(curves[method][largest][0])) for method in sizes}
    return Curves(candidates, lambda method, cell, run: losses[method][cell][run], largest, truth)


def table_text(found: Sequence[Mapping], budgets: Sequence[float]) -> str:
    """Medians by budget and design, and of the ratios of the pilot's widths to the others'."""
    lines = [
        "| budget | grid | spent | runs | width | of the best | of difference | pilot's over it "
        "| of the best | error | holds | score | regret |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for share in budgets:
        here = [entry for entry in found if entry["budget"] == share]
        pilot = {entry["case"]: entry for entry in here if entry["design"] == "pilot"}
        for name in dict.fromkeys(entry["design"] for entry in here):
            own = [entry for entry in here if entry["design"] == name]

            def ratio(key: str, own=own, name=name, pilot=pilot) -> str:
                if name == "pilot":
                    return ""
                known = [pilot[one["case"]][key] / one[key] for one in own if one["case"] in pilot]
                low, middle, high = np.percentile(known, [25, 50, 75])
                return f"{middle:.2f} [{low:.2f}, {high:.2f}]"

            def middle(key: str, own=own) -> float:
                return float(np.median([entry[key] for entry in own]))

            def mean(key: str, own=own) -> float:
                return float(np.mean([entry[key] for entry in own]))

            lines.append(
                f"| {share:.0%} | {name} | {mean('seconds'):.1%} | {mean('runs'):.0f} | "
                f"{middle('width'):.2%} | {middle('best'):.2%} | {middle('difference'):.2%} | "
                f"{ratio('width')} | {ratio('best')} | {middle('error'):.2%} | {mean('holds'):.0%} | "
                f"{mean('score'):.2%} | {mean('regret'):.2%} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Prints the table; --out keeps every entry as JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--truths", type=int, default=0, metavar="N", help="simulated cases")
    parser.add_argument("--first", type=int, default=0, metavar="N", help="seed of the first of them")
    parser.add_argument(
        "--join", type=Path, nargs="+", default=[], metavar="FILE", help="entries of other calls, by --out"
    )
    parser.add_argument("--cost", default="train_seconds", metavar="COLUMN", help="of a replay, e.g. steps")
    parser.add_argument("--replay", metavar="FILE", help="results table")
    parser.add_argument(
        "--shuffles", type=int, default=5, metavar="N", help="orders of the seeds of a replay"
    )
    parser.add_argument(
        "--budgets", default=",".join(map(str, BUDGETS)), metavar="A,B", help="of the final run"
    )
    parser.add_argument("--out", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    budgets = [float(part) for part in arguments.budgets.split(",")]
    if bool(arguments.truths) == bool(arguments.replay) and not arguments.join:
        parser.error("give --truths N or --replay FILE")
    if arguments.replay:
        cases = dict(enumerate(replayed(arguments.replay, range(arguments.shuffles), arguments.cost)))
    else:
        seeds = range(arguments.first, arguments.first + arguments.truths)
        cases = {seed: simulated(seed) for seed in seeds}
    known = [entry for path in arguments.join for entry in json.loads(path.read_text())]
    found = compared(cases, budgets, lambda line: print(line, flush=True), arguments.out)
    print(table_text([*known, *found], budgets))


if __name__ == "__main__":
    main()
