"""Source and target pairs read from files: checked once from end to end, split, and read again.

Shared by the tasks that read pairs; each of them only says how its rows are read.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from scaling_jax.errors import InputError
from scaling_jax.tasks import text_files
from scaling_jax.tasks.registry import PAIRS, TextSource

SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(frozen=True)
class PairFiles:
    """One split's files and a function that reads their rows (source, target) from the beginning.

    `known_as` is the identity of what is read, where that is not the content of the files.
    """

    paths: tuple[Path, ...]
    rows: Callable[[], Iterator[tuple[str, str]]]
    known_as: tuple[Any, ...] | None = None

    def identity(self) -> list[Any]:
        """What a store of these pairs depends on."""
        return text_files.hashes(self.paths) if self.known_as is None else list(self.known_as)


def concatenated(parts: Sequence[PairFiles]) -> PairFiles:
    """The pairs of all parts, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    paths = tuple(path for part in parts for path in part.paths)
    known_as = tuple(item for part in parts for item in part.identity())
    return PairFiles(paths, lambda: (row for part in parts for row in part.rows()), known_as)


def pair_source(
    task: str,
    given: Mapping[str, PairFiles],
    cut: Mapping[str, int],
    template: str,
    settings: Mapping[str, Any],
    target_language: str | None = None,
) -> TextSource:
    """The text of a task of pairs.

    A pair with an empty side is left out, and how many were is said. Where no dev or test files are
    given, that many pairs are taken out of the training files instead, evenly spaced, so that the cut
    is the same every time and no part of the corpus is missed.

    Args:
        task: name, for messages.
        given: files of `train`, and of `dev` and `test` where there are some; without `train`, of those.
        cut: {"dev": pairs, "test": pairs}, used where no files are given but those of `train`.
        template: text of the inputs; `{source}` stands for the source side.
        settings: what the examples depend on beyond files and sizes.
        target_language: ISO 639-1 code.

    Raises:
        InputError: whatever reading the files raises; files without pairs; too few pairs for the cut.
    """
    if "{source}" not in str(template):
        raise InputError(
            f"{task}.template = {template!r}: must contain {{source}}, where the source text goes"
        )
    notes: list[str] = []
    usable = {split: _count(files, notes) for split, files in given.items()}
    missing = [split for split in SPLITS[1:] if split not in given and "train" in given]
    places = cut_places(task, usable.get("train", 0), {split: cut[split] for split in missing})
    taken = frozenset().union(*places.values())

    def reader(split: str) -> Callable[[], Iterator[Mapping[str, list[str]]]]:
        files = given[split if split in given else "train"]

        def keep(place: int) -> bool:
            return place in places[split] if split in places else split != "train" or place not in taken

        def read() -> Iterator[Mapping[str, list[str]]]:
            rows = ((source, target) for source, target in files.rows() if source.strip() and target.strip())
            texts = (
                (template.replace("{source}", row[0]), row[1])
                for place, row in enumerate(rows)
                if keep(place)
            )
            return text_files.in_blocks(texts, PAIRS)

        return read

    for split, numbers in ((split, numbers) for split, numbers in places.items() if numbers):
        notes.append(
            f"{split}: {len(numbers):,} evenly spaced pairs of {_names(given['train'])}, not in train"
        )
    identity = {split: given[split].identity() if split in given else None for split in SPLITS}
    splits = {split: reader(split) for split in SPLITS if split in given or places.get(split)}
    examples = {split: usable[split] if split in given else len(places[split]) for split in splits}
    if "train" in examples:
        examples["train"] -= len(taken)
    return TextSource(
        splits,
        identity={**identity, **settings},
        notes=tuple(notes),
        target_language=target_language,
        examples=examples,
    )


