"""How fast and how good are the fits, against SciPy over a grid of starts and the package `chinchilla`?

One run on one core, peers and ours in turn, medians. Times are wall seconds, with seconds of CPU in
brackets; a ratio is the lower of the two ratios (on a busy machine waiting falls on long jobs only):

1. the multiplicative law on 45 points (5 x 9) with 1% noise, log Huber 0.001, on which weak exponents trap
   one-start fits: the reference of `fit_peers.py` over its 4,500 starts; our search alone, and search plus
   L-BFGS polish, both warm (compiled by a fit of other data); whole processes from a CSV file;
2. the objective on random problems beside the reference's best;
3. 1,000 bootstrap draws beside a warm-started loop of SciPy on the very same draws;
4. the additive law on 240 simulated runs beside the package `chinchilla` 0.2.0, where a Python has it.

    python benchmarks/fit.py [--package_python PATH_OF_A_PYTHON] [--json FILE]

`--starts`, `--rounds`, `--problems`, `--problem_starts`, `--draws` and `--package_side` make it shorter.
"""

import argparse
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import fit_peers
import numpy as np

# Relative differences of the objective up to this are equal.
EQUAL = 1e-9
HERE = Path(__file__).resolve().parent
WARM_CALLS = 15
NAIVE = "one start, SciPy's defaults"


@dataclass
class Clock:
    """Wall and CPU seconds of repeated runs of one job.

    Attributes:
        who: whose CPU, of this process or of those that it waits for (`resource.RUSAGE_CHILDREN`).
        wall, cpu: seconds of each run.
    """

    who: int = resource.RUSAGE_SELF
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def run(self, job: Callable, *arguments):
        """Runs a job and returns what it returns."""
        before, started = resource.getrusage(self.who), time.perf_counter()
        result = job(*arguments)
        self.wall.append(time.perf_counter() - started)
        after = resource.getrusage(self.who)
        self.cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return result

    def figures(self) -> dict[str, float]:
        """Medians, and of how many runs."""
        return {
            "seconds": float(np.median(self.wall)),
            "cpu_seconds": float(np.median(self.cpu)),
            "runs": len(self.wall),
        }


def one_core() -> str:
    """Binds this process and its children to one core; says what was done."""
    if not hasattr(os, "sched_setaffinity"):
        return "threads as the libraries choose (this system cannot bind a process to a core)"
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return "everything bound to one core"


def prepared(law: str, columns: Mapping[str, np.ndarray], loss: np.ndarray):
    """(objective, problem) for our fit."""
    from scaling_jax.laws.law import find_law
    from scaling_jax.laws.problem import Objective, make_problem

    objective = Objective(find_law(law))
    return objective, make_problem(objective, columns, loss, fit_peers.DELTA)


def judged(objective, problem, point: np.ndarray, rows: int) -> float:
    """The objective at our point, by the peers' own function."""
    from scaling_jax.laws.problem import predicted

    return float(fit_peers.huber_sum(predicted(objective, problem, point, np)[:rows], problem.loss[:rows]))


