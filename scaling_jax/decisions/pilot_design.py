"""Which runs of a pilot tell most, for a budget, of the loss at a target: an optimal design.

Every run of a method adds the outer product of its slope (of the log loss by the law's coordinates, over
the run's noise) to the information of that method's law. The variance of the loss at the target follows
from it, and what a reader will see of it is an interval: wider by Student's quantile, as the noise is
estimated from the rows to spare. Runs are taken to be as noisy as the pilot's fits weigh them, the more the
fewer their examples. No law is exact, and seeds do not average away how far it is off at one size: runs of
one cell share an error of `MISFIT`; and beyond the largest size the forecast has a discrepancy, which only
larger runs reduce (`forecast.py`). The criterion is the mean, over draws of what is believed of the laws (a
Bayesian design, Chaloner and Verdinelli 1995), of the widths at the target of every method that may be the
best, and of the differences of every two.

The search starts from the best evenly spaced ladders that the budget pays for, so that it is never worse
than those by its own criterion, adds greedily by gain per second and exchanges single runs.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.beliefs import MISFIT, Belief, Noise, reach
from scaling_jax.decisions.forecast import DISCREPANCY, TAILS
from scaling_jax.errors import InputError
from scaling_jax.laws.law import Law
from scaling_jax.laws.uncertainty import student_factor

LEVEL = 0.9
# Standard deviations between the ends of an interval of that level.
_WIDTH = 2 * 1.6448536269514722
# Of the discrepancy's Student's t, the quantile that makes the interval, over the normal one.
_TAILED = student_factor(int(TAILS), LEVEL)
_DRAWS = 32
# Sizes of the least pilot: as many as the law has parameters and one, over at least this range.
_LEAST_RANGE = 8.0
_PASSES = 6
# Of the starts with one large run, those that are improved.
_REACHING = 3


@dataclass(frozen=True)
class Candidates:
    """Runs that a pilot of one method may make.

    Attributes:
        sizes: role -> (cells,), what a run's law is of; role `d` is the number of examples.
        seconds: (cells,), of one run.
        seeds: how often a cell may be run at most.
    """

    sizes: Mapping[str, np.ndarray]
    seconds: np.ndarray
    seeds: int = 5

    def __len__(self) -> int:
        return len(self.seconds)


@dataclass(frozen=True)
class Problem:
    """What is designed for.

    Attributes:
        candidates: method -> the runs it may make.
        beliefs: method -> what is believed of its law.
        target: role -> size at which losses are wanted.
        noise: of a run.
        weights: method -> how much it matters, such as its chance to be the best.
        made: method -> (cells,), how often each cell has been run already.
        fixed_seconds: method -> what its first run costs in addition (compilation, learning rates).
        seed: of the draws.
    """

    candidates: Mapping[str, Candidates]
    beliefs: Mapping[str, Belief]
    target: Mapping[str, float]
    noise: Noise
    weights: Mapping[str, float]
    made: Mapping[str, np.ndarray]
    fixed_seconds: Mapping[str, float]
    seed: int = 0

    @property
    def methods(self) -> tuple[str, ...]:
        """In order."""
        return tuple(self.candidates)


@dataclass(frozen=True)
class Design:
    """How often each cell is run, in all.

    Attributes:
        counts: method -> (cells,).
        seconds: of what is not made yet.
        widths: method -> expected width of the 90% interval of its loss at the target, in nats.
        differences: (method, method) -> the same of their difference.
        criterion: what was minimised, in nats.
    """

    counts: Mapping[str, np.ndarray]
    seconds: float
    widths: Mapping[str, float]
    differences: Mapping[tuple[str, str], float]
    criterion: float

    @property
    def runs(self) -> int:
        """All runs, made ones among them."""
        return int(sum(counts.sum() for counts in self.counts.values()))


class BudgetTooSmall(InputError):
    """Not even the least pilot can be paid for; `least` are its seconds, `each` those of each method."""

    def __init__(self, least: float, each: Mapping[str, float]):
        super().__init__(f"the least pilot takes {least:.3g} s")
        self.least, self.each = least, dict(each)


def ladder(largest: int, smallest: int, step: float = 2.0**0.5) -> np.ndarray:
    """Candidate data sizes, ascending: `largest`, and downwards by a factor of `step` to `smallest`."""
    count = (
        int(math.log(max(largest, 1) / smallest) / math.log(step) + 1e-9) + 1 if largest >= smallest else 0
    )
    return np.unique(np.rint(largest / step ** np.arange(count)).astype(int))


def design(problem: Problem, budget: float) -> Design:
    """The runs that tell most for a budget in seconds; what was made already is kept.

    Raises:
        BudgetTooSmall: it does not pay for the least that a law can be fitted to.
    """
    search = _Search(problem)
    least = {method: search.least(method) for method in problem.methods}
    each = {method: search.seconds({method: counts}) for method, counts in least.items()}
    if sum(each.values()) > budget * (1 + 1e-9):
        raise BudgetTooSmall(sum(each.values()), each)
    starts = [least, *(counts for counts, _ in search.even(budget)[:3]), *search.reaching(least, budget)]
    found = [search.improved(counts, budget) for counts in starts]
    return search.described(min(found, key=search.criterion))


def even_ladders(problem: Problem, budget: float) -> list[Design]:
    """Every evenly spaced ladder that the budget pays for, the best by the criterion first.

    The same sizes for every method (and model), each as often, spaced evenly in the logarithm, as many
    sizes as a law has parameters or more; those that another one contains for the same money are left out.
    """
    search = _Search(problem)
    return [search.described(counts) for counts, _ in search.even(budget)]


def described(problem: Problem, counts: Mapping[str, np.ndarray]) -> Design:
    """Widths and seconds of given runs."""
    return _Search(problem).described(counts)


def seconds_of(problem: Problem, counts: Mapping[str, np.ndarray]) -> float:
    """Of what is not made yet."""
    found = 0.0
    for method, own in counts.items():
        made = problem.made[method]
        found += float((own - made) @ problem.candidates[method].seconds)
        if own.sum() and not made.sum():
            found += problem.fixed_seconds[method]
    return found


def is_enough(law: Law, sizes: Mapping[str, np.ndarray]) -> bool:
    """Whether a law can be fitted to these cells, with one to spare, and every role varies."""
    cells = np.stack([np.asarray(values, np.float64) for values in sizes.values()], axis=-1)
    distinct = {role: len(np.unique(values)) for role, values in sizes.items()}
    several = all(count >= (3 if role == "d" else 2) for role, count in distinct.items())
    return several and len(np.unique(cells, axis=0)) > len(law.parameters)


class _Search:
    """A problem with its slopes; counts are method -> (cells,) throughout."""

    def __init__(self, problem: Problem):
        self.problem = problem
        self.points, self.slopes, self.variance = {}, {}, {}
        # What was computed is kept: the search comes back to the same counts of a method many times.
        self._spreads, self._further, self._reaches = {}, {}, {}
        self.target, self.loss, self.prior = {}, {}, {}
        place = {role: np.array([value]) for role, value in problem.target.items()}
        for number, (method, belief) in enumerate(problem.beliefs.items()):
            points = self.points[method] = belief.draws(_DRAWS, [problem.seed, number])
            own = problem.candidates[method]
            self.variance[method] = problem.noise.at(own.sizes["d"]) ** 2
            self.slopes[method] = belief.slopes(points, own.sizes)
            self.target[method] = belief.slopes(points, place)[:, 0]
            self.loss[method] = np.exp(belief.log_loss(points, place)[:, 0])
            self.prior[method] = belief.precision
        total = sum(problem.weights[method] for method in problem.methods)
        self.weights = {method: problem.weights[method] / total for method in problem.methods}
        pairs = list(itertools.combinations(problem.methods, 2))
        both = {pair: self.weights[pair[0]] * self.weights[pair[1]] for pair in pairs}
        self.pairs = {pair: weight / sum(both.values()) for pair, weight in both.items()}

    # What a design costs and gives.

    def seconds(self, counts: Mapping[str, np.ndarray]) -> float:
        """Of what is not made yet."""
        return seconds_of(self.problem, counts)

    def spreads(self, method: str, counts: np.ndarray) -> np.ndarray:
        """Half of an interval's width at the target over its normal quantile, by draw, (draws,)."""
        key = (method, counts.tobytes())
        if key not in self._spreads:
            at, student = self.target[method], self._student(method, int(counts.sum()))
            variance = np.einsum("kp,kpq,kq->k", at, self._covariance(method, counts), at) * student**2
            low, high = (
                {role: np.array([v]) for role, v in end.items()} for end in self._ends(method, counts)
            )
            beyond = self._beyond(method, low, high)[:, 0]
            self._spreads[key] = self.loss[method] * np.sqrt(variance + beyond**2)
        return self._spreads[key]

    def criterion(self, counts: Mapping[str, np.ndarray]) -> float:
        """What is minimised, in nats."""
        return self._combined({method: self.spreads(method, counts[method]) for method in counts})

    def described(self, counts: Mapping[str, np.ndarray]) -> Design:
        """A design with its widths."""
        spreads = {method: self.spreads(method, own) for method, own in counts.items()}
        return Design(
            counts=dict(counts),
            seconds=self.seconds(counts),
            widths={method: _WIDTH * float(np.median(spread)) for method, spread in spreads.items()},
            differences={
                pair: _WIDTH * float(np.median(np.hypot(spreads[pair[0]], spreads[pair[1]])))
                for pair in self.pairs
            },
            criterion=self._combined(spreads),
        )

    def _covariance(self, method: str, counts: np.ndarray) -> np.ndarray:
        slopes, weights = self.slopes[method], self._weights(method, counts)
        information = np.einsum("kip,kiq,i->kpq", slopes, slopes, weights, optimize=True)
        return np.linalg.inv(information + self.prior[method])

    def _weights(self, method: str, counts: np.ndarray) -> np.ndarray:
        """What so many runs of each cell weigh, (cells,): one over the variance of their mean."""
        return counts / (self.variance[method] + counts * MISFIT**2)

    def _ends(self, method: str, counts: np.ndarray) -> tuple[dict[str, float], dict[str, float]]:
        """Role -> the smallest and the largest size that is run; the smallest candidate where nothing is."""
        sizes = self.problem.candidates[method].sizes
        run = {role: values[counts > 0] if counts.any() else values[:1] for role, values in sizes.items()}
        return {role: own.min() for role, own in run.items()}, {role: own.max() for role, own in run.items()}

    def _beyond(self, method: str, low: Mapping, high: Mapping) -> np.ndarray:
        """Discrepancy at the target, of the log loss, (draws, cells); see `beliefs.reach`."""
        belief, target, known = self.problem.beliefs[method], self.problem.target, self._reaches
        roles, found = tuple(low), []
        for ends in zip(*low.values(), *high.values(), strict=True):
            if (method, ends) not in known:
                halves = ends[: len(roles)], ends[len(roles) :]
                arrays = [
                    {role: np.array([v]) for role, v in zip(roles, half, strict=True)} for half in halves
                ]
                known[method, ends] = reach(belief, self.points[method], target, *arrays)[:, 0]
            found.append(known[method, ends])
        return _TAILED * DISCREPANCY * np.stack(found, axis=-1)

    def _student(self, method: str, rows: int) -> float:
        spare = rows - len(self.problem.beliefs[method].mean)
        # Without a row to spare there is no interval at all: worse than any, the more are missing.
        return student_factor(max(1, spare), LEVEL) * 2.0 ** max(0, 1 - spare)

    def _combined(self, spreads: Mapping[str, np.ndarray]) -> float:
        total = sum(self.weights[method] * spread for method, spread in spreads.items())
        for (first, second), weight in self.pairs.items():
            total = total + weight * np.hypot(spreads[first], spreads[second])
        return float(np.mean(total))

    # The search.

    def least(self, method: str) -> np.ndarray:
        """The cheapest cells that a law can be fitted to, over some range of data; what is made is kept."""
        own, made = self.problem.candidates[method], self.problem.made[method]
        law = self.problem.beliefs[method].law
        if is_enough(law, {role: values[made > 0] for role, values in own.sizes.items()}):
            return made.copy()
        needed = len(law.parameters) + 1
        others = [role for role in own.sizes if role != "d"]
        d = own.sizes["d"]
        smallest = d.min()
        wanted = smallest * np.geomspace(
            1.0, max(_LEAST_RANGE, 2.0 ** (needed - 1) / len(others or [1])), needed
        )
        counts, chosen = made.copy(), []
        groups = sorted(set(zip(*(own.sizes[role] for role in others), strict=True))) if others else [()]
        for number, size in enumerate(wanted):
            # Models in turn, so that each has some sizes.
            group = groups[number % len(groups)]
            here = np.ones(len(own), bool)
            for role, value in zip(others, group, strict=True):
                here &= own.sizes[role] == value
            free = [cell for cell in np.flatnonzero(here) if cell not in chosen]
            if free:
                chosen.append(free[int(np.argmin(np.abs(np.log(d[free] / size))))])
        counts[chosen] = np.maximum(counts[chosen], 1)
        return counts

    def even(self, budget: float) -> list[tuple[dict[str, np.ndarray], float]]:
        """(counts, criterion) of even ladders within the budget, the best first."""
        first = self.problem.candidates[self.problem.methods[0]]
        sizes = np.unique(first.sizes["d"])
        law = self.problem.beliefs[self.problem.methods[0]].law
        found = []
        for top in range(len(sizes)):
            for bottom in range(top):
                for count in range(3, top - bottom + 2):
                    chosen = np.unique(np.rint(np.linspace(bottom, top, count)).astype(int))
                    if len(chosen) < count or (top - bottom) % (count - 1):
                        continue
                    for seeds in range(1, first.seeds + 1):
                        counts = self._ladder(sizes[chosen], seeds)
                        if self.seconds(counts) > budget:
                            break
                        own = {r: v[counts[self.problem.methods[0]] > 0] for r, v in first.sizes.items()}
                        if is_enough(law, own):
                            found.append((counts, self.seconds(counts)))
        # One that costs much less than another of its kind says nothing of what the budget can give.
        most = max((seconds for _, seconds in found), default=0.0)
        found = [counts for counts, seconds in found if seconds > 0.5 * most]
        return sorted(((counts, self.criterion(counts)) for counts in found), key=lambda one: one[1])

    def _ladder(self, chosen: np.ndarray, seeds: int) -> dict[str, np.ndarray]:
        return {
            method: np.maximum(self.problem.made[method], np.isin(own.sizes["d"], chosen) * seeds)
            for method, own in self.problem.candidates.items()
        }

    def reaching(self, counts: Mapping[str, np.ndarray], budget: float) -> list[dict[str, np.ndarray]]:
        """The same with one large run more, which no exchange of single small runs finds: the best few.

        Of every method one run of each size beyond those it has, where the budget pays for it.
        """
        left, found = budget - self.seconds(counts), []
        for method, own in self.problem.candidates.items():
            run = own.sizes["d"][counts[method] > 0]
            beyond = own.sizes["d"] > (run.max() if len(run) else 0.0)
            for cell in np.flatnonzero(beyond & (own.seconds <= left)):
                further = {**counts, method: counts[method].copy()}
                further[method][cell] += 1
                found.append(self._filled(further, budget))
        return sorted(found, key=self.criterion)[:_REACHING]

    def improved(self, counts: Mapping[str, np.ndarray], budget: float) -> dict[str, np.ndarray]:
        """Adds greedily, then takes one run away and adds again, while that helps."""
        counts = self._filled(counts, budget)
        value = self.criterion(counts)
        for _ in range(_PASSES):
            before = value
            for method, cell in [(m, c) for m in counts for c in np.flatnonzero(counts[m])]:
                if counts[method][cell] <= self.problem.made[method][cell]:
                    continue
                fewer = {**counts, method: counts[method].copy()}
                fewer[method][cell] -= 1
                if not self._fits(method, fewer[method]):
                    continue
                other = self._filled(fewer, budget)
                found = self.criterion(other)
                if found < value * (1 - 1e-6):
                    counts, value = other, found
            if value > before * (1 - 1e-3):
                break
        return counts

    def _fits(self, method: str, counts: np.ndarray) -> bool:
        own = self.problem.candidates[method]
        here = {role: values[counts > 0] for role, values in own.sizes.items()}
        return is_enough(self.problem.beliefs[method].law, here)

    def _filled(self, counts: Mapping[str, np.ndarray], budget: float) -> dict[str, np.ndarray]:
        """Adds the run with the greatest gain per second while the budget allows one."""
        counts = {method: own.copy() for method, own in counts.items()}
        left = budget - self.seconds(counts)
        while True:
            spreads, best = {method: self.spreads(method, own) for method, own in counts.items()}, None
            now = self._combined(spreads)
            for method, own in self.problem.candidates.items():
                allowed = np.flatnonzero((own.seconds <= left) & (counts[method] < own.seeds))
                if not len(allowed):
                    continue
                after = self._with_one_more(method, counts[method])[:, allowed]
                total = self.weights[method] * after
                for other in counts:
                    if other != method:
                        total = total + self.weights[other] * spreads[other][:, None]
                for (first, second), weight in self.pairs.items():
                    one = after if first == method else spreads[first][:, None]
                    two = after if second == method else spreads[second][:, None]
                    total = total + weight * np.hypot(one, two)
                gains = (now - np.broadcast_to(total, after.shape).mean(axis=0)) / own.seconds[allowed]
                place = int(np.argmax(gains))
                if gains[place] > 0 and (best is None or gains[place] > best[0]):
                    best = (gains[place], method, int(allowed[place]))
            if best is None:
                return counts
            _, method, cell = best
            counts[method][cell] += 1
            left -= self.problem.candidates[method].seconds[cell]

    def _with_one_more(self, method: str, counts: np.ndarray) -> np.ndarray:
        """Spread at the target with one more run at each cell, (draws, cells)."""
        key = (method, counts.tobytes())
        if key not in self._further:
            slopes, at, covariance = (
                self.slopes[method],
                self.target[method],
                self._covariance(method, counts),
            )
            weights = self._weights(method, counts + 1) - self._weights(method, counts)
            moved = np.einsum("kpq,kiq->kip", covariance, slopes)
            towards = np.einsum("kp,kip->ki", at, moved)
            own = np.einsum("kip,kip->ki", slopes, moved)
            variance = np.einsum("kp,kpq,kq->k", at, covariance, at)[:, None]
            variance = variance - weights * towards**2 / (1 + weights * own)
            variance = np.maximum(variance, 0.0) * self._student(method, int(counts.sum()) + 1) ** 2
            (low, high), sizes = self._ends(method, counts), self.problem.candidates[method].sizes
            low = {role: np.minimum(low[role], values) for role, values in sizes.items()}
            high = {role: np.maximum(high[role], values) for role, values in sizes.items()}
            beyond = self._beyond(method, low, high)
            self._further[key] = self.loss[method][:, None] * np.sqrt(variance + beyond**2)
        return self._further[key]
