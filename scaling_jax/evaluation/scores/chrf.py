"""chrF of a corpus by sacrebleu (Popovic 2015, 2017), 0 to 100."""

from collections.abc import Sequence
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.evaluation.references import reference_streams
from scaling_jax.evaluation.score import Answer, ScoreResult, score


@score("chrf", columns=("chrf",), summary="corpus chrF2 by sacrebleu, 0 to 100", package="sacrebleu")
def chrf(
    answers: Sequence[Answer],
    folder: Path,
    char_order: int = 6,
    word_order: int = 0,
    beta: int = 2,
    lowercase: bool = False,
    whitespace: bool = False,
    eps_smoothing: bool = False,
) -> ScoreResult:
    """F-score of character n-grams over the whole corpus; it needs no tokenizer.

    Of several references the one with the best score counts. An empty answer counts with no n-grams.

    Args:
        answers: with one reference at least.
        folder: not used.
        char_order: longest character n-gram.
        word_order: longest word n-gram; 2 is chrF++.
        beta: weight of recall over precision.
        lowercase: whether case is left out.
        whitespace: whether spaces are characters.
        eps_smoothing: sacrebleu's, as in chrF++.py, NLTK and Moses.

    Raises:
        InputError: an answer without a reference, or an order or a weight that is out of range.
    """
    from sacrebleu.metrics import CHRF

    least = {"char_order": (char_order, 1), "word_order": (word_order, 0), "beta": (beta, 1)}
    for name, (value, low) in least.items():
        if value < low:
            raise InputError(f"chrf.{name} = {value!r}: {low} or more")
    streams = reference_streams(answers, "chrf")
    metric = CHRF(char_order, word_order, beta, lowercase, whitespace, eps_smoothing)
    value = metric.corpus_score([answer.hypothesis for answer in answers], streams).score
    return ScoreResult({"chrf": value}, str(metric.get_signature()))