def warm(starts: np.ndarray, rounds: int) -> dict[str, dict]:
    """Job -> figures, of the reference and ours in one process."""
    from scaling_jax.laws.search import search
    from scaling_jax.laws.solve import best_point

    other = fit_peers.study(fit_peers.TRAP, fit_peers.TRAP_SEED + 1)
    best_point(*prepared("multiplicative", fit_peers.COLUMNS, other))
    loss = fit_peers.study(fit_peers.TRAP, fit_peers.TRAP_SEED)
    objective, problem = prepared("multiplicative", fit_peers.COLUMNS, loss)
    frames = {
        "reference, as is": fit_peers.Frame(),
        "reference, centred": fit_peers.centred(fit_peers.COLUMNS),
    }
    clocks = {name: Clock() for name in (NAIVE, *frames, "search", "search and polish")}
    values, reached = {}, {}
    for _ in range(rounds):
        values[NAIVE] = clocks[NAIVE].run(fit_peers.one_start, fit_peers.COLUMNS, loss)
        for name, frame in frames.items():
            found = clocks[name].run(fit_peers.grid_search, fit_peers.COLUMNS, loss, starts, frame)
            values[name], reached[name] = found.value, found.reached
        for _ in range(WARM_CALLS):
            points, ends = clocks["search"].run(search, objective, problem)
            optimum = clocks["search and polish"].run(best_point, objective, problem)
    values["search"] = judged(objective, problem, points[0], len(loss))
    values["search and polish"] = judged(objective, problem, optimum.point, len(loss))
    reached[NAIVE] = float(values[NAIVE] <= min(values.values()) * (1 + fit_peers.AGREEMENT))
    reached["search"] = float(np.mean(ends <= ends[0] * (1 + fit_peers.AGREEMENT)))
    reached["search and polish"] = optimum.agreeing / optimum.starts
    return {
        name: clock.figures() | {"value": values[name], "reached": reached[name]}
        for name, clock in clocks.items()
    }


def print_best_point(path: str) -> None:
    """The job of a cold process: our optimum of a CSV file."""
    from scaling_jax.laws.solve import best_point

    columns, loss = fit_peers.read_rows(path)
    objective, problem = prepared("multiplicative", columns, loss)
    optimum = best_point(objective, problem)
    print(json.dumps({"value": judged(objective, problem, optimum.point, len(loss))}))


def print_whole_fit(path: str) -> None:
    """The job of a cold process: our fit with 1,000 draws, intervals and diagnostics of a CSV file."""
    from scaling_jax.laws.fit import fit_table
    from scaling_jax.laws.table import read_table

    fit = fit_table(read_table(path), "multiplicative", {"x": "x", "d": "d"})[0]
    print(json.dumps({"value": fit.objective["value"]}))


