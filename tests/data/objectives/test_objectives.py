"""What objectives make of a window: nothing is lost, and lengths, spans and shares are as stated."""

import collections
import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_jax import configuration
from scaling_jax.data.objectives.causal_lm import CausalLM
from scaling_jax.data.objectives.objective import recorded, restored
from scaling_jax.data.objectives.prefix_lm import PrefixLM
from scaling_jax.data.objectives.span_corruption import SpanCorruption, spans_cut
from scaling_jax.data.objectives.ul2 import UL2
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.training.pretrain import PretrainSettings

PIECES, EXTRA = 50, 200
VOCABULARY = VocabularyFile("bytes", PIECES + EXTRA, extra_ids=EXTRA)
EOS = VOCABULARY.eos_id
SENTINELS = [PIECES + EXTRA - 1 - number for number in range(EXTRA)]
MODES = {PIECES: "R", PIECES + 1: "S", PIECES + 2: "X"}

OBJECTIVES = {
    "causal_lm": CausalLM(),
    "prefix_lm": PrefixLM(),
    "prefix_lm_quarter": PrefixLM(0.25),
    "span_corruption": SpanCorruption(),
    "span_corruption_half": SpanCorruption(0.5, 8.0),
    "ul2": UL2(),
}


def text(length, seed=0):
    """A window with ends of documents in it, as stores hold it."""
    window = np.random.default_rng(seed).integers(3, PIECES, length).astype(np.uint16)
    window[::7] = EOS
    return window


def filled(inputs, targets):
    """The window again: every sentinel of the inputs replaced by what follows it in the targets.

    Written down from the definition, without the code that is tested.
    """
    spans, current = {}, None
    for token in targets[:-1]:
        if token in SENTINELS:
            current = spans.setdefault(int(token), [])
        else:
            current.append(int(token))
    window = []
    for token in inputs[:-1]:
        window.extend(spans.pop(int(token)) if token in SENTINELS else [int(token)])
    assert not spans and inputs[-1] == targets[-1] == EOS
    return window


def spans_of(targets):
    """Lengths of the spans in the targets."""
    places = [place for place, token in enumerate(targets) if token in SENTINELS]
    return np.diff([*places, len(targets) - 1]) - 1


@settings(max_examples=150, deadline=None)
@given(st.integers(2, 160), st.floats(0.01, 0.99), st.floats(1, 70), st.integers(0, 2**31))
def test_corruption_loses_nothing_and_has_the_stated_lengths(length, rate, mean_span, seed):
    objective, window = SpanCorruption(rate, mean_span), text(length, seed)
    inputs, targets = objective.draw(window, VOCABULARY, (seed,))
    assert filled(inputs, targets) == window.tolist()
    assert inputs.dtype == targets.dtype == np.int32
    lengths, (cut, spans) = objective.lengths(length), objective.counts(length)
    assert (len(inputs), len(targets)) == lengths[:2] and lengths.both == len(inputs) + len(targets)
    assert [token for token in inputs if token in SENTINELS] == SENTINELS[:spans], "in order, from the top"
    found = spans_of(targets)
    assert len(found) == spans == objective.extra_ids(length) and found.sum() == cut and found.min() >= 1


def test_lengths_are_those_of_t5():
    # Raffel et al. 2020 fill inputs of 512 tokens: windows of 568, targets of 114.
    assert SpanCorruption().lengths(568) == (512, 114, 626)
    assert SpanCorruption().counts(568) == (85, 28)
    assert SpanCorruption(0.5, 3.0).counts(512) == (256, 85)


def test_every_way_to_cut_is_equally_likely():
    drawn = collections.Counter(
        tuple(spans_cut(7, 4, 2, np.random.default_rng([9, seed]))) for seed in range(3000)
    )
    every = {
        mask
        for mask in itertools.product([False, True], repeat=7)
        if sum(mask) == 4
        and sum(cut and not before for before, cut in itertools.pairwise((False, *mask))) == 2
    }
    assert drawn.keys() == every and len(every) == 18
    expected = 3000 / len(every)
    assert max(abs(count - expected) for count in drawn.values()) < 5 * np.sqrt(expected)


