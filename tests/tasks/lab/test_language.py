"""Words, places and documents of the lab."""

import collections
import itertools

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.tasks import registry
from scaling_jax.tasks.lab import documents, draws, lexicon, sentences
from scaling_jax.tasks.lab.lexicon import NOUN, VERB, LanguageSettings


def test_draws_depend_on_their_place_alone():
    key = draws.stream_key(0, "somewhere")
    whole = draws.uniform(draws.child_keys(key, np.arange(1000)), 7)
    part = draws.uniform(draws.child_keys(key, np.arange(400, 500)), 3)
    np.testing.assert_array_equal(whole[400:500, :3], part)
    assert abs(whole.mean() - 0.5) < 5 * 0.29 / np.sqrt(whole.size)
    assert abs(np.corrcoef(whole.T) - np.eye(7)).max() < 0.2
    assert draws.stream_key(0, "somewhere") != draws.stream_key(1, "somewhere")


def test_no_word_has_two_meanings():
    words = lexicon.build(LanguageSettings(concepts=400, classes=4))
    source = [*words.source_determiners, *itertools.chain(*words.topic_words)]
    source += [word for part in words.parts for word in part.source]
    target = list(itertools.chain(*words.target_determiners))
    target += [form for part in words.parts for concept in part.target for word in concept for form in word]
    assert len(set(source + target)) == len(source) + len(target)
    assert all(2 <= len(word) <= 6 for word in source)


def test_use_follows_zipf_and_topics():
    words = lexicon.build(LanguageSettings(zipf_exponent=0.5, topic_tilt=1.0))
    use = words.parts[NOUN].probabilities
    np.testing.assert_allclose(use[0] / use[0, 0], np.arange(1, use.shape[1] + 1) ** -0.5)
    tilted = lexicon.build(LanguageSettings(topic_tilt=4.0)).parts[NOUN]
    own = tilted.topic == 2
    np.testing.assert_allclose((tilted.probabilities[2] / tilted.probabilities[3])[own].std(), 0, atol=1e-12)
    assert tilted.probabilities[2, own].sum() > tilted.probabilities[3, own].sum()


@pytest.mark.parametrize(
    "wrong",
    [
        {"concepts": 3},
        {"synonym_probabilities": (0.5, 0.4)},
        {"adverb_probability": 1.5},
        {"classes": 0},
        {"topics": 0},
    ],
)
def test_settings_that_make_no_language(wrong):
    with pytest.raises(InputError, match="lab."):
        LanguageSettings(**wrong)


def _rows(name, split, **settings):
    source = registry.find(name).call(**settings)
    return [row for block in source.splits[split]() for row in zip(*block.values(), strict=True)]


def test_an_example_does_not_depend_on_the_size_of_its_split():
    few = _rows("lab_translation", "train", examples={"train": 100})
    many = _rows("lab_translation", "train", examples={"train": 9000, "dev": 100})
    assert many[:100] == few and len(many) == 9000
    assert _rows("lab_translation", "dev", examples={"train": 5, "dev": 100}) != few
    few = _rows("lab_text", "train", documents={"train": 50})
    assert _rows("lab_text", "train", documents={"train": 9000})[:50] == few


def test_shares_of_pretraining_documents():
    words = lexicon.build(lexicon.plain(lexicon.lab()))
    source_words = {word for part in words.parts for word in part.source} | set(words.source_determiners)
    rows = _rows(
        "lab_text",
        "train",
        documents={"train": 4000},
        bilingual_share=0.2,
        headline_share=0.1,
        target_share=0.25,
    )
    kinds = collections.Counter()
    topic_words = set(itertools.chain(*words.topic_words))
    for (text,) in rows:
        found = set(text.split()) - {"."}
        kinds["headline"] += bool(found & topic_words)
        found -= topic_words
        kinds["source" if found <= source_words else "both" if found & source_words else "target"] += 1
    for kind, share in {
        "both": 0.2,
        "headline": 0.1,
        "target": 0.7 * 0.25,
        "source": 0.7 * 0.75 + 0.1,
    }.items():
        assert abs(kinds[kind] / 4000 - share) < 0.04, kind


def test_headline_follows_from_the_text():
    words = lexicon.build(LanguageSettings(topics=3, concepts=20))
    keys = draws.child_keys(draws.stream_key("documents"), np.arange(300))
    found = documents.sample_documents(words, keys, (2, 5))
    texts = documents.join(sentences.source_texts(words, found.sentences), found.starts)
    titles = documents.headline_texts(words, documents.headlines(words, found))
    nouns, verbs = words.parts[NOUN].source, words.parts[VERB].source
    for text, title in zip(texts, titles, strict=True):
        parsed = []
        for sentence in text.split(" .")[:-1]:
            subject, thing = [word for word in sentence.split() if word in nouns]
            parsed.append((subject, next(word for word in sentence.split() if word in verbs), thing))
        subject = collections.Counter(row[0] for row in parsed).most_common(1)[0][0]
        first = next(row for row in parsed if row[0] == subject)
        topics = [words.parts[NOUN].topic[nouns.index(word)] for row in parsed for word in (row[0], row[2])]
        topic = collections.Counter(topics).most_common(1)[0][0]
        assert title.split()[1:] == [*first, "."]
        assert title.split()[0] in words.topic_words[topic]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("lab_translation", {"examples": {"dev": 5}}, "must name 'train'"),
        ("lab_translation", {"examples": {"train": 0}}, "whole number"),
        ("lab_text", {"documents": {"train": 5, "valid": 5}}, "no split 'valid'"),
        ("lab_text", {"bilingual_share": 0.9, "headline_share": 0.2}, "together at most 1"),
        ("lab_headline", {"sentences_per_document": (5, 3)}, "shortest, longest"),
    ],
)
def test_sizes_that_cannot_be(name, settings, message):
    with pytest.raises(InputError, match=message):
        registry.find(name).call(**settings)
