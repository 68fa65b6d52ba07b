"""`orangesum`: French news and their abstracts (Kamal Eddine et al. 2021), from local files.

The published archive holds line-aligned files (`train.source`, `train.target`, the same for valid and test).
Each split can also be one JSON-lines file with the fields `article` and `heading`, or two line-aligned files
of any name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.tasks import json_records, pairs, published, text_files
from scaling_jax.tasks.pairs import PairFiles
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

_SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_DATA = DataSet(
    "Kamal Eddine, Tixier, Vazirgiannis 2021, https://arxiv.org/abs/2010.12321",
    "https://github.com/Tixierae/OrangeSum/raw/main/data/docs/splits/abstract.tgz, unpack it and bind "
    "`orangesum.folder` to the folder abstract; or bind `orangesum.train`, `.dev` and `.test` to files",
    "train: train (21,401); dev: valid (1,500); test: test (1,500)",
    published.summary_prompt("fr"),
)


@text_task(
    version=1,
    features=PAIRS,
    summary="OrangeSum: summary of news in French",
    data=_DATA,
    scores=("rouge",),
)
def orangesum(
    folder: str | None = None,
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    template: str = published.SUMMARY_PROMPT,
) -> TextSource:
    """Articles and their abstracts.

    Args:
        folder: the folder `abstract` of the published archive, for splits that are not given below.
        train: one JSON-lines file, or (articles, abstracts), two line-aligned files.
        dev: the same.
        test: the same.
        template: text of the inputs: `{source}` stands for the article, `{language}` for its language.
    """
    given = {}
    for split, value in (("train", train), ("dev", dev), ("test", test)):
        if value:
            given[split] = _open(f"orangesum.{split}", value)
        elif folder:
            given[split] = _published(Path(folder), _SPLITS[split])
    if "train" not in given:
        raise published.not_found("orangesum", ["orangesum.folder and .train, which are not set"], _DATA)
    prompt = published.summary_prompt("fr", template)
    return pairs.pair_source(
        "orangesum", given, {"dev": 0, "test": 0}, prompt, {"folder": None}, target_language="fr"
    )


def _published(folder: Path, name: str) -> PairFiles:
    paths = [text_files.first_of(folder, f"{name}.{side}") for side in ("source", "target")]
    if None in paths:
        raise published.not_found("orangesum", [f"{name}.source and {name}.target in {folder}"], _DATA)
    return _open("orangesum.folder", paths)


def _open(binding: str, value: Any) -> PairFiles:
    paths = text_files.as_paths(binding, value)
    if len(paths) == 1:
        return PairFiles(paths, lambda: json_records.rows(paths[0], "article", "heading"))
    if len(paths) == 2:
        return PairFiles(paths, lambda: pairs.aligned_rows(*paths))
    raise InputError(f"{binding}: one JSON-lines file or (articles, abstracts), not {len(paths)} files")