@pytest.mark.parametrize(("rate", "mean_span"), [(0.15, 3.0), (0.5, 3.0), (0.15, 64.0), (0.5, 8.0)])
def test_rate_and_mean_span_are_the_stated_ones(rate, mean_span):
    window, objective = text(512), SpanCorruption(rate, mean_span)
    spans = [spans_of(objective.draw(window, VOCABULARY, (seed,)).targets) for seed in range(100)]
    assert np.mean([lengths.sum() for lengths in spans]) / 512 == pytest.approx(rate, abs=0.5 / 512)
    found = np.mean([lengths.mean() for lengths in spans])
    # Whole spans: 77 tokens at a mean of 64 are one span of 77.
    assert found == pytest.approx(mean_span, rel=0.05 if mean_span < 20 else 0.25)
    if mean_span < 20:
        assert len({tuple(lengths) for lengths in spans}) == 100, "and they are drawn anew for each seed"


def test_a_place_in_the_middle_is_cut_at_the_rate():
    objective, window = SpanCorruption(), np.arange(50, 450, dtype=np.uint16)
    vocabulary = VocabularyFile("bytes", 600, extra_ids=100)
    said = [objective.draw(window, vocabulary, (1, seed)).targets for seed in range(600)]
    share = np.mean([np.isin(window, targets) for targets in said], axis=0)
    assert share.mean() == pytest.approx(60 / 400)
    assert share[100:300].mean() == pytest.approx(0.15, abs=0.01)
    assert np.abs(share[100:300] - 0.15).max() < 5 * np.sqrt(0.15 * 0.85 / 600)
    assert abs(share[:20].mean() - share[-20:].mean()) < 0.03, "no end is cut more than the other"


@pytest.mark.parametrize("length", [2, 3, 17])
def test_a_prefix_and_its_rest_are_the_window(length):
    window, cuts = text(length), set()
    for seed in range(300):
        inputs, targets = PrefixLM().draw(window, VOCABULARY, (seed,))
        assert [*inputs, *targets] == window.tolist() and len(inputs) and len(targets)
        cuts.add(len(inputs))
    assert cuts == set(range(1, length)), "every cut, with something on either side"
    assert PrefixLM().lengths(length) == (length - 1, length - 1, length)
    targets = PrefixLM(0.25).draw(window, VOCABULARY, (0,)).targets
    assert len(targets) == max(round(length / 4), 1) == PrefixLM(0.25).lengths(length).targets


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("length", [8, 64, 200])
def test_lengths_hold_every_example_and_means_are_means(name, length):
    objective, window = OBJECTIVES[name], text(length)
    drawn = [objective.draw(window, VOCABULARY, (5, seed)) for seed in range(400)]
    lengths = np.array([(len(inputs), len(targets), len(inputs) + len(targets)) for inputs, targets in drawn])
    assert tuple(lengths.max(axis=0)) == objective.lengths(length), "none is longer, and one is as long"
    spread = lengths.std(axis=0)[:2] / np.sqrt(len(drawn))
    assert (np.abs(lengths.mean(axis=0)[:2] - objective.mean_lengths(length)) <= 4 * spread + 1e-9).all()
    used = {int(token) for example in drawn for part in example for token in part} & set(range(PIECES, 250))
    modes = len(MODES) if name == "ul2" else 0
    assert len(used) == objective.extra_ids(length) and used == {*SENTINELS[: len(used) - modes]} | (
        set(MODES) if modes else set()
    )


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_same_seed_gives_the_same_example(name):
    objective, window = OBJECTIVES[name], text(64)
    drawn = [
        tuple(part.tolist() for part in objective.draw(window, VOCABULARY, (0, 2, 7, row)))
        for row in range(20)
    ]
    again = [
        tuple(part.tolist() for part in objective.draw(window, VOCABULARY, (0, 2, 7, row)))
        for row in reversed(range(20))
    ]
    assert drawn == again[::-1]
    fixed = name in ("causal_lm", "prefix_lm_quarter")
    assert len({str(example) for example in drawn}) == 1 if fixed else len({str(e) for e in drawn}) > 10


