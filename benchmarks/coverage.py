"""Do the 90% intervals hold the truth 90% of the time, and are they as narrow as they can be?

Simulates studies from laws whose parameters are known plus 1% noise on the log loss, fits each, and
counts how often the intervals of every parameter and of three predictions (inside the data, beyond
them, and below them) hold the truth. Beside it the median width over that of the Fisher information:
1 would be an efficient estimator that knows the size of the noise; a least-absolute fit, which a Huber
fit with delta 0.001 nearly is at this noise, has 1.25. Widths of A, B, C, D_l, N_C and D_C are compared
on a log scale, as they are scales.

    python benchmarks/coverage.py --studies 1000 --workers 2
"""

import argparse
import functools
import json
import multiprocessing
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

NOISE, LEVEL = 0.01, 0.9
SIZES = np.geomspace(1e9, 16e9, 5)
EXAMPLES = np.geomspace(1e3, 1e6, 9)
CURVE = np.geomspace(200, 1_638_400, 14)
SCALES = ("A", "B", "C", "D_l", "N_C", "D_C")


def grid(first, second, repeats: int = 1) -> dict[str, np.ndarray]:
    """All pairs of two sizes, each `repeats` times, as columns x and d."""
    x, d = np.meshgrid(first, second, indexing="ij")
    return {"x": np.repeat(x.ravel(), repeats), "d": np.repeat(d.ravel(), repeats)}


@dataclass(frozen=True)
class Case:
    """One law, its truth, the sizes of every row, and how far out the predictions lie.

    `slope` makes the noise change as D^slope; `beyond` and `below` multiply the largest and smallest sizes.
    """

    law: str
    truth: dict[str, float]
    columns: dict[str, np.ndarray]
    slope: float = 0.0
    beyond: float = 4.0
    below: float = 0.5
    options: dict = field(default_factory=dict)


POWER = {"A": 12.0, "beta": 0.2, "E": 0.7}
MULTIPLICATIVE = {"A": 2e4, "alpha": 0.35, "beta": 0.3, "E": 0.9}
CASES = {
    "power, 9 sizes": Case("power", POWER, {"d": EXAMPLES}),
    "power, 9 sizes x 2 seeds": Case("power", POWER, {"d": np.repeat(EXAMPLES, 2)}),
    "power, 9 sizes x 3 seeds": Case("power", POWER, {"d": np.repeat(EXAMPLES, 3)}),
    "multiplicative, 5 x 9": Case("multiplicative", MULTIPLICATIVE, grid(SIZES, EXAMPLES)),
    "additive, 5 x 9": Case(
        "additive", {"A": 1500.0, "B": 60.0, "alpha": 0.35, "beta": 0.4, "E": 0.9}, grid(SIZES, EXAMPLES)
    ),
    "rectified, 14 sizes x 3 seeds": Case(
        "rectified", {"B": 60.0, "D_l": 15.0, "beta": 0.4, "E": 0.9}, {"d": np.repeat(CURVE, 3)}
    ),
    "rectified_multiplicative, 5 x 14": Case(
        "rectified_multiplicative",
        {"A": 1e5, "alpha": 0.35, "D_l": 20.0, "beta": 0.4, "E": 0.9},
        grid(SIZES, CURVE),
    ),
    "score_log, 9 sizes x 3 seeds": Case(
        "score_log",
        {"A": 2e-4, "alpha": 0.5, "beta": 1.5},
        {"d": np.repeat(np.geomspace(1e9, 2e11, 9), 3)},
    ),
    "loss_to_score, 20 rows": Case(
        "loss_to_score", {"C": 76.0, "k": 0.47}, {"x": np.linspace(1.5, 5.0, 20)}, beyond=1.2, below=0.8
    ),
    "bottleneck, 6 x 8": Case(
        "bottleneck",
        {"alpha_N": 0.12, "alpha_D": 0.42, "N_C": 2.6e8, "D_C": 1.8e8},
        grid(np.geomspace(1e6, 1e8, 6), np.geomspace(1e7, 1e10, 8)),
    ),
    "multiplicative, 5 x 9, noise falls as D^-0.3": Case(
        "multiplicative", MULTIPLICATIVE, grid(SIZES, EXAMPLES), slope=-0.3
    ),
    "multiplicative, 5 x 9, squared loss": Case(
        "multiplicative", MULTIPLICATIVE, grid(SIZES, EXAMPLES), options={"loss": "squared"}
    ),
    "multiplicative, 5 x 9, rows resampled": Case(
        "multiplicative", MULTIPLICATIVE, grid(SIZES, EXAMPLES), options={"intervals": "rows"}
    ),
    "multiplicative, 5 x 9 x 300 seeds, sandwich": Case(
        "multiplicative", MULTIPLICATIVE, grid(SIZES, EXAMPLES, 300)
    ),
}


