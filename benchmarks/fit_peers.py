"""The data and the peers of `fit.py`; needs NumPy and SciPy alone.

- The reference: L-BFGS-B from every start of a grid over (log A, alpha, beta, log E), with the analytic
  gradient and tight tolerances, in two frames: coordinates as they are, without bounds; and the stronger
  one with centred logarithms, the objective times 1000 and the bounds of our law. Each is faster so: bounds
  slow the first by half, and without them a few starts of the second run away.
- The same as a warm-started loop over bootstrap draws.
- The package `chinchilla` (0.2.0), under a Python that has it: BFGS with numerical gradients in extended
  precision over the grid of its README.
"""

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

NOISE = 0.01
TRAP, TRAP_SEED = {"A": 60.0, "alpha": 0.12, "beta": 0.2, "E": 0.7}, 3
X, D = (
    axis.ravel() for axis in np.meshgrid(np.geomspace(1e9, 16e9, 5), np.geomspace(1e3, 1e6, 9), indexing="ij")
)
COLUMNS = {"x": X, "d": D}
DELTA = 1e-3
# log A, alpha, beta, log E: 9 x 10 x 10 x 5 starts.
GRID = (
    np.linspace(0.0, 20.0, 9),
    np.linspace(0.0, 1.5, 10),
    np.linspace(0.0, 1.5, 10),
    np.linspace(-1.0, 1.0, 5),
)
ONE_START = (5.0, 0.5, 0.5, 0.0)
BOUNDS = ((None, None), (-1.0, 4.0), (0.0, 4.0), (-30.0, None))
OPTIONS = {"ftol": 1e-15, "gtol": 1e-12}
# Starts that end within this of the best objective have reached it.
AGREEMENT = 1e-6


@dataclass(frozen=True)
class Frame:
    """Coordinates of the reference: log A at the centre of the logarithms; the objective's factor; bounds."""

    centre: tuple[float, float] = (0.0, 0.0)
    factor: float = 1.0
    bounds: tuple[tuple[float | None, float | None], ...] | None = None

    def enter(self, point: np.ndarray) -> np.ndarray:
        """(log A, alpha, beta, log E), (..., 4) -> coordinates."""
        moved = np.array(point, np.float64)
        moved[..., 0] -= moved[..., 1] * self.centre[0] + moved[..., 2] * self.centre[1]
        return moved

    def leave(self, point: np.ndarray) -> np.ndarray:
        """The way back."""
        moved = np.array(point, np.float64)
        moved[..., 0] += moved[..., 1] * self.centre[0] + moved[..., 2] * self.centre[1]
        return moved


@dataclass(frozen=True)
class Found:
    """Where a search ended, (log A, alpha, beta, log E); the objective; the share of starts there."""

    point: np.ndarray
    value: float
    reached: float


def study(truth: Mapping[str, float], seed: int) -> np.ndarray:
    """Losses of one simulated study, (45,)."""
    clean = truth["A"] * X ** -truth["alpha"] * D ** -truth["beta"] + truth["E"]
    return clean * np.exp(NOISE * np.random.default_rng(seed).standard_normal(len(X)))


def random_truth(seed: int) -> dict[str, float]:
    """A law whose reducible loss, exponents and floor are random, some of them weak."""
    random = np.random.default_rng([seed, 11])
    alpha, beta = random.uniform(0.02, 0.5), random.uniform(0.02, 0.4)
    reducible = np.exp(random.uniform(np.log(0.05), np.log(3.0)))
    size = reducible * np.exp(alpha * np.mean(np.log(X)) + beta * np.mean(np.log(D)))
    return {"A": float(size), "alpha": alpha, "beta": beta, "E": random.uniform(0.05, 2.0)}


def additive_design(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """240 runs over six orders of compute by the additive law, 1% noise: (columns x and d, loss).

    The truth is that of the package's own simulator.
    """
    random = np.random.default_rng(seed)
    compute = np.exp(random.uniform(np.log(1e17), np.log(1e23), 240))
    ratio = np.exp(random.uniform(np.log(3.0), np.log(300.0), 240))
    params = np.sqrt(compute / (6 * ratio))
    tokens = params * ratio
    clean = 1.69337368 + 406.401018 / params**0.33917084 + 410.722827 / tokens**0.2849083
    return {"x": params, "d": tokens}, clean * np.exp(0.01 * random.standard_normal(240))


@contextlib.contextmanager
def as_file(columns: Mapping[str, np.ndarray], loss: np.ndarray) -> Iterator[str]:
    """Path of the rows as a CSV file with columns x, d and loss, for as long as the block lasts."""
    rows = np.stack([columns["x"], columns["d"], loss], axis=1)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "rows.csv")
        np.savetxt(path, rows, fmt="%.17g", delimiter=",", header="x,d,loss", comments="")
        yield path


