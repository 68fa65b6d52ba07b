"""Subsets, order, padding and weights of batches."""

import dataclasses

import numpy as np
import pytest

from scaling_jax.data.batches import (
    TrainingBatches,
    evaluation_batches,
    first_examples,
    nested_subset,
    target_tokens,
)
from scaling_jax.data.pipeline import training_calls
from scaling_jax.data.sequences import OneSequence, TwoSequences, bucket_for, buckets_for
from scaling_jax.errors import InputError
from tests.data.test_store import pairs, write

PAD = 0


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    return write(tmp_path_factory.mktemp("data") / "store", {"train": pairs(40)}).split("train")


def batches(split, indices=None, rows=8, seed=0, own=None, buckets=(8, 16)):
    sequences = OneSequence(buckets, PAD, PAD)
    return TrainingBatches(split, np.arange(40) if indices is None else indices, rows, sequences, seed, own)


def test_smaller_subsets_lie_inside_larger_ones():
    sizes = [100, 500, 1000, 2000]
    subsets = [nested_subset(2000, size, subset_seed=5) for size in sizes]
    for smaller, larger in zip(subsets, subsets[1:], strict=False):
        assert set(smaller) < set(larger)
        np.testing.assert_array_equal(smaller, larger[: len(smaller)])
    assert sorted(subsets[-1]) == list(range(2000))
    assert set(subsets[0]) != set(nested_subset(2000, 100, subset_seed=6))
    assert set(subsets[0]) != set(range(100)), "a prefix of the file would follow its order"


def test_subsets_of_a_concatenation_keep_the_shares_of_its_parts():
    groups = {"de": 2209, "es": 2664, "fr": 3929, "en": 2871}
    total, begins = sum(groups.values()), np.cumsum([0, *groups.values()])
    whole = nested_subset(total, total, 3, groups)
    assert sorted(whole) == list(range(total))
    for size in (1, 8, 80, 1000, 9000, total):
        subset = nested_subset(total, size, 3, groups)
        np.testing.assert_array_equal(subset, whole[:size])
        counts = np.histogram(subset, begins)[0]
        assert np.abs(counts - size * np.array(list(groups.values())) / total).max() < 1.5
    other = nested_subset(total, 1000, 4, groups)
    assert len(set(whole[:1000]) & set(other)) < 200, "another seed is another subset"
    german = whole[whole < groups["de"]]
    assert sorted(german[:100]) != list(range(100)), "a part's examples are drawn, not its first"


def test_an_evaluation_of_some_of_a_concatenation_has_all_its_parts(split):
    parts = dataclasses.replace(split, groups={"de": 30, "fr": 10})
    np.testing.assert_array_equal(first_examples(split, 5), range(5))
    np.testing.assert_array_equal(first_examples(split, 50), range(40))
    np.testing.assert_array_equal(first_examples(parts, 8), [0, 1, 2, 3, 4, 5, 30, 31])
    np.testing.assert_array_equal(first_examples(parts, None), range(40))
    sequences = OneSequence((8, 16), PAD, PAD)
    read = [batch["weights"].sum() for batch in evaluation_batches(parts, 8, 4, sequences)]
    assert sum(read) == target_tokens(split, np.array([0, 1, 2, 3, 4, 5, 30, 31]))


@pytest.mark.parametrize("size", [0, -1, 41])
def test_more_examples_than_exist(size):
    with pytest.raises(InputError, match=f"finetune_examples = {size}, but .* 40 examples"):
        nested_subset(40, size, 0)


def test_order_depends_on_seed_and_step_alone(split):
    first, second = batches(split), batches(split)
    late = second.example_indices(23)  # asked before any earlier step
    np.testing.assert_array_equal(first.example_indices(3), second.example_indices(3))
    np.testing.assert_array_equal(first.example_indices(23), late)
    assert first.example_indices(0).tolist() != batches(split, seed=1).example_indices(0).tolist()
    assert first.example_indices(0).tolist() != first.example_indices(5).tolist(), "epochs are shuffled anew"
    one_call = first.stacked(2, 4)
    for step in range(4):
        alone = second.stacked(2 + step, 1)
        length = alone["targets"].shape[-1]
        np.testing.assert_array_equal(one_call["targets"][step, :, :length], alone["targets"][0])
        assert not one_call["weights"][step, :, length:].any()


def test_every_example_once_per_epoch_when_batches_straddle_epochs(split):
    subset = nested_subset(40, 10, 0)
    made = batches(split, subset, rows=4)
    seen = np.concatenate([made.example_indices(step) for step in range(10)])
    for epoch in range(4):
        assert sorted(seen[epoch * 10 : epoch * 10 + 10]) == sorted(subset)


def test_a_batch_may_hold_more_rows_than_there_are_examples(split):
    made = batches(split, np.array([7, 9, 11]), rows=8).example_indices(1)
    assert len(made) == 8 and set(made) == {7, 9, 11}


@pytest.mark.parametrize("own", [(0, 1, 2, 3), (4, 5, 6, 7), (2, 3, 6, 7)])
def test_a_process_builds_its_own_rows(split, own):
    whole, part = batches(split).stacked(0, 3), batches(split, own=own).stacked(0, 3)
    for name in whole:
        np.testing.assert_array_equal(part[name], whole[name][:, own])


