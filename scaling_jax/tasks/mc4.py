"""`mc4`: web pages of one language (Xue et al. 2021) to pretrain on, from AllenAI's files or TFDS.

AllenAI publishes JSON lines with a field `text`, in `multilingual/`: training in
`c4-de.tfrecord-00000-of-02048.json.gz` and so on, dev in `c4-de-validation.tfrecord-...json.gz`. English is
read from the same set (`c4-en.tfrecord-...`). TensorFlow Datasets has `c4/multilingual`, with the splits
`de` and `de-validation`.

A language has up to billions of pages: `train_documents` and `dev_documents` take the first ones, in the
order of the files.
"""

import hashlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.tasks import json_records, published, text_files, tfds_data
from scaling_jax.tasks.registry import DOCUMENTS, DataSet, TextSource, text_task

_TFDS = "c4/multilingual"
_DATA = DataSet(
    "Xue et al. 2021, https://arxiv.org/abs/2010.11934",
    "clone https://huggingface.co/datasets/allenai/c4 with `GIT_LFS_SKIP_SMUDGE=1 git clone`, then "
    "`git lfs pull --include 'multilingual/c4-de*.json.gz'`, and bind `mc4.folder` to its folder "
    "multilingual; or `tfds build c4/multilingual --data_dir DIR` and bind `mc4.data_dir = 'DIR'`",
    "train: the language's pages, or the first mc4.train_documents of them; dev: its validation pages",
)
_Rows = Callable[[], Iterator[tuple[str]]]


@text_task(version=1, features=DOCUMENTS, summary="mC4: web pages of one language", data=_DATA)
def mc4(
    language: str = "de",
    folder: str | None = None,
    data_dir: str | None = None,
    train_documents: int | None = None,
    dev_documents: int | None = 10_000,
) -> TextSource:
    """Web pages.

    Args:
        language: mC4's code ("de", "zh", "iw").
        folder: local folder of AllenAI's files; None reads TensorFlow Datasets.
        data_dir: folder of TensorFlow Datasets; None is its default.
        train_documents: the first so many pages; None for all.
        dev_documents: the same of the validation pages.
    """
    limits = {"train": train_documents, "dev": dev_documents}
    for split, limit in limits.items():
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise InputError(
                f"mc4.{split}_documents = {limit!r}: a whole number of at least 1, or None for all"
            )
    sources = _files(Path(folder), language) if folder else _prepared(language, data_dir)
    readers = {split: _reader(rows, limits[split]) for split, (rows, _) in sources.items()}
    identity = {split: known_as for split, (_, known_as) in sources.items()}
    return TextSource(readers, identity={"folder": None, "data_dir": None, **identity})


def _reader(rows: _Rows, limit: int | None) -> Callable[[], Iterator[Mapping[str, list[str]]]]:
    def documents() -> Iterator[tuple[str]]:
        return (row for row in itertools.islice(rows(), limit) if row[0].strip())

    return lambda: text_files.in_blocks(documents(), DOCUMENTS)


def _files(folder: Path, language: str) -> dict[str, tuple[_Rows, list]]:
    patterns = {"train": f"c4-{language}.*.json*", "dev": f"c4-{language}-validation.*.json*"}
    found = {split: text_files.once(folder.glob(pattern)) for split, pattern in patterns.items()}
    for split, paths in found.items():
        if not paths:
            raise published.not_found("mc4", [f"{patterns[split]} in {folder}"], _DATA)

    def opened(paths: list[Path]) -> tuple[_Rows, list]:
        # Names and sizes: to hash hundreds of gigabytes would take longer than to tokenise what is asked.
        known_as = [f"{path.name.removesuffix('.gz')} {path.stat().st_size}" for path in paths]
        digest = hashlib.sha256("\n".join(known_as).encode()).hexdigest()
        return lambda: (row for path in paths for row in json_records.rows(path, "text")), [digest]

    return {split: opened(paths) for split, paths in found.items()}


def _prepared(language: str, data_dir: str | None) -> dict[str, tuple[_Rows, list]]:
    looked = ["mc4.folder, which is not set"]
    prepared = tfds_data.find(_TFDS, data_dir, looked)
    if prepared is None:
        raise published.not_found("mc4", looked, _DATA)

    def opened(split: str) -> tuple[_Rows, list]:
        return lambda: prepared.rows(split, "text"), list(prepared.identity(split))

    return {"train": opened(language), "dev": opened(f"{language}-validation")}
