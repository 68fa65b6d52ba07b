"""`cnn_dailymail`: news of CNN and the Daily Mail with highlights (Hermann et al. 2015, See et al. 2017).

From TensorFlow Datasets, or from local files `train`, `validation` and `test` with the fields `article` and
`highlights`: JSON lines (`.jsonl`) or CSV with a header (`.csv`), as the non-anonymised version is passed on.
"""

from pathlib import Path

from scaling_jax.tasks import csv_files, json_records, pairs, published, text_files, tfds_data
from scaling_jax.tasks.pairs import PairFiles
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

_FIELDS = ("article", "highlights")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}
_DATA = DataSet(
    "Hermann et al. 2015, See et al. 2017, https://arxiv.org/abs/1704.04368",
    "`tfds build cnn_dailymail --data_dir DIR` and bind `cnn_dailymail.data_dir = 'DIR'`, or bind "
    "`cnn_dailymail.folder` to a folder with train, validation and test as .jsonl or .csv",
    "train: train (287,113); dev: validation (13,368); test: test (11,490)",
    published.summary_prompt("en"),
)


@text_task(
    version=1,
    features=PAIRS,
    summary="CNN/DailyMail: summary of news in English",
    data=_DATA,
    scores=("rouge",),
)
def cnn_dailymail(
    folder: str | None = None, data_dir: str | None = None, template: str = published.SUMMARY_PROMPT
) -> TextSource:
    """Articles and their highlights, which are one per line.

    Args:
        folder: local folder of JSON lines or CSV; None reads TensorFlow Datasets.
        data_dir: folder of TensorFlow Datasets; None is its default.
        template: text of the inputs: `{source}` stands for the article, `{language}` for its language.
    """
    given = _files(Path(folder)) if folder else _prepared(data_dir)
    prompt = published.summary_prompt("en", template)
    return pairs.pair_source("cnn_dailymail", given, {}, prompt, {"folder": None, "data_dir": None}, "en")


def _files(folder: Path) -> dict[str, PairFiles]:
    given = {}
    for split, name in _SPLITS.items():
        path = text_files.first_of(folder, f"{name}.jsonl", f"{name}.csv")
        if path is None:
            raise published.not_found("cnn_dailymail", [f"{name}.jsonl or {name}.csv in {folder}"], _DATA)
        reader = csv_files.rows if ".csv" in path.suffixes else json_records.rows
        given[split] = PairFiles((path,), lambda path=path, reader=reader: reader(path, *_FIELDS))
    return given


def _prepared(data_dir: str | None) -> dict[str, PairFiles]:
    looked = ["cnn_dailymail.folder, which is not set"]
    prepared = tfds_data.find("cnn_dailymail", data_dir, looked)
    if prepared is None:
        raise published.not_found("cnn_dailymail", looked, _DATA)
    return {split: tfds_data.pair_files(prepared, name, _FIELDS) for split, name in _SPLITS.items()}
