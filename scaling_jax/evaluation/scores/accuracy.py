"""Accuracy of label tasks: the share of right labels, 0 to 100; answers that are no label are counted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.evaluation.references import checked_references
from scaling_jax.evaluation.score import Answer, ScoreResult, score

# Answers that are no label and are quoted, at most.
_QUOTED = 3


@score("accuracy", columns=("accuracy",), summary="share of right labels, 0 to 100")
def accuracy(answers: Sequence[Answer], folder: Path, labels: str | Sequence[str] = ()) -> ScoreResult:
    """Compares without the white space around a label. An answer that is no label is wrong, and noted.

    Args:
        answers: with one reference, the label, or several that are right.
        folder: not used.
        labels: all that there are; empty takes those of the references.

    Raises:
        InputError: an answer without a reference, or labels that are no texts.
    """
    if isinstance(labels, str):
        labels = [labels]
    if not isinstance(labels, Sequence) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"accuracy.labels = {labels!r}: a list of texts such as ['World', 'Sports']")
    references = checked_references(answers, "accuracy")
    right = [{text.strip() for text in own} for own in references]
    known = {label.strip() for label in labels} or set().union(*right)
    given = [answer.hypothesis.strip() for answer in answers]
    correct = sum(label in own for label, own in zip(given, right, strict=True))
    others = Counter(label for label in given if label not in known)
    notes = []
    if others:
        examples = ", ".join(repr(label[:40]) for label, _ in others.most_common(_QUOTED))
        notes.append(
            f"{others.total():,} of {len(given):,} answers are none of the {len(known):,} labels and count "
            f"as wrong (most often {examples})"
        )
    signature = f"labels:{len(known)}|case:mixed|strip:yes"
    return ScoreResult({"accuracy": 100 * correct / len(given)}, signature, tuple(notes))
