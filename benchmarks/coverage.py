"""Do the 90% intervals hold the truth 90% of the time?

Simulates studies from a law whose parameters are known plus 1% noise on the log loss, fits each, and
counts how often the intervals of every parameter and of three predictions (inside the data, and
extrapolated up and down) hold the truth; also their median width over the spread of the estimates.

    python benchmarks/coverage.py --studies 200
"""

import argparse
import time

import numpy as np

from scaling_jax.laws.fit import Settings, fit_rows
from scaling_jax.laws.law import find_law
from scaling_jax.laws.table import table_of

SIZES = np.geomspace(1e9, 16e9, 5)
EXAMPLES = np.geomspace(1e3, 1e6, 9)
# Name -> (law, truth, rows per size of the data for `power`).
CASES = {
    "power, 9 rows": ("power", {"A": 12.0, "beta": 0.2, "E": 0.7}, 1),
    "power, 18 rows": ("power", {"A": 12.0, "beta": 0.2, "E": 0.7}, 2),
    "multiplicative, 45 rows, weak": ("multiplicative", {"A": 60.0, "alpha": 0.12, "beta": 0.2, "E": 0.7}, 1),
    "multiplicative, 45 rows": ("multiplicative", {"A": 2e4, "alpha": 0.35, "beta": 0.3, "E": 0.9}, 1),
    "additive, 45 rows": ("additive", {"A": 1500.0, "B": 60.0, "alpha": 0.35, "beta": 0.4, "E": 0.9}, 1),
}
PREDICTIONS = {
    "inside": {"x": 4e9, "d": 3e4},
    "larger": {"x": 32e9, "d": 1e7},
    "smaller": {"x": 2e9, "d": 1e2},
}


def design(law_name: str, repeats: int) -> dict[str, np.ndarray]:
    """The sizes of every row, by role."""
    if law_name == "power":
        return {"d": np.repeat(EXAMPLES, repeats)}
    sizes, examples = np.meshgrid(SIZES, EXAMPLES, indexing="ij")
    return {"x": sizes.ravel(), "d": examples.ravel()}


def cover(
    case: str, studies: int, noise: float = 0.01, bootstrap: int = 500
) -> dict[str, tuple[float, float]]:
    """Simulates and fits; returns name -> (share of intervals that hold the truth, width over spread)."""
    law_name, truth, repeats = CASES[case]
    law, columns = find_law(law_name), design(law_name, repeats)
    clean = law.predict(truth, columns)
    names = {role: role for role in columns}
    points = {label: {role: at[role] for role in columns} for label, at in PREDICTIONS.items()}
    truths = {**truth, **{label: float(law.predict(truth, at)) for label, at in points.items()}}
    values, lows, highs = ({name: [] for name in truths} for _ in range(3))
    for seed in range(studies):
        random = np.random.default_rng(seed)
        loss = clean * np.exp(noise * random.standard_normal(len(clean)))
        rows = table_of("simulated", {**columns, "loss": loss})
        fit = fit_rows(rows, law, names, "loss", Settings(bootstrap=bootstrap, seed=seed), None, {}, {})
        for name in truth:
            values[name].append(fit.parameters[name])
            lows[name].append(fit.intervals[name][0]), highs[name].append(fit.intervals[name][1])
        for label, at in points.items():
            value, low, high = fit.predict(at)
            (
                values[label].append(float(value)),
                lows[label].append(float(low)),
                highs[label].append(float(high)),
            )
    found = {}
    for name, true in truths.items():
        low, high = np.array(lows[name]), np.array(highs[name])
        spread = np.subtract(*np.percentile(values[name], [95, 5]))
        found[name] = (float(np.mean((low <= true) & (true <= high))), float(np.median(high - low) / spread))
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--cases", nargs="*", default=list(CASES), help=f"of: {', '.join(CASES)}")
    arguments = parser.parse_args()
    print("90% intervals: share that hold the truth (median width over the spread of the estimates)")
    for case in arguments.cases:
        started = time.perf_counter()
        found = cover(case, arguments.studies)
        cells = "  ".join(f"{name} {share:.3f} ({width:.2f})" for name, (share, width) in found.items())
        seconds = (time.perf_counter() - started) / arguments.studies
        print(f"{case}: {cells}  [{arguments.studies} studies, {seconds:.2f} s each]", flush=True)


if __name__ == "__main__":
    main()
