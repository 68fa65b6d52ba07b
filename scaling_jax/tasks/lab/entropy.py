"""What can be known of a lab target: exact entropies and exact probabilities.

Given the source, only two things about the target are open: which synonym stands for each concept
that has several, and whether the adverb comes first. These choices are independent, and different
choices give different strings (no two concepts share a word), so

    H(target | source) = (concepts with synonyms) H(synonyms) + (1 if there is an adverb) H(fronting)

holds exactly. Without the source the topic is not known either:

    H(target | topic) <= H(target) <= H(target | topic) + log(topics)

where the left side is exact too: given the topic all draws are independent, and the string tells
each of them. All entropies are in nats.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.tasks.lab.lexicon import (
    ADJECTIVE,
    ADVERB,
    DETERMINERS,
    FULL_STOP,
    NOUN,
    VERB,
    Lexicon,
    entropy_of,
)
from scaling_jax.tasks.lab.sentences import ABSENT, ADVERB_SLOT, SLOT_PARTS, Sentences


def entropy_given_source(lexicon: Lexicon, sentences: Sentences) -> np.ndarray:
    """H(target | source) of each sentence's source: [N] nats."""
    open_slots = _synonymous_slots(lexicon, sentences).sum(axis=1)
    has_adverb = sentences.concepts[:, ADVERB_SLOT] != ABSENT
    return open_slots * lexicon.synonym_entropy() + has_adverb * _coin(lexicon.settings.fronting_probability)


def log_probability(lexicon: Lexicon, sentences: Sentences) -> np.ndarray:
    """log p(target | source) of each sentence's own target: [N] nats, never above zero."""
    settings = lexicon.settings
    words = np.log(settings.synonym_probabilities)[sentences.synonyms]
    result = np.where(_synonymous_slots(lexicon, sentences), words, 0.0).sum(axis=1)
    has_adverb = sentences.concepts[:, ADVERB_SLOT] != ABSENT
    chance = np.where(sentences.fronted, settings.fronting_probability, 1 - settings.fronting_probability)
    return result + np.log(np.where(has_adverb, chance, 1.0))


def entropy_given_topic(lexicon: Lexicon) -> np.ndarray:
    """H(target | topic) of one sentence on its own, for each topic: [topics] nats."""
    settings = lexicon.settings
    word = [
        np.array([entropy_of(row) for row in part.probabilities])
        + part.probabilities @ part.synonymous * lexicon.synonym_entropy()
        for part in lexicon.parts
    ]
    adjective, adverb = settings.adjective_probability, settings.adverb_probability
    noun_phrase = math.log(DETERMINERS) + word[NOUN] + _coin(adjective) + adjective * word[ADJECTIVE]
    adverbial = _coin(adverb) + adverb * (word[ADVERB] + _coin(settings.fronting_probability))
    return 2 * noun_phrase + word[VERB] + adverbial


def oracle_log_probability(lexicon: Lexicon, source: str, target: str) -> float:
    """log p(target | source) of any two strings; minus infinity where the target cannot be.

    Raises:
        InputError: `source` is no sentence of the language.
    """
    words = target.split()
    total = 0.0
    for chance, slots in _orders(lexicon, _read(lexicon, source)):
        if len(slots) == len(words) and all(word in slot for word, slot in zip(words, slots, strict=True)):
            total += chance * math.prod(slot[word] for word, slot in zip(words, slots, strict=True))
    return math.log(total) if total > 0 else -math.inf


def every_target(lexicon: Lexicon, source: str) -> Iterator[tuple[str, float]]:
    """Every target that the source can have, with its probability.

    Raises:
        InputError: `source` is no sentence of the language.
    """
    for chance, slots in _orders(lexicon, _read(lexicon, source)):
        for choice in itertools.product(*(slot.items() for slot in slots)):
            probability = chance * math.prod(probability for _, probability in choice)
            if probability > 0:
                yield " ".join(word for word, _ in choice), probability


def _synonymous_slots(lexicon: Lexicon, sentences: Sentences) -> np.ndarray:
    columns = []
    for slot, part in enumerate(SLOT_PARTS):
        concept = sentences.concepts[:, slot]
        columns.append((concept != ABSENT) & lexicon.parts[part].synonymous[concept])
    return np.stack(columns, axis=1)


def _coin(probability: float) -> float:
    return entropy_of((probability, 1 - probability))


def _read(lexicon: Lexicon, source: str) -> list[tuple[int, int]]:
    """The words of a source sentence as (part of speech, concept); determiners have part -1."""
    known = {word: (-1, index) for index, word in enumerate(lexicon.source_determiners)}
    for part, words in enumerate(lexicon.parts):
        known.update({word: (part, concept) for concept, word in enumerate(words.source)})
    words = source.split()
    unknown = [word for word in words[:-1] if word not in known]
    if not words or words[-1] != FULL_STOP or unknown:
        raise InputError(f"not a sentence of the lab's source side: {source!r}")
    read = [known[word] for word in words[:-1]]
    grammar = [part for part, _ in read if part not in (ADJECTIVE, ADVERB)]
    if grammar != [-1, NOUN, VERB, -1, NOUN]:
        raise InputError(f"not a sentence of the lab's source side: {source!r}")
    return read


def _orders(lexicon: Lexicon, read: list[tuple[int, int]]) -> Iterator[tuple[float, list[dict[str, float]]]]:
    """The target's word orders: probability, then for every place its possible words with theirs."""
    adverb = [_choices(lexicon, ADVERB, read[0][1], 0)] if read[0][0] == ADVERB else []
    rest = read[len(adverb) :]
    cut = next(place for place, (part, _) in enumerate(rest) if part == VERB)
    verb = [_choices(lexicon, VERB, rest[cut][1], 0)]
    phrases = _noun_phrase(lexicon, rest[:cut]) + _noun_phrase(lexicon, rest[cut + 1 :])
    end = [{FULL_STOP: 1.0}]
    if not adverb:
        yield 1.0, phrases + verb + end
        return
    fronting = lexicon.settings.fronting_probability
    yield fronting, adverb + phrases + verb + end
    yield 1 - fronting, phrases + adverb + verb + end


def _noun_phrase(lexicon: Lexicon, read: list[tuple[int, int]]) -> list[dict[str, float]]:
    determiner, noun = read[0][1], read[-1][1]
    noun_class = int(lexicon.parts[NOUN].noun_class[noun])
    places = [{lexicon.target_determiners[determiner][noun_class]: 1.0}, _choices(lexicon, NOUN, noun, 0)]
    adjectives = [_choices(lexicon, part, concept, noun_class) for part, concept in read[1:-1]]
    return places + adjectives


def _choices(lexicon: Lexicon, part: int, concept: int, form: int) -> dict[str, float]:
    words = lexicon.parts[part].target[concept]
    probabilities = lexicon.settings.synonym_probabilities if len(words) > 1 else (1.0,)
    return {word[form]: probability for word, probability in zip(words, probabilities, strict=True)}
