"""`plain_text`: pretraining text, one document per line; several files, `.gz` too."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from scaling_jax.errors import InputError
from scaling_jax.tasks import text_files
from scaling_jax.tasks.registry import DOCUMENTS, TextSource, text_task

# Which lines of a file a split reads, numbered among those that are not blank: from, to (exclusive).
_Ranges = Mapping[Path, tuple[int, int]]


@text_task(version=1, features=DOCUMENTS, summary="your own text for pretraining, one document per line")
def plain_text(
    train: str | Sequence[str] | None = None,
    dev: str | Sequence[str] | None = None,
    test: str | Sequence[str] | None = None,
    dev_share: float = 0.01,
    test_share: float = 0.0,
) -> TextSource:
    """Documents from files; blank lines are passed over.

    Args:
        train: one file or several, read in this order.
        dev: the same; None cuts `dev_share` of the lines off the end of every training file.
        test: the same; None cuts `test_share` off, before those of dev.
        dev_share: share of each training file, rounded up to whole lines; 0 makes no dev split.
        test_share: the same for test.
    """
    if not train:
        raise InputError("plain_text.train is not set: bind it to your text file, or a list of them")
    if not all(isinstance(share, (int, float)) for share in (dev_share, test_share)):
        raise InputError("plain_text.dev_share and plain_text.test_share: numbers are needed")
    if min(dev_share, test_share) < 0 or dev_share + test_share > 0.5:
        raise InputError("plain_text.dev_share and plain_text.test_share: from 0 on, together at most 0.5")
    bound = {"train": train, "dev": dev, "test": test}
    paths = {
        split: text_files.as_paths(f"plain_text.{split}", value) for split, value in bound.items() if value
    }
    counts = {path: _count(path) for files in paths.values() for path in files}
    shares = {"dev": 0.0 if dev else dev_share, "test": 0.0 if test else test_share}
    ranges: dict[str, dict[Path, tuple[int, int]]] = {"train": {}, "dev": {}, "test": {}}
    for path in paths["train"]:
        dev_begin = counts[path] - _share_of(counts[path], shares["dev"])
        test_begin = dev_begin - _share_of(counts[path], shares["test"])
        if test_begin < 1:
            raise InputError(
                f"{path}: {counts[path]} line(s) are too few to cut dev or test off; name files for them"
            )
        cuts = {"train": (0, test_begin), "test": (test_begin, dev_begin), "dev": (dev_begin, counts[path])}
        for split, (begin, end) in cuts.items():
            if begin < end:
                ranges[split][path] = (begin, end)
    for split in ("dev", "test"):
        ranges[split].update({path: (0, counts[path]) for path in paths.get(split, ())})
    identity = {split: text_files.hashes(paths[split]) if split in paths else None for split in bound}
    notes = tuple(
        f"{split}: the last lines of each training file ({share:.2%}), not in train"
        for split, share in shares.items()
        if share
    )
    return TextSource(
        {split: _reader(files) for split, files in ranges.items() if files}, identity=identity, notes=notes
    )


def _reader(ranges: _Ranges) -> Callable[[], Iterator[Mapping[str, list[str]]]]:
    def rows() -> Iterator[tuple[str]]:
        for path, (begin, end) in ranges.items():
            for number, line in enumerate(_documents(path)):
                if number >= end:
                    break
                if number >= begin:
                    yield (line,)

    return lambda: text_files.in_blocks(rows(), DOCUMENTS)


def _documents(path: Path) -> Iterator[str]:
    return (line for line in map(str.strip, text_files.lines(path)) if line)


def _count(path: Path) -> int:
    count = sum(1 for _ in _documents(path))
    if not count:
        raise InputError(f"{path}: the file is empty")
    return count


def _share_of(count: int, share: float) -> int:
    return -int(-count * share // 1)  # rounded up, so that a short file gives a line too
