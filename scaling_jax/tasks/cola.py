"""`cola`: is a sentence acceptable English (Warstadt et al. 2019), from the published TSV files or TFDS.

A line has four columns and no header: source, label (0 or 1), the author's original mark, sentence.
The label is written out as a word, as in T5's text-to-text form (Raffel et al. 2020).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.tasks import pairs, published, text_files, tfds_data
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

_COLUMNS = 4
_TFDS = "glue/cola"
_DATA = DataSet(
    "Warstadt, Singh, Bowman 2019, https://arxiv.org/abs/1805.12471",
    "https://nyu-mll.github.io/CoLA/cola_public_1.1.zip, unpack it and bind `cola.train` to "
    "in_domain_train.tsv and `cola.test` to the list of in_domain_dev.tsv and out_of_domain_dev.tsv; or "
    f"`tfds build {_TFDS} --data_dir DIR` and bind `cola.data_dir = 'DIR'`",
    "train: in-domain train (8,551) without 500; dev: these, evenly spaced; test: both published dev sets "
    "(1,043), since the published test has no labels",
    "{source}",
    "unacceptable or acceptable",
)


@text_task(
    version=1,
    features=PAIRS,
    summary="CoLA: whether a sentence is acceptable, as a word",
    data=_DATA,
    scores=("exact_match",),
)
def cola(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    cut_dev: int = 500,
    cut_test: int = 500,
    labels: tuple[str, str] = ("unacceptable", "acceptable"),
    template: str = "{source}",
    data_dir: str | None = None,
) -> TextSource:
    """Pairs from the TSV files.

    Args:
        train: one file or several (`in_domain_train.tsv`); None reads TensorFlow Datasets, whose
            validation split, both dev files together, is the test split here.
        dev: the same; None takes `cut_dev` sentences out of the training files.
        test: the same; the published test set has no labels, its two dev files together are what is
            usually reported. None takes `cut_test` sentences out of the training files.
        cut_dev: sentences, evenly spaced, where there is no dev file.
        cut_test: the same, where there is no test file.
        labels: words for 0 and 1.
        template: text of the inputs; `{source}` stands for the sentence.
        data_dir: folder of TensorFlow Datasets; None is its default.
    """
    if len(labels) != 2:
        raise InputError(f"cola.labels = {labels!r}: two words are needed, for 0 and for 1")

    def open_files(binding: str, value: Any) -> pairs.PairFiles:
        paths = text_files.as_paths(binding, value)
        return pairs.PairFiles(paths, lambda: (row for path in paths for row in _rows(path, labels)))

    if train:
        given = pairs.by_split("cola", train, dev, test, open_files)
    else:
        given = _prepared(data_dir, labels)
    settings = {"template": template, "labels": list(labels), "data_dir": None}
    return pairs.pair_source("cola", given, {"dev": cut_dev, "test": cut_test}, template, settings, "en")


def _prepared(data_dir: str | None, labels: Sequence[str]) -> dict[str, pairs.PairFiles]:
    looked = ["cola.train, which is not set"]
    prepared = tfds_data.find(_TFDS, data_dir, looked)
    if prepared is None:
        raise published.not_found("cola", looked, _DATA)

    def make(sentence: str, label: int) -> tuple[str, str]:
        return sentence, labels[label]

    splits = {"train": "train", "test": "validation"}
    return {
        split: tfds_data.pair_files(prepared, name, ("sentence", "label"), make)
        for split, name in splits.items()
    }


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
