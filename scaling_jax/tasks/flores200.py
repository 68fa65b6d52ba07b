"""`flores200`: Flores-200 (NLLB Team 2022), for zero-shot translation; dev and devtest alone, no training.

Zhang et al. 2024, section 3, average over {fr, de, hi, tr, pl} to zh for models tuned on En-Zh, and over
{fr, zh, hi, tr, pl} to de for models tuned on En-De. The files are those of the official archive:
`flores200_dataset/dev/fra_Latn.dev` and `flores200_dataset/devtest/fra_Latn.devtest`, a sentence per line.
"""

from pathlib import Path

from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import languages, pairs, published, text_files
from scaling_jax.tasks.pairs import PairFiles
from scaling_jax.tasks.registry import PAIRS, DataSet, TextSource, text_task

_SPLITS = {"dev": "dev", "test": "devtest"}
_DATA = DataSet(
    "NLLB Team 2022, https://arxiv.org/abs/2207.04672",
    "https://tinyurl.com/flores200dataset (flores200_dataset.tar.gz, named by "
    "https://github.com/facebookresearch/flores), unpack it and bind `flores200.folder` to flores200_dataset",
    "dev: dev (997 sentences); test: devtest (1,012); no train",
    published.TRANSLATION_PROMPT,
)


@text_task(
    version=1,
    features=PAIRS,
    summary="Flores-200: any of its languages to any other, dev and test alone",
    data=_DATA,
    scores=("bleu", "chrf"),
)
def flores200(
    folder: str | None = None,
    source: str = "fr",
    target: str = "de",
    template: str = published.TRANSLATION_PROMPT,
) -> TextSource:
    """Sentence pairs of Flores-200.

    Args:
        folder: `flores200_dataset`, or a folder that holds it.
        source: language of the inputs, ISO 639-1 ("fr") or Flores' own code ("fra_Latn"): any of the folder.
        target: language of the targets, another one.
        template: text of the inputs: `{source}`, `{source_language}`, `{target_language}`. The wording
            should be that of the task that the model was tuned on.
    """
    root = _root(folder)
    codes = tuple(languages.FLORES.get(language, language) for language in (source, target))
    if codes[0] == codes[1]:
        raise InputError(
            f"flores200.source = {source!r} and flores200.target = {target!r} are one language: name two"
        )
    given = {split: _pair(root, part, source, target) for split, part in _SPLITS.items()}
    prompt = published.translation_prompt("flores200", template, *codes)
    settings = {"folder": None, "source": source, "target": target}
    known = languages.by_flores_code().get(codes[1])
    return pairs.pair_source("flores200", given, {}, prompt, settings, known.code if known else None)


def _root(folder: str | None) -> Path:
    if folder is None:
        raise published.not_found("flores200", ["flores200.folder, which is not set"], _DATA)
    places = [Path(folder), Path(folder) / "flores200_dataset"]
    for place in places:
        if all((place / part).is_dir() for part in _SPLITS.values()):
            return place
    raise published.not_found("flores200", [f"{place}/devtest and {place}/dev" for place in places], _DATA)


def _pair(root: Path, part: str, source: str, target: str) -> PairFiles:
    paths = []
    for binding, language in (("source", source), ("target", target)):
        path = text_files.first_of(root / part, f"{languages.FLORES.get(language, language)}.{part}")
        if path is None:
            there = {file.name.split(".")[0] for file in (root / part).glob(f"*.{part}*")}
            known = there | {short for short, code in languages.FLORES.items() if code in there}
            raise InputError(
                f"flores200.{binding} = {language!r}: {root / part} has no such language"
                f"{did_you_mean(language, known)}"
            )
        paths.append(path)
    return PairFiles(tuple(paths), lambda: pairs.aligned_rows(*paths))
