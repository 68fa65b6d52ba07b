"""The gin files of methods: each parses and gives settings, at the numbers of its paper."""

from pathlib import Path

import pytest

from scaling_jax import configuration
from scaling_jax.models.families import named_model
from scaling_jax.training.finetune import settings_for
from scaling_jax.tuning.method import named_method
from tests.tuning import made

FILES = sorted(path.name for path in (Path(__file__).parents[2] / "gin_configs/methods").glob("*.gin"))
METHODS = ("full", "lora", "ia3", "bitfit", "prompt")


def parse(name, *models):
    files = [f"gin_configs/methods/{name}", *(f"gin_configs/models/{model}.gin" for model in models)]
    configuration.parse(files, imports=["scaling_jax.studies.configurables"])


@pytest.mark.parametrize("name", FILES)
def test_every_file_gives_settings_for_every_method(name):
    parse(name)
    for method in METHODS:
        settings = settings_for(method)
        assert settings.steps(1000) > 0 and settings.schedule.rates(settings.learning_rate, 10).max() > 0
        named_method(method)


def test_pu_2023_trains_what_the_paper_says():
    parse("pu2023.gin", "t5_xl")
    model = named_model("t5_xl", 32128)
    numbers = {name: made.program(named_method(name), model).trained_parameters() for name in METHODS[1:]}
    assert numbers == {"lora": 3_538_944, "ia3": 933_888, "bitfit": 1_179_648, "prompt": 204_800}


def test_sun_2023_trains_what_the_paper_says():
    parse("sun2023.gin", "llama_7b", "llama_13b")
    lora = named_method("lora")
    numbers = [
        made.program(lora, named_model(name, 32000)).trained_parameters()
        for name in ("llama_7b", "llama_13b")
    ]
    assert numbers == [17_891_328, 28_016_640] and lora.scale == 2.0
    assert settings_for("lora").batch_size == 128 and settings_for("full").optimizer.name == "adamw"
