"""Sentences of the lab: a synchronous grammar with two word orders.

    source   [ADVERB] DET [ADJECTIVE] SUBJECT VERB DET [ADJECTIVE] OBJECT .
    target   [ADVERB] DET SUBJECT [ADJECTIVE] DET OBJECT [ADJECTIVE] [ADVERB] VERB .

The target side ends in its verb, puts adjectives after the noun, chooses determiners and endings of
adjectives by the noun's class, and puts the adverb either first or before the verb.
"""

import dataclasses

import numpy as np

from scaling_jax.tasks.lab import draws
from scaling_jax.tasks.lab.lexicon import ADJECTIVE, ADVERB, DETERMINERS, FULL_STOP, NOUN, VERB, Lexicon

# Columns of `Sentences.concepts` and the part of speech of each.
ADVERB_SLOT, SUBJECT_ADJECTIVE, SUBJECT, VERB_SLOT, OBJECT_ADJECTIVE, OBJECT = range(6)
SLOT_PARTS = (ADVERB, ADJECTIVE, NOUN, VERB, ADJECTIVE, NOUN)
SLOTS = len(SLOT_PARTS)
ABSENT = -1

# One draw for each concept and synonym, one for each thing that may be absent, two determiners, then
# fronting, topic and protagonist.
_CONCEPT, _SYNONYM, _PRESENT, _DETERMINER, _FRONT, _TOPIC, _PROTAGONIST = (
    0,
    SLOTS,
    2 * SLOTS,
    3 * SLOTS,
    20,
    21,
    22,
)
_DRAWS = 23


@dataclasses.dataclass(frozen=True)
class Sentences:
    """N sentences as the choices that made them.

    Attributes:
        topics: [N].
        concepts: [N, slots], index within the slot's part of speech, `ABSENT` where there is none.
        synonyms: [N, slots], which target word; zero where there is one only.
        determiners: [N, 2], of subject and object.
        fronted: bool [N], the target's adverb comes first; False where there is none.
    """

    topics: np.ndarray
    concepts: np.ndarray
    synonyms: np.ndarray
    determiners: np.ndarray
    fronted: np.ndarray

    def __len__(self) -> int:
        """Number of sentences."""
        return len(self.topics)


def sample(
    lexicon: Lexicon,
    keys: np.ndarray,
    topics: np.ndarray | None = None,
    protagonists: np.ndarray | None = None,
) -> Sentences:
    """One sentence for each key.

    Args:
        keys: uint64 [N]; equal keys give equal sentences.
        topics: [N], the topic of each; drawn from the key where None.
        protagonists: [N], a noun that is the subject with the language's `protagonist_probability`.
    """
    settings = lexicon.settings
    chances = draws.uniform(keys, _DRAWS)
    if topics is None:
        topics = sample_topics(lexicon, chances[:, _TOPIC])
    concepts = np.empty((len(keys), SLOTS), np.int64)
    synonyms = np.zeros((len(keys), SLOTS), np.int64)
    cumulative = np.cumsum(settings.synonym_probabilities)[:-1]
    present = {
        ADVERB_SLOT: settings.adverb_probability,
        SUBJECT_ADJECTIVE: settings.adjective_probability,
        OBJECT_ADJECTIVE: settings.adjective_probability,
    }
    for slot, part in enumerate(SLOT_PARTS):
        concepts[:, slot] = sample_concepts(lexicon, part, topics, chances[:, _CONCEPT + slot])
        if slot == SUBJECT and protagonists is not None:
            chosen = chances[:, _PROTAGONIST] < settings.protagonist_probability
            concepts[:, slot] = np.where(chosen, protagonists, concepts[:, slot])
        choice = np.searchsorted(cumulative, chances[:, _SYNONYM + slot], side="right")
        synonyms[:, slot] = np.where(lexicon.parts[part].synonymous[concepts[:, slot]], choice, 0)
        if slot in present:
            absent = chances[:, _PRESENT + slot] >= present[slot]
            concepts[absent, slot] = ABSENT
            synonyms[absent, slot] = 0
    determiners = (chances[:, _DETERMINER : _DETERMINER + 2] * DETERMINERS).astype(np.int64)
    fronted = (chances[:, _FRONT] < settings.fronting_probability) & (concepts[:, ADVERB_SLOT] != ABSENT)
    return Sentences(topics, concepts, synonyms, determiners, fronted)


