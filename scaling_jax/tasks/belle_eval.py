"""`belle_eval`: the 1,000 questions by which Sun et al. 2023 judged their models, for evaluation alone.

A line is `{"question": "...", "std_answer": "...", "class": "..."}`. The classes generation and
brainstorming have no answers, and most of rewrite has none: those are judged without a reference, so an
empty answer is kept as what it is.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.tasks import text_files
from scaling_jax.tasks.instructions import PROMPT, check_template
from scaling_jax.tasks.json_records import records, text_field
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

_COLUMNS = ("class", "question")


@text_task(
    version=1,
    features=PAIRS,
    ends=("targets",),  # a decoder reads prompt and answer as one text
    columns=_COLUMNS,
    scores=("judge",),
    summary="BELLE's questions of ten classes, for a judge; no training split",
    data=DataSet(
        source="Sun et al. 2023, https://arxiv.org/abs/2304.08109",
        get="eval/eval_set.json of https://github.com/LianjiaTech/BELLE, and bind belle_eval.test to it",
        splits="test alone: 1,000 questions, 631 of them with a reference answer",
        prompt=PROMPT,
    ),
)
def belle_eval(test: str | Sequence[str] | None = None, template: str = PROMPT) -> TextSource:
    """Questions with their reference answers, which may be empty, and their classes.

    Args:
        test: one file or several (`eval_set.json`).
        template: text of the inputs; `{source}` stands for the question.

    Raises:
        InputError: not JSON, fields that are missing or no text, an empty question or class.
    """
    check_template("belle_eval", template)
    paths = text_files.as_paths("belle_eval.test", test)

    def rows() -> Iterator[tuple[str, str, str, str]]:
        for path in paths:
            for question, answer, name in _rows(path):
                yield template.replace("{source}", question), answer, name, question

    def read() -> Iterator[Mapping[str, list[str]]]:
        return text_files.in_blocks(rows(), (*PAIRS, *_COLUMNS))

    answers = [answer for _, answer, _, _ in rows()]  # read once now, so that errors come before anything
    if not answers:
        raise InputError(f"{paths[0]}: the file is empty")
    empty = sum(not answer.strip() for answer in answers)
    return TextSource(
        {"test": read},
        identity={"test": text_files.hashes(paths)},
        notes=(f"test: {empty:,} of {len(answers):,} questions have no reference answer",),
        target_language="zh",
        examples={"test": len(answers)},
    )


def _rows(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, record in records(path):
        question, answer, name = (
            text_field(path, number, record, field) for field in ("question", "std_answer", "class")
        )
        for field, text in (("question", question), ("class", name)):
            if not text.strip():
                raise InputError(f"{path}:{number}: field {field!r} is empty")
        yield question, answer, " ".join(name.split())  # the published file has a no-break space in one
