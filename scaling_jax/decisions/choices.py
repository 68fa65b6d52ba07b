"""What choosing by predictions would have given: correlation, accuracy, regret, and how sure one could be."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from scaling_jax.decisions.forecast import TAILS

# Ends of the ranges of stated probability that a pair of curves is sorted into.
_RANGES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)


@dataclass(frozen=True)
class Choices:
    """Choosing the lowest prediction, in every selection.

    Attributes:
        pearson: of predicted and measured losses, mean over selections; None for fewer than three curves.
        relative_accuracy: (worst - chosen) / (worst - best), mean over selections.
        regret: measured loss of the chosen above the best, mean over selections.
        pairs: of two curves that compete, by the stated probability of the likelier one: (low, high, pairs,
            how often it was the better one); empty for a rule without draws.
    """

    pearson: float | None
    relative_accuracy: float | None
    regret: float | None
    pairs: tuple[tuple[float, float, int, int], ...]


def choices(
    members: np.ndarray,
    predicted: np.ndarray,
    measured: np.ndarray,
    groups: Sequence[Sequence[int]],
    draws: np.ndarray | None = None,
    moves: np.ndarray | None = None,
    seed: int = 0,
) -> Choices:
    """Compares predictions with what was measured.

    Args:
        members: (n,), which curves were predicted.
        predicted: (n,), their predicted losses.
        measured: (curves,), of all curves.
        groups: curves that compete with each other.
        draws: (n, draws), logarithms of the loss by the laws; None for a rule without.
        moves: (n,), by how much the discrepancy moves a draw per unit of its deviate.
        seed: of the deviates, which are each curve's own as in `recommend`.
    """
    place = {curve: i for i, curve in enumerate(members.tolist())}
    pearson, accuracy, regret = [], [], []
    stated, right = [], []
    if draws is not None:
        deviates = np.random.default_rng([seed, 2]).standard_t(TAILS, draws.shape)
        draws = draws + moves[:, None] * deviates
    for group in groups:
        inside = [curve for curve in group if curve in place]
        if len(inside) < 2:
            continue
        rows = [place[curve] for curve in inside]
        guess, truth = predicted[rows], measured[inside]
        chosen, best, worst = truth[np.argmin(guess)], truth.min(), truth.max()
        regret.append(chosen - best)
        if worst > best:
            accuracy.append((worst - chosen) / (worst - best))
        if len(inside) > 2 and np.ptp(guess) > 0 and worst > best:
            pearson.append(np.corrcoef(guess, truth)[0, 1])
        if draws is not None:
            _pair(draws[rows], truth, stated, right)
    return Choices(_mean(pearson), _mean(accuracy), _mean(regret), _binned(np.array(stated), np.array(right)))


def pairs_text(pairs: Sequence[Sequence[float]]) -> str:
    """For example "50-60%: 55 of 100; ..."; empty where there are none."""
    return "; ".join(
        f"{100 * low:.0f}-{100 * high:.0f}%: {right:.0f} of {count:.0f}"
        for low, high, count, right in pairs
        if count
    )


def total(pairs: Sequence[Sequence[Sequence[float]]]) -> list[tuple[float, float, int, int]]:
    """Several replays' pairs together."""
    found: Mapping[tuple, list[int]] = {}
    for one in pairs:
        for low, high, count, right in one:
            own = found.setdefault((low, high), [0, 0])
            own[0], own[1] = own[0] + int(count), own[1] + int(right)
    return [(*key, *counts) for key, counts in sorted(found.items())]


def _pair(draws: np.ndarray, truth: np.ndarray, stated: list, right: list) -> None:
    """Adds every pair: the probability of the likelier one, and whether it was the better one."""
    for first in range(len(draws)):
        for second in range(first):
            share = float(np.mean(draws[first] < draws[second]))
            better = truth[first] < truth[second]
            stated.append(max(share, 1 - share))
            right.append(better if share >= 0.5 else not better)


def _binned(stated: np.ndarray, right: np.ndarray) -> tuple[tuple[float, float, int, int], ...]:
    if not len(stated):
        return ()
    place = np.clip(np.searchsorted(_RANGES, stated, side="right") - 1, 0, len(_RANGES) - 2)
    return tuple(
        (_RANGES[i], _RANGES[i + 1], int(np.sum(place == i)), int(np.sum(right[place == i])))
        for i in range(len(_RANGES) - 1)
    )


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
