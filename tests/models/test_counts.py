"""Parameter counts of the paper's sizes and FLOPs by hand."""

import dataclasses
from pathlib import Path

import jax
import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.families import named_model
from tests.models import tiny

ROOT = Path(__file__).parents[2]
CONFIGURABLES = ["scaling_jax.models.families"]
# Ours, and what Zhang et al. 2024 call the size. Their 1B to 16B have the layers, heads and widths of
# Table 3; the paper prints no exact count.
SIZES = {
    "decoder_1b": (1_218_512_896, 1e9),
    "decoder_2b": (2_189_007_360, 2e9),
    "decoder_4b": (3_602_009_088, 4e9),
    "decoder_8b": (8_107_855_872, 8e9),
    "decoder_16b": (15_440_696_320, 16e9),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_of_the_paper(name):
    configuration.parse([f"gin_configs/models/{name}.gin"], imports=CONFIGURABLES)
    config = named_model(name, 32_000)
    exact, nominal = SIZES[name]
    assert counts.model_parameters(config) == exact == by_hand(config)
    assert abs(exact / nominal - 1) < 0.25
    assert counts.non_embedding_parameters(config) == exact - 128_000 * config.model_dim


def by_hand(config):
    attention = config.model_dim * config.head_dim * (2 * config.heads + 2 * config.key_value_heads)
    feed_forward = 3 * config.model_dim * config.feed_forward_dim
    per_layer = attention + feed_forward + 2 * config.model_dim
    return config.vocabulary_size * config.model_dim + config.layers * per_layer + config.model_dim


# Totals as Hugging Face's model pages and Touvron et al. have them.
PUBLISHED = {
    "t5_small": 76_961_152,
    "t5_base": 247_577_856,
    "t5_large": 783_150_080,
    "t5_xl": 2_849_757_184,
    "t5_xxl": 11_135_332_352,
    "flan_t5_xl": 2_849_757_184,
    "llama_7b": 6_738_415_616,
    "llama_13b": 13_015_864_320,
    "llama_3_1_8b": 8_030_261_248,
    "llama_3_2_1b": 1_235_814_400,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    configuration.parse([f"gin_configs/models/{name}.gin"], imports=CONFIGURABLES)
    assert counts.model_parameters(named_model(name, 32_000)) == PUBLISHED[name]


@pytest.mark.parametrize(("name", "nominal"), [("t5_3b", 3.0e9), ("t5_770m", 0.77e9)])
def test_sizes_of_isik(name, nominal):
    """The paper prints no exact count; 770M leaves out the tables of its large vocabulary."""
    configuration.parse([f"gin_configs/models/{name}.gin"], imports=CONFIGURABLES)
    config = named_model(name, 250_000)
    attention = 4 * config.model_dim * config.heads * config.head_dim
    matrices = {"plain": 2, "gated": 3}[config.feed_forward]
    both = 2 * matrices * config.model_dim * config.feed_forward_dim + 3 * attention + 5 * config.model_dim
    rest = 24 * both + 2 * config.model_dim + 2 * 32 * config.heads
    tables = {"tied_scaled": 1, "untied": 2}[config.output] * 250_112 * config.model_dim
    assert counts.model_parameters(config) == rest + tables
    assert counts.non_embedding_parameters(config) == rest
    assert min(abs(rest / nominal - 1), abs((rest + tables) / nominal - 1)) < 0.08


def test_every_size_is_of_one_file_and_one_name():
    files = sorted(path.stem for path in (ROOT / "gin_configs/models").glob("*.gin"))
    ladders = {"cpu_ladder", "t5_ladder"}
    assert set(files) == {*SIZES, *PUBLISHED, "t5_3b", "t5_770m", *ladders}
    configuration.parse([f"gin_configs/models/{name}.gin" for name in files], imports=CONFIGURABLES)
    assert {named_model(name, 1000).name for name in files if name not in ladders} < set(files)


LADDERS = {
    "cpu_ladder": {"25k": 25e3, "60k": 60e3, "120k": 120e3, "250k": 250e3, "500k": 500e3, "1m": 1e6},
    "t5_ladder": {"65k": 65e3, "230k": 230e3, "500k": 500e3, "1m": 1e6},
}


@pytest.mark.parametrize("ladder", LADDERS)
def test_a_ladder_says_its_sizes(ladder):
    configuration.parse([f"gin_configs/models/{ladder}.gin"], imports=CONFIGURABLES)
    for name, nominal in LADDERS[ladder].items():
        config = named_model(f"{ladder.removeprefix('cpu_')}_{name}", 512)
        assert (config.encoder_layers > 0) == (ladder == "t5_ladder")
        assert config.vocabulary_size == 512, "the size comes from the data"
        assert abs(counts.non_embedding_parameters(config) / nominal - 1) < 0.12, name


def test_abstract_shapes_are_those_of_a_real_model():
    real = jax.tree.map(lambda leaf: leaf.shape, tiny.initial_parameters(tiny.CONFIG))
    assert jax.tree.map(lambda leaf: leaf.shape, counts.abstract_parameters(tiny.CONFIG)) == real


def test_flops_by_hand():
    config = ModelConfig("hand", 1, 2, 4, 8, 16, 32)
    # query 8x8, key 8x4, value 8x4, out 8x8, gate, up and down 8x16; logits 8x32
    matrices = 2 * (64 + 32 + 32 + 64 + 3 * 128 + 256)
    # at length 3 a position sees 1, 2 or 3 keys; 2 heads of 4, for scores and for values
    attention = 2 * 2 * (2 * 4) * (1 + 2 + 3) / 3
    assert counts.forward_flops_per_token(config, 3) == matrices + attention
    deeper = dataclasses.replace(config, layers=3)
    assert counts.forward_flops_per_token(deeper, 3) == 3 * (matrices - 512 + attention) + 512


def test_flops_of_an_encoder_decoder_by_hand():
    config = dataclasses.replace(
        ModelConfig("hand", 1, 2, 4, 8, 16, 32), encoder_layers=2, key_value_heads=2, positions="relative"
    )
    # 6 inputs through 2 layers, 3 targets through 1; the memory's keys and values once per input
    encoder = 6 * (2 * (4 * 64 + 3 * 128) + 2 * 64)
    decoder = 3 * (4 * 64 + 2 * 64 + 3 * 128 + 256)
    # scores and values: inputs see all, targets those before them and all inputs
    seen = 2 * 6 * 6 + (1 + 2 + 3) + 3 * 6
    by_hand = 2 * (encoder + decoder) + 2 * 2 * (2 * 4) * seen
    assert counts.forward_flops_per_token(config, 9, 3) == pytest.approx(by_hand / 9)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"activation": "tanh"}, "activation = 'tanh'"),
        ({"remat": "some"}, "remat = 'some'"),
        ({"dtype": "float16"}, "dtype = 'float16'"),
        ({"key_value_heads": 3}, "heads = 2: no multiple of key_value_heads 3"),
        ({"head_dim": 7}, "head_dim = 7"),
        ({"unroll": 3}, "unroll = 3: a divisor of layers = 2"),
    ],
)
def test_impossible_shapes(changes, says):
    with pytest.raises(InputError, match=says):
        dataclasses.replace(tiny.CONFIG, **changes)


def test_models_that_gin_does_not_know():
    configuration.parse(["gin_configs/models/cpu_ladder.gin"], imports=CONFIGURABLES)
    with pytest.raises(InputError, match="no model 'ladder_52k'.*did you mean 'ladder_25k'"):
        named_model("ladder_52k", 512)
    configuration.parse([], ["a/decoder_config.layers=2"], imports=CONFIGURABLES)
    with pytest.raises(InputError, match="model 'a'.*heads"):
        named_model("a", 512)
    configuration.parse(
        ["gin_configs/models/cpu_ladder.gin"],
        ["ladder_25k/decoder_config.vocabulary_size=100"],
        imports=CONFIGURABLES,
    )
    with pytest.raises(InputError, match="vocabulary_size = 100, but the data has 512"):
        named_model("ladder_25k", 512)
