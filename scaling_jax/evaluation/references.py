"""References of answers in the shapes that scores take."""

from collections.abc import Sequence

from scaling_jax.errors import InputError
from scaling_jax.evaluation.score import Answer


def checked_references(answers: Sequence[Answer], name: str) -> list[tuple[str, ...]]:
    """The references of every answer, for the score `name`.

    Raises:
        InputError: an answer that has none.
    """
    for number, answer in enumerate(answers, 1):
        if not answer.references:
            raise InputError(f"score {name!r}: answer {number} has no reference")
    return [answer.references for answer in answers]


def reference_streams(answers: Sequence[Answer], name: str) -> list[list[str | None]]:
    """[references][answers] as sacrebleu takes them; None where an answer has fewer than others.

    Raises:
        InputError: an answer that has none.
    """
    references = checked_references(answers, name)
    most = max(map(len, references))
    return [[own[place] if place < len(own) else None for own in references] for place in range(most)]


def reference_count(answers: Sequence[Answer]) -> str:
    """How many references answers have, for a signature: a number, or "var" as sacrebleu says it."""
    counts = {len(answer.references) for answer in answers}
    return str(counts.pop()) if len(counts) == 1 else "var"