def places(case: Case) -> dict[str, dict[str, float]]:
    """Where predictions are judged: label -> role -> size."""
    return {
        "inside": {role: float(np.exp(np.mean(np.log(sizes)))) for role, sizes in case.columns.items()},
        "beyond": {role: float(case.beyond * sizes.max()) for role, sizes in case.columns.items()},
        "below": {role: float(case.below * sizes.min()) for role, sizes in case.columns.items()},
    }


def noise_sizes(case: Case) -> np.ndarray:
    """The noise of every row: 1% on the mean."""
    if not case.slope:
        return np.full(len(next(iter(case.columns.values()))), NOISE)
    shape = case.columns["d"] ** case.slope
    return NOISE * shape / np.sqrt(np.mean(shape**2))


def sampled(case: Case, loss: np.ndarray):
    """The rows as `fit_samples` takes them."""
    from scaling_jax.laws.sample import Sample

    rows = len(loss)
    names = {role: role for role in case.columns} | {"y": "loss"}
    nothing = np.zeros(rows, bool)
    return Sample({}, names, case.columns, loss, np.ones(rows), nothing, np.arange(rows), None, None, {}, ())


def one_study(name: str, bootstrap: int, seed: int) -> dict[str, tuple[bool, float, bool]]:
    """One simulated study: quantity -> (holds the truth, width, identified)."""
    from scaling_jax.laws.fit import Settings
    from scaling_jax.laws.law import find_law
    from scaling_jax.laws.solution import fit_samples

    case = CASES[name]
    law = find_law(case.law)
    random = np.random.default_rng([seed, 7])
    clean = law.predict(case.truth, case.columns)
    loss = clean * np.exp(noise_sizes(case) * random.standard_normal(len(clean)))
    settings = Settings(bootstrap=bootstrap, seed=seed, level=LEVEL, **case.options)
    fit = fit_samples([sampled(case, loss)], law, settings)[0]
    found = {}
    for parameter, truth in case.truth.items():
        low, high = fit.intervals[parameter]
        with np.errstate(divide="ignore"):
            width = np.log(high) - np.log(low) if parameter in SCALES else high - low
        found[parameter] = (low <= truth <= high, width, fit.identified[parameter] is True)
    for label, at in places(case).items():
        _, low, high = (float(part) for part in fit.predict(at))
        found[label] = (low <= float(law.predict(case.truth, at)) <= high, high - low, True)
    return found


CROSSING = {"full": {"A": 40.0, "beta": 0.35, "E": 0.8}, "lora": {"A": 9.0, "beta": 0.2, "E": 0.8}}


def one_crossing(bootstrap: int, seed: int) -> tuple[bool, bool]:
    """Two methods of one study: whether the intervals of their critical size and of a difference hold."""
    from scaling_jax.decisions.critical_size import critical_sizes, difference
    from scaling_jax.laws.fit import Settings, fit_table
    from scaling_jax.laws.law import find_law
    from scaling_jax.laws.table import table_of

    law, random = find_law("power"), np.random.default_rng([seed, 11])
    sizes = np.repeat(EXAMPLES, 3)
    rows = {"method": [], "d": [], "loss": []}
    for method, truth in CROSSING.items():
        loss = law.predict(truth, {"d": sizes}) * np.exp(NOISE * random.standard_normal(len(sizes)))
        rows["method"] += [method] * len(sizes)
        rows["d"] += sizes.tolist()
        rows["loss"] += loss.tolist()
    settings = Settings(bootstrap=bootstrap, seed=seed, level=LEVEL)
    full, lora = fit_table(table_of("study", rows), "power", {"d": "d"}, by=("method",), settings=settings)
    size = (40.0 / 9.0) ** (1 / 0.15)
    crossings = critical_sizes(full, lora, {}, (1e2, 1e8)).crossings
    near = min(crossings, key=lambda crossing: abs(np.log(crossing.size / size)), default=None)
    holds = near is not None and (near.low or 0.0) <= size <= (near.high or np.inf)
    _, low, high = difference(full, lora, {"d": 1e5})
    gap = law.predict(CROSSING["full"], {"d": 1e5}) - law.predict(CROSSING["lora"], {"d": 1e5})
    return holds, bool(low <= gap <= high)


