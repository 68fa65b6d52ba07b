"""The words of the lab's two languages, how often each is used and what they agree with.

A concept is a noun, verb, adjective or adverb. On the source side it has one word; on the target
side some concepts have synonyms, drawn with known probabilities. All words of both sides are
different strings, so a sentence can be read back without ambiguity: that is what makes its
entropy exact (see `entropy`).
"""

import dataclasses
import functools
import math
from collections.abc import Iterator

import gin
import numpy as np

from scaling_jax.errors import InputError
from scaling_jax.tasks.lab import draws

NOUN, VERB, ADJECTIVE, ADVERB = range(4)
PARTS = ("nouns", "verbs", "adjectives", "adverbs")
PART_SHARES = (0.5, 0.2, 0.2, 0.1)
FULL_STOP = "."
DETERMINERS = 2  # definite and indefinite, equally likely

# Consonants differ between the sides so that the two languages look apart; words differ always.
_SOURCE_SOUNDS = ("bdgklmnprst", "aeiou")
_TARGET_SOUNDS = ("cfhjlmrsvwz", "aeiou")
_ENDINGS = ("en", "ia", "os", "ut", "eli", "oru", "ag", "im")


@dataclasses.dataclass(frozen=True)
class LanguageSettings:
    """What the language is like; gin name `lab`.

    Attributes:
        seed: draws the words and every example.
        concepts: nouns, verbs, adjectives and adverbs together (5 : 2 : 2 : 1).
        zipf_exponent: the concept of rank r is used with probability proportional to r**-exponent,
            within its part of speech and before topics.
        topics: number of topics; every concept belongs to one.
        topic_tilt: how many times likelier a concept is in a text of its own topic.
        classes: noun classes of the target side; determiners and adjectives agree with them.
        synonymous_share: share of the concepts that have synonyms on the target side.
        synonym_probabilities: probabilities of the first, second... word of such a concept.
        adjective_probability: chance that a noun has an adjective.
        adverb_probability: chance that a sentence has an adverb.
        fronting_probability: chance that the target side puts the adverb first, not before its verb.
        protagonist_probability: chance that a sentence of a document has the document's protagonist
            as its subject, rather than a fresh noun.
    """

    seed: int = 0
    concepts: int = 256
    zipf_exponent: float = 1.0
    topics: int = 8
    topic_tilt: float = 4.0
    classes: int = 3
    synonymous_share: float = 0.5
    synonym_probabilities: tuple[float, ...] = (0.75, 0.25)
    adjective_probability: float = 0.4
    adverb_probability: float = 0.4
    fronting_probability: float = 0.3
    protagonist_probability: float = 0.5

    def __post_init__(self) -> None:
        """Raises InputError for settings that describe no language."""
        for name in (
            "synonymous_share",
            "adjective_probability",
            "adverb_probability",
            "fronting_probability",
            "protagonist_probability",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"lab.{name} = {getattr(self, name)}: must be from 0 to 1")
        if self.concepts < 8:
            raise InputError(f"lab.concepts = {self.concepts}: at least 8 (one adverb needs eight concepts)")
        if self.topics < 1 or self.topic_tilt <= 0:
            raise InputError("lab.topics must be at least 1 and lab.topic_tilt above 0")
        if not 1 <= self.classes <= len(_ENDINGS):
            raise InputError(f"lab.classes = {self.classes}: must be from 1 to {len(_ENDINGS)}")
        probabilities = self.synonym_probabilities
        if (
            not probabilities
            or min(probabilities) <= 0
            or not math.isclose(sum(probabilities), 1, abs_tol=1e-9)
        ):
            raise InputError(f"lab.synonym_probabilities = {probabilities}: must be above 0 and sum to 1")


lab = gin.external_configurable(LanguageSettings, name="lab", module="tasks")


def plain(settings: LanguageSettings) -> LanguageSettings:
    """The settings without gin's wrapping (its subclass, its lists), so that equal ones compare equal."""
    values = dataclasses.asdict(settings)
    values["synonym_probabilities"] = tuple(values["synonym_probabilities"])
    return LanguageSettings(**values)


@dataclasses.dataclass(frozen=True)
class PartOfSpeech:
    """Concepts of one part of speech, most used first.

    Attributes:
        probabilities: [topics, concepts], each row sums to 1.
        topic: [concepts], the topic that each belongs to.
        noun_class: [concepts], class of the target word (zero where it does not matter).
        synonymous: bool [concepts].
        source: [concepts] words.
        target: [concepts][synonyms][forms] words; adjectives have one form for each noun class,
            everything else one.
    """

    probabilities: np.ndarray
    topic: np.ndarray
    noun_class: np.ndarray
    synonymous: np.ndarray
    source: tuple[str, ...]
    target: tuple[tuple[tuple[str, ...], ...], ...]

    def __len__(self) -> int:
        """Number of concepts."""
        return len(self.source)


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """Everything there is to know of the language but its grammar.

    Attributes:
        parts: the four parts of speech, indexed by `NOUN`, `VERB`, `ADJECTIVE`, `ADVERB`.
        source_determiners: [determiners] words.
        target_determiners: [determiners][classes] words.
        topic_words: [topics][synonyms] words that head a headline, on the source side.
    """

    settings: LanguageSettings
    parts: tuple[PartOfSpeech, ...]
    source_determiners: tuple[str, ...]
    target_determiners: tuple[tuple[str, ...], ...]
    topic_words: tuple[tuple[str, ...], ...]

    def synonym_entropy(self) -> float:
        """Entropy of the choice among synonyms, where there is one, in nats."""
        return entropy_of(self.settings.synonym_probabilities)


