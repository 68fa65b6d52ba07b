"""What is believed of a method's law before its runs are made, and after some of them are.

A pilot is designed before anything is known and designed again after every round. So the law's
parameters have a prior: exponents over the range of Table 4 of Zhang et al. (ICLR 2024) and beyond (beta
0.015 to 0.15 there, 0.1 to 0.9 on small models), of the loss in the middle of the sizes about half
reducible. Runs turn it into a posterior, sampled by importance resampling around its mode. It serves to
place runs and to stop what is decided; what is reported are fits without a prior.

Coordinates are unbounded: the logarithm of each linear parameter's term in the middle of the sizes, and of
each other parameter.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scaling_jax.decisions.forecast import DISCREPANCY, OTHER_COLUMNS, TAILS, away
from scaling_jax.laws.law import Law

# Median and standard deviation of the logarithm, by name.
EXPONENTS = {"beta": (0.15, 0.9), "alpha": (0.3, 0.7)}
_OTHER_SPREAD = 1.5
# Of a term's share of the loss in the middle of the sizes, and of the loss itself.
_SHARE_SPREAD, _LEVEL_SPREAD = 0.6, 0.3
# Noise of a run's log loss in the middle of the sizes, how it falls with the data (a pilot's fits weigh rows
# by their examples), and how many rows that guess weighs.
NOISE, NOISE_SLOPE, NOISE_ROWS = 0.01, -0.5, 4.0
# How far a law is off at one size, of the log loss; Table 6 of Zhang et al. has 0.002 to 0.03 on losses of
# 1 to 2, at sizes that were not fitted.
MISFIT = 0.004
_STEPS = 60
# Proposed points, those that are kept; the proposal is that much wider than the curvature says, has Student's
# tails, and the prior in it.
_PROPOSED, _SAMPLE, _WIDER, _TAILS, _OF_PRIOR = 12_000, 2_000, 1.5, 4.0, 0.25


@dataclass(frozen=True)
class Rows:
    """Finished runs of one method: role -> (rows,) sizes, and their losses (rows,)."""

    sizes: Mapping[str, np.ndarray]
    loss: np.ndarray

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a run's log loss: `size` at `centre`, falling as d^`slope`."""

    centre: float
    size: float = NOISE
    slope: float = NOISE_SLOPE

    def at(self, d: np.ndarray) -> np.ndarray:
        """Of runs with so many examples, (rows,)."""
        return self.size * (np.asarray(d, np.float64) / self.centre) ** self.slope

    def with_misfit(self, d: np.ndarray) -> np.ndarray:
        """How far a run may be from the law, (rows,)."""
        return np.hypot(self.at(d), MISFIT)


