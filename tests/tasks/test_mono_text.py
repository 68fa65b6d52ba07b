"""Real text of two languages as its gin file prepares it: two stores to mix, whose windows nothing loses."""

import os
from pathlib import Path

import pytest

from scaling_jax import configuration
from scaling_jax.data.objectives.span_corruption import SpanCorruption
from scaling_jax.data.objectives.ul2 import UL2
from scaling_jax.tasks import prepare, registry
from scaling_jax.training.pretraining_data import open_data

FOLDER = os.environ.get("SCALING_JAX_DATA")


def filled(inputs, targets, vocabulary):
    """The window again, by the definition: what follows a sentinel in the targets goes where it is."""
    first = vocabulary.size - vocabulary.extra_ids
    spans, window = {}, []
    for token in targets[:-1]:
        if token >= first:
            spans[int(token)] = []
        else:
            next(reversed(spans.values())).append(int(token))
    for token in inputs[:-1]:
        window += spans[int(token)] if int(token) in spans else [int(token)]
    return window


@pytest.mark.skipif(FOLDER is None, reason="SCALING_JAX_DATA (the folder of real data) is not set")
def test_two_stores_of_one_vocabulary_and_every_window_again(tmp_path):
    pytest.importorskip("seqio", reason="needs the extra: tasks")
    registry.load_all()
    english, german = Path(FOLDER, "mono_en/wikitext-2.valid.txt"), Path(FOLDER, "mono_de/newstest2013.de")
    bindings = [f"EN=['{english}']", f"DE=['{german}']", "sentencepiece.size=1000"]
    configuration.parse(["gin_configs/tasks/mono_text.gin"], bindings)
    stores = prepare.prepare(tmp_path, say=lambda line: None)
    data = open_data(stores, {"mono_en": 0.3, "mono_de": 0.7})
    vocabulary = data.vocabulary
    assert (vocabulary.size, vocabulary.extra_ids, data.window) == (1100, 100, 128)
    for store in data.stores.values():
        split = store.split("train")
        assert len(split) > 500
        for index in range(0, len(split), 7):
            window = split[index]["targets"]
            assert window.max() < 1000, "no text is an extra id"
            assert filled(*SpanCorruption().draw(window, vocabulary, (index,)), vocabulary) == window.tolist()
            (mode, *inputs), targets = UL2().draw(window, vocabulary, (index,))
            whole = [*inputs, *targets] if mode == 1001 else filled(inputs, targets, vocabulary)
            assert whole == window.tolist() and mode in (1000, 1001, 1002)
