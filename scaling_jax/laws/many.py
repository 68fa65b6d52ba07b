"""Many curves fitted at once: one law, the same sizes, one lane of one compiled program for each curve.

For replaying pilots and for rolling origins, where hundreds of small fits share their sizes. The starts of
each lane come from a thinned grid of a single fit's, the damped least squares is that of `search`, the draws
are the simulated ones of `uncertainty`. There is no polish: the tests hold the losses predicted to those of
single fits.
"""

from collections.abc import Mapping

import numpy as np

from scaling_jax.laws.law import Law
from scaling_jax.laws.problem import Objective, make_problem, parameters_of, predicted
from scaling_jax.laws.search import descend_all, grid_starts
from scaling_jax.laws.uncertainty import student_factor

_STARTS, _THIN = 6, 3
_ITERATIONS, _DRAW_ITERATIONS = 80, 40


class Lanes:
    """Curves over common sizes, to be fitted by one law.

    Args:
        law: the law.
        columns: role -> (rows,), above zero, the same for all lanes.
        losses: (lanes, rows), above zero; what has no weight may be anything, NaN too.
        weights: (lanes, rows), 0 where a lane has no such row.
        loss: "huber", "squared" or "absolute", of the residuals of the logarithms.
        delta: of the Huber loss.

    Attributes:
        points: (lanes, coordinates), the fits.
    """

    def __init__(
        self,
        law: Law,
        columns: Mapping[str, np.ndarray],
        losses: np.ndarray,
        weights: np.ndarray,
        loss: str = "squared",
        delta: float = 1e-3,
    ):
        self.law = law
        self._objective = Objective(law, "log", loss)
        weights = np.asarray(weights, np.float64)
        fill = float(np.median(losses[weights > 0]))
        self._problem = make_problem(self._objective, columns, np.full(losses.shape[1], fill), delta)
        pad = ((0, 0), (0, len(self._problem.loss) - losses.shape[1]))
        self._losses = np.pad(np.where(weights > 0, losses, fill), pad, constant_values=fill)
        self._weights = np.pad(weights, pad)
        self.points = self._fitted()

    def parameters(self, points: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Name -> (lanes,) of the fits, or (...) of other points (..., coordinates)."""
        points = self.points if points is None else points
        found = parameters_of(self._objective, self._problem, points, np)
        return {name: values[..., 0] for name, values in found.items()}

    def predict(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The fitted losses at further sizes, role -> (sizes,): (lanes, sizes)."""
        own = {name: values[:, None] for name, values in self.parameters().items()}
        shape = (len(self.points), len(next(iter(columns.values()))))
        return np.broadcast_to(self.law.predict(own, columns), shape)

    def draws(self, count: int, level: float = 0.9, seed: int = 0) -> dict[str, np.ndarray]:
        """Parameters refitted to losses simulated with the noise of each lane, name -> (lanes, count).

        The noise is normal, its variance falls with the weight as in `noise.py` (which also knows tails), and
        it is enlarged by Student's factor for `level`, as its size is estimated from few rows.
        """
        random = np.random.default_rng(seed)
        coordinates = self.points.shape[1]
        used = self._weights > 0
        rows = used.sum(axis=1)
        values = predicted(self._objective, self._problem, self.points, np)
        relative = self._weights / (self._weights.sum(axis=1) / rows)[:, None]
        errors = np.where(used, np.log(values) - np.log(self._losses), 0.0)
        size = np.sqrt((relative * errors**2).sum(axis=1) / np.maximum(1, rows - coordinates))
        size *= np.array([student_factor(spare, level) for spare in rows - coordinates])
        each = size[:, None] / np.sqrt(np.where(used, relative, np.inf))
        scatter = each[:, None] * random.standard_normal((len(rows), count, each.shape[1]))
        losses = values[:, None] * np.exp(scatter)
        shape = (len(self.points) * count, -1)
        starts = np.repeat(self.points, count, axis=0)
        weights = np.repeat(self._weights, count, axis=0)
        points, _ = descend_all(
            self._objective, self._problem, starts, weights, losses.reshape(shape), _DRAW_ITERATIONS
        )
        return self.parameters(points.reshape(len(self.points), count, -1))

    def _fitted(self) -> np.ndarray:
        objective, problem = self._objective, self._problem
        starts = [
            grid_starts(objective, problem._replace(loss=losses, weights=weights), _THIN)[:_STARTS]
            for losses, weights in zip(self._losses, self._weights, strict=True)
        ]
        lanes = np.repeat(np.arange(len(starts)), [len(found) for found in starts])
        points, values = descend_all(
            objective, problem, np.concatenate(starts), self._weights[lanes], self._losses[lanes], _ITERATIONS
        )
        values = np.where(np.isfinite(values), values, np.inf)
        order = np.lexsort((values, lanes))
        best = order[np.searchsorted(lanes[order], np.arange(len(starts)))]
        return points[best]
