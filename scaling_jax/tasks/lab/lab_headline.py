"""`lab_headline`: documents of the lab's source side and the headline that follows from each."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from scaling_jax.tasks.lab import documents, lexicon, sentences, splits
from scaling_jax.tasks.registry import PAIRS, THE_LAB, TextSource, text_task

_STREAM = "lab_headline"
DEFAULT_EXAMPLES = {"train": 8192, "dev": 512, "test": 1024}


@text_task(
    version=1,
    features=PAIRS,
    ends=("targets",),
    data=THE_LAB,
    summary="synthetic documents with headlines of exactly known conditional entropy",
)
def lab_headline(
    examples: Mapping[str, int] | None = None, sentences_per_document: tuple = (3, 5)
) -> TextSource:
    """Args: `examples`, the number of documents of each split; `sentences_per_document`, (least, most)."""
    sizes = dict(examples or DEFAULT_EXAMPLES)
    splits.check_sizes("lab_headline.examples", sizes)
    splits.check_lengths("lab_headline.sentences_per_document", sentences_per_document)
    settings = lexicon.lab()
    words = lexicon.build(lexicon.plain(settings))

    def blocks(split: str, size: int) -> Iterator[documents.Documents]:
        for keys in splits.key_blocks(settings.seed, _STREAM, split, size):
            yield documents.sample_documents(words, keys, sentences_per_document)

    def read(split: str, size: int) -> Iterator[Mapping[str, list[str]]]:
        for block in blocks(split, size):
            texts = sentences.source_texts(words, block.sentences)
            yield {
                "inputs": documents.join(texts, block.starts),
                "targets": documents.headline_texts(words, documents.headlines(words, block)),
            }

    def facts(target_tokens: Mapping[str, int]) -> Mapping[str, Any]:
        given_source = {
            split: sizes[split] * words.synonym_entropy() / n for split, n in target_tokens.items()
        }
        oracle = {}
        for split, tokens in target_tokens.items():
            found = (documents.headlines(words, block) for block in blocks(split, sizes[split]))
            total = sum(-documents.headline_log_probability(words, block).sum() for block in found)
            oracle[split] = float(total / tokens)
        return {"entropy_per_target_token": given_source, "oracle_loss": oracle}

    identity = {"examples": sizes, "lab": dataclasses.asdict(settings)}
    return TextSource(splits.readers(sizes, read), facts, settings.seed, identity)
