"""`samsum`: messenger dialogues and their summaries (Gliwa et al. 2019), from its JSON files or TFDS.

The published archive `corpus.7z` holds `train.json`, `val.json` and `test.json`, each one array of objects
with `dialogue` and `summary`.
"""

from collections.abc import Iterator
from pathlib import Path

from scaling_jax.tasks import json_records, pairs, published, text_files, tfds_data
from scaling_jax.tasks.pairs import PairFiles
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

_SPLITS = {"train": "train", "dev": "val", "test": "test"}
_PROMPT = "Summarize the following dialogue: {source}"
_DATA = DataSet(
    "Gliwa et al. 2019, https://arxiv.org/abs/1911.12237",
    "https://arxiv.org/src/1911.12237v2/anc/corpus.7z, unpack it (`7z x corpus.7z`) and bind `samsum.folder` "
    "to the folder with train.json, val.json and test.json; or put these into DIR/downloads/manual, run "
    "`tfds build samsum --data_dir DIR` and bind `samsum.data_dir = 'DIR'`",
    "train: train (14,732); dev: val (818); test: test (819)",
    _PROMPT,
)


@text_task(version=1, features=PAIRS, summary="SAMSum: summary of a dialogue", data=_DATA, scores=("rouge",))
def samsum(folder: str | None = None, data_dir: str | None = None, template: str = _PROMPT) -> TextSource:
    """Dialogues and summaries.

    Args:
        folder: local folder with the JSON files (.gz, or .zip of one file, is fine); None reads TensorFlow
            Datasets.
        data_dir: folder of TensorFlow Datasets; None is its default.
        template: text of the inputs; `{source}` stands for the dialogue, whose lines end in a newline.
    """
    given = _files(Path(folder)) if folder else _prepared(data_dir)
    settings = {"folder": None, "data_dir": None}
    return pairs.pair_source("samsum", given, {}, template, settings, "en")


def _files(folder: Path) -> dict[str, PairFiles]:
    given = {}
    for split, name in _SPLITS.items():
        path = text_files.first_of(folder, f"{name}.json", f"{name}.json.zip", f"{name}.zip")
        if path is None:
            archive = " (corpus.7z is there: unpack it)" if (folder / "corpus.7z").exists() else ""
            raise published.not_found("samsum", [f"{name}.json in {folder}{archive}"], _DATA)
        given[split] = PairFiles((path,), lambda path=path: _rows(path))
    return given


def _rows(path: Path) -> Iterator[tuple[str, str]]:
    for dialogue, summary in json_records.rows(path, "dialogue", "summary"):
        yield dialogue.replace("\r\n", "\n"), summary


def _prepared(data_dir: str | None) -> dict[str, PairFiles]:
    looked = ["samsum.folder, which is not set"]
    prepared = tfds_data.find("samsum", data_dir, looked)
    if prepared is None:
        raise published.not_found("samsum", looked, _DATA)

    def make(dialogue: str, summary: str) -> tuple[str, str]:
        return dialogue.replace("\r\n", "\n"), summary

    names = {"train": "train", "dev": "validation", "test": "test"}
    return {
        split: tfds_data.pair_files(prepared, name, ("dialogue", "summary"), make)
        for split, name in names.items()
    }
