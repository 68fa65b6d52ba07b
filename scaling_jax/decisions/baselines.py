"""Simple rules that a pilot's forecast is measured against, for single curves over examples."""

import numpy as np


def largest_run(sizes: np.ndarray, losses: np.ndarray, target: float) -> float:
    """The loss of the largest pilot run, as it is; choosing by it is SubTuning in Lin et al. (2024)."""
    return float(losses[np.argmax(sizes)])


def accept_then_stop(
    sizes: np.ndarray, losses: np.ndarray, target: float, tail: int = 3, threshold: float = 5.0
) -> float:
    """AtS of Lin et al. (ICML 2024): a line in logarithms through the power phase, found from the end.

    A line is fitted to the last `tail` points; the next smaller one is accepted while its residual is at most
    `threshold` standard deviations of theirs; the line through what was accepted is extrapolated.

    Args:
        sizes: (rows,), one row for each size.
        losses: (rows,).
        target: where to predict.
    """
    order = np.argsort(sizes)
    x, y = np.log(sizes[order]), np.log(losses[order])
    first = max(0, len(x) - tail)
    while first > 0:
        line = np.polyfit(x[first:], y[first:], 1)
        spread = np.std(y[first:] - np.polyval(line, x[first:]))
        if abs(y[first - 1] - np.polyval(line, x[first - 1])) > threshold * max(spread, 1e-12):
            break
        first -= 1
    return float(np.exp(np.polyval(np.polyfit(x[first:], y[first:], 1), np.log(target))))
