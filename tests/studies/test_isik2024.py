"""The study of Isik et al. 2024: its tasks, sizes, mixtures and settings."""

import gin
import numpy as np
import pytest

from scaling_jax import configuration
from scaling_jax.data.objectives.span_corruption import SpanCorruption
from scaling_jax.studies.plan import Study
from scaling_jax.training.finetune import settings_for
from scaling_jax.training.pretrain import PretrainSettings

TOKENS_OF_A_PAIR = 512
# Finetuning tokens of the paper.
SIZES = {"en_de": (6e6, 31e6, 3e9), "en_fr": (42e6, 210e6, 21e9), "en_ro": (625e3, 3e6, 312e6)}
MIXTURES = {
    "en_de": {"en", "de", "fr", "ro", "en50_de50"},
    "en_fr": {"en", "fr", "de", "ro", "en50_fr50", "en30_fr70", "en70_fr30"},
    "en_ro": {"en", "ro", "en50_ro50"},
}
BATCH, WINDOW = 256, 512


@pytest.fixture(scope="module")
def study():
    configuration.parse(["gin_configs/studies/isik2024.gin"], imports=["scaling_jax.studies.configurables"])
    yield configuration.call(Study)
    gin.clear_config()


@pytest.mark.parametrize("task", SIZES)
def test_finetuning_sizes_are_the_papers_tokens(study, task):
    pairs = sorted({point.finetune_examples for point in study.points() if point.store == task})
    np.testing.assert_allclose(np.array(pairs) * TOKENS_OF_A_PAIR, SIZES[task], rtol=0.03)


@pytest.mark.parametrize("task", MIXTURES)
def test_mixtures_of_the_3b_model(study, task):
    points = [point for point in study.points() if (point.store, point.model) == (task, "t5_3b")]
    assert {point.mixture for point in points if point.pretrain_tokens} == MIXTURES[task]
    sizes = {point.finetune_examples for point in points}
    assert {point.finetune_examples for point in points if not point.pretrain_tokens} == sizes


def test_the_770m_model_has_the_two_smaller_sizes_of_two_tasks(study):
    points = [point for point in study.points() if point.model == "t5_770m"]
    sizes = {
        store: {point.finetune_examples for point in points if point.store == store} for store in MIXTURES
    }
    assert sizes == {"en_de": {11718, 60546}, "en_fr": {82031, 410156}, "en_ro": set()}
    assert {point.store for point in points if not point.pretrain_tokens} == {"en_de", "en_fr"}


def test_pretraining_ends_at_a_million_steps_and_romanian_at_510000(study):
    most = {}
    for point in study.points():
        most[point.mixture] = max(most.get(point.mixture, 0), point.pretrain_tokens)
    most.pop("")  # the models that were not pretrained
    assert most.pop("ro") == 510_000 * BATCH * WINDOW
    assert set(most.values()) == {1_000_000 * BATCH * WINDOW}


def test_shares_of_a_mixture_are_what_its_name_says(study):
    shares = {}
    for name in set.union(*MIXTURES.values()):
        with gin.config_scope(name):
            shares[name] = PretrainSettings().mixture
    assert shares["en30_fr70"] == {"mono_en": 0.3, "mono_fr": 0.7}
    assert shares["en70_fr30"] == {"mono_en": 0.7, "mono_fr": 0.3}
    assert {name: mixture for name, mixture in shares.items() if len(mixture) == 1} == {
        name: {f"mono_{name}": 1.0} for name in ("en", "de", "fr", "ro")
    }
    halves = [mixture for name, mixture in shares.items() if "50_" in name]
    assert len(halves) == 3 and all(set(mixture.values()) == {0.5} for mixture in halves)


def test_pretraining_settings(study):
    settings = PretrainSettings()
    assert settings.batch_size == BATCH and isinstance(settings.objective, SpanCorruption)
    rates = settings.schedule.rates(settings.learning_rate, 40_000)
    flat, later = rates[9_999], rates[39_999]
    assert settings.schedule.warmup(1_000_000) == 10_000 and later / flat == pytest.approx(0.5, rel=1e-3)


def test_finetuning_settings(study):
    settings = settings_for("full")
    assert (settings.batch_size, settings.max_steps) == (128, 300)
    assert settings.optimizer.name == "adafactor" and settings.schedule.shape == "constant"
    assert list(study.learning_rates.rates["full"]) == [0.001, 0.005, 0.01, 0.05, 0.1]


def test_what_is_valued_and_how(study):
    (evaluation,) = study.evaluations
    assert set(evaluation.scores) == {"bleu", "chrf"} and study.valuing.score == "bleu"
    assert study.valuing.tasks == {task: tuple(task.split("_")) for task in MIXTURES}
    assert study.valuing.languages == {f"mono_{name}": name for name in ("en", "de", "fr", "ro")}
