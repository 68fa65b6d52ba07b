"""Cached decoding beside the whole forward pass, for every architecture and method."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.evaluation import one_by_one, steps
from scaling_jax.evaluation.decoding import Decoding, generate, prompt_length
from scaling_jax.models import cached, placement
from scaling_jax.training import program as programs
from scaling_jax.training.mesh import Layout
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.prompt import Prompt
from tests import eight_devices
from tests.evaluation import uncached
from tests.evaluation.uncached import PROMPTS, START
from tests.models import tiny
from tests.tuning.architectures import ARCHITECTURES

METHODS = {
    "full": Full(),
    "lora": LoRA(rank=2),
    "ia3": IA3(),
    "bitfit": BitFit(),
    "prompt": Prompt(length=3),
}
NEW, BEAMS, ALPHA = 9, 3, 0.6


@pytest.fixture(scope="module", autouse=True)
def compiled_quickly():
    """What is tested is which tokens come out, not how fast."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


def run(opened, eos, prompts=PROMPTS, **settings):
    decoding = Decoding(**{"max_new_tokens": NEW, "batch_size": 5} | settings)
    return generate(*opened, prompts, decoding, VocabularyFile("bytes", 48, eos_id=eos), START)


def some_end(scores, prompts=PROMPTS):
    """A token that some of the greedy sequences reach, to serve as EOS."""
    written = [uncached.greedy(scores, prompt, NEW, -1)[0] for prompt in prompts]
    held = {token for sequence in written for token in sequence[2:]}
    return min(held, key=lambda token: abs(sum(token in sequence for sequence in written) - 2.5))


def check(found, wanted):
    for ours, (tokens, score, finished) in zip(found, wanted, strict=True):
        assert ours.tokens.tolist() == tokens
        assert ours.finished == finished
        np.testing.assert_allclose(ours.score, score, rtol=1e-4, atol=1e-4)


CASES = [(architecture, method) for architecture in ARCHITECTURES for method in METHODS]
# Compiling all of them takes a minute: some always, all of them with `-m slow`.
BEAM_CASES = [
    pytest.param(*case, marks=() if number % 4 == 0 else pytest.mark.slow)
    for number, case in enumerate(CASES)
]


@pytest.mark.parametrize(("architecture", "method"), CASES)
def test_greedy_is_uncached(architecture, method):
    """Some of the sequences end in EOS, some do not."""
    opened = uncached.opened(ARCHITECTURES[architecture], METHODS[method])
    scores = uncached.Scores(*opened)
    eos = some_end(scores)
    wanted = [uncached.greedy(scores, prompt, NEW, eos) for prompt in PROMPTS]
    assert {finished for _, _, finished in wanted} == {True, False}
    check(run(opened, eos), wanted)


@pytest.mark.parametrize(("architecture", "method"), BEAM_CASES)
def test_beam_is_uncached(architecture, method):
    opened = uncached.opened(ARCHITECTURES[architecture], METHODS[method])
    scores = uncached.Scores(*opened)
    eos = some_end(scores)
    wanted = [uncached.beam(scores, prompt, NEW, eos, BEAMS, ALPHA) for prompt in PROMPTS]
    check(run(opened, eos, strategy="beam", beams=BEAMS, length_penalty=ALPHA), wanted)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_step_on_a_processor_reads_turned_matrices_only(architecture, monkeypatch):
    """Every other matrix of the layers is NaN here. A step that read them would be right, but slower."""
    if placement.platform() != "cpu":
        pytest.skip("on accelerators there are no turned matrices")
    asked = []

    def without_the_others(config, variables):
        asked.append(config)

        def spoilt(path, leaf):
            names = [part.key for part in path]
            of_layers = names[-1] == "kernel" and any(name.startswith("at_") for name in names)
            return jnp.full_like(leaf, jnp.nan) if of_layers else leaf

        params = jax.tree_util.tree_map_with_path(spoilt, variables["params"])
        return {**cached.for_steps(config, variables), "params": params}

    monkeypatch.setattr(steps, "for_steps", without_the_others)
    opened = uncached.opened(ARCHITECTURES[architecture], Full())
    scores = uncached.Scores(*opened)
    check(run(opened, -1, max_new_tokens=4), [uncached.greedy(scores, prompt, 4, -1) for prompt in PROMPTS])
    assert asked == [ARCHITECTURES[architecture]]


