"""Answers judged by a language model (Sun et al. 2023, section 4): a score per class, a transcript.

FOLDER/judge_transcript.jsonl   every judgement: prompt, the judge's whole answer, score, model, time
FOLDER/judge_summary.json       score and counts per class
FOLDER/judge_answers/           the judge's answers as kept for the next call
"""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.evaluation.judge import prompts as judge_prompts
from scaling_jax.evaluation.judge.asking import Asked, ask_all
from scaling_jax.evaluation.judge.averages import ClassAverage, Judgement, class_averages, macro_average
from scaling_jax.evaluation.judge.cache import Cache, key_of
from scaling_jax.evaluation.judge.endpoint import Failure
from scaling_jax.evaluation.judge.parsing import parse_score
from scaling_jax.evaluation.judge.prompts import Prompts
from scaling_jax.evaluation.judge.settings import JudgeSettings, shown
from scaling_jax.evaluation.score import Answer, ScoreResult

# Raised when the same answers of a judge would give other scores.
_VERSION = 1


def judge_answers(answers: Sequence[Answer], folder: Path, settings: JudgeSettings) -> ScoreResult:
    """Judges every answer.

    A judgement without a readable score is kept and flagged in the transcript, and is in no average.
    `judge_score` is the mean over classes; it is None where a class has no score at all.

    Raises:
        InputError: an answer without a class, of a class without a prompt, or without the reference that its
            class needs; an endpoint that does not answer: what was judged until then is kept, and the same
            call goes on from there.
    """
    prompts = judge_prompts.load(settings.prompts)
    items = [_item(answer, number, settings, prompts) for number, answer in enumerate(answers, 1)]
    cache = Cache(Path(settings.cache) if settings.cache else Path(folder) / "judge_answers")
    asked = ask_all([item.prompt for item in items], settings, cache)
    records = [_record(item, settings, asked) for item in items]
    reached = [record for record in records if record["flag"] != "not asked"]
    lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in reached)
    files.write_text(Path(folder) / "judge_transcript.jsonl", lines)
    if asked.given_up is not None:
        (Path(folder) / "judge_summary.json").unlink(missing_ok=True)  # of an earlier transcript
        given = sum(record["answer"] is not None for record in reached)
        raise InputError(_gone(asked.given_up, settings, given, len(records), cache))
    averages = class_averages(
        [Judgement(record["category"], record["score"], record["flag"] == "failed") for record in records]
    )
    macro = macro_average(averages)
    summary = {
        "judge_score": macro,
        "signature": _signature(settings, prompts),
        "classes": [dataclasses.asdict(average) for average in averages],
    }
    files.write_json(Path(folder) / "judge_summary.json", summary)
    values = {"judge_score": macro}
    values |= {f"judge_{average.name}": average.score for average in averages}
    return ScoreResult(values, summary["signature"], tuple(_notes(averages, records)))


@dataclasses.dataclass(frozen=True)
class _Item:
    """One answer to be judged: its place from 1, its class, the category that counts it, the prompt."""

    number: int
    name: str
    category: str
    prompt: str


def _item(answer: Answer, number: int, settings: JudgeSettings, prompts: Prompts) -> _Item:
    given = answer.columns.get(settings.class_column) or settings.default_class
    if not given:
        raise InputError(
            f"score 'judge': answer {number} has no column {settings.class_column!r}, which names its class; "
            f"bind JudgeSettings.default_class (classes: {', '.join(prompts.classes)})"
        )
    name = judge_prompts.class_name(given)
    reference = "\n".join(text for text in answer.references if text.strip())
    if prompts.for_class(name).reference and not reference:
        raise InputError(
            f"score 'judge': answer {number} is of class {name!r}, which is judged against a reference, and "
            "has none"
        )
    # What the model read may hold a frame of its own; the question alone is a column where a task says it.
    question = answer.columns.get("question") or answer.inputs
    prompt = prompts.render(name, question, reference, answer.hypothesis)
    return _Item(number, name, _category(name, settings), prompt)


def _category(name: str, settings: JudgeSettings) -> str:
    groups = {judge_prompts.class_name(key): group for key, group in settings.groups.items()}
    category = judge_prompts.class_name(groups.get(name, name))
    if category == "score":
        raise InputError("score 'judge': a class 'score' would fill the column of the mean over classes")
    return category


def _record(item: _Item, settings: JudgeSettings, asked: Asked) -> dict[str, Any]:
    key = key_of(settings, item.prompt)
    outcome = asked.outcomes.get(key)
    record = {
        "example": item.number,
        "class": item.name,
        "category": item.category,
        "score": None,
        "flag": "",
        "reason": "",
        "prompt": item.prompt,
        "answer": None,
    }
    if outcome is None:
        return record | {"flag": "not asked"}
    if isinstance(outcome, Failure):
        reason = f"{outcome.kind}: {outcome.detail}" if outcome.detail else outcome.kind
        return record | {"flag": "failed", "reason": reason}
    parsed = parse_score(outcome.text)
    flag = "unparsed" if parsed.score is None else "scaled" if parsed.scaled else ""
    cut = "; cut at max_tokens" if flag == "unparsed" and outcome.finish_reason == "length" else ""
    return record | {
        "score": parsed.score,
        "flag": flag,
        "reason": parsed.reason + cut,
        "answer": outcome.text,
        "model": outcome.model or settings.model,
        "finish_reason": outcome.finish_reason,
        "asked_at": outcome.asked_at,
        "seconds": outcome.seconds,
        "attempts": outcome.attempts,
        "usage": outcome.usage,
        "from_cache": key in asked.kept,
    }


def _gone(failure: Failure, settings: JudgeSettings, given: int, total: int, cache: Cache) -> str:
    detail = f" ({failure.detail})" if failure.hopeless and failure.detail else ""
    return (
        f"score 'judge': {shown(settings.endpoint)} gives no judgement of model {settings.model!r}: "
        f"{failure.kind}{detail}; {given:,} of {total:,} answers are judged and kept in {cache.folder}, "
        "the same command goes on from there"
    )


def _signature(settings: JudgeSettings, prompts: Prompts) -> str:
    temperature = "default" if settings.temperature is None else f"{settings.temperature:g}"
    groups = ",".join(f"{name}>{group}" for name, group in sorted(settings.groups.items()))
    return (
        f"judge:{settings.model}|endpoint:{shown(settings.endpoint)}|prompts:{prompts.name}-{prompts.identity}"
        f"|temperature:{temperature}|max_tokens:{settings.max_tokens}|groups:{groups}|avg:macro|v:{_VERSION}"
    )


def _notes(averages: Sequence[ClassAverage], records: Sequence[dict[str, Any]]) -> list[str]:
    total = len(records)
    judged = ", ".join(f"{average.name} {average.judged}/{average.examples}" for average in averages)
    notes = [f"judged: {judged}"]
    for flag, meaning in (
        ("failed", "got no judgement and are in no average; they are asked again by the same command"),
        ("unparsed", "got a judgement without a readable score, kept in the transcript, in no average"),
        ("scaled", "were scored on a scale that the judge stated, brought to 0 to 1"),
    ):
        count = sum(record["flag"] == flag for record in records)
        if count:
            notes.append(f"{count:,} of {total:,} answers {meaning}")
    without = [average.name for average in averages if average.score is None]
    if without:
        notes.append(f"no average over classes, since these have no score: {', '.join(without)}")
    return notes
