"""BLEU of a corpus by sacrebleu (Papineni et al. 2002; Post 2018), 0 to 100."""

from collections.abc import Sequence
from pathlib import Path

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation.references import reference_streams
from scaling_jax.evaluation.score import Answer, ScoreResult, score
from scaling_jax.evaluation.scripts import unspaced_language

_TOKENIZERS = {"zh": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}


@score("bleu", columns=("bleu",), summary="corpus BLEU by sacrebleu, 0 to 100", package="sacrebleu")
def bleu(
    answers: Sequence[Answer],
    folder: Path,
    language: str = "",
    tokenize: str = "",
    lowercase: bool = False,
    smooth_method: str = "exp",
    smooth_value: float | None = None,
) -> ScoreResult:
    """Sums of n-gram matches over all answers, not a mean of sentences.

    Of several references every n-gram may match any, and the one of the nearest length counts for the
    brevity penalty. An empty answer counts with its length of 0.

    Args:
        answers: with one reference at least.
        folder: not used.
        language: of the answers, such as "zh"; empty takes what the task says, or else what the script of
            the references says.
        tokenize: name of one of sacrebleu's tokenizers; empty takes `zh`, `ja-mecab`, `ko-mecab` for those
            languages and `13a` for all others, as sacrebleu does.
        lowercase: whether case is left out.
        smooth_method, smooth_value: sacrebleu's, for n-gram orders without a match.

    Raises:
        InputError: an answer without a reference, or a tokenizer that sacrebleu does not have or whose own
            package is missing.
    """
    from sacrebleu.metrics import BLEU

    streams = reference_streams(answers, "bleu")
    tokenize = tokenize or _TOKENIZERS.get(language or _language(answers), "13a")
    if tokenize not in BLEU.TOKENIZERS:
        raise InputError(f"bleu.tokenize = {tokenize!r}{did_you_mean(tokenize, BLEU.TOKENIZERS)}")
    if smooth_method not in BLEU.SMOOTH_DEFAULTS:
        known = sorted(BLEU.SMOOTH_DEFAULTS)
        raise InputError(f"bleu.smooth_method = {smooth_method!r}{did_you_mean(smooth_method, known)}")
    try:
        metric = BLEU(lowercase, False, tokenize, smooth_method, smooth_value)
    except (ImportError, RuntimeError) as error:  # what the tokenizers of Japanese and Korean raise
        what = " ".join(str(error).split())
        raise InputError(f"bleu.tokenize = {tokenize!r}: {what}; or bind bleu.tokenize = 'char'") from error
    value = metric.corpus_score([answer.hypothesis for answer in answers], streams).score
    return ScoreResult({"bleu": value}, str(metric.get_signature()))


def _language(answers: Sequence[Answer]) -> str:
    """What the task says where it says one language for all, else what the script says."""
    said = {answer.language for answer in answers}
    if len(said) == 1 and "" not in said:
        return said.pop()
    return unspaced_language(text for answer in answers for text in answer.references)