OTHERS = {
    "prompt_of_both_stacks": (ARCHITECTURES["t5"], Prompt(length=2, stacks=("encoder", "decoder"))),
    "relative_decoder": (
        dataclasses.replace(
            tiny.CONFIG,
            positions="relative",
            heads=4,
            key_value_heads=2,
            relative_buckets=8,
            relative_distance=16,
        ),
        LoRA(rank=2, layers="last 1"),
    ),
    "t5_1_0": (
        dataclasses.replace(
            ARCHITECTURES["t5"], output="tied_scaled", feed_forward="plain", activation="relu"
        ),
        Full(),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_cached_is_uncached_elsewhere(name):
    opened = uncached.opened(*OTHERS[name])
    scores = uncached.Scores(*opened)
    wanted = [uncached.beam(scores, prompt, NEW, 1, BEAMS, ALPHA) for prompt in PROMPTS]
    check(run(opened, 1, strategy="beam", beams=BEAMS), wanted)


def test_base_in_bfloat16():
    opened = uncached.opened(tiny.CONFIG, METHODS["lora"], "bfloat16")
    scores = uncached.Scores(*opened)
    check(run(opened, 1), [uncached.greedy(scores, prompt, NEW, 1) for prompt in PROMPTS])


def test_activations_in_bfloat16():
    """Other roundings than in float32, but nearly the same log-probability."""
    plain = uncached.opened(tiny.CONFIG, Full())
    half = uncached.opened(dataclasses.replace(tiny.CONFIG, dtype="bfloat16"), Full())
    wanted, found = run(plain, 1, max_new_tokens=1), run(half, 1, max_new_tokens=1)
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.score != theirs.score
        np.testing.assert_allclose(ours.score, theirs.score, atol=0.1)


@pytest.fixture(scope="module")
def decoder():
    return uncached.opened(tiny.CONFIG, LoRA(rank=2))


@pytest.fixture(scope="module")
def scores(decoder):
    return uncached.Scores(*decoder)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 3.0])
def test_enough_beams_find_the_best_of_all(decoder, scores, alpha):
    prompt, eos = PROMPTS[0], 1
    first = scores(prompt, [])
    best = {(eos,): first[eos] / uncached.penalty(1, alpha)}
    for token in set(range(48)) - {eos}:
        second = first[token] + scores(prompt, [token])
        best |= {(token, last): total / uncached.penalty(2, alpha) for last, total in enumerate(second)}
    tokens = max(best, key=best.get)
    (found,) = run(decoder, eos, [prompt], strategy="beam", beams=48, length_penalty=alpha, max_new_tokens=2)
    assert found.tokens.tolist() == [token for token in tokens if token != eos]
    np.testing.assert_allclose(found.score, best[tokens], rtol=1e-4)


def test_one_beam_is_greedy(decoder):
    wanted = run(decoder, 1)
    for ours, theirs in zip(
        run(decoder, 1, strategy="beam", beams=1, length_penalty=0.0), wanted, strict=True
    ):
        assert ours.tokens.tolist() == theirs.tokens.tolist()
        np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-5)


@pytest.mark.parametrize("strategy", ["greedy", "beam"])
def test_a_sequence_ends_at_any_of_several_ids(decoder, strategy):
    whole = [one.tokens.tolist() for one in run(decoder, -1)]
    ends = whole[0][3], whole[1][5]
    vocabulary = VocabularyFile("bytes", 48, eos_id=ends[0], other_ends=ends[1:])
    decoding = Decoding(strategy, max_new_tokens=NEW, beams=1, length_penalty=0.0, batch_size=5)
    found = [one.tokens.tolist() for one in generate(*decoder, PROMPTS, decoding, vocabulary, START)]
    cut = [[token in ends for token in tokens] for tokens in whole]
    assert found == [
        tokens[: at.index(True)] if any(at) else tokens for tokens, at in zip(whole, cut, strict=True)
    ]
    assert sum(map(any, cut)) >= 2


@pytest.mark.parametrize("settings", [{"top_p": 1e-6}, {"temperature": 1e-4}])
def test_drawing_from_the_best_alone_is_greedy(decoder, settings):
    wanted = run(decoder, 1)
    for ours, theirs in zip(run(decoder, 1, strategy="sample", **settings), wanted, strict=True):
        assert ours.tokens.tolist() == theirs.tokens.tolist()


