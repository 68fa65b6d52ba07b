"""`parallel_text`: two line-aligned files for each split, or one tab-separated file; `.gz` too."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.tasks import pairs, text_files
from scaling_jax.tasks.registry import PAIRS, TextSource, text_task


@text_task(version=1, features=PAIRS, summary="your own two line-aligned files, or one tab-separated file")
def parallel_text(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    cut_dev: int = 500,
    cut_test: int = 500,
    columns: Sequence[int] = (0, 1),
    template: str = "{source}",
) -> TextSource:
    """Pairs from files.

    Args:
        train: (source file, target file), or one tab-separated file.
        dev: the same; None takes `cut_dev` pairs out of the training files.
        test: the same; None takes `cut_test` pairs out of the training files.
        cut_dev: pairs, where there is no dev file.
        cut_test: pairs, where there is no test file.
        columns: source and target columns of a tab-separated file, from zero.
        template: text of the inputs; `{source}` stands for the source side.
    """

    if len(columns) != 2 or not all(type(column) is int and column >= 0 for column in columns):
        raise InputError(f"parallel_text.columns = {columns!r}: two are needed, counted from zero")

    def open_files(binding: str, value: Any) -> pairs.PairFiles:
        paths = text_files.as_paths(binding, value)
        if isinstance(value, str):
            return pairs.PairFiles(paths, lambda: _tsv_rows(paths[0], columns))
        if len(paths) != 2:
            raise InputError(
                f"{binding}: (source file, target file) or one tab-separated file, not {len(paths)} files"
            )
        return pairs.PairFiles(paths, lambda: pairs.aligned_rows(*paths))

    given = pairs.by_split("parallel_text", train, dev, test, open_files)
    settings = {"columns": list(columns), "template": template}
    return pairs.pair_source("parallel_text", given, {"dev": cut_dev, "test": cut_test}, template, settings)


def _tsv_rows(path: Path, columns: Sequence[int]) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text_files.lines(path), 1):
        yield pairs.columns_of(path, number, line, columns)
