"""BLEU of a corpus by sacrebleu (Papineni et al. 2002; Post 2018), 0 to 100."""

import math
from collections.abc import Sequence
from pathlib import Path

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation.references import reference_streams
from scaling_jax.evaluation.score import Answer, ScoreResult, score
from scaling_jax.evaluation.scripts import unspaced_language
from scaling_jax.tasks import languages

_TOKENIZERS = {"zh": "zh", "yue": "zh", "ja": "ja-mecab", "ko": "ko-mecab"}


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
        language: of the answers, such as "zh", "zh-CN", "zho" or "Chinese"; empty takes what the task says,
            or else what the script of the references says.
        tokenize: name of one of sacrebleu's tokenizers; empty takes `zh`, `ja-mecab`, `ko-mecab` for those
            languages and `13a` for all others, as sacrebleu does.
        lowercase: whether case is left out.
        smooth_method, smooth_value: sacrebleu's, for n-gram orders without a match.

    Raises:
        InputError: an answer without a reference, a language that is not known where it has to choose the
            tokenizer, a tokenizer that sacrebleu does not have or whose own package is missing, or a
            smoothing that it does not have.
    """
    from sacrebleu.metrics import BLEU

    streams = reference_streams(answers, "bleu")
    tokenize = tokenize or _TOKENIZERS.get(_language(language, answers), "13a")
    if tokenize not in BLEU.TOKENIZERS:
        raise InputError(f"bleu.tokenize = {tokenize!r}{did_you_mean(tokenize, BLEU.TOKENIZERS)}")
    if smooth_method not in BLEU.SMOOTH_DEFAULTS:
        known = sorted(BLEU.SMOOTH_DEFAULTS)
        raise InputError(f"bleu.smooth_method = {smooth_method!r}{did_you_mean(smooth_method, known)}")
    if smooth_value is not None and not 0 <= smooth_value < math.inf:
        raise InputError(f"bleu.smooth_value = {smooth_value!r}: 0 or more, or None for sacrebleu's own")
    try:
        metric = BLEU(lowercase, False, tokenize, smooth_method, smooth_value)
    except (ImportError, RuntimeError) as error:  # what the tokenizers of Japanese and Korean raise
        what = " ".join(str(error).split())
        raise InputError(f"bleu.tokenize = {tokenize!r}: {what}; or bind bleu.tokenize = 'char'") from error
    value = metric.corpus_score([answer.hypothesis for answer in answers], streams).score
    return ScoreResult({"bleu": value}, str(metric.get_signature()))


def _language(bound: str, answers: Sequence[Answer]) -> str:
    """Code of the language that is bound, else of what the task says of all, else of what the script says."""
    if bound:
        return _code("bleu.language", bound)
    said = {answer.language for answer in answers}
    codes = {_code("language of the answers", one) if one else "" for one in said}
    if len(codes) == 1 and "" not in codes:
        return codes.pop()
    return unspaced_language(text for answer in answers for text in answer.references)


def _code(what: str, spelling: str) -> str:
    """
    Raises:
        InputError: an unknown language, which would otherwise be cut into words as European ones are.
    """
    try:
        return languages.language(what, spelling).code
    except InputError as error:
        raise InputError(f"{error}; or bind bleu.tokenize = '13a' (or 'char') yourself") from error
