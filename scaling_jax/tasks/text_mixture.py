"""`text_mixture`: documents of several tasks in stated shares, as one text to pretrain on.

    text_mixture.parts = {'en': 'mc4', 'de': 'mc4'}         # name: task
    text_mixture.shares = {'en': 0.3, 'de': 0.7}
    en/mc4.language = 'en'                                   # settings of a part under its name as gin scope
    de/mc4.language = 'de'

Documents are taken one at a time from the part that is furthest behind its share, so that every prefix has
the stated shares to within one document, and the order depends on the texts alone. The text ends where the
first part ends: nothing is repeated and no share drifts.

Shares are of what `measure` says. Of tokens they are only exact when counted by the model's own vocabulary
(`measure = 'tokens'`, `model`). To compare several mixtures of the same texts, prepare one store for each
text instead and mix them batch by batch (`PretrainSettings.mixture`): that is exact in tokens and costs
one preparation.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gin

from scaling_jax import files
from scaling_jax.errors import InputError, did_you_mean
from scaling_jax.tasks import registry, text_files
from scaling_jax.tasks.registry import DOCUMENTS, DataSet, TextSource, text_task

# Gets the texts of a block, returns how much each counts.
_Measure = Callable[[Sequence[str]], Sequence[int]]


def _documents(texts: Sequence[str]) -> Sequence[int]:
    return [1] * len(texts)


def _characters(texts: Sequence[str]) -> Sequence[int]:
    return [len(text) for text in texts]


def _tokens(model: str | None) -> _Measure:
    if not model or not Path(model).is_file():
        raise InputError(
            f"text_mixture.model = {model!r}: measure 'tokens' needs the vocabulary's .model file "
            "(SentencePiece)"
        )
    import sentencepiece

    processor = sentencepiece.SentencePieceProcessor(model_file=model)
    # A document is followed by the end-of-sequence token.
    return lambda texts: [len(ids) + 1 for ids in processor.encode(list(texts))]


_MEASURES: dict[str, Callable[[str | None], _Measure]] = {
    "documents": lambda model: _documents,
    "characters": lambda model: _characters,
    "tokens": _tokens,
}


@text_task(
    version=1,
    features=DOCUMENTS,
    summary="documents of several pretraining tasks in stated shares",
    data=DataSet(
        "the parts'",
        "as for its parts, each bound under its name as gin scope",
        "train, dev, test: those that all parts have; each ends where its first part ends",
    ),
)
def text_mixture(
    parts: Mapping[str, str] | None = None,
    shares: Mapping[str, float] | None = None,
    measure: str = "characters",
    model: str | None = None,
) -> TextSource:
    """Interleaved documents.

    Args:
        parts: {name: task}; the task's settings are bound under the name as gin scope.
        shares: {name: share}, above 0, together 1; equal shares where None.
        measure: what shares are counted in: "documents", "characters" or "tokens".
        model: SentencePiece model that counts tokens.
    """
    if not parts:
        raise InputError("text_mixture.parts is not set: {name: task}, such as {'en': 'mc4', 'de': 'mc4'}")
    shares = _checked_shares(parts, shares)
    if measure not in _MEASURES:
        raise InputError(f"text_mixture.measure = {measure!r}{did_you_mean(measure, _MEASURES)}")
    amount = _MEASURES[measure](model)
    sources = {name: _source(name, task) for name, task in parts.items()}
    names = [
        split
        for split in ("train", "dev", "test")
        if all(split in source.splits for source in sources.values())
    ]
    if not names:
        raise InputError(f"text_mixture.parts: {', '.join(parts)} have no split in common")

    def reader(split: str) -> Callable[[], Iterator[Mapping[str, list[str]]]]:
        readers = {name: source.splits[split] for name, source in sources.items()}
        return lambda: text_files.in_blocks(
            ((text,) for text in _interleaved(readers, shares, amount)), DOCUMENTS
        )

    identity = {name: source.identity for name, source in sources.items()}
    settings = {"shares": dict(shares), "model": files.sha256(model) if measure == "tokens" else None}
    stated = ", ".join(f"{name} {share:g}" for name, share in shares.items())
    return TextSource(
        {split: reader(split) for split in names},
        identity={"texts": identity, **settings},
        notes=(
            *(f"{name}: {note}" for name, source in sources.items() for note in source.notes),
            f"mixture by {measure}: {stated}; each split ends where its first part ends",
        ),
    )


def _source(name: str, task: str) -> TextSource:
    found = registry.find(task)
    if found.features != DOCUMENTS or found.name == "text_mixture":
        raise InputError(f"text_mixture.parts: {task!r} is no text to pretrain on")
    # Out of the store's own scope, so that a part's settings are under its name alone.
    with gin.config_scope(None), gin.config_scope(name):
        return found.call()


def _checked_shares(parts: Mapping[str, Any], shares: Mapping[str, float] | None) -> dict[str, float]:
    if shares is None:
        return {name: 1 / len(parts) for name in parts}
    if set(shares) != set(parts):
        different = sorted(set(shares) ^ set(parts))
        raise InputError(
            f"text_mixture.shares and .parts must have the same names; {different[0]!r} is in one"
        )
    if min(shares.values()) <= 0 or abs(sum(shares.values()) - 1) > 1e-6:
        raise InputError(f"text_mixture.shares = {dict(shares)}: each above 0, together 1")
    return {name: float(shares[name]) for name in parts}


def _interleaved(
    readers: Mapping[str, Callable[[], Iterator[Mapping[str, list[str]]]]],
    shares: Mapping[str, float],
    amount: _Measure,
) -> Iterator[str]:
    blocks = {name: read() for name, read in readers.items()}
    pending: dict[str, collections.deque[tuple[str, int]]] = {name: collections.deque() for name in readers}
    taken = dict.fromkeys(readers, 0)
    while True:
        # The first of the names where two are as far behind.
        behind = min(taken, key=lambda name: taken[name] / shares[name])
        if not pending[behind]:
            block = next(blocks[behind], None)
            if block is None:
                return
            pending[behind].extend(zip(block["targets"], amount(block["targets"]), strict=True))
        text, size = pending[behind].popleft()
        taken[behind] += size
        yield text
