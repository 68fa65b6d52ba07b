"""Scores of single answers to averages: by class, and over classes."""

import dataclasses
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What is known of one answer: its class, and its score or why there is none.

    `failed` says that the judge gave no answer, else a missing score is one that could not be read.
    """

    name: str
    score: float | None
    failed: bool = False


@dataclasses.dataclass(frozen=True)
class ClassAverage:
    """One class: the mean of the scores that there are, None where there are none."""

    name: str
    score: float | None
    examples: int
    judged: int
    unparsed: int
    failed: int


def class_averages(judgements: Sequence[Judgement]) -> list[ClassAverage]:
    """One entry per class, in order of first appearance."""
    classes: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        classes.setdefault(judgement.name, []).append(judgement)
    return [_average(name, own) for name, own in classes.items()]


def macro_average(averages: Sequence[ClassAverage]) -> float | None:
    """The mean over classes, each with the same weight (Sun et al. 2023, Table 4).

    None where a class has no score: the mean over the others would be that of another set of classes.
    """
    if not averages or any(average.score is None for average in averages):
        return None
    return sum(average.score for average in averages) / len(averages)


def _average(name: str, judgements: Sequence[Judgement]) -> ClassAverage:
    scores = [judgement.score for judgement in judgements if judgement.score is not None]
    failed = sum(judgement.failed for judgement in judgements)
    return ClassAverage(
        name=name,
        score=sum(scores) / len(scores) if scores else None,
        examples=len(judgements),
        judged=len(scores),
        unparsed=len(judgements) - len(scores) - failed,
        failed=failed,
    )