def test_ul2_says_its_mode_and_keeps_the_window_and_its_shares():
    shares = {"regular_share": 0.5, "sequential_share": 0.3, "extreme_share": 0.2}
    objective, window, modes = UL2(**shares), text(64), collections.Counter()
    for seed in range(1000):
        inputs, targets = objective.draw(window, VOCABULARY, (seed,))
        mode = MODES[int(inputs[0])]
        modes[mode] += 1
        if mode == "S":
            assert [*inputs[1:], *targets] == window.tolist() and len(targets) == 16
        else:
            assert filled(inputs[1:], targets) == window.tolist()
            short = {round(64 * 0.15)} if mode == "R" else {round(64 * 0.15), 32}
            assert spans_of(targets).sum() in short
    for mode, share in zip("RSX", shares.values(), strict=True):
        assert modes[mode] == pytest.approx(1000 * share, abs=5 * np.sqrt(1000 * share))
    assert [share for _, share, _ in UL2().denoisers] == pytest.approx([1 / 7] * 7)
    assert [
        mode for mode, _, _ in UL2(regular_share=0, sequential_share=0.5, extreme_share=0.5).denoisers
    ] == [*"SXXXX"]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_recorded_is_restored(name):
    objective = OBJECTIVES[name]
    record = json.loads(json.dumps(recorded(objective)))
    assert restored(record) == objective and type(restored(record)) is type(objective)
    hash(restored(record))
    with pytest.raises(InputError, match="settings that are not known: .'depth'."):
        restored(record | {"depth": 3})
    with pytest.raises(
        InputError, match="no pretraining objective 'spam_corruption'; did you mean 'span_cor"
    ):
        restored({"name": "spam_corruption"})


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SpanCorruption(0.0), "span_corruption.rate = 0.0"),
        (lambda: SpanCorruption(1.0), "span_corruption.rate = 1.0"),
        (lambda: SpanCorruption(mean_span=0.5), "span_corruption.mean_span = 0.5"),
        (lambda: PrefixLM(1.5), "prefix_lm.target_share = 1.5"),
        (lambda: UL2(regular_share=0.5), "together 1, not 1.21"),
        (lambda: UL2(regular_share=-1, sequential_share=1, extreme_share=1), "none below 0"),
        (lambda: UL2(regular=()), "ul2.regular is empty, but ul2.regular_share"),
        (lambda: UL2(extreme=(3, 0.5)), r"ul2.extreme = \(3, 0.5\): a list of"),
        (lambda: UL2(extreme=((3, 5),)), "a denoiser of ul2 .*rate = 5.0"),
    ],
)
def test_settings_that_cannot_be(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_an_objective_of_ones_own_is_one_file(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import dataclasses\n"
        "from scaling_jax.data.objectives.objective import Example, Lengths, Objective, register\n"
        "@register('every_other_token')\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class EveryOtherToken(Objective):\n"
        "    first: int = 0\n"
        "    def lengths(self, window):\n"
        "        return Lengths(window // 2, window // 2, window)\n"
        "    def draw(self, window, vocabulary, seed):\n"
        "        return Example(window[self.first :: 2], window[1 - self.first :: 2])\n"
    )
    bindings = ["PretrainSettings.objective=@every_other_token()", "every_other_token.first=1"]
    for _ in range(2):  # as in a notebook
        configuration.parse([], bindings, imports=["scaling_jax.studies.configurables", str(mine)])
        objective = PretrainSettings().objective
    assert objective.draw(np.arange(6), VOCABULARY, (0,)).inputs.tolist() == [1, 3, 5]
    assert recorded(objective) == {"name": "every_other_token", "first": 1}
    assert restored(recorded(objective)) == objective
