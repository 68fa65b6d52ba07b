"""How far measured losses scatter around the fitted law, as a model to simulate from.

Normal noise of one size, unless the residuals say otherwise: with tails (Student's t, by maximum
likelihood) where a few runs lie far out, and with a size that changes along the columns (runs on few
examples scatter more than runs on many) where a regression of the residuals' size on the columns'
logarithms finds it: a gamma regression with a logarithmic link, judged by its F test.
"""

from dataclasses import dataclass, replace

import numpy as np

# Degrees of freedom tried for the tails; infinity is the normal distribution.
_TAILS = (2.5, 4.0, 8.0, float("inf"))
# Log likelihood that tails must gain, and significance that a changing size must have.
_GAIN, _SIGNIFICANCE = 3.0, 0.002
# Fewer rows per regression coefficient do not show how the size changes.
_ROWS_PER_SLOPE = 10
_SCALE_STEPS = 100


@dataclass(frozen=True)
class Noise:
    """The scatter of residuals.

    Attributes:
        size: (rows,), the scale of each row.
        tails: degrees of freedom of Student's t; infinity for the normal distribution.
        slopes: role -> exponent by which the size changes along the column; empty where it does not.
    """

    size: np.ndarray
    tails: float
    slopes: dict[str, float]

    def draw(self, random: np.random.Generator, normal: np.ndarray) -> np.ndarray:
        """Simulated residuals, (draws, rows), from standard normal deviates of that shape."""
        if np.isinf(self.tails):
            return normal * self.size
        # Student's t as a normal deviate over the root of a chi-square one.
        return normal * self.size * np.sqrt(self.tails / random.chisquare(self.tails, normal.shape))

    def text(self) -> str:
        """The model in words, for notes; empty for normal noise of one size."""
        parts = (
            [f"Student's t tails with {self.tails:g} degrees of freedom"] if np.isfinite(self.tails) else []
        )
        if self.slopes:
            powers = " ".join(f"{role}^{slope:.2g}" for role, slope in self.slopes.items())
            parts.append(f"its size changes as {powers}")
        return "noise: " + ", ".join(parts) if parts else ""


def noise_of(errors: np.ndarray, logs: dict[str, np.ndarray], weights: np.ndarray, fitted: float) -> Noise:
    """The noise that residuals show.

    Args:
        errors: (rows,), residuals of the fit.
        logs: role -> (rows,), logarithms of the columns.
        weights: (rows,), above zero; the variance of a row is taken to fall with its weight.
        fitted: how many coordinates were fitted; a share of one that other rows helped to fit.
    """
    rows = len(errors)
    largest = np.max(np.abs(errors))
    if not largest > 0:
        return Noise(np.zeros(rows), float("inf"), {})
    if not 1e-100 < largest < 1e100:
        # Squares of such residuals leave the numbers.
        found = noise_of(errors / largest, logs, weights, fitted)
        return replace(found, size=found.size * largest)
    errors = errors * np.sqrt(weights / np.mean(weights))
    shape, slopes = _changing_size(errors, logs)
    standard = errors / shape
    inflation = np.sqrt(rows / max(1, rows - fitted))
    tails, scale = _tails(standard)
    if np.isinf(tails):
        scale = np.sqrt(np.mean(standard**2))
    size = scale * inflation * shape / np.sqrt(weights / np.mean(weights))
    return Noise(size, tails, slopes)


def _changing_size(errors: np.ndarray, logs: dict[str, np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """The relative size of each row's noise, (rows,), and its exponents, where significant."""
    from scipy.special import fdtrc

    one = np.ones(len(errors))
    varying = [role for role, values in logs.items() if np.ptp(values) > 1e-9]
    spare = len(errors) - len(varying) - 1
    if not varying or len(errors) < _ROWS_PER_SLOPE * len(varying) or not np.any(errors):
        return one, {}
    design = np.stack([logs[role] - logs[role].mean() for role in varying] + [one], axis=1)
    if np.linalg.matrix_rank(design) < design.shape[1]:
        return one, {}
    size = np.abs(errors)
    slopes = np.zeros(design.shape[1])
    slopes[-1] = np.log(np.mean(size))
    for _ in range(50):
        expected = np.exp(np.clip(design @ slopes, -700, 700))
        step, *_ = np.linalg.lstsq(design, size / expected - 1.0, rcond=None)
        slopes = slopes + np.clip(step, -1.0, 1.0)
    expected = np.exp(np.clip(design @ slopes, -700, 700))
    dispersion = np.sum((size / expected - 1.0) ** 2) / spare
    gain = 2 * np.sum(np.log(np.mean(size)) - np.log(expected) + size / np.mean(size) - size / expected)
    if not fdtrc(len(varying), spare, max(gain, 0.0) / len(varying) / dispersion) < _SIGNIFICANCE:
        return one, {}
    # A steep regression from few rows must not say that some rows are exact.
    shape = np.clip(np.exp(design[:, :-1] @ slopes[:-1]), 0.1, 10.0)
    return shape / np.sqrt(np.mean(shape**2)), dict(zip(varying, slopes[:-1].tolist(), strict=True))


def _tails(standard: np.ndarray) -> tuple[float, float]:
    """(degrees of freedom, scale) of the likeliest tails; normal unless the likelihood gains clearly."""
    from scipy.special import gammaln

    found = []
    for tails in _TAILS:
        scale = np.sqrt(np.mean(standard**2))
        if np.isinf(tails):
            density = -0.5 * np.log(2 * np.pi) - np.log(scale) - 0.5 * (standard / scale) ** 2
            found.append((np.sum(density) + _GAIN, tails, scale))
            continue
        for _ in range(_SCALE_STEPS):
            weights = (tails + 1) / (tails + (standard / scale) ** 2)
            scale = np.sqrt(np.mean(weights * standard**2))
        constant = gammaln(0.5 * (tails + 1)) - gammaln(0.5 * tails) - 0.5 * np.log(np.pi * tails)
        density = constant - np.log(scale) - 0.5 * (tails + 1) * np.log1p((standard / scale) ** 2 / tails)
        found.append((np.sum(density), tails, scale))
    _, tails, scale = max(found)
    return tails, float(scale)
