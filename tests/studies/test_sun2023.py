"""The study of Sun et al. 2023: the eight models of its Table 4, with their settings."""

import gin
import pytest

from scaling_jax import configuration
from scaling_jax.evaluation.judge.settings import JudgeSettings
from scaling_jax.studies.plan import Study
from scaling_jax.training.finetune import settings_for


@pytest.fixture(scope="module")
def study():
    configuration.parse(["gin_configs/studies/sun2023.gin"], imports=["scaling_jax.studies.configurables"])
    yield configuration.call(Study)
    gin.clear_config()


def _name(point):
    after = f" after {_name(point.after)}" if point.after else ""
    return f"{point.model} {point.method} {point.finetune_examples} {point.store}{after}"


def test_the_models_of_table_4(study):
    assert sorted(map(_name, study.points())) == [
        "llama_13b lora 2000000 belle",
        "llama_7b full 2000000 belle",
        "llama_7b full 600000 belle",
        "llama_7b full_math 240000 math after llama_7b full 2000000 belle",
        "llama_7b lora 2000000 belle",
        "llama_7b lora 240000 math after llama_7b full 2000000 belle",
        "llama_7b lora 4000000 belle",
        "llama_7b lora 600000 belle",
    ]


@pytest.mark.parametrize(
    ("method", "rate", "batch", "epochs", "warmup_of_10000", "fsdp"),
    [
        ("full", 5e-6, 32, 3, 300, 8),
        ("full_math", 5e-7, 32, 2, 300, 8),
        ("lora", 2e-4, 128, 4, 100, 8),
    ],
)
def test_settings_of_tables_2_and_3(study, method, rate, batch, epochs, warmup_of_10000, fsdp):
    settings = settings_for(method)
    assert (settings.learning_rate, settings.batch_size, settings.max_epochs) == (rate, batch, epochs)
    assert settings.schedule.shape == "cosine" and settings.schedule.warmup(10000) == warmup_of_10000
    assert settings.optimizer.name == "adamw" and settings.layout.fsdp == fsdp


def test_steps_of_the_paper(study):
    assert settings_for("full").steps(2_000_000) == 187_500
    assert settings_for("lora").steps(2_000_000) == 62_500


def test_answers_are_judged_by_class(study):
    (evaluation,) = study.evaluations
    assert (evaluation.store, evaluation.scores, evaluation.decoding.strategy) == (
        "belle_eval", ("judge",), "greedy"
    )  # fmt: skip
    settings = JudgeSettings()
    assert settings.model == "gpt-3.5-turbo" and settings.temperature == 0
    assert settings.groups == {"math": "others", "code": "others"}
