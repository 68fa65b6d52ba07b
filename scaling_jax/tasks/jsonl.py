"""`jsonl`: one JSON object per line, with a source and a target field; `.gz` too."""

from collections.abc import Sequence
from typing import Any

from scaling_jax.tasks import json_records, pairs, text_files
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
            paths, lambda: (row for path in paths for row in json_records.rows(path, source, target))
        )

    given = pairs.by_split("jsonl", train, dev, test, open_files)
    settings = {"source": source, "target": target, "template": template}
    return pairs.pair_source("jsonl", given, {"dev": cut_dev, "test": cut_test}, template, settings)
