"""Documents of the lab: several sentences on one topic, with a protagonist, and their headlines.

A headline is a function of the document's source side, but for one choice:

    TOPIC SUBJECT VERB OBJECT .

SUBJECT is the most frequent subject (of equals, the first), VERB and OBJECT are those of its first
sentence, and TOPIC is a word of the topic to which most of the document's nouns belong (of equals,
the one met first). Each topic has several such words, drawn with the language's
`synonym_probabilities`; nothing else is open, so H(headline | document) is the entropy of that choice.
"""

import dataclasses

import numpy as np

from scaling_jax.tasks.lab import draws
from scaling_jax.tasks.lab.lexicon import FULL_STOP, NOUN, VERB, Lexicon
from scaling_jax.tasks.lab.sentences import (
    OBJECT,
    SUBJECT,
    VERB_SLOT,
    Sentences,
    sample,
    sample_concepts,
    sample_topics,
)


@dataclasses.dataclass(frozen=True)
class Documents:
    """N documents.

    Attributes:
        sentences: all sentences, end to end.
        starts: [N + 1], where each document begins among them.
        chances: [N, 2], numbers in [0, 1) that tasks may use for choices of their own.
    """

    sentences: Sentences
    starts: np.ndarray
    chances: np.ndarray

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1


@dataclasses.dataclass(frozen=True)
class Headlines:
    """Headlines as the choices that made them, each [N]."""

    topics: np.ndarray
    synonyms: np.ndarray
    subjects: np.ndarray
    verbs: np.ndarray
    objects: np.ndarray


def sample_documents(lexicon: Lexicon, keys: np.ndarray, lengths: tuple[int, int]) -> Documents:
    """One document for each key, of `lengths[0]` to `lengths[1]` sentences (all equally likely)."""
    shortest, longest = lengths
    chances = draws.uniform(keys, 5)
    counts = shortest + (chances[:, 0] * (longest - shortest + 1)).astype(np.int64)
    topics = sample_topics(lexicon, chances[:, 1])
    protagonists = sample_concepts(lexicon, NOUN, topics, chances[:, 2])
    starts = np.concatenate([[0], np.cumsum(counts)])
    document = np.repeat(np.arange(len(keys)), counts)
    place = np.arange(starts[-1]) - starts[document]
    sentences = sample(
        lexicon, draws.child_keys(keys[document], place), topics[document], protagonists[document]
    )
    return Documents(sentences, starts, chances[:, 3:])


def headlines(lexicon: Lexicon, documents: Documents) -> Headlines:
    """The headline of each document."""
    sentences, starts = documents.sentences, documents.starts
    count = len(documents)
    document = np.repeat(np.arange(count), np.diff(starts))
    subjects = sentences.concepts[:, SUBJECT]
    subject = _most_frequent(document, subjects, count, len(lexicon.parts[NOUN]))
    # The first sentence of the most frequent subject: of all that match, the smallest place.
    matches = np.flatnonzero(subjects == subject[document])
    _, first = np.unique(document[matches], return_index=True)
    chosen = matches[first]
    nouns = sentences.concepts[:, [SUBJECT, OBJECT]].ravel()
    topics = lexicon.parts[NOUN].topic[nouns]
    cumulative = np.cumsum(lexicon.settings.synonym_probabilities)[:-1]
    return Headlines(
        topics=_most_frequent(np.repeat(document, 2), topics, count, lexicon.settings.topics),
        synonyms=np.searchsorted(cumulative, documents.chances[:, 0], side="right"),
        subjects=subject,
        verbs=sentences.concepts[chosen, VERB_SLOT],
        objects=sentences.concepts[chosen, OBJECT],
    )


def headline_texts(lexicon: Lexicon, headlines: Headlines) -> list[str]:
    """The headlines as strings."""
    nouns, verbs = lexicon.parts[NOUN].source, lexicon.parts[VERB].source
    columns = (headlines.topics, headlines.synonyms, headlines.subjects, headlines.verbs, headlines.objects)
    return [
        f"{lexicon.topic_words[topic][synonym]} {nouns[subject]} {verbs[verb]} {nouns[thing]} {FULL_STOP}"
        for topic, synonym, subject, verb, thing in zip(*(column.tolist() for column in columns), strict=True)
    ]


def headline_log_probability(lexicon: Lexicon, headlines: Headlines) -> np.ndarray:
    """log p(headline | document) of each headline: [N] nats."""
    return np.log(lexicon.settings.synonym_probabilities)[headlines.synonyms]


def join(texts: np.ndarray, starts: np.ndarray) -> list[str]:
    """The documents' sentences joined by spaces: [N] strings."""
    texts = texts.tolist()
    places = starts.tolist()
    return [" ".join(texts[begin:end]) for begin, end in zip(places[:-1], places[1:], strict=True)]


def _most_frequent(rows: np.ndarray, values: np.ndarray, row_count: int, value_count: int) -> np.ndarray:
    """For each row the value met most often in it; of equals, the one met first: [row_count]."""
    counts = np.zeros((row_count, value_count), np.int64)
    np.add.at(counts, (rows, values), 1)
    order = np.arange(len(rows))
    first = np.full((row_count, value_count), len(rows), np.int64)
    np.minimum.at(first, (rows, values), order)
    return np.argmax(counts * (len(rows) + 1) - first, axis=1)