@dataclass(frozen=True)
class Belief:
    """What is believed of a law's coordinates: a normal distribution, or a sample once there are runs.

    Attributes:
        law: the law.
        centre: role -> size at which linear parameters are measured.
        mean: (coordinates,), the mode after runs.
        covariance: (coordinates, coordinates).
        prior: the belief before any run; None of the prior itself.
        sample: (points, coordinates); None of the prior itself.
    """

    law: Law
    centre: Mapping[str, float]
    mean: np.ndarray
    covariance: np.ndarray
    prior: "Belief | None" = None
    sample: np.ndarray | None = None

    @property
    def precision(self) -> np.ndarray:
        """Of the prior, which further runs add to."""
        return np.linalg.inv((self.prior or self).covariance)

    def draws(self, count: int, seed: int | Sequence[int]) -> np.ndarray:
        """(count, coordinates)."""
        random = np.random.default_rng(seed)
        if self.sample is not None:
            return self.sample[random.integers(len(self.sample), size=count)]
        return random.multivariate_normal(self.mean, self.covariance, count, method="cholesky")

    def log_loss(self, points: np.ndarray, sizes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Logarithm of the law's loss: (..., coordinates) and role -> (rows,) give (..., rows)."""
        points = np.asarray(points)[..., None, :]
        names = self.law.parameter_names
        at = {name: points[..., names.index(name)] for name in names}
        values = {p.name: np.exp(at[p.name]) for p in self.law.nonlinear}
        columns = {role: np.asarray(values_, np.float64) for role, values_ in sizes.items()}
        with np.errstate(all="ignore"):
            if self.law.formula is not None:
                return np.log(self.law.formula(values, columns, np))
            logs = {role: np.log(column) for role, column in columns.items()}
            middle = {role: np.log(self.centre[role]) for role in logs}
            terms = self.law.log_terms(values, logs, np)
            reference = self.law.log_terms(values, middle, np)
            parts = [
                at[name] + np.asarray(term) - np.asarray(other)
                for name, term, other in zip(self.law.linear, terms, reference, strict=True)
            ]
            return np.logaddexp.reduce(np.broadcast_arrays(*parts))

    def slopes(self, points: np.ndarray, sizes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Derivatives of the log loss by the coordinates: (..., rows, coordinates)."""
        step = 1e-5
        moves = step * np.eye(len(self.mean))
        differences = [
            (self.log_loss(points + move, sizes) - self.log_loss(points - move, sizes)) / (2 * step)
            for move in moves
        ]
        return np.stack(differences, axis=-1)


def prior_of(law: Law, centre: Mapping[str, float], level: float) -> Belief:
    """What is believed of a law before any run.

    Args:
        law: whose parameters are positive.
        centre: role -> middle of the sizes that a pilot may take.
        level: a guess of the loss there, for the scale of the widths.
    """
    mean, spread = [], []
    for parameter in law.parameters:
        if parameter.name in law.linear:
            mean.append(np.log(level / len(law.linear)))
            spread.append(_SHARE_SPREAD)
        elif parameter.name in EXPONENTS:
            median, width = EXPONENTS[parameter.name]
            mean.append(np.log(median))
            spread.append(width)
        else:
            low, high = (max(end, 1e-6) for end in parameter.starts)
            mean.append(0.5 * (np.log(low) + np.log(high)))
            spread.append(_OTHER_SPREAD)
    covariance = np.diag(np.square(spread))
    # That the guess of the loss is off moves all of its terms alike.
    linear = np.array([name in law.linear for name in law.parameter_names], float)
    covariance = covariance + _LEVEL_SPREAD**2 * np.outer(linear, linear)
    return Belief(law, dict(centre), np.array(mean), covariance)


def updated(prior: Belief, rows: Rows, noise: Noise) -> Belief:
    """What is believed after some runs; the prior itself without any."""
    if not len(rows):
        return prior
    starts = np.concatenate([prior.mean[None], prior.draws(5, 0)])
    found = [_mode(prior, rows, noise, start) for start in starts]
    point, _ = min(found, key=lambda one: one[1])
    slopes = prior.slopes(point, rows.sizes) / noise.with_misfit(rows.sizes["d"])[:, None]
    covariance = np.linalg.inv(np.linalg.inv(prior.covariance) + slopes.T @ slopes)
    found = replace(prior, mean=point, covariance=0.5 * (covariance + covariance.T), prior=prior)
    return replace(found, sample=_resampled(found, rows, noise))


def _resampled(belief: Belief, rows: Rows, noise: Noise) -> np.ndarray:
    """A sample of the posterior, (points, coordinates), by importance resampling (Rubin 1988).

    The size of the noise is integrated out: as if known from `NOISE_ROWS` rows beside these.
    """
    prior, random = belief.prior, np.random.default_rng(len(rows))
    count, of_prior = len(belief.mean), int(_OF_PRIOR * _PROPOSED)
    normal = random.multivariate_normal(np.zeros(count), belief.covariance, _PROPOSED - of_prior)
    stretch = _WIDER / np.sqrt(random.chisquare(_TAILS, len(normal)) / _TAILS)
    points = np.concatenate([belief.mean + stretch[:, None] * normal, prior.draws(of_prior, 1)])
    errors = (prior.log_loss(points, rows.sizes) - np.log(rows.loss)) / noise.with_misfit(rows.sizes["d"])
    squared = np.sum(np.where(np.isfinite(errors), errors, 1e6) ** 2, axis=-1)
    likelihood = -0.5 * (NOISE_ROWS + len(rows)) * np.log1p(squared / NOISE_ROWS)
    of_mode = _log_density(points, belief.mean, belief.covariance * _WIDER**2, _TAILS)
    of_all = _log_density(points, prior.mean, prior.covariance, np.inf)
    proposal = np.logaddexp(np.log1p(-_OF_PRIOR) + of_mode, np.log(_OF_PRIOR) + of_all)
    weights = likelihood + of_all - proposal
    weights = np.exp(weights - weights.max())
    return points[random.choice(len(points), _SAMPLE, p=weights / weights.sum())]


def _log_density(points: np.ndarray, mean: np.ndarray, covariance: np.ndarray, tails: float) -> np.ndarray:
    """Logarithm of a normal density, or of Student's with such tails, (points,)."""
    from scipy.special import gammaln

    count = len(mean)
    gaps = np.linalg.solve(np.linalg.cholesky(covariance), (points - mean).T)
    squared = np.sum(gaps**2, axis=0)
    size = 0.5 * np.linalg.slogdet(covariance)[1]
    if np.isinf(tails):
        return -0.5 * squared - size - 0.5 * count * np.log(2 * np.pi)
    constant = gammaln(0.5 * (tails + count)) - gammaln(0.5 * tails) - 0.5 * count * np.log(tails * np.pi)
    return constant - size - 0.5 * (tails + count) * np.log1p(squared / tails)


def updated_all(priors: Mapping[str, Belief], rows: Mapping[str, Rows], noise: Noise):
    """(beliefs by method, noise): both from the runs of all methods, which share the size of the noise."""
    for _ in range(3):
        beliefs = {name: updated(prior, rows[name], noise) for name, prior in priors.items()}
        noise = _noise_of(beliefs, rows, noise)
    return beliefs, noise


def reach(
    belief: Belief, points: np.ndarray, at: Mapping[str, float], low: Mapping, high: Mapping
) -> np.ndarray:
    """The change of the log loss beyond the sizes that were run, times what makes it uncertain.

    As `forecast.Forecast` has it: sqrt(1 + away) of the change along each column, four times along others
    than `d`. `low` and `high` are role -> (cells,), between which runs lie; the result is (points, cells).
    """
    here = {role: np.clip(at[role], low[role], high[role]) for role in at}
    before, total = belief.log_loss(points, here), 0.0
    for role in sorted(at):
        here = {**here, role: np.full_like(here[role], at[role])}
        after = belief.log_loss(points, here)
        share = 1.0 if role == "d" else OTHER_COLUMNS
        total = total + (share * (after - before)) ** 2 * (1 + away(at[role], low[role], high[role]))
        before = after
    return np.sqrt(total)


def forecast(belief: Belief, rows: Rows, at: Mapping[str, float], count: int, seed) -> np.ndarray:
    """Draws of the log loss at one place, (count,), with a forecast's discrepancy once there are runs."""
    points = belief.draws(count, seed)
    logs = belief.log_loss(points, {role: np.array([value]) for role, value in at.items()})[:, 0]
    if not len(rows):
        return logs
    low = {role: np.array([values.min()]) for role, values in rows.sizes.items()}
    high = {role: np.array([values.max()]) for role, values in rows.sizes.items()}
    deviates = np.random.default_rng(seed).standard_t(TAILS, count)
    return logs + DISCREPANCY * deviates * reach(belief, points, at, low, high)[:, 0]


def chances(
    beliefs: Mapping[str, Belief], rows: Mapping[str, Rows], at: Mapping[str, float], seed: int = 0
) -> dict[str, float]:
    """By method the probability that its loss is the lowest at `at` (role -> size)."""
    logs = [forecast(own, rows[name], at, 8000, [seed, n]) for n, (name, own) in enumerate(beliefs.items())]
    best = np.argmin(np.stack(logs), axis=0)
    return {name: float(np.mean(best == number)) for number, name in enumerate(beliefs)}


def _mode(prior: Belief, rows: Rows, noise: Noise, point: np.ndarray) -> tuple[np.ndarray, float]:
    """Damped Gauss-Newton steps to the most probable point: (point, its objective)."""
    precision, measured = np.linalg.inv(prior.covariance), np.log(rows.loss)
    size = noise.with_misfit(rows.sizes["d"])

    def objective(at: np.ndarray) -> float:
        errors = (prior.log_loss(at, rows.sizes) - measured) / size
        gap = at - prior.mean
        return float(errors @ errors + gap @ precision @ gap)

    value, damping = objective(point), 1e-2
    for _ in range(_STEPS):
        slopes = prior.slopes(point, rows.sizes) / size[:, None]
        errors = (prior.log_loss(point, rows.sizes) - measured) / size
        pull = slopes.T @ errors + precision @ (point - prior.mean)
        curvature = slopes.T @ slopes + precision
        step = np.linalg.solve(curvature + damping * np.diag(np.diagonal(curvature)), -pull)
        new = objective(point + step)
        if new < value:
            gained, point, value, damping = value - new, point + step, new, max(damping / 4, 1e-9)
            if gained < 1e-8 * (1 + value):
                break
        else:
            damping *= 4
            if damping > 1e8:
                break
    return point, value


def _noise_of(beliefs: Mapping[str, Belief], rows: Mapping[str, Rows], noise: Noise) -> Noise:
    """The noise that residuals show, of all methods together, with the guess as if it were some rows."""
    total, count = NOISE_ROWS * NOISE**2, NOISE_ROWS
    for name, belief in beliefs.items():
        here = rows[name]
        if len(here) <= len(belief.mean):
            continue
        errors = belief.log_loss(belief.mean, here.sizes) - np.log(here.loss)
        total += float(np.sum((errors / noise.at(here.sizes["d"]) * noise.size) ** 2))
        count += len(here) - len(belief.mean)
    return replace(noise, size=float(np.sqrt(total / count)))
