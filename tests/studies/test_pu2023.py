"""The study of Pu et al. 2023: its grids, the numbers of trained parameters of the paper, its scores."""

import gin
import pytest

from scaling_jax import configuration
from scaling_jax.models.families import named_model
from scaling_jax.studies.plan import Study
from scaling_jax.studies.worker import CONFIGURABLES
from scaling_jax.tuning.method import named_method
from tests.tuning import made

# 3.5M, 0.9M, 1.2M and 0.2M in the paper; an ablation trains a share of its method's.
TRAINED = {
    "full": 2_849_757_184,
    "lora": 3_538_944,
    "ia3": 933_888,
    "bitfit": 1_179_648,
    "prompt": 204_800,
    "lora_first_half": 3_538_944 // 2,
    "lora_last_half": 3_538_944 // 2,
    "lora_random_half": 3_538_944 // 2,
    "lora_self_attention": 3_538_944 * 2 // 3,
    "lora_cross_attention": 3_538_944 // 3,
    "ia3_first_half": 933_888 // 2,
    "ia3_last_half": 933_888 // 2,
    "ia3_random_half": 933_888 // 2,
    "ia3_attention": 72 * 3 * 2048,
    "ia3_feed_forward": 48 * 2 * 5120,
}


@pytest.fixture(scope="module")
def study():
    configuration.parse(["gin_configs/studies/pu2023.gin"], imports=[CONFIGURABLES])
    yield configuration.call(Study)
    gin.clear_config()


def test_methods_by_data_sets_and_sizes(study):
    points = study.points()
    by_store = {}
    for point in points:
        by_store.setdefault(point.store, set()).add((point.method, point.finetune_examples))
    every, five = set(TRAINED), {"full", "lora", "ia3", "bitfit", "prompt"}
    assert {store: {method for method, _ in runs} for store, runs in by_store.items()} == {
        "ag_news": five,
        "cola": every,
        "e2e_nlg": every,
        "samsum": five,
    }
    sizes = {store: sorted({size for _, size in runs}) for store, runs in by_store.items()}
    assert sizes.pop("cola") == [100, 1000, 8051]
    assert set(map(tuple, sizes.values())) == {(100, 1000, 10000)}
    assert len(points) == 3 * (5 + 15 + 15 + 5) and {point.model for point in points} == {"flan_t5_xl"}


@pytest.mark.parametrize("name", TRAINED)
def test_trained_parameters_on_flan_t5_xl(study, name):
    model = named_model("flan_t5_xl", 32_000)
    assert made.program(named_method(name), model).trained_parameters() == TRAINED[name]


def test_every_model_is_scored_by_its_tasks_own(study):
    (evaluation,) = study.evaluations
    assert study.base_evaluations == study.evaluations
    assert not evaluation.scores and evaluation.decoding.strategy == "greedy"
