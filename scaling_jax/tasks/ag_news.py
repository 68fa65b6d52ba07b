"""`ag_news`: the topic of a news item, one of four (Zhang et al. 2015), from its CSV files or TFDS.

A line of `train.csv` and `test.csv` has three quoted columns and no header: class (1 to 4), title,
description. There is no dev set: some of the training items are taken, evenly spaced.
"""

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.tasks import pairs, published, text_files, tfds_data
from scaling_jax.tasks.pairs import PairFiles
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

LABELS = ("World", "Sports", "Business", "Sci/Tech")
_TFDS = "ag_news_subset"
_PROMPT = "Is this news about World, Sports, Business or Sci/Tech? {source}"
_DATA = DataSet(
    "Zhang, Zhao, LeCun 2015, https://arxiv.org/abs/1509.01626",
    f"`tfds build {_TFDS} --data_dir DIR` and bind `ag_news.data_dir = 'DIR'`, or bind `ag_news.folder` to a "
    "folder with train.csv and test.csv (ag_news_csv.tar.gz of the authors)",
    "train: train without 2,000 items; dev: these, evenly spaced; test: test (7,600)",
    _PROMPT,
    f"one of {', '.join(LABELS)}",
)


@text_task(
    version=1, features=PAIRS, summary="AG News: topic of a news item", data=_DATA, scores=("exact_match",)
)
def ag_news(
    folder: str | None = None,
    data_dir: str | None = None,
    cut_dev: int = 2000,
    labels: Sequence[str] = LABELS,
    template: str = _PROMPT,
) -> TextSource:
    """News items and their topics.

    Args:
        folder: local folder with `train.csv` and `test.csv`; None reads TensorFlow Datasets.
        data_dir: folder of TensorFlow Datasets; None is its default.
        cut_dev: training items that are dev.
        labels: words for classes 1 to 4.
        template: text of the inputs; `{source}` stands for title and description.
    """
    if len(labels) != len(LABELS):
        raise InputError(f"ag_news.labels: {len(labels)} words, there are {len(LABELS)} classes")
    given = _files(folder, labels) if folder else _prepared(data_dir, labels)
    settings = {"folder": None, "data_dir": None, "labels": list(labels)}
    return pairs.pair_source("ag_news", given, {"dev": cut_dev}, template, settings, "en")


def _files(folder: str, labels: Sequence[str]) -> dict[str, PairFiles]:
    given = {}
    for split in ("train", "test"):
        path = text_files.first_of(Path(folder), f"{split}.csv")
        if path is None:
            raise published.not_found("ag_news", [f"{split}.csv in {folder}"], _DATA)
        given[split] = PairFiles((path,), lambda path=path: _rows(path, labels))
    return given


def _prepared(data_dir: str | None, labels: Sequence[str]) -> dict[str, PairFiles]:
    looked = ["ag_news.folder, which is not set"]
    prepared = tfds_data.find(_TFDS, data_dir, looked)
    if prepared is None:
        raise published.not_found("ag_news", looked, _DATA)

    def make(title: str, description: str, label: int) -> tuple[str, str]:
        return f"{title} {description}", labels[label]

    fields = ("title", "description", "label")
    return {split: tfds_data.pair_files(prepared, split, fields, make) for split in ("train", "test")}


def _rows(path: Path, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    reader = csv.reader((f"{line}\n" for line in text_files.lines(path)), strict=True)
    try:
        for cells in filter(None, reader):
            if len(cells) != 3:
                raise InputError(
                    f"{path}:{reader.line_num}: {len(cells)} cells, AG News has 3: class, title, description"
                )
            if cells[0] not in ("1", "2", "3", "4"):
                raise InputError(f"{path}:{reader.line_num}: class {cells[0]!r}, 1 to 4 is needed")
            yield f"{cells[1]} {cells[2]}", labels[int(cells[0]) - 1]
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error
