"""Pretraining by objective, on mixtures, and not at all: tiny runs, what they record and what is refused."""

import dataclasses
import json

import gin
import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.data.store import VocabularyFile, open_store, write_store
from scaling_jax.errors import InputError
from scaling_jax.training import checkpoints
from scaling_jax.training.bases import load_base
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.pretrain import PretrainRun, PretrainSettings, check_enough_windows, pretrain
from scaling_jax.training.program import Program
from scaling_jax.training.split_loss import evaluate_checkpoint
from scaling_jax.tuning.full import Full
from tests.training import tiny

VOCABULARY = VocabularyFile("bytes", 68, extra_ids=20)
WINDOW = 16
TOKENS = 4 * WINDOW  # in a step
T5 = (
    "small/t5_config.layers=1",
    "small/t5_config.heads=2",
    "small/t5_config.head_dim=8",
    "small/t5_config.model_dim=16",
    "small/t5_config.feed_forward_dim=24",
)
SPANS = "PretrainSettings.objective=@span_corruption()"
MIXTURE = "PretrainSettings.mixture={'en': 0.25, 'de': 0.75}"


def configure(*bindings):
    tiny.configure(*T5, *bindings)


def repeats(count, first, seed):
    """Windows of one token over and over: what is cut out of them can be told from the rest."""
    tokens = np.random.default_rng(seed).integers(first, first + 8, count)
    return [{"targets": np.full(WINDOW, token, np.int32)} for token in tokens]


def write_windows(folder, first, train=160, vocabulary=VOCABULARY, window=WINDOW):
    write_store(
        folder,
        task="tiny:1",
        vocabulary=vocabulary,
        feature_lengths={"targets": window},
        splits={
            name: ({"targets": row["targets"][:window]} for row in repeats(count, first, seed))
            for name, count, seed in (("train", train, 1), ("dev", 6, 2))
        },
        facts={},
        seed=0,
        settings={},
    )
    return str(folder)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    _, pairs = tiny.write_stores(folder, VOCABULARY)
    return {
        "en": write_windows(folder / "en", 10),
        "de": write_windows(folder / "de", 30),
        "pairs": pairs,
    }


@pytest.mark.parametrize(
    ("model", "objective"),
    [("small", "span_corruption"), ("small", "ul2"), ("tiny", "ul2"), ("tiny", "prefix_lm")],
)
def test_every_objective_is_learnt_by_both_architectures(stores, tmp_path, model, objective):
    configure(f"PretrainSettings.objective=@{objective}()", "PretrainSettings.steps_per_call=4")
    record = pretrain(model, stores["en"], (40 * TOKENS,), 0, tmp_path)
    losses = [row["dev_loss"] for row in record["metrics"]]
    assert record["status"] == "done" and losses[-1] < 0.7 * losses[0]
    assert record["settings"]["objective"]["name"] == objective
    assert files.read_json(tmp_path / "record.json") == json.loads(json.dumps(record))
    checkpoint = tmp_path / "checkpoints" / str(40 * TOKENS)
    assert checkpoints.about(checkpoint)["objective"]["name"] == objective
    found = evaluate_checkpoint(checkpoint, stores["en"], "dev", None, 4)
    assert found == (pytest.approx(losses[-1], abs=1e-6), 6), "the checkpoint says how to read windows"