def entropy_of(probabilities: np.ndarray | tuple[float, ...]) -> float:
    """Entropy in nats of one distribution."""
    probabilities = np.asarray(probabilities, np.float64)
    probabilities = probabilities[probabilities > 0]
    return float(-np.sum(probabilities * np.log(probabilities)))


@functools.lru_cache(maxsize=8)
def build(settings: LanguageSettings) -> Lexicon:
    """Draws the language that the settings describe; the same settings give the same language."""
    taken: set[str] = {FULL_STOP}
    source = _words(draws.stream_key(settings.seed, "source words"), _SOURCE_SOUNDS, taken)
    target = _words(draws.stream_key(settings.seed, "target words"), _TARGET_SOUNDS, taken)
    source_determiners = tuple(next(source) for _ in range(DETERMINERS))
    target_determiners = tuple(
        tuple(next(target) for _ in range(settings.classes)) for _ in range(DETERMINERS)
    )
    sizes = _sizes(settings.concepts)
    longest = max(sizes)
    words: dict[int, list] = {part: [] for part in range(len(PARTS))}
    # Word by word in the order of rank, so that in every part of speech the used words are the short ones.
    for rank in range(longest):
        for part in range(len(PARTS)):
            if rank < sizes[part]:
                words[part].append((next(source), _synonyms(settings, part, rank, target, taken)))
    # Distribution over synonyms is the same for topic words as for any other word that has them.
    topic_words = tuple(
        tuple(next(source) for _ in settings.synonym_probabilities) for _ in range(settings.topics)
    )
    parts = tuple(_part(settings, part, words[part]) for part in range(len(PARTS)))
    return Lexicon(settings, parts, source_determiners, target_determiners, topic_words)


def _sizes(concepts: int) -> list[int]:
    sizes = [max(1, int(concepts * share)) for share in PART_SHARES]
    sizes[NOUN] += concepts - sum(sizes)
    return sizes


def _part(settings: LanguageSettings, part: int, words: list) -> PartOfSpeech:
    size = len(words)
    zipf = np.arange(1, size + 1, dtype=np.float64) ** -settings.zipf_exponent
    keys = draws.child_keys(draws.stream_key(settings.seed, "concepts", PARTS[part]), np.arange(size))
    chances = draws.uniform(keys, 2)
    topic = (chances[:, 0] * settings.topics).astype(np.int64)
    noun_class = (
        (chances[:, 1] * settings.classes).astype(np.int64) if part == NOUN else np.zeros(size, np.int64)
    )
    tilt = np.where(topic[None, :] == np.arange(settings.topics)[:, None], settings.topic_tilt, 1.0)
    probabilities = zipf * tilt
    synonymous = np.array([len(target) > 1 for _, target in words])
    return PartOfSpeech(
        probabilities=probabilities / probabilities.sum(axis=1, keepdims=True),
        topic=topic,
        noun_class=noun_class,
        synonymous=synonymous,
        source=tuple(source for source, _ in words),
        target=tuple(target for _, target in words),
    )


def _synonyms(
    settings: LanguageSettings, part: int, rank: int, words: Iterator[str], taken: set[str]
) -> tuple[tuple[str, ...], ...]:
    # Every second concept (at a share of one half), not a coin toss: which concepts have synonyms would
    # otherwise change the entropy from seed to seed through the few most used ones.
    share = settings.synonymous_share
    has_synonyms = math.floor((rank + 1) * share + 1e-9) > math.floor(rank * share + 1e-9)
    count = len(settings.synonym_probabilities) if has_synonyms else 1
    endings = _ENDINGS[: settings.classes] if part == ADJECTIVE else ("",)
    synonyms = []
    while len(synonyms) < count:
        stem = next(words)
        forms = tuple(stem + ending for ending in endings)
        if endings == ("",) or not taken.intersection(forms):
            taken.update(forms)
            synonyms.append(forms)
    return tuple(synonyms)


def _words(key: np.uint64, sounds: tuple[str, str], taken: set[str]) -> Iterator[str]:
    """Yields words that no side has yet, two or three letters first, up to six when those run out."""
    consonants, vowels = sounds
    shapes = ("cv", "cvc", "cvcv", "cvcvc", "cvccvc")
    number = 0
    made = 0
    while True:
        # Words grow slowly longer, as in any language whose most used words are the shortest.
        shape = shapes[min(len(shapes) - 1, int(math.log2(1 + made / 20)))]
        chances = draws.uniform(draws.child_keys(key, np.array([number])), len(shape))[0]
        letters = (consonants if sound == "c" else vowels for sound in shape)
        word = "".join(
            inventory[int(chance * len(inventory))]
            for inventory, chance in zip(letters, chances, strict=True)
        )
        number += 1
        if number > 1_000_000:
            raise InputError(
                f"lab.concepts: no more words of at most six letters after {made}; ask for fewer concepts"
            )
        if word not in taken:
            taken.add(word)
            made += 1
            yield word
