"""Exact match: the share of answers that are one of their references, 0 to 100."""

from collections.abc import Sequence
from pathlib import Path

from scaling_jax.evaluation.references import checked_references, reference_count
from scaling_jax.evaluation.score import Answer, ScoreResult, score


@score("exact_match", columns=("exact_match",), summary="share of answers equal to a reference, 0 to 100")
def exact_match(answers: Sequence[Answer], folder: Path, lowercase: bool = False) -> ScoreResult:
    """Compares without the white space around a text; all else counts, case too.

    An empty answer is right only where a reference is empty.

    Args:
        answers: with one reference at least.
        folder: not used.
        lowercase: whether case is left out.

    Raises:
        InputError: an answer without a reference.
    """

    def plain(text: str) -> str:
        return text.strip().casefold() if lowercase else text.strip()

    references = checked_references(answers, "exact_match")
    right = sum(
        plain(answer.hypothesis) in map(plain, own) for own, answer in zip(references, answers, strict=True)
    )
    case = "lc" if lowercase else "mixed"
    signature = f"nrefs:{reference_count(answers)}|case:{case}|strip:yes"
    return ScoreResult({"exact_match": 100 * right / len(answers)}, signature)
