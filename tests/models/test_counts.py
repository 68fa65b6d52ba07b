"""Parameter counts of the paper's sizes and FLOPs by hand."""

import dataclasses

import jax
import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.families import named_model
from tests.models import tiny

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


def test_the_ladder_says_its_sizes():
    configuration.parse(["gin_configs/models/cpu_ladder.gin"], imports=CONFIGURABLES)
    names = {"25k": 25e3, "60k": 60e3, "120k": 120e3, "250k": 250e3, "500k": 500e3, "1m": 1e6}
    for name, nominal in names.items():
        config = named_model(f"ladder_{name}", 512)
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
