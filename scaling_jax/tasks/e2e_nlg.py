"""`e2e_nlg`: restaurant descriptions from attributes (Novikova et al. 2017), from the published CSV files.

A file has a header with the columns `mr` (meaning representation) and `ref` (a description); the
cleaned release of Dusek et al. 2019 has more columns, which are not read. A meaning representation
has several descriptions, so that a split cut out of the training file takes all of its rows at once:
no test or dev input is seen in training, as in the published splits.
"""

import csv
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import pairs, text_files
from scaling_jax.tasks.registry import PAIRS, TextSource, text_task

_COLUMNS = ("mr", "ref")


@text_task(version=1, features=PAIRS, summary="E2E NLG: attributes of a restaurant to its description")
def e2e_nlg(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    cut_dev: int = 50,
    cut_test: int = 50,
    template: str = "{source}",
) -> TextSource:
    """Pairs from the CSV files.

    Args:
        train: one file or several (`trainset.csv`).
        dev: the same (`devset.csv`); None takes `cut_dev` meaning representations out of the training files.
        test: the same (`testset_w_refs.csv`); None takes `cut_test` of them.
        cut_dev: meaning representations, evenly spaced, where there is no dev file.
        cut_test: the same, where there is no test file.
        template: text of the inputs; `{source}` stands for the meaning representation.
    """

    def open_files(binding: str, value: Any) -> pairs.PairFiles:
        paths = text_files.as_paths(binding, value)
        return pairs.PairFiles(paths, lambda: (row for path in paths for row in _rows(path)))

    given = pairs.by_split("e2e_nlg", train, dev, test, open_files)
    cut = {name: size for name, size in (("dev", cut_dev), ("test", cut_test)) if name not in given and size}
    places = _cut_meanings(given["train"], cut)
    taken = frozenset().union(*places.values())
    files = dict(given)
    files["train"] = _only(given["train"], lambda meaning: meaning not in taken)
    for split, meanings in places.items():
        files[split] = _only(given["train"], meanings.__contains__)
    # Of the same files, two splits differ by what is taken.
    settings = {"template": template, "cut_meanings": cut}
    source = pairs.pair_source("e2e_nlg", files, {"dev": 0, "test": 0}, template, settings)
    notes = [
        f"{split}: {len(places[split])} evenly spaced meaning representations of train" for split in places
    ]
    return dataclasses.replace(source, notes=(*source.notes, *notes))


def _cut_meanings(train: pairs.PairFiles, cut: dict[str, int]) -> dict[str, frozenset[str]]:
    """Meaning representations of every split that is cut out of the training files, evenly spaced."""
    if not cut:
        return {}
    meanings = list(dict.fromkeys(source for source, _ in train.rows()))
    places = pairs.cut_places("e2e_nlg", len(meanings), cut, "meaning representations")
    return {split: frozenset(meanings[place] for place in numbers) for split, numbers in places.items()}


def _only(files: pairs.PairFiles, keep: Callable[[str], bool]) -> pairs.PairFiles:
    return pairs.PairFiles(files.paths, lambda: (row for row in files.rows() if keep(row[0])))


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    reader = csv.reader((f"{line}\n" for line in text_files.lines(path)), strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise InputError(f"{path}: the file is empty")
        missing = [name for name in _COLUMNS if name not in header]
        if missing:
            raise InputError(f"{path}:1: no column {missing[0]!r}{did_you_mean(missing[0], header)}")
        source, target = (header.index(name) for name in _COLUMNS)
        for row in filter(None, reader):  # a blank last line is common
            if len(row) != len(header):
                raise InputError(
                    f"{path}:{reader.line_num}: {len(row)} cells, the header has {len(header)} columns"
                )
            yield row[source], row[target]
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error
