"""`cola`: is a sentence acceptable English (Warstadt et al. 2019), from the published TSV files.

A line has four columns and no header: source, label (0 or 1), the author's original mark, sentence.
The label is written out as a word, as in T5's text-to-text form (Raffel et al. 2020).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.tasks import pairs, text_files
from scaling_jax.tasks.registry import PAIRS, TextSource, text_task

_COLUMNS = 4


@text_task(version=1, features=PAIRS, summary="CoLA: whether a sentence is acceptable, as a word")
def cola(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    cut_dev: int = 500,
    cut_test: int = 500,
    labels: tuple[str, str] = ("unacceptable", "acceptable"),
    template: str = "{source}",
) -> TextSource:
    """Pairs from the TSV files.

    Args:
        train: one file or several (`in_domain_train.tsv`).
        dev: the same; None takes `cut_dev` sentences out of the training files.
        test: the same; the published test set has no labels, its two dev files together are what is
            usually reported. None takes `cut_test` sentences out of the training files.
        cut_dev: sentences, evenly spaced, where there is no dev file.
        cut_test: the same, where there is no test file.
        labels: words for 0 and 1.
        template: text of the inputs; `{source}` stands for the sentence.
    """

    def open_files(binding: str, value: Any) -> pairs.PairFiles:
        paths = text_files.as_paths(binding, value)
        return pairs.PairFiles(paths, lambda: (row for path in paths for row in _rows(path, labels)))

    given = pairs.by_split("cola", train, dev, test, open_files)
    settings = {"template": template, "labels": list(labels)}
    return pairs.pair_source("cola", given, {"dev": cut_dev, "test": cut_test}, template, settings)


def _rows(path: Path, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text_files.lines(path), 1):
        cells = line.split("\t")
        if len(cells) != _COLUMNS:
            raise InputError(
                f"{path}:{number}: {len(cells)} tab-separated column(s), CoLA's files have {_COLUMNS}: "
                "source, label, mark, sentence"
            )
        if cells[1] not in ("0", "1"):
            raise InputError(f"{path}:{number}: label {cells[1]!r} in column 2, 0 or 1 is needed")
        yield cells[3], labels[int(cells[1])]
