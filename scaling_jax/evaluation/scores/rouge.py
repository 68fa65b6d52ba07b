"""ROUGE-1, ROUGE-2 and ROUGE-L by rouge-score (Lin 2004): mean F1, 0 to 100."""

import importlib.metadata
from collections.abc import Sequence
from pathlib import Path

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation.references import checked_references, reference_count
from scaling_jax.evaluation.score import Answer, ScoreResult, score
from scaling_jax.evaluation.scripts import share_beyond_ascii, words

_TYPES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
_TOKENIZERS = ("auto", "rouge_score", "unicode")
# Shares of letters that rouge-score's own tokenizer loses: one for a note, one for another tokenizer.
_WORTH_A_NOTE, _TOO_MANY = 0.01, 0.5


class UnicodeTokenizer:
    """Words of any script, in the form that rouge-score takes a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        """See `scripts.words`."""
        return words(text)


@score(
    "rouge",
    columns=tuple(_TYPES),
    summary="ROUGE-1, -2 and -L by rouge-score, mean F1, 0 to 100",
    package="rouge_score",
)
def rouge(
    answers: Sequence[Answer], folder: Path, tokenizer: str = "auto", stemmer: bool = False
) -> ScoreResult:
    """The mean over answers of F1; of several references the best F1 counts, for each of the three alone.

    An empty answer counts as 0.

    Args:
        answers: with one reference at least.
        folder: not used.
        tokenizer: "rouge_score" is the library's own: lower-case runs of a to z and digits, anything else
            ends a word. "unicode" is `scripts.words`: letters of every script, single characters where a
            script has no spaces. "auto" is "rouge_score", which published numbers were computed with,
            unless more than half of the references' letters are lost to it.
        stemmer: Porter's, of English words; with "rouge_score" alone.

    Raises:
        InputError: an answer without a reference, an unknown tokenizer, or a stemmer for other scripts.
    """
    from rouge_score.rouge_scorer import RougeScorer

    references = checked_references(answers, "rouge")
    if tokenizer not in _TOKENIZERS:
        raise InputError(f"rouge.tokenizer = {tokenizer!r}{did_you_mean(tokenizer, _TOKENIZERS)}")
    lost = share_beyond_ascii(text for own in references for text in own)
    if tokenizer == "auto":
        tokenizer = "unicode" if lost > _TOO_MANY else "rouge_score"
    if stemmer and tokenizer == "unicode":
        raise InputError("rouge.stemmer = True stems English words; with tokenizer 'unicode' leave it False")
    chosen = UnicodeTokenizer() if tokenizer == "unicode" else None
    scorer = RougeScorer(list(_TYPES.values()), use_stemmer=stemmer, tokenizer=chosen)
    found = [
        scorer.score_multi(own, answer.hypothesis) for own, answer in zip(references, answers, strict=True)
    ]
    values = {
        column: 100 * sum(one[kind].fmeasure for one in found) / len(found) for column, kind in _TYPES.items()
    }
    notes = []
    if tokenizer == "rouge_score" and lost > _WORTH_A_NOTE:
        notes.append(
            f"{lost:.1%} of the references' letters are not a to z: rouge-score's own tokenizer splits words "
            "there; rouge.tokenizer = 'unicode' does not"
        )
    version = importlib.metadata.version("rouge-score")
    signature = (
        f"nrefs:{reference_count(answers)}|multi:best|agg:mean F1|tok:{tokenizer}|"
        f"stem:{'porter' if stemmer else 'no'}|version:rouge-score {version}"
    )
    return ScoreResult(values, signature, tuple(notes))
