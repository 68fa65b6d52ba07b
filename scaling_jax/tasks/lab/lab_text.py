"""`lab_text`: pretraining text of the lab, both languages in one stream of documents.

A small share of the documents holds sentences each followed by its translation, and a small share
ends in its own headline. Pretraining corpora hold such text by accident (web pages in two languages,
news), and it is what a frozen model needs to have met before a prompt or an adapter can call on it.
"""

import dataclasses
from collections.abc import Iterator, Mapping

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.tasks.lab import lexicon, sentences, splits
from scaling_jax.tasks.lab.documents import Documents, headline_texts, headlines, join, sample_documents
from scaling_jax.tasks.registry import DOCUMENTS, THE_LAB, TextSource, text_task

_STREAM = "lab_text"
DEFAULT_DOCUMENTS = {"train": 40_000, "dev": 1_000, "test": 1_000}


@text_task(
    version=1, features=DOCUMENTS, data=THE_LAB, summary="synthetic pretraining documents in two languages"
)
def lab_text(
    documents: Mapping[str, int] | None = None,
    target_share: float = 0.5,
    bilingual_share: float = 0.05,
    headline_share: float = 0.02,
    sentences_per_document: tuple = (3, 6),
) -> TextSource:
    """Documents in both languages.

    Args:
        documents: number of documents of each split.
        target_share: share of target-side documents among those that are in one language.
        bilingual_share: share of documents in which every sentence is followed by its translation.
        headline_share: share of source-side documents that end in their headline.
        sentences_per_document: (least, most); translations do not count.
    """
    sizes = dict(documents or DEFAULT_DOCUMENTS)
    splits.check_sizes("lab_text.documents", sizes)
    splits.check_lengths("lab_text.sentences_per_document", sentences_per_document)
    if not 0 <= target_share <= 1:
        raise InputError(f"lab_text.target_share = {target_share}: must be from 0 to 1")
    if min(bilingual_share, headline_share) < 0 or bilingual_share + headline_share > 1:
        raise InputError(
            "lab_text.bilingual_share and lab_text.headline_share: from 0 on, together at most 1"
        )
    settings = lexicon.lab()
    words = lexicon.build(lexicon.plain(settings))
    one_language = 1 - bilingual_share - headline_share
    borders = np.cumsum([bilingual_share, headline_share, one_language * target_share])

    def read(split: str, size: int) -> Iterator[Mapping[str, list[str]]]:
        for keys in splits.key_blocks(settings.seed, _STREAM, split, size):
            block = sample_documents(words, keys, sentences_per_document)
            yield {
                "targets": _texts(words, block, np.searchsorted(borders, block.chances[:, 1], side="right"))
            }

    identity = {"documents": sizes, "lab": dataclasses.asdict(settings)}
    return TextSource(splits.readers(sizes, read), seed=settings.seed, identity=identity)


def _texts(words: lexicon.Lexicon, block: Documents, kinds: np.ndarray) -> list[str]:
    """Each document in the form that its kind asks for: 0 bilingual, 1 with headline, 2 target, 3 source."""
    source = sentences.source_texts(words, block.sentences)
    target = sentences.target_texts(words, block.sentences)
    both = join(source + " " + target, block.starts)
    source, target = join(source, block.starts), join(target, block.starts)
    titles = headline_texts(words, headlines(words, block))
    titled = [f"{text} {title}" for text, title in zip(source, titles, strict=True)]
    forms = (both, titled, target, source)
    return [forms[kind][row] for row, kind in enumerate(kinds.tolist())]
