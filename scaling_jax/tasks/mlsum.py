"""MLSUM (Scialom et al. 2020) by language, and `mlsum`, the mixture of Zhang et al. 2024.

`mlsum_de`, `_es`, `_fr`, `_ru` and `_tu` read the published files, JSON lines, zipped: `de_train.zip` with
`de_train.jsonl`, and so on for val and test.
TensorFlow Datasets has the German and Spanish parts of GEM's edition, `gem/mlsum_de` and `gem/mlsum_es`,
which leaves some bad articles out.

`mlsum` is what Zhang et al. 2024, section 3, finetune on: the German, Spanish and French parts and, as
English, CNN/DailyMail, one after the other, each article with the prefix "Summarize the following document
in {language}:". Subsets of its training split keep the shares of the four (`data.batches.nested_subset`).
"""

from collections.abc import Sequence
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.tasks import json_records, languages, pairs, published, registry, text_files, tfds_data
from scaling_jax.tasks.pairs import PairFiles
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

_SOURCE = "Scialom et al. 2020, https://arxiv.org/abs/2004.14900"
# MLSUM's codes: Turkish is tu.
_LANGUAGES = {"de": "de", "es": "es", "fr": "fr", "ru": "ru", "tu": "tr"}
_IN_TFDS = ("de", "es")
_SPLITS = {"train": "train", "dev": "val", "test": "test"}


def _register(code: str) -> None:
    name, language = f"mlsum_{code}", _LANGUAGES[code]
    prebuilt = f"; or `tfds build gem/{name} --data_dir DIR` and bind `{name}.data_dir = 'DIR'`"
    data = DataSet(
        _SOURCE,
        f"https://gitlab.lip6.fr/scialom/mlsum_data/-/raw/master/MLSUM/{code}_train.zip, {code}_val.zip and "
        f"{code}_test.zip, and bind `{name}.folder` to their folder (zipped or not)"
        f"{prebuilt if code in _IN_TFDS else ''}",
        "train: train; dev: val; test: test",
        published.summary_prompt(language),
    )

    def task(
        folder: str | None = None, data_dir: str | None = None, template: str = published.SUMMARY_PROMPT
    ) -> TextSource:
        """Articles and their summaries.

        Args:
            folder: local folder of the published files; None reads TensorFlow Datasets.
            data_dir: folder of TensorFlow Datasets; None is its default.
            template: text of the inputs: `{source}` stands for the article, `{language}` for its language.
        """
        given = _files(name, code, Path(folder), data) if folder else _prepared(name, code, data_dir, data)
        prompt = published.summary_prompt(language, template)
        return pairs.pair_source(name, given, {}, prompt, {"folder": None, "data_dir": None}, language)

    task.__name__ = task.__qualname__ = name
    summary = f"MLSUM: summary of news in {languages.language(name, language).name}"
    text_task(version=1, features=PAIRS, summary=summary, data=data, scores=("rouge",))(task)


def _files(task: str, code: str, folder: Path, data: DataSet) -> dict[str, PairFiles]:
    given = {}
    for split, part in _SPLITS.items():
        names = [f"{code}_{part}{ending}" for ending in (".jsonl", ".zip", ".jsonl.zip")]
        path = text_files.first_of(folder, *names)
        if path is None:
            raise published.not_found(task, [f"{' or '.join(names[:2])} in {folder}"], data)
        given[split] = PairFiles((path,), lambda path=path: json_records.rows(path, "text", "summary"))
    return given


def _prepared(task: str, code: str, data_dir: str | None, data: DataSet) -> dict[str, PairFiles]:
    looked = [f"{task}.folder, which is not set"]
    prepared = tfds_data.find(f"gem/{task}", data_dir, looked) if code in _IN_TFDS else None
    if prepared is None:
        raise published.not_found(task, looked, data)
    names = {"train": "train", "dev": "validation", "test": "test"}
    return {split: tfds_data.pair_files(prepared, name, ("text", "target")) for split, name in names.items()}


for _code in _LANGUAGES:
    _register(_code)

_PARTS = ("mlsum_de", "mlsum_es", "mlsum_fr", "cnn_dailymail")


@text_task(
    version=1,
    features=PAIRS,
    summary="MLSum of Zhang et al. 2024: MLSUM de, es, fr and CNN/DailyMail",
    data=DataSet(
        f"{_SOURCE}, and See et al. 2017, https://arxiv.org/abs/1704.04368",
        "as for mlsum_de, mlsum_es, mlsum_fr and cnn_dailymail, each bound by its own name",
        "train, dev, test: those of the four parts, one after the other; subsets of train keep their shares",
        published.SUMMARY_PROMPT,
    ),
    scores=("rouge",),
)
def mlsum(parts: str | Sequence[str] = _PARTS) -> TextSource:
    """The parts end to end; each is a task with settings of its own (`mlsum_de.folder`).

    Args:
        parts: names of tasks with inputs and targets, or one.
    """
    parts = registry.as_names(parts)
    if not parts:
        raise InputError("mlsum.parts is empty: name tasks such as 'mlsum_de'")
    found = [registry.find(part) for part in parts]
    wrong = [task.name for task in found if task.features != PAIRS or task.columns or task.name == "mlsum"]
    if wrong:
        raise InputError(f"mlsum.parts: {wrong[0]} is no part of a mixture of inputs and targets")
    sources = {task.name: task.call() for task in found}
    for name, source in sources.items():
        if not source.splits.keys() <= source.examples.keys():
            raise InputError(f"mlsum.parts: {name} does not say how many examples it has, which shares need")
    return pairs.concatenated_sources(sources)