def fisher_widths(name: str) -> dict[str, float]:
    """Width of the interval of an efficient estimator that knows the noise, by the delta method."""
    from scaling_jax.laws.law import find_law
    from scaling_jax.laws.problem import Objective, make_problem, parameters_of, point_of, slopes_at

    case = CASES[name]
    law = find_law(case.law)
    objective = Objective(law)
    problem = make_problem(objective, case.columns, law.predict(case.truth, case.columns))
    point = point_of(objective, problem, {key: np.array([value]) for key, value in case.truth.items()})
    slopes = slopes_at(objective, problem, point)[problem.weights > 0] / noise_sizes(case)[:, None]
    covariance = np.linalg.inv(slopes.T @ slopes)

    def quantities(at: np.ndarray) -> np.ndarray:
        values = {key: float(value[0]) for key, value in parameters_of(objective, problem, at, np).items()}
        shown = [np.log(values[key]) if key in SCALES else values[key] for key in case.truth]
        return np.array(shown + [float(law.predict(values, place)) for place in places(case).values()])

    moves = 1e-5 * np.eye(len(point))
    gradient = np.stack([(quantities(point + m) - quantities(point - m)) / 2e-5 for m in moves], axis=1)
    errors = np.sqrt(np.einsum("qi,ij,qj->q", gradient, covariance, gradient))
    return dict(zip([*case.truth, *places(case)], 2 * 1.6448536 * errors, strict=True))


def cover(name: str, studies: int, bootstrap: int, pool) -> dict[str, dict[str, float]]:
    """Quantity -> {share, width (median over Fisher's), identified}."""
    found = pool.map(functools.partial(one_study, name, bootstrap), range(studies), chunksize=5)
    widths = fisher_widths(name)
    table = {}
    for quantity, fisher in widths.items():
        holds, width, known = (
            np.array(part) for part in zip(*(study[quantity] for study in found), strict=True)
        )
        share = float(np.mean(holds[known])) if known.any() else float("nan")
        table[quantity] = {
            "share": share,
            "width": float(np.median(width[known]) / fisher) if known.any() else float("nan"),
            "identified": float(np.mean(known)),
        }
    return table


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--bootstrap", type=int, default=500)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help=f"of: {'; '.join(CASES)}")
    parser.add_argument("--crossings", type=int, default=0, help="studies of two methods' critical size")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    os.environ |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    figures = {}
    print("share of 90% intervals that hold the truth (median width over Fisher's) among the identified")
    with multiprocessing.get_context("spawn").Pool(arguments.workers) as pool:
        for name in arguments.cases:
            started = time.perf_counter()
            figures[name] = cover(name, arguments.studies, arguments.bootstrap, pool)
            cells = "  ".join(
                f"{key} {cell['share']:.3f} ({cell['width']:.2f})"
                + (f" [identified in {cell['identified']:.0%}]" if cell["identified"] < 1 else "")
                for key, cell in figures[name].items()
            )
            seconds = (time.perf_counter() - started) / arguments.studies
            print(f"{name}: {cells}  [{arguments.studies} studies, {seconds:.2f} s each]", flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=1))
        if arguments.crossings:
            one = functools.partial(one_crossing, arguments.bootstrap)
            held = np.mean(pool.map(one, range(arguments.crossings), chunksize=5), axis=0)
            print(
                f"two methods, power, 9 sizes x 3 seeds each: critical size {held[0]:.3f}, "
                f"difference {held[1]:.3f}  [{arguments.crossings} studies]"
            )


if __name__ == "__main__":
    main()
