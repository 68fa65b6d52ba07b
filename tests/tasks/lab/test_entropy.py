"""The closed forms against a language small enough to write out whole."""

import collections
import itertools
import math

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks.lab import draws, entropy, lexicon, sentences
from scaling_jax.tasks.lab.lexicon import ADJECTIVE, ADVERB, NOUN, VERB, LanguageSettings

SEED = 0  # both topics have nouns


def _tiny(share: float) -> lexicon.Lexicon:
    return lexicon.build(LanguageSettings(seed=SEED, concepts=8, topics=2, classes=2, synonymous_share=share))


def _words(words, part, topic, form):
    """(probability, source word, target word) of one part of speech, written out."""
    table = words.parts[part]
    for concept, chance in enumerate(table.probabilities[topic]):
        synonyms = table.target[concept]
        chances = words.settings.synonym_probabilities if len(synonyms) > 1 else (1.0,)
        for synonym, synonym_chance in zip(synonyms, chances, strict=True):
            yield chance * synonym_chance, table.source[concept], synonym[form(concept)]


def _noun_phrases(words, topic):
    settings = words.settings
    nouns = words.parts[NOUN]
    for determiner in range(2):
        for concept, chance in enumerate(nouns.probabilities[topic]):
            noun_class = nouns.noun_class[concept]
            synonyms = nouns.target[concept]
            chances = settings.synonym_probabilities if len(synonyms) > 1 else (1.0,)
            for synonym, synonym_chance in zip(synonyms, chances, strict=True):
                base = 0.5 * chance * synonym_chance
                left, right = (
                    words.source_determiners[determiner],
                    words.target_determiners[determiner][noun_class],
                )
                yield (
                    base * (1 - settings.adjective_probability),
                    [left, nouns.source[concept]],
                    [right, synonym[0]],
                )
                for more, source, target in _words(words, ADJECTIVE, topic, lambda _, form=noun_class: form):
                    yield (
                        base * settings.adjective_probability * more,
                        [left, source, nouns.source[concept]],
                        [right, synonym[0], target],
                    )


def _joint(words):
    """p(source, target), and the same for each topic, from the grammar as its docstring states it."""
    settings = words.settings
    joint = [collections.Counter() for _ in range(settings.topics)]
    for topic in range(settings.topics):
        phrases = list(_noun_phrases(words, topic))
        verbs = list(_words(words, VERB, topic, lambda _: 0))
        adverbs = [(1 - settings.adverb_probability, [], [], [])]
        for chance, source, target in _words(words, ADVERB, topic, lambda _: 0):
            chance *= settings.adverb_probability
            adverbs.append((chance * settings.fronting_probability, [source], [target], []))
            adverbs.append((chance * (1 - settings.fronting_probability), [source], [], [target]))
        for subject, verb, thing, adverb in itertools.product(phrases, verbs, phrases, adverbs):
            source = [*adverb[1], *subject[1], verb[1], *thing[1], "."]
            target = [*adverb[2], *subject[2], *thing[2], *adverb[3], verb[2], "."]
            chance = subject[0] * verb[0] * thing[0] * adverb[0] / settings.topics
            joint[topic][" ".join(source), " ".join(target)] += chance
    return sum(joint, collections.Counter()), joint


def _marginal(joint, side):
    total = collections.Counter()
    for pair, chance in joint.items():
        total[pair[side]] += chance
    return total


def _entropy(counter):
    total = sum(counter.values())
    return -sum(chance / total * math.log(chance / total) for chance in counter.values())


@pytest.fixture(scope="module", params=[0.5, 1.0])
def language(request):
    words = _tiny(request.param)
    return words, *_joint(words)


def _sample(words, count):
    return sentences.sample(words, draws.child_keys(draws.stream_key("test"), np.arange(count)))


def test_enumeration_sums_to_one(language):
    _, joint, _ = language
    assert sum(joint.values()) == pytest.approx(1)


def test_entropy_formula_equals_enumeration(language):
    words, joint, _ = language
    by_source = collections.defaultdict(collections.Counter)
    for (source, target), chance in joint.items():
        by_source[source][target] += chance
    found = _sample(words, 500)
    texts = sentences.source_texts(words, found)
    exact = [_entropy(by_source[text]) for text in texts]
    np.testing.assert_allclose(entropy.entropy_given_source(words, found), exact, atol=1e-12)
    assert max(exact) > 0.5


def test_log_probability_and_oracle_equal_enumeration(language):
    words, joint, _ = language
    sources = _marginal(joint, 0)
    found = _sample(words, 300)
    pairs = list(zip(sentences.source_texts(words, found), sentences.target_texts(words, found), strict=True))
    exact = [math.log(joint[pair] / sources[pair[0]]) for pair in pairs]
    np.testing.assert_allclose(entropy.log_probability(words, found), exact, atol=1e-12)
    oracle = [entropy.oracle_log_probability(words, *pair) for pair in pairs]
    np.testing.assert_allclose(oracle, exact, atol=1e-12)


def test_oracle_sums_to_one_over_every_target(language):
    words, _, _ = language
    for source in set(sentences.source_texts(words, _sample(words, 50))):
        targets = dict(entropy.every_target(words, source))
        assert sum(targets.values()) == pytest.approx(1)
        for target, chance in targets.items():
            assert entropy.oracle_log_probability(words, source, target) == pytest.approx(math.log(chance))


def test_source_lowers_the_entropy_and_topic_bounds_hold(language):
    words, joint, by_topic = language
    given_source = _entropy(joint) - _entropy(_marginal(joint, 0))
    without = _entropy(_marginal(joint, 1))
    given_topic = entropy.entropy_given_topic(words)
    for topic, part in enumerate(by_topic):
        assert given_topic[topic] == pytest.approx(_entropy(_marginal(part, 1)))
    assert given_source < given_topic.mean() < without < given_topic.mean() + math.log(words.settings.topics)


def test_samples_follow_the_enumerated_distribution(language):
    words, joint, _ = language
    count = 100_000
    found = _sample(words, count)
    seen = collections.Counter(
        zip(sentences.source_texts(words, found), sentences.target_texts(words, found), strict=True)
    )
    assert set(seen) <= set(joint)
    for pair, chance in joint.most_common(200):
        assert abs(seen[pair] - count * chance) < 5 * math.sqrt(count * chance)


def test_entropy_is_the_mean_of_the_oracles_loss():
    words = lexicon.build(LanguageSettings())
    found = _sample(words, 50_000)
    losses = -entropy.log_probability(words, found)
    error = 5 * losses.std() / math.sqrt(len(found))
    assert abs(losses.mean() - entropy.entropy_given_source(words, found).mean()) < error


def test_impossible_target_and_foreign_source():
    words = _tiny(0.5)
    found = _sample(words, 1)
    source, target = sentences.source_texts(words, found)[0], sentences.target_texts(words, found)[0]
    assert entropy.oracle_log_probability(words, source, target + " .") == -math.inf
    for wrong in ("", "quite another language .", " ".join(reversed(source.split()))):
        with pytest.raises(InputError, match="not a sentence"):
            entropy.oracle_log_probability(words, wrong, target)