def read_rows(path: str) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Columns x, d and loss of a CSV file with that header."""
    rows = np.loadtxt(path, delimiter=",", skiprows=1)
    return {"x": rows[:, 0], "d": rows[:, 1]}, rows[:, 2]


def centred(columns: Mapping[str, np.ndarray]) -> Frame:
    """The stronger frame of the data."""
    return Frame((float(np.mean(np.log(columns["x"]))), float(np.mean(np.log(columns["d"])))), 1e3, BOUNDS)


def all_starts() -> np.ndarray:
    """The grid, (4500, 4)."""
    return np.stack([axis.ravel() for axis in np.meshgrid(*GRID, indexing="ij")], axis=1)


def some_starts(count: int, seed: int = 0) -> np.ndarray:
    """That many of the grid at random, (count, 4)."""
    starts = all_starts()
    return starts[np.random.default_rng(seed).permutation(len(starts))[:count]]


def huber_sum(predicted: np.ndarray, loss: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """The objective that all are judged by: weighted Huber losses of log residuals, summed over rows."""
    error = np.log(predicted) - np.log(loss)
    pull = np.clip(error, -DELTA, DELTA)
    return np.sum(weights * pull * (error - 0.5 * pull), axis=-1)


def multiplicative(columns: Mapping[str, np.ndarray], point: np.ndarray) -> np.ndarray:
    """The loss at every row, (..., 4) -> (..., rows)."""
    log_a, alpha, beta, log_e = (point[..., k, None] for k in range(4))
    return np.exp(log_a - alpha * np.log(columns["x"]) - beta * np.log(columns["d"])) + np.exp(log_e)


def value_and_slope(
    columns: Mapping[str, np.ndarray], loss: np.ndarray, weights: np.ndarray, frame: Frame
) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
    """The objective of the multiplicative law and its gradient, in the frame's coordinates."""
    log_x, log_d = np.log(columns["x"]) - frame.centre[0], np.log(columns["d"]) - frame.centre[1]
    along = np.stack([np.ones(len(loss)), -log_x, -log_d])
    target, factors = np.log(loss), frame.factor * weights

    def evaluate(at):
        power = np.exp(np.minimum(at[:3] @ along, 500.0))
        floor = np.exp(at[3])
        total = power + floor
        error = np.log(total) - target
        pull = np.minimum(np.maximum(error, -DELTA), DELTA)
        weighted = factors * pull
        by_total = weighted / total
        slope = np.empty(4)
        slope[:3] = along @ (by_total * power)
        slope[3] = floor * by_total.sum()
        return weighted @ (error - 0.5 * pull), slope

    return evaluate


def descend(evaluate: Callable, start: np.ndarray, frame: Frame):
    """One run of L-BFGS-B, as SciPy returns it."""
    from scipy.optimize import minimize

    return minimize(evaluate, start, jac=True, method="L-BFGS-B", bounds=frame.bounds, options=OPTIONS)


def one_start(columns: Mapping, loss: np.ndarray) -> float:
    """The objective by what scripts often do: one start, coordinates as they are, default tolerances."""
    from scipy.optimize import minimize

    evaluate = value_and_slope(columns, loss, np.ones(len(loss)), Frame())
    with np.errstate(all="ignore"):
        point = minimize(evaluate, ONE_START, jac=True, method="L-BFGS-B").x
    return float(huber_sum(multiplicative(columns, point), loss))


def grid_search(columns: Mapping, loss: np.ndarray, starts: np.ndarray, frame: Frame) -> Found:
    """The reference: the best end of all starts (n, 4)."""
    evaluate = value_and_slope(columns, loss, np.ones(len(loss)), frame)
    with np.errstate(all="ignore"):
        ends = [descend(evaluate, start, frame) for start in frame.enter(starts)]
    values = np.array([end.fun for end in ends])
    best = int(np.nanargmin(values))
    point = frame.leave(ends[best].x)
    reached = float(np.mean(values <= values[best] * (1 + AGREEMENT)))
    return Found(point, float(huber_sum(multiplicative(columns, point), loss)), reached)


def bootstrap(columns: Mapping, losses: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """One warm-started fit a draw in the stronger frame; losses and weights (draws, rows) -> (draws, 4)."""
    frame = centred(columns)
    first, ends = frame.enter(start), []
    with np.errstate(all="ignore"):
        for loss, weight in zip(losses, weights, strict=True):
            ends.append(descend(value_and_slope(columns, loss, weight, frame), first, frame).x)
    return frame.leave(np.array(ends))


def print_reference(path: str, count: int) -> None:
    """The job of a cold process: the reference in the stronger frame on a CSV file; prints its objective."""
    columns, loss = read_rows(path)
    starts = all_starts() if count >= len(all_starts()) else some_starts(count)
    print(json.dumps({"value": grid_search(columns, loss, starts, centred(columns)).value}))


def print_chinchilla(path: str, side: int, factor: float) -> None:
    """Fits the additive law to a CSV file by the package `chinchilla` and prints JSON.

    Its README's grid (5 values a parameter; `side` of them here), its log Huber loss with our delta, one
    process. Its plot of the result is left out, to its advantage.

    Args:
        path: columns x, d and loss.
        side: values a parameter.
        factor: of the loss. With 1, the gradient is below SciPy's default tolerance at most starts.
    """
    import warnings

    from chinchilla import Chinchilla
    from chinchilla._metrics import log_huber

    warnings.simplefilter("ignore")
    columns, loss = read_rows(path)

    def scaled_loss(y_true, y_pred):
        return factor * log_huber(y_true, y_pred, delta=DELTA)

    with tempfile.TemporaryDirectory() as project:
        rows = np.stack([6 * columns["x"] * columns["d"], columns["x"], columns["d"], loss], axis=1)
        path = str(Path(project) / "df.csv")
        np.savetxt(path, rows, fmt="%.17g", delimiter=",", header="C,N,D,loss", comments="")
        axes = {"E": (1.1, 1.5), "A": (200, 1000), "B": (200, 1000), "alpha": (0.1, 0.5), "beta": (0.1, 0.5)}
        grid = {name: np.linspace(low, high, side) for name, (low, high) in axes.items()}
        fitter = Chinchilla(project, param_grid=grid, loss_fn=scaled_loss, log_level=50)
        fitter.visualizer.optim = lambda *_, **__: None
        started, cpu = time.perf_counter(), time.process_time()
        with np.errstate(all="ignore"):
            fitter.fit(parallel=False)
        found = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    print(json.dumps(found | {"starts": side**5, "parameters": fitter.params}))
