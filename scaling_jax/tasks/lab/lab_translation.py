"""`lab_translation`: sentences of the lab's source side and their translations."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from scaling_jax.tasks.lab import entropy, lexicon, sentences, splits
from scaling_jax.tasks.registry import PAIRS, THE_LAB, TextSource, text_task

_STREAM = "lab_translation"
DEFAULT_EXAMPLES = {"train": 8192, "dev": 512, "test": 1024}


@text_task(
    version=1,
    features=PAIRS,
    ends=("targets",),
    data=THE_LAB,
    summary="synthetic sentence pairs with exactly known conditional entropy",
)
def lab_translation(examples: Mapping[str, int] | None = None) -> TextSource:
    """Args: `examples`, the number of pairs of each split; the language itself is set by `lab`."""
    sizes = dict(examples or DEFAULT_EXAMPLES)
    splits.check_sizes("lab_translation.examples", sizes)
    settings = lexicon.lab()
    words = lexicon.build(lexicon.plain(settings))

    def read(split: str, size: int) -> Iterator[Mapping[str, list[str]]]:
        for block in _sentences(words, split, size):
            yield {
                "inputs": sentences.source_texts(words, block).tolist(),
                "targets": sentences.target_texts(words, block).tolist(),
            }

    def facts(target_tokens: Mapping[str, int]) -> Mapping[str, Any]:
        return _facts(words, sizes, target_tokens)

    identity = {"examples": sizes, "lab": dataclasses.asdict(settings)}
    return TextSource(splits.readers(sizes, read), facts, settings.seed, identity)


def _sentences(words: lexicon.Lexicon, split: str, size: int) -> Iterator[sentences.Sentences]:
    for keys in splits.key_blocks(words.settings.seed, _STREAM, split, size):
        yield sentences.sample(words, keys)


def _facts(
    words: lexicon.Lexicon, sizes: Mapping[str, int], target_tokens: Mapping[str, int]
) -> dict[str, Any]:
    """Entropies and the oracle's loss, in nats per target token with EOS; see `entropy`."""
    given_source, oracle, given_topic, bound = {}, {}, {}, {}
    by_topic = entropy.entropy_given_topic(words)
    for split, tokens in target_tokens.items():
        totals = np.zeros(3)
        for block in _sentences(words, split, sizes[split]):
            totals += (
                entropy.entropy_given_source(words, block).sum(),
                -entropy.log_probability(words, block).sum(),
                by_topic[block.topics].sum(),
            )
        given_source[split], oracle[split], given_topic[split] = (float(total / tokens) for total in totals)
        bound[split] = float((totals[2] + sizes[split] * np.log(words.settings.topics)) / tokens)
    return {
        "entropy_per_target_token": given_source,
        "oracle_loss": oracle,
        "entropy_without_source_lower_bound": given_topic,
        "entropy_without_source_upper_bound": bound,
    }
