"""Pretraining data valued on tables whose answer is known."""

import json
import math

import numpy as np
import pytest

from scaling_jax.decisions.valuing_pretraining import alignment, fits_of, to_json, value_pretraining
from scaling_jax.laws.table import table_of

TOKENS = (1e6, 2e6, 4e6, 8e6, 16e6, 32e6)


def log_law(tokens):
    return math.log(3e-4 * tokens**0.7) ** 1.3


SHAPES = {
    "grows": log_law,
    "falls": lambda tokens: log_law(min(tokens, 8e6)) - 0.5 * math.log2(max(tokens, 8e6) / 8e6),
    "flat": lambda tokens: 7.0,
    "breaks": lambda tokens: log_law(min(tokens, 8e6)) + 1e-9 * tokens,
}


def study(
    shapes, seeds=2, noise=0.003, tokens=TOKENS, baseline=4.0, columns=("bleu", "loss"), examples=(1000,)
):
    random = np.random.default_rng(0)
    rows = []
    levels = [(mixture, level) for mixture in shapes for level in tokens]
    levels += [("", 0)] if baseline is not None else []
    for mixture, level in levels:
        for size in examples:
            for seed in range(seeds):
                bleu = SHAPES[shapes[mixture]](level) if level else baseline
                loss = 2.0 + 30 * level**-0.25 if level else 4.0
                rows.append(
                    {
                        "task": "en_de_v1",
                        "method": "full",
                        "model": "small",
                        "pretrain_mixture": mixture,
                        "pretrain_tokens": int(level),
                        "finetune_examples": size,
                        "tuning_size": "",
                        "seed": seed,
                        "bleu": bleu * np.exp(noise * random.standard_normal()),
                        "loss": loss * np.exp(0.3 * noise * random.standard_normal()),
                        "status": "done",
                    }
                )
    return table_of(
        "results.csv", {name: [row[name] for row in rows] for name in rows[0] if name in _kept(columns)}
    )


def _kept(measures):
    about = "task method model pretrain_mixture pretrain_tokens finetune_examples tuning_size seed status"
    return {*about.split(), *measures}


def value(shape, declared=None, **made):
    (found,) = value_pretraining(study({"half": shape}, **made), declared, bootstrap=100)
    return found


def test_alignment_is_that_of_the_paper():
    shares = {"both": {"en": 0.5, "fr": 0.5}, "en": {"en": 1.0}, "fr": {"fr": 1.0}, "de": {"de": 1.0}}
    scores = {name: alignment(mixture, "en", "fr") for name, mixture in shares.items()}
    assert scores == pytest.approx({"both": 1.0, "en": 0.7, "fr": 0.8, "de": 0.0})


def test_a_score_of_the_log_law_follows_it_and_predicts():
    found = value("grows")
    assert (found.verdict, found.score.follows, found.loss.follows) == ("grows", True, True)
    assert found.score.held_out == (16e6, 32e6) and found.score.tested.rows["fitted"] == 8
    assert found.score.worth == pytest.approx(log_law(32e6) - 4.0, abs=0.1)
    twice, ten = found.ahead
    assert twice.low <= log_law(64e6) <= twice.high and ten.low <= log_law(320e6) <= ten.high
    assert ten.value == pytest.approx(log_law(320e6), rel=0.03)
    assert twice.worth == ten.worth == "yes"
    assert "follows the log-law" in found.text and "more pretraining is worth it" in found.text
    assert len(fits_of([found])) == 2


def test_a_score_that_falls_has_no_law_though_its_loss_has():
    found = value("falls")
    assert (found.verdict, found.score.follows, found.loss.follows) == ("falls", False, True)
    assert [at for at, _ in found.score.falls] == [16e6, 32e6] and not found.ahead
    assert "do not suit the task" in found.text and "would not have shown this" in found.text
    assert found.score.worth == pytest.approx(log_law(8e6) - 4.0, abs=0.1)


def test_a_flat_score_is_worth_nothing():
    found = value("flat", baseline=7.0)
    assert found.verdict == "flat" and not found.ahead
    assert "more of it is not worth it" in found.text and "worth nothing beyond noise" in found.text


def test_pretraining_that_harms_is_said():
    assert "this pretraining harms" in value("flat", baseline=9.0).text


def test_a_score_that_stops_growing_breaks_the_law():
    found = value("breaks")
    assert found.verdict == "breaks" and found.score.falls == ()
    assert "does not follow the log-law: at 16,000,000 tokens it is" in found.text


def test_a_target_decides_what_more_is_worth():
    last = log_law(32e6)
    reached = value("grows", {"target": last + 0.1})
    assert [one.worth for one in reached.ahead] == ["yes", "yes"]
    between = value("grows", {"target": (log_law(64e6) + log_law(320e6)) / 2})
    assert [one.worth for one in between.ahead] == ["no", "yes"] and "twice may not" in between.text
    beyond = value("grows", {"target": 3 * last})
    assert [one.worth for one in beyond.ahead] == ["no", "no"] and "more is not worth it" in beyond.text


def test_the_study_s_own_held_out_levels_are_kept():
    table = study({"half": "grows"})
    (found,) = value_pretraining(table, hold_out="pretrain_tokens == 8000000", bootstrap=40)
    assert found.score.held_out == (8e6,)


def test_without_seeds_a_share_of_the_score_is_taken_for_noise():
    found = value("grows", seeds=1, noise=0.0)
    assert found.score.noise is None and found.score.allowed == pytest.approx(0.02 * log_law(32e6))
    assert found.verdict == "grows"


def test_three_levels_fit_any_law_of_three_parameters():
    found = value("grows", seeds=1, tokens=TOKENS[:3])
    assert found.verdict == "grows" and found.score.follows is None
    assert "cannot be told" in found.text


def test_two_levels_are_too_few():
    assert value("grows", tokens=TOKENS[:2]).verdict == "too few"


def test_without_a_model_that_was_not_pretrained_its_worth_is_not_known():
    (first, second) = value_pretraining(
        study({"a": "grows", "b": "flat"}, baseline=None), bootstrap=40, declared={"score": "bleu"}
    )
    assert first.score.worth is None and "its worth is not known" in first.text
    assert (first.mixture, second.mixture, second.verdict) == ("a", "b", "flat")


def test_a_loss_alone_does_not_value_data():
    found = value("grows", columns=("loss",))
    assert found.verdict == "no score" and found.score is None and found.loss.follows


def test_every_mixture_and_number_of_examples_is_valued_with_its_alignment():
    declared = {"mixtures": {"a": {"en": 0.3, "de": 0.7}}, "tasks": {"en_de_v1": ["en", "de"]}}
    table = study({"a": "grows", "b": "falls"}, examples=(500, 1000))
    found = value_pretraining(table, declared, bootstrap=40)
    told = [(one.mixture, one.group["finetune_examples"], one.verdict) for one in found]
    assert told == [
        ("a", "500", "grows"),
        ("b", "500", "falls"),
        ("a", "1000", "grows"),
        ("b", "1000", "falls"),
    ]
    assert found[0].alignment == pytest.approx(0.21 + 0.21 + 0.56) and found[1].alignment is None
    assert json.loads(json.dumps(to_json(found), allow_nan=False))[0]["score"]["whole"]["parameters"]


def test_a_study_that_varies_only_its_length_is_not_about_this():
    assert value_pretraining(study({"": "grows"}, baseline=None)) == []


def test_scores_of_zero_are_fitted_too():
    table = study({"half": "grows"}, baseline=0.0, seeds=1)
    (found,) = value_pretraining(table, bootstrap=40)
    assert found.score.baseline == 0.0