def test_what_is_drawn_depends_on_seed_and_place_alone(decoder):
    """Prompts of two padded lengths, alone and in batches of which one is filled up."""
    draw = {"strategy": "sample", "temperature": 2.0}
    prompts = [PROMPTS[2]] * 3 + [PROMPTS[1]]
    wanted = [one.tokens.tolist() for one in run(decoder, 1, prompts, batch_size=3, **draw)]
    assert len({tuple(tokens) for tokens in wanted}) == 4
    assert [one.tokens.tolist() for one in run(decoder, 1, prompts, batch_size=1, **draw)] == wanted
    other = run(decoder, 1, prompts, batch_size=3, seed=1, **draw)
    assert [one.tokens.tolist() for one in other] != wanted


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.7}])
def test_shares_of_what_is_drawn(settings):
    """A tenth of a percent of draws of the sort that the standard error allows."""
    decoding = Decoding(strategy="sample", **settings)
    scores = np.log(np.array([0.1, 0.4, 0.02, 0.28, 0.2]))
    wanted = np.exp(scores / decoding.temperature)
    wanted /= wanted.sum()
    if decoding.top_k:
        wanted = np.where(wanted >= np.sort(wanted)[-decoding.top_k], wanted, 0)
    if decoding.top_p < 1:
        wanted = np.array([0, 0.4, 0, 0.28, 0.2])  # 0.4 + 0.28 is not 0.7 yet
    wanted /= wanted.sum()
    count = 40_000
    keys = jax.random.split(jax.random.key(0), count)
    drawn = one_by_one.drawn(jnp.tile(jnp.asarray(scores, jnp.float32), (count, 1)), keys, decoding)
    found = np.bincount(np.asarray(drawn), minlength=5) / count
    np.testing.assert_allclose(found, wanted, atol=4 * 0.5 / count**0.5)
    assert not found[wanted == 0].any()


def test_compiled_once_per_shape(decoder):
    cache = programs._compiled_programs(decoder[0])
    run(decoder, 1)
    known = len(cache)
    run(decoder, 1, seed=3)
    run(decoder, 1, [PROMPTS[1][:-1], *PROMPTS[:4]])
    assert len(cache) == known
    run(decoder, 1, max_new_tokens=2)
    assert len(cache) == known + 1


def test_no_step_copies_the_cache(decoder):
    """In the loop of the compiled program nothing of the cache's size is copied."""
    jax.config.update("jax_disable_most_optimizations", False)
    run(decoder, 1, max_new_tokens=37)
    jax.config.update("jax_disable_most_optimizations", True)
    (name,) = [key for key in programs._compiled_programs(decoder[0]) if "max_new_tokens=37" in key[0]]
    text = programs._compiled_programs(decoder[0])[name].as_text()
    assert "37,8]" in text
    copies = [line for line in text.splitlines() if " copy(" in line and "37,8]" in line]
    # Outside the loop XLA may copy the zeros that it begins with: once per layer, keys and values.
    assert not [line for line in copies if "while/body" in line], copies


def test_lengths_of_batches():
    assert [prompt_length(tokens) for tokens in (1, 8, 9, 12, 13, 16, 17, 24, 25, 100, 500)] == [
        *(8, 8, 12, 12, 16, 16, 24, 24, 32, 128, 512)
    ]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"strategy": "greed"}, "did you mean 'greedy'"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0"),
        ({"beams": 0}, "beams = 0"),
        ({"top_k": 1.5}, "top_k = 1.5"),
        ({"top_p": 0.0}, "top_p = 0.0"),
        ({"temperature": 0.0}, "take 'greedy'"),
        ({"length_penalty": -1.0}, "length_penalty = -1.0"),
    ],
)
def test_settings_that_cannot_be(settings, says):
    with pytest.raises(InputError, match=says):
        Decoding(**settings)


def test_prompts_that_cannot_be(decoder):
    assert run(decoder, 1, []) == []
    with pytest.raises(InputError, match="prompt 1: .* from 0 to 47"):
        run(decoder, 1, [PROMPTS[0], np.array([3, 48])])
    with pytest.raises(InputError, match="prompt 0 is empty"):
        run(uncached.opened(ARCHITECTURES["t5"], Full()), 1, [np.array([], np.int32)])
    assert run(decoder, 1, [np.array([], np.int32)])[0].tokens.size


LAYOUTS = {"decoder": (2, 2, 2), "t5": (4, 1, 2)}
SEARCHES = ({"strategy": "beam", "beams": 2}, {"strategy": "sample"})


def everywhere(layout):
    """Tokens of all searches on the devices of this process."""
    found = {}
    for name, shape in LAYOUTS.items():
        opened = uncached.opened(ARCHITECTURES[name], LoRA(rank=2), layout=layout(*shape))
        for search in SEARCHES:
            made = run(opened, 1, **search)
            found[f"{name} {search}"] = [one.tokens.tolist() for one in made]
    return found


def test_eight_devices_write_what_one_writes():
    code = (
        "import jax, json; from tests.evaluation import test_decoding; assert jax.device_count() == 8; "
        "print(json.dumps(test_decoding.everywhere(test_decoding.Layout)))"
    )
    assert eight_devices.result(code) == everywhere(lambda *_: Layout())