def child(python: str, code: str, seconds: float = 7200.0) -> dict:
    """Runs code in another process beside this file; the JSON that it prints.

    Raises:
        RuntimeError: it failed; holds the last line that it wrote.
    """
    paths = os.pathsep.join([str(HERE), str(HERE.parent)])
    environment = os.environ | {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [python, "-c", code], env=environment, capture_output=True, text=True, timeout=seconds
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def cold(starts: int, rounds: int) -> dict[str, dict]:
    """Job -> figures, of whole processes that import, read the file and fit once."""
    with fit_peers.as_file(fit_peers.COLUMNS, fit_peers.study(fit_peers.TRAP, fit_peers.TRAP_SEED)) as path:
        jobs = {
            "reference, centred": f"import fit_peers; fit_peers.print_reference({path!r}, {starts})",
            "search and polish": f"import fit; fit.print_best_point({path!r})",
            "whole fit, 1,000 draws": f"import fit; fit.print_whole_fit({path!r})",
        }
        clocks, values = {name: Clock(resource.RUSAGE_CHILDREN) for name in jobs}, {}
        for _ in range(rounds):
            for name, code in jobs.items():
                answer = clocks[name].run(child, sys.executable, code)
                values[name] = answer["value"]
    return {name: clock.figures() | {"value": values[name]} for name, clock in clocks.items()}


def random_problems(count: int, starts: int) -> dict:
    """How our objective compares with the reference's (centred, some of its starts) on random problems."""
    from scaling_jax.laws.solve import best_point

    gaps, clock = [], Clock()
    frame = fit_peers.centred(fit_peers.COLUMNS)
    for seed in range(count):
        loss = fit_peers.study(fit_peers.random_truth(seed), 1000 + seed)
        objective, problem = prepared("multiplicative", fit_peers.COLUMNS, loss)
        optimum = clock.run(best_point, objective, problem)
        found = fit_peers.grid_search(fit_peers.COLUMNS, loss, fit_peers.some_starts(starts, seed), frame)
        gaps.append(judged(objective, problem, optimum.point, len(loss)) / found.value - 1.0)
    gaps = np.array(gaps)
    return {
        "problems": count,
        "starts": starts,
        "equal": int(np.sum(np.abs(gaps) <= EQUAL)),
        "lower": int(np.sum(gaps < -EQUAL)),
        "higher": int(np.sum(gaps > EQUAL)),
        "largest_gap": float(gaps.max()),
    } | clock.figures()


def draws_of(method: str, objective, problem, point: np.ndarray, draws: int, factor: float, seed: int):
    """The losses and weights (draws, rows) that `uncertainty.draw` fits by that method and seed.

    `factor` is Student's, by which simulated noise is enlarged.
    """
    from scaling_jax.laws.noise import noise_of
    from scaling_jax.laws.problem import predicted, residuals

    rows = int(np.sum(problem.weights > 0))
    random, loss = np.random.default_rng(seed), problem.loss[:rows]
    if method == "rows":
        return np.broadcast_to(loss, (draws, rows)), random.exponential(size=(draws, rows))
    errors = residuals(objective, problem, point, np)[:rows]
    logs = {role: values[:rows] for role, values in problem.logs.items()}
    noise = noise_of(errors, logs, problem.weights[:rows], len(point))
    scatter = factor * noise.draw(random, random.standard_normal((draws, rows)))
    return predicted(objective, problem, point, np)[:rows] * np.exp(scatter), np.ones((draws, rows))


def bootstraps(draws: int, rounds: int) -> dict[str, dict]:
    """Method -> seconds of ours and of SciPy's loop, and how our objectives compare draw by draw."""
    from scaling_jax.laws import uncertainty
    from scaling_jax.laws.problem import parameters_of, predicted
    from scaling_jax.laws.solve import best_point

    loss, rows, found = fit_peers.study(fit_peers.TRAP, fit_peers.TRAP_SEED), len(fit_peers.X), {}
    objective, problem = prepared("multiplicative", fit_peers.COLUMNS, loss)
    point = best_point(objective, problem).point
    best = {name: value[0] for name, value in parameters_of(objective, problem, point, np).items()}
    start = np.array([np.log(best["A"]), best["alpha"], best["beta"], np.log(best["E"])])
    factor = uncertainty.student_factor(rows - len(point), 0.9)
    for method in ("simulated", "rows"):
        losses, weights = draws_of(method, objective, problem, point, draws, factor, seed=0)
        uncertainty.draw(objective, problem, point, draws, 0.9, 1, method)
        ours, peer = Clock(), Clock()
        for _ in range(rounds):
            drawn = ours.run(uncertainty.draw, objective, problem, point, draws, 0.9, 0, method)
            ends = peer.run(fit_peers.bootstrap, fit_peers.COLUMNS, losses, weights, start)
        # Resampled draws are spread by Student's factor after they are fitted.
        fitted = drawn.points if method == "simulated" else point + (drawn.points - point) / factor
        own = fit_peers.huber_sum(predicted(objective, problem, fitted, np)[:, :rows], losses, weights)
        theirs = fit_peers.huber_sum(fit_peers.multiplicative(fit_peers.COLUMNS, ends), losses, weights)
        gaps = own / theirs - 1.0
        values = parameters_of(objective, problem, fitted, np)
        found[method] = {
            "ours": ours.figures(),
            "reference": peer.figures(),
            "within_1e-6": float(np.mean(gaps <= 1e-6)),
            "within_1e-3": float(np.mean(gaps <= 1e-3)),
            "largest_gap": float(gaps.max()),
            "alpha_deviation_ratio": float(np.std(values["alpha"][:, 0]) / np.std(ends[:, 1])),
            "beta_deviation_ratio": float(np.std(values["beta"][:, 0]) / np.std(ends[:, 2])),
        }
    return found


def package(python: str, side: int) -> dict:
    """The package `chinchilla` and ours on the additive law; {"missing": reason} if not installed."""
    from scaling_jax.laws.solve import best_point

    code = "import importlib.metadata as m, json; print(json.dumps({'version': m.version('chinchilla')}))"
    try:
        version = child(python, code)["version"]
    except (RuntimeError, OSError) as error:
        return {"missing": f"{python}: {error}"}
    first, again = Clock(), Clock()
    first.run(best_point, *prepared("additive", *fit_peers.additive_design(1)))
    columns, loss = fit_peers.additive_design(0)
    objective, problem = prepared("additive", columns, loss)
    for _ in range(WARM_CALLS):
        optimum = again.run(best_point, objective, problem)
    value = judged(objective, problem, optimum.point, len(loss))
    found = {"version": version, "ours": again.figures() | {"value": value, "first": first.figures()}}
    with fit_peers.as_file(columns, loss) as path:
        for label, factor in (("as is", 1.0), ("loss x 1e6", 1e6)):
            answer = child(
                python, f"import fit_peers; fit_peers.print_chinchilla({path!r}, {side}, {factor})"
            )
            own = answer["parameters"]
            clean = (
                own["E"] + own["A"] / columns["x"] ** own["alpha"] + own["B"] / columns["d"] ** own["beta"]
            )
            found[label] = answer | {"value": float(fit_peers.huber_sum(clean, loss))}
    return found


def targets(found: Mapping) -> list[list[str]]:
    """What was asked for, what was measured, whether it is met."""
    times, whole = found["warm"], found["cold"]
    peers = [cell for name, cell in times.items() if name.startswith("reference")]
    least = min(cell["value"] for cell in peers)
    search, polished = (
        min(ratio(cell, times[name]) for cell in peers) for name in ("search", "search and polish")
    )
    process = ratio(whole["reference, centred"], whole["search and polish"])
    gap, randoms = times["search and polish"]["value"] / least - 1.0, found["random"]
    longest = max(part["ours"]["seconds"] for part in found["bootstrap"].values())
    rows = [
        ("search, warm, over the faster reference", ">= 100x", f"{search:.0f}x", search >= 100),
        ("search and polish, warm", ">= 30x", f"{polished:.0f}x", polished >= 30),
        ("search and polish, cold process", "> 1x", f"{process:.1f}x", process > 1),
        ("objective on the trap, relative to the lower reference", "<= 1e-9", f"{gap:.1e}", gap <= EQUAL),
        (
            f"random problems with a higher objective, of {randoms['problems']}",
            "0",
            str(randoms["higher"]),
            not randoms["higher"],
        ),
        (f"{found['draws']:,} bootstraps, warm, s", "<= 1", f"{longest:.2f}", longest <= 1),
    ]
    return [[*row[:3], "met" if row[3] else "missed"] for row in rows]


def ratio(slow: Mapping, fast: Mapping) -> float:
    """How many times faster, by wall or CPU seconds, whichever says less."""
    return min(slow[key] / fast[key] for key in ("seconds", "cpu_seconds"))


def clock_text(figures: Mapping) -> str:
    """Wall seconds and, in brackets, CPU seconds."""
    return f"{figures['seconds']:.4g} ({figures['cpu_seconds']:.4g})"


def tables(found: Mapping) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, header, rows) of every table."""
    times, whole = found["warm"], found["cold"]
    shown = []
    for name, cell in times.items():
        over = [f"{ratio(cell, times[own]):.3g}x" for own in ("search", "search and polish")]
        shown.append([name, clock_text(cell), *over, f"{cell['value']:.14e}", f"{cell['reached']:.0%}"])
    header = ["job", "wall (CPU) s", "over search", "over search and polish", "objective", "starts at it"]
    made = [(f"Warm, {found['starts']:,} starts", header, shown)]
    rows = [
        [name, clock_text(cell), f"{ratio(whole['reference, centred'], cell):.3g}x"]
        + [f"{cell['value']:.14e}"]
        for name, cell in whole.items()
    ]
    made.append(("Whole process", ["job", "wall (CPU) s", "faster than the reference", "objective"], rows))
    cell = found["random"]
    rows = [
        [str(cell[key]) for key in ("problems", "starts", "lower", "equal", "higher")]
        + [f"{cell['largest_gap']:.1e}", clock_text(cell)]
    ]
    header = ["problems", "reference's starts", "lower", "equal to 1e-9", "higher", "largest gap", "ours, s"]
    made.append(("Random problems, our objective beside the reference's", header, rows))
    rows = [
        [method, clock_text(cell["ours"]), clock_text(cell["reference"])]
        + [f"{ratio(cell['reference'], cell['ours']):.3g}x", f"{cell['within_1e-6']:.1%}"]
        + [f"{cell['within_1e-3']:.1%}", f"{cell['largest_gap']:.1e}"]
        + [f"{cell[f'{name}_deviation_ratio']:.4f}" for name in ("alpha", "beta")]
        for method, cell in found["bootstrap"].items()
    ]
    header = ["draws", "ours, wall (CPU) s", "SciPy", "ratio", "within 1e-6", "within 1e-3", "largest gap"]
    header += ["SD(alpha) ratio", "SD(beta) ratio"]
    made.append((f"{found['draws']:,} bootstrap draws, warm", header, rows))
    return made


def package_text(found: Mapping) -> str:
    """The comparison with the package, or why there is none."""
    if "missing" in found:
        return f"Package chinchilla: not measured, not installed ({found['missing']})"
    ours, rows = found["ours"], []
    for label in ("as is", "loss x 1e6"):
        cell = found[label]
        gap = f"{cell['value'] / ours['value'] - 1:.2e}"
        over = f"{ratio(cell, ours):.3g}x"
        rows.append([f"chinchilla, {label}", str(cell["starts"]), clock_text(cell), over])
        rows[-1] += [f"{cell['value']:.12e}", gap]
    rows.append(["ours, warm", "", clock_text(ours), "1x", f"{ours['value']:.12e}", "0"])
    rows.append(["ours, first call (compiles)", "", clock_text(ours["first"]), "", "", ""])
    header = ["additive law, 240 rows", "starts", "wall (CPU) s", "over ours", "objective", "above ours by"]
    return f"Package chinchilla {found['version']}\n\n{table_text(header, rows)}"


def table_text(header: list[str], rows: list[list[str]]) -> str:
    """Rows as a Markdown table."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return "\n".join(lines + [f"| {' | '.join(row)} |" for row in rows])


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=4500, help="of the reference")
    parser.add_argument("--rounds", type=int, default=3, help="of every timing")
    parser.add_argument("--problems", type=int, default=20)
    parser.add_argument("--problem_starts", type=int, default=500, help="of the reference on each")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--package_side", type=int, default=5, help="values a parameter of its grid")
    parser.add_argument("--package_python", default=sys.executable, help="a Python that has `chinchilla`")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    threads = one_core()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    names = ("numpy", "scipy", "jax", "jaxopt")
    versions = {name: importlib.metadata.version(name) for name in names}
    print(f"{platform.machine()}, Python {platform.python_version()}, {versions}; {threads}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f}\n", flush=True)
    starts = fit_peers.some_starts(arguments.starts)
    found = {
        "threads": threads,
        "versions": versions,
        "starts": len(starts),
        "draws": arguments.draws,
        "load": os.getloadavg()[0],
    }
    found["warm"] = warm(starts, arguments.rounds)
    found["cold"] = cold(len(starts), arguments.rounds)
    found["random"] = random_problems(arguments.problems, arguments.problem_starts)
    found["bootstrap"] = bootstraps(arguments.draws, arguments.rounds)
    for title, header, rows in tables(found):
        print(f"{title}\n\n{table_text(header, rows)}\n", flush=True)
    found["package"] = package(arguments.package_python, arguments.package_side)
    print(f"{package_text(found['package'])}\n")
    found["targets"] = targets(found)
    print(table_text(["target", "asked", "measured", ""], found["targets"]))
    if arguments.json:
        from scaling_jax.files import write_json

        write_json(arguments.json, found)


if __name__ == "__main__":
    main()
