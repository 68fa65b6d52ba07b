"""BLEURT (Sellam et al. 2020; Pu et al. 2021), a trained score, where the user has its package."""

from collections.abc import Sequence
from pathlib import Path

import gin

from scaling_jax.errors import InputError
from scaling_jax.evaluation.references import checked_references, reference_count
from scaling_jax.evaluation.score import Answer, ScoreResult, score

_INSTALL = (
    "pip install git+https://github.com/google-research/bleurt.git, then download and unpack a checkpoint "
    "such as BLEURT-20 and bind bleurt.checkpoint to its folder"
)


def _ready() -> None:
    _check_checkpoint(gin.get_bindings("scores.bleurt").get("checkpoint", ""))


@score(
    "bleurt",
    columns=("bleurt",),
    summary="BLEURT, if you have its package and a checkpoint",
    package="bleurt",
    install=_INSTALL,
    ready=_ready,
)
def bleurt(
    answers: Sequence[Answer], folder: Path, checkpoint: str = "", batch_size: int = 16
) -> ScoreResult:
    """The mean over answers, as the checkpoint scales it; of several references the best counts.

    The package loads TensorFlow into this process. An empty answer is scored like any other.

    Args:
        answers: with one reference at least.
        folder: not used.
        checkpoint: folder of an unpacked BLEURT checkpoint, such as BLEURT-20.
        batch_size: pairs at a time.

    Raises:
        InputError: an answer without a reference, or no checkpoint.
    """
    from bleurt.score import BleurtScorer

    references = checked_references(answers, "bleurt")
    _check_checkpoint(checkpoint)
    found = BleurtScorer(checkpoint).score(
        references=[text for own in references for text in own],
        candidates=[answer.hypothesis for own, answer in zip(references, answers, strict=True) for _ in own],
        batch_size=batch_size,
    )
    scores = iter(found)
    best = [max(next(scores) for _ in own) for own in references]
    signature = f"nrefs:{reference_count(answers)}|multi:best|agg:mean|checkpoint:{Path(checkpoint).name}"
    return ScoreResult({"bleurt": sum(best) / len(best)}, signature)


def _check_checkpoint(checkpoint: str) -> None:
    if not checkpoint or not Path(checkpoint).is_dir():
        raise InputError(
            f"bleurt.checkpoint = {checkpoint!r}: bind it to the folder of an unpacked checkpoint, such as "
            "BLEURT-20"
        )
