"""Windows of one store or several: order, shares, and batches that nothing but (seed, step) decides."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax.data.batches import TrainingBatches, evaluation_batches
from scaling_jax.data.objectives.causal_lm import CausalLM
from scaling_jax.data.objectives.prefix_lm import PrefixLM
from scaling_jax.data.objectives.span_corruption import SpanCorruption
from scaling_jax.data.objectives.ul2 import UL2
from scaling_jax.data.sequences import OneSequence
from scaling_jax.data.store import VocabularyFile, write_store
from scaling_jax.data.windows import WindowBatches, window_sequences, windows_before
from scaling_jax.errors import InputError

WINDOW = 20
VOCABULARY = VocabularyFile("bytes", 60, extra_ids=20)


def windows(folder, count, first):
    """A split whose window i holds `first + i` everywhere but at its end."""
    rows = ({"targets": np.append(np.full(WINDOW - 1, first + i), 1).astype(np.int32)} for i in range(count))
    return write_store(
        folder,
        task="tiny",
        vocabulary=VOCABULARY,
        feature_lengths={"targets": WINDOW},
        splits={"train": rows},
        facts={},
        seed=0,
        settings={},
    ).split("train")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    return windows(folder / "a", 12, 3), windows(folder / "b", 7, 20), windows(folder / "c", 5, 30)


def sequences(objective=None, has_encoder=False):
    return window_sequences(objective or CausalLM(), VOCABULARY, WINDOW, has_encoder)


def made(splits, shares, rows=4, seed=0, own=None, objective=None, has_encoder=False):
    return WindowBatches(splits, shares, rows, sequences(objective, has_encoder), seed, own)


def test_one_store_read_causally_is_what_it_always_was(splits):
    found = made(splits[:1], (1.0,), seed=4)
    before = TrainingBatches(splits[0], np.arange(12), 4, OneSequence((WINDOW,), 0, 0), 4)
    for first, steps in ((0, 3), (2, 1), (7, 2)):
        one, other = found.stacked(first, steps), before.stacked(first, steps)
        assert one.keys() == other.keys()
        for name in one:
            assert one[name].dtype == other[name].dtype
            np.testing.assert_array_equal(one[name], other[name])


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6),
    st.integers(0, 10**9),
)
def test_shares_are_exact_at_every_position(weights, first):
    shares = np.array(weights) / np.sum(weights)
    before = windows_before(tuple(shares), np.arange(first, first + 300))
    steps = np.diff(before, axis=0)
    assert set(np.unique(steps)) <= {0, 1} and (steps.sum(axis=1) == 1).all(), "one window, of one store"
    wanted = np.arange(first, first + 300)[:, None] * shares
    assert np.abs(before - wanted).max() <= (len(shares) - 1) / 2 + 1e-6


def test_two_stores_share_every_batch():
    before = windows_before((0.3, 0.7), np.arange(0, 10001, 10))
    np.testing.assert_array_equal(before[:, 0], np.arange(0, 3001, 3))


def test_rows_come_from_the_stores_in_the_stated_shares_without_repetition(splits):
    batches = made(splits, (0.5, 0.3, 0.2), rows=4)
    stores, indices = (
        np.concatenate(parts) for parts in zip(*(batches.chosen(s) for s in range(5)), strict=True)
    )
    assert np.bincount(stores).tolist() == [10, 6, 4]
    for number in range(3):
        mine = indices[stores == number]
        assert len(set(mine)) == len(mine), "no window twice before its store was passed over"
    rows = batches.stacked(0, 5)["targets"].reshape(20, WINDOW)
    np.testing.assert_array_equal(rows[:, 0], np.array([3, 20, 30])[stores] + indices)


def test_a_smaller_share_reads_less_of_the_same_order(splits):
    def read(shares, steps):
        batches = made(splits[:2], shares)
        chosen = [batches.chosen(step) for step in range(steps)]
        return [
            np.concatenate([indices[stores == number] for stores, indices in chosen]).tolist()
            for number in (0, 1)
        ]

    much, little = read((0.75, 0.25), 4), read((0.25, 0.75), 4)
    assert much[0][: len(little[0])] == little[0] and little[1][: len(much[1])] == much[1]
    alone = made(splits[:1], (1.0,)).chosen(0)[1].tolist()
    assert alone == much[0][:4]
    assert made(splits[:1], (1.0,), seed=1).chosen(0)[1].tolist() != alone


@pytest.mark.parametrize("has_encoder", [False, True])
def test_batches_are_functions_of_seed_step_and_row(splits, has_encoder):
    def batch(**changes):
        return made(splits[:2], (0.5, 0.5), objective=UL2(), has_encoder=has_encoder, **changes)

    late = batch().stacked(6, 1)
    together = batch().stacked(5, 2)
    for name, array in late.items():
        np.testing.assert_array_equal(array[0], together[name][1])
    for own in ((0, 1), (2, 3), (1, 3)):  # of several processes, each builds its own rows
        part = batch(own=own).stacked(5, 2)
        for name, array in together.items():
            np.testing.assert_array_equal(part[name], array[:, own])
    assert (batch(seed=1).stacked(5, 2)["targets"] != together["targets"]).any()


def test_the_same_window_is_corrupted_anew_in_the_next_epoch(splits):
    batches = made(splits[2:], (1.0,), rows=5, objective=SpanCorruption())
    first, second = (batches.stacked(step, 1)["targets"][0] for step in (0, 1))
    by_window = [{row[0]: row.tolist() for row in rows} for rows in (first, second)]
    assert by_window[0].keys() == by_window[1].keys() and by_window[0] != by_window[1]


def test_inputs_then_targets_for_a_decoder_apart_for_an_encoder(splits):
    one = made(splits[:1], (1.0,), objective=SpanCorruption()).stacked(0, 1)
    two = made(splits[:1], (1.0,), objective=SpanCorruption(), has_encoder=True).stacked(0, 1)
    lengths = SpanCorruption().lengths(WINDOW)
    assert one["targets"].shape == (1, 4, lengths.both)
    assert two["encoder_inputs"].shape == (1, 4, lengths.inputs)
    assert two["targets"].shape == (1, 4, lengths.targets)
    both = np.concatenate([two["encoder_inputs"], two["targets"]], axis=-1)
    np.testing.assert_array_equal(one["targets"], both)
    assert one["weights"][0].sum(axis=-1).tolist() == [lengths.targets] * 4
    assert (one["weights"][0, :, lengths.inputs :] == 1).all(), "the loss is on the targets"
    assert two["encoder_mask"].all() and two["weights"].all(), "nothing is padded: lengths are fixed"


def test_what_is_too_short_is_padded_and_masked(splits):
    batch = made(splits[:1], (1.0,), rows=12, objective=PrefixLM(), has_encoder=True).stacked(0, 1)
    read = batch["encoder_mask"][0].sum(axis=-1)
    assert len(set(read)) > 3
    np.testing.assert_array_equal(read + batch["weights"][0].sum(axis=-1), [WINDOW] * 12)
    assert (batch["encoder_inputs"][~batch["encoder_mask"]] == VOCABULARY.pad_id).all()


def test_an_evaluation_is_the_same_whenever_it_is_made(splits):
    read = sequences(SpanCorruption(), True)
    whole = list(evaluation_batches(splits[0], None, 4, read))
    assert sum(batch["weights"].any(axis=1).sum() for batch in whole) == 12
    other = list(evaluation_batches(splits[0], 8, 2, read))
    np.testing.assert_array_equal(
        np.concatenate([batch["targets"] for batch in other]),
        np.concatenate([batch["targets"] for batch in whole])[:8],
        err_msg="a window is corrupted the same way, however many there are in a batch",
    )


def test_what_cannot_be_read():
    with pytest.raises(
        InputError, match=r"@causal_lm\(\) leaves an encoder nothing to read: bind @span_corr"
    ):
        sequences(CausalLM(), True)
    for kind, binding in (("bytes", "byte_vocabulary"), ("sentencepiece", "sentencepiece")):
        vocabulary = VocabularyFile(kind, 60, extra_ids=3)
        with pytest.raises(
            InputError, match=rf"@ul2\(\) needs 6 extra ids .*has 3.* {binding}.extra_ids = 100"
        ):
            window_sequences(UL2(), vocabulary, WINDOW, False)
    needed = SpanCorruption(0.5, 1.0).extra_ids(400)
    with pytest.raises(InputError, match=f"needs {needed} extra ids .*extra_ids = {needed}"):
        window_sequences(SpanCorruption(0.5, 1.0), VOCABULARY, 400, False)
