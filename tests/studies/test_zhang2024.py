"""The three studies of Zhang et al. 2024: grids and held-out points of Table 1b, settings, evaluations."""

from collections import Counter

import pytest

from scaling_jax import configuration
from scaling_jax.studies.plan import Study
from scaling_jax.training.finetune import settings_for
from scaling_jax.training.pretrain import PretrainSettings

STEP = 2**21  # tokens, by which the paper's pretraining lengths are round numbers of steps
PET = [8000, *range(10_000, 100_001, 10_000)]
GRIDS = {
    "en_de": ([100_000, *range(500_000, 4_500_001, 500_000)], [40, 60, 80, 100, 135], 100),
    "en_zh": (
        [*range(1_000_000, 5_000_001, 1_000_000), *range(10_000_000, 25_000_001, 5_000_000)],
        [40, 50, 60, 70, 80, 98],
        80,
    ),
    "mlsum": (list(range(100_000, 900_001, 100_000)), [40, 60, 80, 100, 135], 100),
}


@pytest.fixture(params=GRIDS)
def study(request):
    path = f"gin_configs/studies/zhang2024_{request.param}.gin"
    configuration.parse([path], imports=["scaling_jax.studies.configurables"])
    return request.param, configuration.call(Study)


def _held_out(study, point):
    # The expression is Python's too; a tuning size that is None equals no number.
    return eval(study.hold_out.replace("\n", " "), {}, vars(point))


def test_grids_and_held_out_points_of_table_1b(study):
    name, study = study
    full_sizes, thousands, held_level = GRIDS[name]
    points = study.points()
    assert Counter(point.seed for point in points) == dict.fromkeys((0, 1, 2), len(points) / 3)
    first = [point for point in points if point.seed == 0]
    last = thousands[-1] * 1000 * STEP
    full = [point for point in first if point.method == "full"]
    of_sizes = [point for point in full if point.pretrain_tokens == last]
    assert sorted({point.finetune_examples for point in full}) == full_sizes
    assert {point.model for point in of_sizes} == {f"decoder_{size}b" for size in (1, 2, 4, 8, 16)}
    assert len(of_sizes) == 5 * len(full_sizes)
    # Not in bold: four sizes by all data sizes but the last.
    assert sum(not _held_out(study, point) for point in of_sizes) == 4 * (len(full_sizes) - 1)
    of_lengths = [point for point in full if point.model == "decoder_1b"]
    assert sorted({point.pretrain_tokens for point in of_lengths}) == [1000 * STEP * n for n in thousands]
    fitted = [point for point in of_lengths if not _held_out(study, point)]
    assert len(fitted) == (len(thousands) - 1) * (len(full_sizes) - 1)
    assert held_level * 1000 * STEP not in {point.pretrain_tokens for point in fitted}
    for method, tuning_sizes, bold in (
        ("lora", [4, 8, 16, 32, 48, 64, 128], 128),
        ("prompt", [50, 100, 150, 200, 300, 400, 600], 600),
    ):
        own = [point for point in first if point.method == method]
        assert sorted({point.finetune_examples for point in own}) == PET
        at_base = [point for point in own if (point.model, point.pretrain_tokens) == ("decoder_1b", last)]
        assert sorted({point.tuning_size for point in at_base}) == tuning_sizes
        assert len(at_base) == 7 * 11
        fitted = [point for point in at_base if not _held_out(study, point)]
        assert len(fitted) == 6 * 10 and bold not in {point.tuning_size for point in fitted}
        assert len(own) == (7 + 4 + len(thousands) - 1) * 11


def test_settings_of_section_3(study):
    name, study = study
    for method, rate, batch in (("full", 1e-3, 128), ("lora", 1e-2, 16), ("prompt", 3e-1, 16)):
        settings = settings_for(method)
        assert (settings.learning_rate, settings.batch_size, settings.max_epochs) == (rate, batch, 100)
        assert settings.max_steps == (300_000 if (name, method) == ("en_zh", "full") else 200_000)
        assert (settings.optimizer.name, settings.schedule.shape) == ("adafactor", "cosine")
        assert settings.batch_size % settings.layout.fsdp == 0
    pretraining = configuration.call(PretrainSettings)
    assert pretraining.batch_size * 1024 == STEP
    assert sum(pretraining.mixture.values()) == 1 and len(pretraining.mixture) == 2
    assert pretraining.recorded()["objective"]["name"] == "ul2"


def test_evaluations_of_section_3(study):
    name, study = study
    asked = {evaluation.name: evaluation for evaluation in study.evaluations}
    assert study.base_evaluations == study.evaluations
    zero_shot = {"en_de": "fr zh hi tr pl", "en_zh": "fr de hi tr pl", "mlsum": ""}[name].split()
    directions = {f"flores_{source}_{name[-2:]}" for source in zero_shot}
    shots = {"": 0, "one_shot": 1} | ({} if name == "mlsum" else {"five_shot": 5})
    assert set(asked) == {*shots, *directions}
    assert {name: asked[name].shots for name in shots} == shots
    assert all(asked[direction].store == direction for direction in directions)
    assert all(evaluation.decoding.strategy == "greedy" for evaluation in asked.values())
    score = "rouge" if name == "mlsum" else "bleurt"
    assert all(score in evaluation.scores for evaluation in asked.values())