def sample_topics(lexicon: Lexicon, chances: np.ndarray) -> np.ndarray:
    """Topics, all equally likely: [N] from [N] numbers in [0, 1)."""
    return (chances * lexicon.settings.topics).astype(np.int64)


def sample_concepts(lexicon: Lexicon, part: int, topics: np.ndarray, chances: np.ndarray) -> np.ndarray:
    """Concepts of one part of speech, given topics: [N] from [N] numbers in [0, 1)."""
    probabilities = lexicon.parts[part].probabilities
    size = probabilities.shape[1]
    # One search for all topics: row k of the cumulative table lies in (k, k + 1].
    table = np.cumsum(probabilities, axis=1)
    table[:, -1] = 1.0
    flat = (table + np.arange(len(table))[:, None]).ravel()
    return np.minimum(np.searchsorted(flat, chances + topics, side="right") - topics * size, size - 1)


def source_texts(lexicon: Lexicon, sentences: Sentences) -> np.ndarray:
    """The source side: [N] strings, words separated by spaces."""
    determiners = _table(lexicon.source_determiners)
    words = [_table(part.source) for part in lexicon.parts]
    slots = [words[part][sentences.concepts[:, slot]] for slot, part in enumerate(SLOT_PARTS)]
    return (
        slots[ADVERB_SLOT]
        + determiners[sentences.determiners[:, 0]]
        + slots[SUBJECT_ADJECTIVE]
        + slots[SUBJECT]
        + slots[VERB_SLOT]
        + determiners[sentences.determiners[:, 1]]
        + slots[OBJECT_ADJECTIVE]
        + slots[OBJECT]
        + FULL_STOP
    )


def target_texts(lexicon: Lexicon, sentences: Sentences) -> np.ndarray:
    """The target side: [N] strings, words separated by spaces."""
    classes = lexicon.parts[NOUN].noun_class
    determiners = np.array([[word + " " for word in row] for row in lexicon.target_determiners], object)
    subject_class = classes[sentences.concepts[:, SUBJECT]]
    object_class = classes[sentences.concepts[:, OBJECT]]
    agreement = {SUBJECT_ADJECTIVE: subject_class, OBJECT_ADJECTIVE: object_class}
    tables = [_target_table(part.target) for part in lexicon.parts]
    zero = np.zeros(len(sentences), np.int64)
    slots = [
        tables[part][sentences.concepts[:, slot], sentences.synonyms[:, slot], agreement.get(slot, zero)]
        for slot, part in enumerate(SLOT_PARTS)
    ]
    nothing = np.full(len(sentences), "", object)
    return (
        np.where(sentences.fronted, slots[ADVERB_SLOT], nothing)
        + determiners[sentences.determiners[:, 0], subject_class]
        + slots[SUBJECT]
        + slots[SUBJECT_ADJECTIVE]
        + determiners[sentences.determiners[:, 1], object_class]
        + slots[OBJECT]
        + slots[OBJECT_ADJECTIVE]
        + np.where(sentences.fronted, nothing, slots[ADVERB_SLOT])
        + slots[VERB_SLOT]
        + FULL_STOP
    )


def _table(words: tuple[str, ...]) -> np.ndarray:
    # The last entry is what `ABSENT` (-1) finds.
    return np.array([word + " " for word in words] + [""], object)


def _target_table(target: tuple[tuple[tuple[str, ...], ...], ...]) -> np.ndarray:
    synonyms = max(len(word) for word in target)
    forms = len(target[0][0])
    table = np.full((len(target) + 1, synonyms, forms), "", object)
    for concept, words in enumerate(target):
        for synonym, word in enumerate(words):
            for form, text in enumerate(word):
                table[concept, synonym, form] = text + " "
    return table
