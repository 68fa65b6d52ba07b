"""Answers judged by a language model behind any OpenAI-compatible endpoint (Sun et al. 2023), 0 to 1."""

from collections.abc import Sequence
from pathlib import Path

from scaling_jax import configuration
from scaling_jax.evaluation.judge import prompts as judge_prompts
from scaling_jax.evaluation.judge.judging import judge_answers
from scaling_jax.evaluation.judge.settings import JudgeSettings
from scaling_jax.evaluation.score import Answer, ScoreResult, score


def _ready() -> None:
    judge_prompts.load(configuration.call(JudgeSettings).prompts)


@score(
    "judge",
    columns=("judge_score",),
    summary="a language model's judgement, 0 to 1, mean over classes",
    package="openai",
    install="pip install 'scaling-jax[judge]'",
    ready=_ready,
)
def judge(answers: Sequence[Answer], folder: Path) -> ScoreResult:
    """Asks the endpoint of `JudgeSettings`; fills `judge_score` and one `judge_CLASS` for each class.

    Args:
        answers: each with a class in a column (`JudgeSettings.class_column`).
        folder: gets the transcript, the summary and the kept answers.

    Raises:
        InputError: see `judge_answers`.
    """
    return judge_answers(answers, folder, configuration.call(JudgeSettings))