def concatenated_sources(sources: Mapping[str, TextSource]) -> TextSource:
    """Texts of pairs, named, one after the other; nested subsets of a split keep the shares of its parts."""
    names = [split for split in SPLITS if any(split in source.splits for source in sources.values())]
    groups = {
        split: {name: source.examples[split] for name, source in sources.items() if split in source.splits}
        for split in names
    }

    def reader(split: str) -> Callable[[], Iterator[Mapping[str, list[str]]]]:
        readers = [source.splits[split] for source in sources.values() if split in source.splits]
        return lambda: (block for read in readers for block in read())

    languages = {source.target_language for source in sources.values()}
    return TextSource(
        {split: reader(split) for split in names},
        identity={"parts": {name: source.identity for name, source in sources.items()}},
        notes=tuple(f"{name}: {note}" for name, source in sources.items() for note in source.notes),
        target_language=languages.pop() if len(languages) == 1 else None,
        examples={split: sum(counts.values()) for split, counts in groups.items()},
        groups=groups,
    )


def _count(files: PairFiles, notes: list[str]) -> int:
    total = usable = 0
    for source, target in files.rows():
        total += 1
        usable += bool(source.strip() and target.strip())
    if not total:
        raise InputError(f"{files.paths[0]}: the file is empty")
    if not usable:
        raise InputError(f"{_names(files)}: every pair has an empty side")
    if usable < total:
        notes.append(
            f"{_names(files)}: {total - usable:,} of {total:,} pairs have an empty side and are left out"
        )
    return usable


def cut_places(
    task: str, usable: int, sizes: Mapping[str, int], things: str = "pairs"
) -> dict[str, frozenset[int]]:
    """Which training pairs (or other `things`) go to dev and test: numbers among the usable, evenly spaced.

    Raises:
        InputError: too few for the cut.
    """
    if not all(type(size) is int for size in sizes.values()):
        raise InputError(f"{task}: cut_dev and cut_test must be whole numbers, these are {dict(sizes)}")
    wanted = sum(sizes.values())
    if min(sizes.values(), default=0) < 0:
        raise InputError(f"{task}: cut_dev and cut_test must not be negative")
    if 2 * wanted > usable:
        raise InputError(
            f"{task}: cannot take {wanted:,} {things} for {' and '.join(sizes)} out of {usable:,} training "
            f"{things} (at most half); name files for them, or bind smaller {task}.cut_dev and "
            f"{task}.cut_test"
        )
    places: dict[str, set[int]] = {split: set() for split in sizes}
    for number in range(wanted):
        # Shares of the two splits interleave as their sizes do.
        is_dev = (number + 1) * sizes.get("dev", 0) // wanted > number * sizes.get("dev", 0) // wanted
        places["dev" if is_dev else "test"].add(number * usable // wanted)
    return {split: frozenset(numbers) for split, numbers in places.items()}


def _names(files: PairFiles) -> str:
    return " and ".join(str(path) for path in files.paths)


def by_split(
    task: str, train: Any, dev: Any, test: Any, open_files: Callable[[str, Any], PairFiles]
) -> dict[str, PairFiles]:
    """Opens what is bound to `train`, `dev` and `test`.

    Raises:
        InputError: nothing is bound to `train`.
    """
    if not train:
        raise InputError(f"{task}.train is not set: bind it to your training file")
    bound = {"train": train, "dev": dev, "test": test}
    return {split: open_files(f"{task}.{split}", value) for split, value in bound.items() if value}


def aligned_rows(source: Path, target: Path) -> Iterator[tuple[str, str]]:
    """Lines of two files, line i of one beside line i of the other.

    Raises:
        InputError: one is shorter than the other.
    """
    rows = itertools.zip_longest(text_files.lines(source), text_files.lines(target))
    for number, (left, right) in enumerate(rows, 1):
        if left is None or right is None:
            shorter, longer = (source, target) if left is None else (target, source)
            count = sum(1 for _ in text_files.lines(longer))
            raise InputError(
                f"{shorter} has {number - 1:,} lines and {longer} has {count:,}: line i of one must "
                "belong to line i of the other"
            )
        yield left, right


def columns_of(path: Path, number: int, line: str, columns: Sequence[int]) -> tuple[str, str]:
    """Two columns of a tab-separated line.

    Raises:
        InputError: too few columns.
    """
    cells = line.split("\t")
    if len(cells) <= max(columns):
        raise InputError(
            f"{path}:{number}: {len(cells)} tab-separated column(s), column {max(columns) + 1} is needed"
        )
    return cells[columns[0]], cells[columns[1]]
