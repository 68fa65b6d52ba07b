"""WMT's news translation: `wmt14_en_de`, `wmt15_en_fr`, `wmt16_en_ro`, `wmt17_en_de`, `wmt19_en_zh` and back.

Every direction is a task of its own (`wmt14_de_en`), since its versioned name is what a store is known by.
Training pairs come from a folder of WMT's raw files or from TensorFlow Datasets; dev and test are test
sets of WMT (see `wmt_sets`).

Zhang et al. 2024, section 3, take WMT14 En-De with newstest2013 as dev and WMT19 En-Zh with newsdev2017,
and test both on newstest2020, 2021 and 2022 together. Isik et al. 2024 take WMT17 En-De, WMT15 En-Fr and
WMT16 En-Ro with the test set of the year.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.tasks import languages, pairs, published, text_files, tfds_data, wmt_sets
from scaling_jax.tasks.pairs import PairFiles
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, as_names, text_task

_LATER_NEWS = ("wmt20", "wmt21", "wmt22")


@dataclasses.dataclass(frozen=True)
class _Year:
    """Training data of one year and the test sets used with it; `other` is the language beside English."""

    year: int
    other: str
    corpora: tuple[str, ...]
    dev: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def tfds(self) -> str:
        return f"wmt{self.year}_translate/{self.other}-en"


_YEARS = (
    _Year(
        14,
        "de",
        ("europarl-v7.de-en.{lang}", "commoncrawl.de-en.{lang}", "news-commentary-v9.de-en.{lang}"),
        ("wmt13",),
        _LATER_NEWS,
    ),
    _Year(
        15,
        "fr",
        (
            "europarl-v7.fr-en.{lang}",
            "commoncrawl.fr-en.{lang}",
            "undoc.2000.fr-en.{lang}",
            "news-commentary-v10.fr-en.{lang}",
            "giga-fren.release2.fixed.{lang}",
        ),
        ("wmt14/full",),
        ("wmt15",),
    ),
    _Year(16, "ro", ("europarl-v8.ro-en.{lang}", "SETIMES.en-ro.{lang}"), ("wmt16/dev",), ("wmt16",)),
    _Year(
        17,
        "de",
        (
            "europarl-v7.de-en.{lang}",
            "commoncrawl.de-en.{lang}",
            "news-commentary-v12.de-en.{lang}",
            "rapid2016.de-en.{lang}",
        ),
        ("wmt16",),
        ("wmt17",),
    ),
    _Year(
        19,
        "zh",
        (
            "news-commentary-v14.en-zh.tsv",
            "wikititles-v1.zh-en.tsv",
            "UNv1.0.en-zh.{lang}",
            "casia2015/*_{lang}.txt",
            "casict2011/*_{lang}.txt",
            "casict2015/*_{lang}.txt",
            "datum2015/*_{lang}.txt",
            "datum2017/*_{lang}.txt",
            "neu2017/*_{lang}.txt",
        ),
        ("wmt17/dev",),
        _LATER_NEWS,
    ),
)
# The Chinese side of CWMT's files is called ch or cn.
_SIDES = {"zh": ("zh", "ch", "cn")}


def _register(year: _Year, pair: tuple[str, str]) -> None:
    name = f"wmt{year.year}_{pair[0]}_{pair[1]}"
    data = DataSet(
        f"WMT 20{year.year}, https://www.statmt.org/wmt{year.year}/translation-task.html",
        f"`tfds build {year.tfds} --data_dir DIR` and bind `{name}.data_dir = 'DIR'`, or bind "
        f"`{name}.folder` to a folder with `{' '.join(year.corpora)}` of WMT 20{year.year}'s page, unpacked "
        "(.gz is fine); "
        f"dev and test come through sacrebleu, or from the folder bound to `{name}.test_folder`",
        f"train: all its parallel text; dev: {' + '.join(year.dev)}; test: {' + '.join(year.test)} "
        "(sacrebleu's names)",
        published.TRANSLATION_PROMPT,
    )

    def task(
        folder: str | None = None,
        corpora: str | Sequence[str] = year.corpora,
        data_dir: str | None = None,
        dev_sets: str | Sequence[str] = year.dev,
        test_sets: str | Sequence[str] = year.test,
        test_folder: str | None = None,
        template: str = published.TRANSLATION_PROMPT,
    ) -> TextSource:
        """Sentence pairs of WMT.

        Args:
            folder: local folder of the raw training files; None reads TensorFlow Datasets.
            corpora: patterns of the training files in that folder or one of its sub-folders, with `{lang}`
                for the language (two line-aligned files), or ending in `.tsv` (one file, whose name has
                the order of the languages).
            data_dir: folder of TensorFlow Datasets; None is its default.
            dev_sets: sacrebleu's names of the sets that are dev, one after the other.
            test_sets: the same for test.
            test_folder: local folder of these sets; None looks in `folder`, then asks sacrebleu.
            template: text of the inputs: `{source}`, `{source_language}`, `{target_language}`.
        """
        train = _training_pairs(name, year, data, pair, (folder, as_names(corpora), data_dir))
        given = {"train": train}
        for split, sets in (("dev", dev_sets), ("test", test_sets)):
            if sets:
                given[split] = _sets(name, as_names(sets), pair, test_folder or folder)
        settings = {"folder": None, "test_folder": None, "data_dir": None}  # what is there counts, not where
        prompt = published.translation_prompt(name, template, *pair)
        return pairs.pair_source(name, given, {"dev": 0, "test": 0}, prompt, settings, pair[1])

    task.__name__ = task.__qualname__ = name
    summary = " to ".join(languages.language(name, code).name for code in pair)
    register = text_task(
        version=1, features=PAIRS, summary=f"WMT {year.year}: {summary}", data=data, scores=("bleu", "chrf")
    )
    register(task)


def _sets(task: str, names: Sequence[str], pair: tuple[str, str], folder: str | None) -> PairFiles:
    return pairs.concatenated([wmt_sets.open_set(task, name, pair, folder) for name in names])


def _training_pairs(
    task: str,
    year: _Year,
    data: DataSet,
    pair: tuple[str, str],
    where: tuple[str | None, Sequence[str], str | None],
) -> PairFiles:
    folder, corpora, data_dir = where
    if folder:
        if not Path(folder).is_dir():
            raise InputError(f"{task}.folder: no folder {folder}")
        return pairs.concatenated([_corpus(task, Path(folder), corpus, pair) for corpus in corpora])
    looked = [f"{task}.folder, which is not set"]
    prepared = tfds_data.find(year.tfds, data_dir, looked)
    if prepared is None:
        raise published.not_found(task, looked, data)
    return tfds_data.pair_files(prepared, "train", pair)


def _corpus(task: str, folder: Path, pattern: str, pair: tuple[str, str]) -> PairFiles:
    if "{lang}" not in pattern:
        found = _matching(folder, [pattern])
        order = re.search(r"([a-z]{2})-([a-z]{2})\.tsv", pattern)
        if order is None or set(order.groups()) != set(pair):
            raise InputError(
                f"{task}.corpora: {pattern!r} has neither {{lang}} nor a name that ends in "
                f"{pair[0]}-{pair[1]}.tsv or {pair[1]}-{pair[0]}.tsv"
            )
        columns = tuple(order.groups().index(code) for code in pair)
        parts = [PairFiles((path,), lambda path=path: _tsv_rows(path, columns)) for path in found]
    else:
        sides = [
            _matching(folder, [pattern.replace("{lang}", code) for code in _SIDES.get(language, (language,))])
            for language in pair
        ]
        found = min(sides, key=len)
        if len(sides[0]) != len(sides[1]):
            raise InputError(
                f"{task}: {folder}/{pattern}: {len(sides[0])} files of {pair[0]} and {len(sides[1])} of "
                f"{pair[1]}"
            )
        parts = [
            PairFiles(files, lambda files=files: pairs.aligned_rows(*files))
            for files in zip(*sides, strict=True)
        ]
    if not found:
        raise InputError(
            f"{task}: {folder} and its sub-folders have no {pattern} (.gz is fine); bind {task}.corpora to "
            "the files that you have"
        )
    return pairs.concatenated(parts)


def _matching(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """Files of the folder, or else of its sub-folders, that one of the patterns names, in order of name."""
    for below in ("", "*/"):
        found = {
            path
            for pattern in patterns
            for ending in ("", ".gz")
            for path in folder.glob(f"{below}{pattern}{ending}")
        }
        if found:
            return text_files.once(found)
    return []


def _tsv_rows(path: Path, columns: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    for line in text_files.lines(path):
        # WMT's files have lines without a tab (between documents); a side that is not there is empty.
        cells = [*line.split("\t"), ""]
        yield cells[columns[0]], cells[columns[1]]


for _year in _YEARS:
    _register(_year, ("en", _year.other))
    _register(_year, (_year.other, "en"))
