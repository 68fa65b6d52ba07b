"""Texts for the scores: a few of our own, and real ones in the folder that SCALING_JAX_DATA names."""

import csv
import gzip
import os
import random
from pathlib import Path

import pytest

from scaling_jax.evaluation.score import Answer

GERMAN = [
    (
        "Der Hund läuft über die Wiese.",
        ["Ein Hund rennt über die Wiese.", "Der Hund läuft über eine grüne Wiese."],
    ),
    ("Zwei Frauen kochen Suppe, 2,5 Liter!", ["Zwei Frauen kochen 2,5 Liter Suppe."]),
    ("", ["Ein Kind schläft."]),
    (
        "Das Kind malt ein blaues Haus",
        ["Das Kind malt ein Haus.", "Ein Kind malt das blaue Haus.", "Es malt."],
    ),
]
CHINESE = [
    ("他昨天买了一本新书。", ["他昨天买了一本书。", "昨天他买了新书。"]),
    ("今天天气很好,我们去公园吧!", ["今天天气不错,我们去公园散步吧!"]),
    ("这台机器的型号是X200。", ["这台机器是X200型。", "机器的型号为X200。"]),
    ("不知道", ["我不知道他住在哪里。"]),
]
ENGLISH = [
    (
        "The cats were running in the gardens.",
        ["A cat runs in the garden.", "The cats ran through the gardens."],
    ),
    (
        "Blue Spice is a coffee shop, rated 5 out of 5.",
        ["Blue Spice, a coffee shop, is rated 5 out of 5."],
    ),
    ("", ["Nothing was said."]),
]


def answers(pairs):
    return tuple(Answer("", hypothesis, tuple(references)) for hypothesis, references in pairs)


def data(*names):
    """A file of the real data; skips where there is none."""
    folder = os.environ.get("SCALING_JAX_DATA")
    if not folder:
        pytest.skip("SCALING_JAX_DATA (the folder of real data) is not set")
    return Path(folder, *names)


def disturbed(text, generator):
    """The text as a poor model might have written it: units left out, swapped or repeated."""
    spaced = " " in text
    units = text.split(" ") if spaced else list(text)
    kept = [unit for unit in units if generator.random() > 0.15]
    for place in range(len(kept) - 1):
        if generator.random() < 0.1:
            kept[place], kept[place + 1] = kept[place + 1], kept[place]
    return (" " if spaced else "").join(kept + kept[-1:] * (generator.random() < 0.1))


def multi30k():
    """German captions, one reference each."""
    with gzip.open(data("multi30k", "test_2016_flickr.de.gz"), "rt", encoding="utf-8") as file:
        lines = file.read().splitlines()[:400]
    generator = random.Random(0)
    return answers([(disturbed(line, generator), [line]) for line in lines])


def tatoeba():
    """Chinese sentences; as many references as the English sentence has translations."""
    translations = {}
    for line in data("tatoeba_enzh", "cmn.txt").read_text("utf-8").splitlines():
        english, chinese = line.split("\t")[:2]
        translations.setdefault(english, []).append(chinese)
    generator = random.Random(0)
    chosen = list(translations.values())
    return answers([(disturbed(own[-1], generator), own) for own in chosen[:300] + chosen[300::50]])


def e2e_nlg():
    """One description of a restaurant against all others of it, from 1 to many."""
    with open(data("e2e_nlg", "testset_w_refs.csv"), encoding="utf-8", newline="") as file:
        rows = [(row["mr"], row["ref"]) for row in csv.DictReader(file)]
    described = {}
    for meaning, text in rows:
        described.setdefault(meaning, []).append(text)
    return answers([(own[0], own[1:]) for own in described.values() if len(own) > 1][:150])


def orangesum():
    """The beginning of a French article against its summary."""
    documents, gold = (
        data("orangesum_fr", f"test.abstracts.{name}.txt").read_text("utf-8").split("\n")[:150]
        for name in ("source_documents", "gold")
    )
    return answers([(document[:250], [text]) for document, text in zip(documents, gold, strict=True)])