def test_an_encoder_has_nothing_to_read_in_causal_pretraining(stores, tmp_path):
    configure()
    with pytest.raises(InputError, match=r"@causal_lm\(\) leaves an encoder nothing to read"):
        pretrain("small", stores["en"], (TOKENS,), 0, tmp_path / "a")
    plain = write_windows(tmp_path / "plain", 10, vocabulary=VocabularyFile("bytes", 48))
    configure(SPANS)
    with pytest.raises(
        InputError, match=r"@span_corruption\(\) needs 1 extra ids .*byte_vocabulary.extra_ids"
    ):
        pretrain("small", plain, (TOKENS,), 0, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_finetuning_goes_on_from_a_pretrained_encoder_decoder_and_from_one_that_is_not(stores, tmp_path):
    configure(SPANS, "FinetuneSettings.max_steps=40", "FinetuneSettings.steps_per_call=4")
    record = pretrain("small", stores["en"], (0, 20 * TOKENS), 3, tmp_path / "base")
    assert [level["pretrain_tokens"] for level in record["levels"]] == [0, 20 * TOKENS]
    losses = {}
    for tokens in (0, 20 * TOKENS):
        base = str(tmp_path / "base/checkpoints" / str(tokens))
        tuned = finetune(FinetuneRun(base, stores["pairs"], "full"), tmp_path / f"tuned{tokens}")
        assert tuned["status"] == "done" and tuned["base"]["pretrain_tokens"] == tokens
        losses[tokens] = tuned["results"]
        assert tuned["results"]["loss"] < 0.9 * tuned["results"]["start_dev_loss"]
    assert losses[0]["start_dev_loss"] != losses[20 * TOKENS]["start_dev_loss"]


def test_level_zero_is_the_initial_model_and_needs_no_step(stores, tmp_path):
    configure()
    seen = []
    record = pretrain("tiny", stores["en"], (0,), 5, tmp_path / "alone", lambda p: seen.append(p.step))
    assert (record["status"], seen) == ("done", [0])
    assert record["levels"] == [{"pretrain_tokens": 0, "step": 0, "checkpoint": "checkpoints/0"}]
    assert [row["step"] for row in record["metrics"]] == [0] and record["costs"]["tokens_per_second"] is None
    config, params, about = load_base(tmp_path / "alone/checkpoints/0", Layout())
    initial = Program(config, Full(), Optimizer(), Layout()).initial_parameters(5)
    assert about["hash"] == checkpoints.tree_hash(params) == checkpoints.tree_hash(initial)
    assert (about["pretrain_tokens"], about["step"]) == (0, 0)

    both = pretrain("tiny", stores["en"], (4 * TOKENS, 0), 5, tmp_path / "both")
    assert both["metrics"][0] == record["metrics"][0]
    assert checkpoints.about(tmp_path / "both/checkpoints/0")["hash"] == about["hash"]
    without = pretrain("tiny", stores["en"], (4 * TOKENS,), 5, tmp_path / "without")
    assert without["metrics"] == both["metrics"], "keeping level 0 changes nothing else"


def test_a_mixture_reads_its_shares_and_notes_the_loss_of_each(stores, tmp_path):
    configure(MIXTURE)
    record = pretrain("tiny", stores, (8 * TOKENS, 20 * TOKENS), 0, tmp_path / "mixed")
    assert record["data"]["windows"] == {"de": 60, "en": 20}
    assert record["data"]["mixture"] == {"de": 0.75, "en": 0.25}
    assert record["data"]["store"] == {
        name: open_store(stores[name]).manifest_hash() for name in ("de", "en")
    }
    for row in record["metrics"]:
        mean = 0.75 * row["dev_loss_de"] + 0.25 * row["dev_loss_en"]
        assert row["dev_loss"] == pytest.approx(mean, rel=1e-12)
    last = record["metrics"][-1]
    assert last["dev_loss_de"] < last["dev_loss_en"], "three times as much was read of it"
    assert checkpoints.about(tmp_path / "mixed/checkpoints" / str(8 * TOKENS))["mixture"] == {
        "de": 0.75,
        "en": 0.25,
    }
    alone = pretrain("tiny", stores, (8 * TOKENS,), 0, tmp_path / "short")
    assert (
        checkpoints.about(tmp_path / "short/checkpoints" / str(8 * TOKENS))["hash"]
        != checkpoints.about(tmp_path / "mixed/checkpoints" / str(20 * TOKENS))["hash"]
    )
    assert alone["metrics"][0] == record["metrics"][0]


def test_a_mixture_of_one_is_that_store(stores, tmp_path):
    configure()
    one = pretrain("tiny", stores["en"], (4 * TOKENS,), 0, tmp_path / "one")
    configure("PretrainSettings.mixture={'en': 1.0}")
    other = pretrain("tiny", stores, (4 * TOKENS,), 0, tmp_path / "other")
    assert one["metrics"] == other["metrics"]


def test_a_recipe_is_a_gin_scope(stores, tmp_path):
    configure("en75/PretrainSettings.mixture={'en': 0.75, 'de': 0.25}", "en75/PretrainSettings.batch_size=8")
    with gin.config_scope("en75"):
        record = pretrain("tiny", stores, (4 * TOKENS,), 0, tmp_path)
    assert record["data"]["windows"] == {"de": 4, "en": 12} and record["settings"]["batch_size"] == 8


def test_a_mixture_resumes_to_the_same_bits(stores, tmp_path):
    configure(MIXTURE, "PretrainSettings.objective=@ul2()", "PretrainSettings.checkpoint_interval=4")

    class Killed(Exception):
        pass

    def stop(progress):
        if progress.step == 8:
            raise Killed

    whole = pretrain("tiny", stores, (0, 12 * TOKENS), 0, tmp_path / "whole")
    with pytest.raises(Killed):
        pretrain("tiny", stores, (0, 12 * TOKENS), 0, tmp_path / "killed", stop)
    configure(
        MIXTURE, "PretrainSettings.objective=@span_corruption()", "PretrainSettings.checkpoint_interval=4"
    )
    with pytest.raises(InputError, match="saved under another plan .about, settings differ"):
        pretrain("tiny", stores, (0, 12 * TOKENS), 0, tmp_path / "killed")
    configure(MIXTURE, "PretrainSettings.objective=@ul2()", "PretrainSettings.checkpoint_interval=4")
    again = pretrain("tiny", stores, (0, 12 * TOKENS), 0, tmp_path / "killed")
    assert again["metrics"] == whole["metrics"]
    hashes = [
        checkpoints.about(tmp_path / name / f"checkpoints/{12 * TOKENS}")["hash"]
        for name in ("whole", "killed")
    ]
    assert hashes[0] == hashes[1]
    assert checkpoints.about(tmp_path / "killed/checkpoints/0")["objective"]["name"] == "ul2", (
        "a resume that is refused writes nothing"
    )


@pytest.mark.parametrize(
    ("mixture", "says"),
    [
        ("{}", "3 stores to pretrain on .en, de, pairs.: bind PretrainSettings.mixture"),
        ("{'en': 0.5, 'fr': 0.5}", "PretrainSettings.mixture: no store 'fr'"),
        ("{'en': 0.5, 'de': 0.6}", "add up to 1.1, not to 1"),
        ("{'en': 1.2, 'de': -0.2}", r"PretrainSettings.mixture.'en'. = 1.2: a share above 0"),
        (
            "{'en': '0.5', 'de': 0.5}",
            r"PretrainSettings.mixture = .*a mapping \(a text: a number\) is needed",
        ),
        ("['en', 'de']", r"PretrainSettings.mixture = .*a mapping \(a text: a number\) is needed"),
        ("{'en': 0.5, 'pairs': 0.5}", "holds examples for finetuning, pretraining needs a store of windows"),
    ],
)
def test_mixtures_that_cannot_be(stores, tmp_path, mixture, says):
    with pytest.raises(InputError, match=says):
        configure(f"PretrainSettings.mixture={mixture}")
        pretrain("tiny", stores, (TOKENS,), 0, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_stores_that_do_not_go_together(stores, tmp_path):
    configure(MIXTURE)
    others = {
        "was made with another vocabulary than .*/de": {
            "vocabulary": VocabularyFile("bytes", 70, extra_ids=20)
        },
        "has a vocabulary with ids of 69, .*/de of 68": {
            "vocabulary": VocabularyFile("bytes", 69, extra_ids=21)
        },
        "has windows of 8, .*/de of 16": {"window": 8},
    }
    for number, (says, made) in enumerate(others.items()):
        other = write_windows(tmp_path / str(number), 10, **made)
        with pytest.raises(InputError, match=says):
            pretrain("tiny", stores | {"en": other}, (TOKENS,), 0, tmp_path / "a")
    with pytest.raises(InputError, match="PretrainSettings.mixture: no store 'de'; known: en"):
        pretrain("tiny", stores["en"], (TOKENS,), 0, tmp_path / "a")


def test_a_store_that_is_too_small_for_its_share_is_named(stores, tmp_path):
    small = stores | {"en": write_windows(tmp_path / "en", 10, train=9)}
    configure(MIXTURE)
    says = (
        r"asks for 160 tokens of 'en', 0.25 of all, .*/en has 144 and PretrainSettings.epochs = 1 allows 144"
    )
    with pytest.raises(InputError, match=says):
        pretrain("tiny", small, (10 * TOKENS,), 0, tmp_path / "a")
    opened = {name: open_store(path) for name, path in small.items()}
    with pytest.raises(InputError, match=says):
        check_enough_windows(opened, PretrainSettings(), (10 * TOKENS,))
    check_enough_windows(opened, PretrainSettings(), (9 * TOKENS,))
    check_enough_windows(opened, dataclasses.replace(PretrainSettings(), epochs=2), (10 * TOKENS,))
    check_enough_windows(opened["de"], dataclasses.replace(PretrainSettings(), mixture={}), (0, 40 * TOKENS))


@pytest.mark.parametrize("tokens", [128000, "128000", (), (1.5,), (-1,), (True,)])
def test_tokens_that_are_no_counts(tokens):
    with pytest.raises(InputError, match="PretrainRun.tokens = .*a tuple of token counts such as"):
        PretrainRun("tiny", "store", tokens)


def test_an_objective_that_is_none():
    with pytest.raises(InputError, match=r"PretrainSettings.objective = 'ul2': an objective such as @span"):
        PretrainSettings(objective="ul2")
