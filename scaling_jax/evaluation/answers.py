"""Answers as files: JSONL with one answer a line, or line-aligned texts of hypotheses and references."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling_jax import files
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.evaluation.score import Answer
from scaling_jax.tasks import json_records, text_files

_TEXT_KEYS = ("hypothesis", "output")
_KEYS = ("inputs", "hypothesis", "references", "columns", "language")


def write(path: Path, answers: Sequence[Answer]) -> Path:
    """Writes answers as JSONL, whole or not at all."""
    return files.write_bytes(path, _as_bytes(answers))


def identity(answers: Sequence[Answer]) -> str:
    """Hash of what is scored."""
    return hashlib.sha256(_as_bytes(answers)).hexdigest()


def _as_bytes(answers: Sequence[Answer]) -> bytes:
    lines = []
    for answer in answers:
        content: dict[str, Any] = {
            "inputs": answer.inputs,
            "hypothesis": answer.hypothesis,
            "references": list(answer.references),
        }
        if answer.columns:
            content["columns"] = dict(answer.columns)
        if answer.language:
            content["language"] = answer.language
        lines.append(json.dumps(content, ensure_ascii=False) + "\n")
    # Half a surrogate pair, which a model of bytes may write, has no UTF-8.
    return "".join(lines).encode("utf-8", "replace")


def read(path: Path) -> tuple[Answer, ...]:
    """Answers of a JSONL file: {"hypothesis": ..., "references": [...]} and, where there are, inputs,
    columns and language. `output`, which `infer` writes, is read as a hypothesis.

    Raises:
        InputError: no such file, no answers in it, or a line that is not such an object; names the line.
    """
    _check_is_file(path)
    found = []
    for number, line in enumerate(text_files.lines(path), 1):
        if line.strip():
            found.append(_answer(f"{path}:{number}", line))
    if not found:
        raise InputError(f"{path}: the file holds no answers")
    return tuple(found)


def _answer(place: str, line: str) -> Answer:
    content = json_records.value_of(place, line)
    if not isinstance(content, dict):
        raise InputError(f'{place}: not an object such as {{"hypothesis": "...", "references": ["..."]}}')
    key = next((key for key in _TEXT_KEYS if key in content), None)
    if key is None:
        near = did_you_mean("hypothesis", content.keys() - set(_KEYS))
        raise InputError(f"{place}: no key 'hypothesis', the text that the model wrote{near}")
    texts = {"inputs": content.get("inputs", ""), key: content[key], "language": content.get("language", "")}
    references = content.get("references", [])
    columns = content.get("columns", {})
    for name, kept in texts.items():
        if not isinstance(kept, str):
            raise InputError(f"{place}: {name} is {kept!r}: must be a text")
    if not isinstance(references, list) or not all(isinstance(text, str) for text in references):
        raise InputError(f"{place}: references is {references!r}: must be a list of texts")
    if not isinstance(columns, dict) or not all(isinstance(text, str) for text in columns.values()):
        raise InputError(f"{place}: columns is {columns!r}: must be an object of texts")
    return Answer(texts["inputs"], texts[key], tuple(references), columns, texts["language"])


def read_lines(hypotheses: Path, references: Sequence[Path], language: str = "") -> tuple[Answer, ...]:
    """Answers from text files, one a line; every reference file has one line for each hypothesis.

    A file of hypotheses that ends in .jsonl, or whose first line is a JSON object with `output` or
    `hypothesis`, is what `infer` writes: `output` and `inputs` are read. An empty line of the first reference
    file is an empty reference; in further files it means that there is no further reference.

    Raises:
        InputError: no such file, an empty file of hypotheses, no reference file, or one with another number
            of lines than there are hypotheses; names both numbers.
    """
    if not references:
        raise InputError(f"{hypotheses}: no references to score it against")
    if hypotheses.suffix == ".jsonl" or _is_jsonl(hypotheses):
        given = [(answer.inputs, answer.hypothesis) for answer in read(hypotheses)]
    else:
        given = [("", line) for line in _lines(hypotheses)]
    if not given:
        raise InputError(f"{hypotheses}: the file is empty")
    columns = [_lines(path) for path in references]
    for path, lines in zip(references, columns, strict=True):
        if len(lines) != len(given):
            raise InputError(
                f"{path} has {len(lines):,} lines, {hypotheses} has {len(given):,}: a reference file has one "
                "line for each hypothesis"
            )
    first, *further = columns
    return tuple(
        Answer(inputs, hypothesis, (own, *filter(str.strip, others)), {}, language)
        for (inputs, hypothesis), own, *others in zip(given, first, *further, strict=True)
    )


def _is_jsonl(path: Path) -> bool:
    """Whether the first line with text is an answer; a text may begin with a brace, too."""
    _check_is_file(path)
    first = next((line for line in text_files.lines(path) if line.strip()), "")
    if not first.lstrip().startswith("{"):
        return False
    try:
        content = json.loads(first)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and any(key in content for key in _TEXT_KEYS)


def _lines(path: Path) -> list[str]:
    _check_is_file(path)
    return list(text_files.lines(path))


def _check_is_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"no such file: {path}")
