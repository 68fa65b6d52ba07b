"""`e2e_nlg`: restaurant descriptions from attributes (Novikova et al. 2017), from the CSV files or TFDS.

A file has a header with the columns `mr` (meaning representation) and `ref` (a description); the
cleaned release of Dusek et al. 2019 has more columns, which are not read. A meaning representation
has several descriptions, so that a split cut out of the training file takes all of its rows at once:
no test or dev input is seen in training, as in the published splits. TensorFlow
Datasets has the cleaned release, `e2e_cleaned`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.tasks import csv_files, pairs, published, text_files, tfds_data
from scaling_jax.tasks.registry import PAIRS, SAME_INPUTS, DataSet, TextSource, text_task

_TFDS = "e2e_cleaned"
_DATA = DataSet(
    "Novikova et al. 2017, https://arxiv.org/abs/1706.09254; cleaned: Dusek et al. 2019, "
    "https://arxiv.org/abs/1911.03905",
    "https://github.com/tuetschek/e2e-dataset (trainset.csv, devset.csv, testset_w_refs.csv) or "
    "https://github.com/tuetschek/e2e-cleaning, and bind `e2e_nlg.train`, `.dev` and `.test`; "
    f"or `tfds build {_TFDS} --data_dir DIR` and bind `e2e_nlg.data_dir = 'DIR'` (the cleaned release)",
    "train: train (42,061); dev: dev (4,672); test: test (4,693); every split has several targets an input",
    "{source}",
)


@text_task(
    version=1,
    features=PAIRS,
    references=SAME_INPUTS,
    summary="E2E NLG: attributes of a restaurant to its description",
    data=_DATA,
    scores=("rouge", "bleu"),
)
def e2e_nlg(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    cut_dev: int = 50,
    cut_test: int = 50,
    template: str = "{source}",
    data_dir: str | None = None,
) -> TextSource:
    """Pairs from the CSV files.

    Args:
        train: one file or several (`trainset.csv`); None reads TensorFlow Datasets, all three splits.
        dev: the same (`devset.csv`); None takes `cut_dev` meaning representations out of the training files.
        test: the same (`testset_w_refs.csv`); None takes `cut_test` of them.
        cut_dev: meaning representations, evenly spaced, where there is no dev file.
        cut_test: the same, where there is no test file.
        template: text of the inputs; `{source}` stands for the meaning representation.
        data_dir: folder of TensorFlow Datasets; None is its default.
    """

    def open_files(binding: str, value: Any) -> pairs.PairFiles:
        paths = text_files.as_paths(binding, value)
        return pairs.PairFiles(
            paths, lambda: (row for path in paths for row in csv_files.rows(path, "mr", "ref"))
        )

    if train:
        given = pairs.by_split("e2e_nlg", train, dev, test, open_files)
    else:
        given = _prepared(data_dir)
    cut = {name: size for name, size in (("dev", cut_dev), ("test", cut_test)) if name not in given and size}
    places = _cut_meanings(given["train"], cut)
    taken = frozenset().union(*places.values())
    files = dict(given)
    files["train"] = _only(given["train"], lambda meaning: meaning not in taken)
    for split, meanings in places.items():
        files[split] = _only(given["train"], meanings.__contains__)
    # Of the same files, two splits differ by what is taken.
    settings = {"template": template, "cut_meanings": cut, "data_dir": None}
    source = pairs.pair_source("e2e_nlg", files, {"dev": 0, "test": 0}, template, settings, "en")
    notes = [
        f"{split}: {len(places[split])} evenly spaced meaning representations of train" for split in places
    ]
    return dataclasses.replace(source, notes=(*source.notes, *notes))


def _cut_meanings(train: pairs.PairFiles, cut: dict[str, int]) -> dict[str, frozenset[str]]:
    """Meaning representations of every split that is cut out of the training files, evenly spaced."""
    if not cut:
        return {}
    meanings = list(dict.fromkeys(source for source, _ in train.rows()))
    if not meanings:
        raise InputError(f"{train.paths[0]}: the file is empty, below its header")
    places = pairs.cut_places("e2e_nlg", len(meanings), cut, "meaning representations")
    return {split: frozenset(meanings[place] for place in numbers) for split, numbers in places.items()}


def _only(files: pairs.PairFiles, keep: Callable[[str], bool]) -> pairs.PairFiles:
    return dataclasses.replace(files, rows=lambda: (row for row in files.rows() if keep(row[0])))


def _prepared(data_dir: str | None) -> dict[str, pairs.PairFiles]:
    looked = ["e2e_nlg.train, which is not set"]
    prepared = tfds_data.find(_TFDS, data_dir, looked)
    if prepared is None:
        raise published.not_found("e2e_nlg", looked, _DATA)

    def opened(split: str) -> pairs.PairFiles:
        return pairs.PairFiles(
            (Path(str(prepared.path)),),
            lambda: map(_from_table, prepared.examples(split)),
            prepared.identity(split),
        )

    return {"train": opened("train"), "dev": opened("validation"), "test": opened("test")}


def _from_table(example: Mapping[str, Any]) -> tuple[str, str]:
    """The meaning representation as the CSV files write it, of the table that TFDS makes of it."""
    table = example["input_text"]["table"]
    cells = zip(table["column_header"], table["content"], strict=True)
    meaning = ", ".join(f"{name.decode('utf-8')}[{value.decode('utf-8')}]" for name, value in cells)
    return meaning, example["target_text"].decode("utf-8")
