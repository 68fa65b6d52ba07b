"""`jsonl`: one JSON object per line, with a source and a target field; `.gz` too."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import pairs, text_files
from scaling_jax.tasks.registry import PAIRS, TextSource, text_task


@text_task(version=1, features=PAIRS, summary="your own JSON lines, with a source and a target field")
def jsonl(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    cut_dev: int = 500,
    cut_test: int = 500,
    source: str = "source",
    target: str = "target",
    template: str = "{source}",
) -> TextSource:
    """Pairs from JSON lines.

    Args:
        train: one file or several.
        dev: the same; None takes `cut_dev` pairs out of the training files.
        test: the same; None takes `cut_test` pairs out of the training files.
        cut_dev: pairs, where there is no dev file.
        cut_test: pairs, where there is no test file.
        source: field of the source text.
        target: field of the target text.
        template: text of the inputs, such as "Translate to German: {source}".
    """

    def open_files(binding: str, value: Any) -> pairs.PairFiles:
        paths = text_files.as_paths(binding, value)
        return pairs.PairFiles(
            paths, lambda: (row for path in paths for row in _rows(path, (source, target)))
        )

    given = pairs.by_split("jsonl", train, dev, test, open_files)
    settings = {"source": source, "target": target, "template": template}
    return pairs.pair_source("jsonl", given, {"dev": cut_dev, "test": cut_test}, template, settings)


def _rows(path: Path, fields: tuple[str, str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text_files.lines(path), 1):
        if not line.strip():
            continue  # a blank last line is common and holds no record
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{number}:{error.colno}: not JSON ({error.msg})") from error
        if not isinstance(record, dict):
            raise InputError(f"{path}:{number}: a JSON object is needed, this is a {type(record).__name__}")
        for field in fields:
            if field not in record:
                raise InputError(f"{path}:{number}: no field {field!r}{did_you_mean(field, record)}")
            if not isinstance(record[field], str):
                kind = type(record[field]).__name__
                raise InputError(f"{path}:{number}: field {field!r} must be a string, this is a {kind}")
        yield record[fields[0]], record[fields[1]]
