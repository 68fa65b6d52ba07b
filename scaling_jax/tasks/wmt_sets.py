"""WMT's dev and test sets, from a local folder or through sacrebleu.

A set goes by sacrebleu's name: `wmt13` is newstest2013, `wmt17/dev` newsdev2017, `wmt20` newstest2020.
A folder may hold it under sacrebleu's own file names (`wmt13.en-de.src` and `wmt13.en-de.ref`, as
`sacrebleu -t wmt13 -l en-de --echo src` prints them, or with the folders of its cache) or under WMT's
(`newstest2013.en`, `newstest2020-ende-src.en.sgm`); `.gz` too. Without it, sacrebleu reads its cache and
downloads what is not there. Of several references the first that sacrebleu's test set names is taken.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.tasks import pairs, text_files
from scaling_jax.tasks.pairs import PairFiles

# Names of WMT's own files, by sacrebleu's name of the set.
_WMT_NAMES = {
    "wmt13": ("newstest2013",),
    "wmt14": ("newstest2014",),
    "wmt14/full": ("newstest2014",),
    "wmt15": ("newstest2015", "newsdiscusstest2015"),
    "wmt16": ("newstest2016",),
    "wmt16/dev": ("newsdev2016",),
    "wmt17": ("newstest2017",),
    "wmt17/dev": ("newsdev2017",),
    "wmt18": ("newstest2018",),
    "wmt19": ("newstest2019",),
    "wmt20": ("newstest2020",),
    "wmt21": ("newstest2021",),
    "wmt22": ("wmttest2022", "generaltest2022", "newstest2022"),
}
_SEGMENT = re.compile(r"<seg[^>]*>(.*)</seg>")


def open_set(task: str, name: str, pair: tuple[str, str], folder: str | None) -> PairFiles:
    """Sentences of a test set and their reference translations.

    Args:
        task: for messages.
        name: sacrebleu's name of the set.
        pair: languages of source and target.
        folder: where to look first; None asks sacrebleu alone.

    Raises:
        InputError: it is in neither place; sacrebleu has no such set or not in this direction.
    """
    looked = []
    if folder:
        names = _file_names(name, pair)
        for source_name, target_name in names:
            source = text_files.first_of(Path(folder), source_name)
            target = text_files.first_of(Path(folder), target_name)
            if source and target:
                return _pair_files(source, target)
        looked.append(f"{' or '.join(' with '.join(pair) for pair in names)} in {folder}")
    return _from_sacrebleu(task, name, pair, looked)


def _file_names(name: str, pair: tuple[str, str]) -> list[tuple[str, str]]:
    source, target = pair
    stem, direction = name.replace("/", "_"), f"{source}-{target}"
    names = [
        (f"{folder}{stem}.{direction}.src", f"{folder}{stem}.{direction}.ref") for folder in ("", f"{name}/")
    ]
    for file in _WMT_NAMES.get(name, ()):
        joined = f"{file}-{source}{target}"
        names.append((f"{file}.{source}", f"{file}.{target}"))
        names.append((f"{joined}-src.{source}.sgm", f"{joined}-ref.{target}.sgm"))
    return names


def _from_sacrebleu(task: str, name: str, pair: tuple[str, str], looked: list[str]) -> PairFiles:
    direction = f"{pair[0]}-{pair[1]}"
    try:
        from sacrebleu import utils
    except ImportError as error:
        raise InputError(
            f"{task}: test set {name} not found{_in_words(looked)}, and sacrebleu, which has it, is not "
            "installed: pip install 'scaling-jax[scores]'"
        ) from error
    known = utils.get_available_testsets()
    if name not in known or direction not in utils.get_langpairs_for_testset(name):
        there = [each for each in known if direction in utils.get_langpairs_for_testset(each)]
        raise InputError(
            f"{task}: sacrebleu has no test set {name!r} of {direction}; it has {', '.join(there)}"
        )
    try:
        source, target = utils.get_source_file(name, direction), utils.get_reference_files(name, direction)[0]
    # It ends the process where a checksum differs, and raises what urllib raises without a network.
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{task}: test set {name} not found{_in_words(looked)}, and sacrebleu could not bring it to "
            f"{utils.SACREBLEU_DIR} ({' '.join(str(error).split()) or type(error).__name__}). Where there is "
            f"a network: sacrebleu -t {name} -l {direction} --echo src > "
            f"{name.replace('/', '_')}.{direction}.src, the same with ref, and bind {task}.test_folder to "
            "their folder"
        ) from error
    return _pair_files(Path(source), Path(target))


def _in_words(looked: list[str]) -> str:
    return f" (looked for {'; '.join(looked)})" if looked else ""


def _pair_files(source: Path, target: Path) -> PairFiles:
    if ".sgm" in source.suffixes:
        return PairFiles((source, target), lambda: _segments(source, target))
    return PairFiles((source, target), lambda: pairs.aligned_rows(source, target))


def _segments(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Segments of two of WMT's SGML files, which are no well-formed SGML: line by line, as sacrebleu does."""
    texts = [
        [" ".join(found.group(1).split()) for found in map(_SEGMENT.search, text_files.lines(path)) if found]
        for path in (source, target)
    ]
    if len(texts[0]) != len(texts[1]):
        raise InputError(
            f"{source} has {len(texts[0]):,} segments and {target} has {len(texts[1]):,}: as many are needed"
        )
    yield from zip(*texts, strict=True)