def test_weights_lie_on_targets_and_inputs_are_shifted(split):
    made = batches(split).stacked(4, 1)
    for row, index in enumerate(batches(split).example_indices(4)):
        example = split[int(index)]
        whole = np.concatenate([example["inputs"], example["targets"]])
        first, end = len(example["inputs"]), len(whole)
        np.testing.assert_array_equal(made["targets"][0, row, :end], whole)
        assert (made["targets"][0, row, end:] == PAD).all()
        np.testing.assert_array_equal(made["inputs"][0, row, 1 : end + 1][: end - 1], whole[:-1])
        assert made["inputs"][0, row, 0] == PAD
        assert np.flatnonzero(made["weights"][0, row]).tolist() == list(range(first, end))
        assert set(made["weights"][0, row]) <= {0.0, 1.0}


def test_two_sequences_for_an_encoder_decoder(split):
    made = TwoSequences((4, 12), (4, 12), PAD, start_id=9).batch(split, np.array([3, 8]), (12, 10))
    for row, index in enumerate((3, 8)):
        example = split[index]
        for feature, name in (("inputs", "encoder_inputs"), ("targets", "targets")):
            count = len(example[feature])
            np.testing.assert_array_equal(made[name][row, :count], example[feature])
            assert (made[name][row, count:] == PAD).all()
        assert made["encoder_mask"][row].sum() == len(example["inputs"]), "the mask ends where they end"
        assert made["encoder_mask"][row, : len(example["inputs"])].all()
        assert made["weights"][row].sum() == made["weights"][row, : len(example["targets"])].sum()
        assert made["weights"][row].sum() == len(example["targets"])
    np.testing.assert_array_equal(made["inputs"][:, 1:], made["targets"][:, :-1])
    assert (made["inputs"][:, 0] == 9).all()


def test_two_sequences_have_two_lengths(split):
    sequences = TwoSequences((4, 8, 16), (4, 16), PAD, PAD)
    for indices in (np.arange(40), np.array([5]), np.array([0, 1])):
        longest = [int(split.lengths(feature)[indices].max()) for feature in ("inputs", "targets")]
        wanted = (bucket_for(longest[0], (4, 8, 16)), bucket_for(longest[1], (4, 16)))
        assert sequences.shape(split, indices) == wanted
    made = TrainingBatches(split, np.arange(40), 8, sequences, 0).stacked(0, 3)
    assert made["encoder_inputs"].shape[:2] == made["targets"].shape[:2] == (3, 8)
    counted = sum(batch["weights"].sum() for batch in evaluation_batches(split, None, 7, sequences))
    assert counted == target_tokens(split, np.arange(40))


@pytest.mark.parametrize(("asked", "rows"), [(None, 7), (13, 4), (100, 16)])
def test_evaluation_counts_every_example_once(split, asked, rows):
    count = min(asked or 40, 40)
    made = list(evaluation_batches(split, asked, rows, OneSequence((8, 16), PAD, PAD)))
    assert all(batch["targets"].shape[0] == rows for batch in made)
    assert sum(batch["weights"].sum() for batch in made) == target_tokens(split, np.arange(count))
    sequences = sorted(
        tuple(row[: np.flatnonzero(weight)[-1] + 1])
        for batch in made
        for row, weight in zip(batch["targets"], batch["weights"], strict=True)
        if weight.any()
    )
    assert sequences == sorted(tuple(np.concatenate(list(split[i].values()))) for i in range(count))


def test_an_evaluation_of_nothing_is_refused(split):
    with pytest.raises(InputError, match="0 examples"):
        list(evaluation_batches(split, 0, 4, OneSequence((8, 16), PAD, PAD)))


def test_buckets(split):
    lengths, longest = [split.total_lengths], int(split.total_lengths.max())
    assert buckets_for(lengths, 16, step=4)[-1] == -(-longest // 4) * 4
    assert np.mean(split.total_lengths <= buckets_for(lengths, 16, step=2)[0]) >= 0.95
    both = buckets_for([np.array([3, 4, 30]), np.array([50, 51])], 64)
    assert both == (32, 56), "the two longest of any split"
    assert [bucket_for(length, (8, 16)) for length in (1, 8, 9, 16)] == [8, 8, 16, 16]
    with pytest.raises(InputError, match="17 tokens, the longest length bucket holds 16"):
        bucket_for(17, (8, 16))
    short = np.flatnonzero(split.total_lengths <= 8)
    assert batches(split, short).stacked(0, 2)["targets"].shape == (2, 8, 8)


def test_the_pipeline_gives_what_the_function_gives(split):
    made = batches(split)
    bounds = [(3, 5), (5, 6), (6, 8)]
    for (first, end), call in zip(bounds, training_calls(made, bounds), strict=True):
        for name, array in made.stacked(first, end - first).items():
            np.testing.assert_array_equal(call[name], array)


def test_the_pipeline_passes_a_clear_error_on(split):
    with pytest.raises(InputError, match="longest length bucket holds 4"):
        next(training_calls(batches(split, buckets=(2, 4)), [(0, 1)]))
