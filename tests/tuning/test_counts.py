"""Trained parameters of published set-ups, by abstract shapes: no array of these models is ever made."""

import pytest

from scaling_jax import configuration
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.models.families import llama_config, named_model, t5_config
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.prompt import Prompt
from tests.tuning import made

LLAMA_7B = ModelConfig(
    "7b", **llama_config(layers=32, heads=32, model_dim=4096, feed_forward_dim=11008, vocabulary_size=32000)
)
LLAMA_13B = ModelConfig(
    "13b", **llama_config(layers=40, heads=40, model_dim=5120, feed_forward_dim=13824, vocabulary_size=32000)
)
T5_XL = ModelConfig(
    "xl", **t5_config(layers=24, heads=32, model_dim=2048, feed_forward_dim=5120, vocabulary_size=32128)
)
# What Baize's code adapts; Sun et al. 2023 give 17.9M and 28M.
BAIZE = ("query", "key", "value", "gate", "up", "down")


@pytest.mark.parametrize(
    ("model", "method", "number"),
    [
        (LLAMA_7B, Full(), 6_738_415_616),
        (LLAMA_7B, LoRA(rank=8, targets=BAIZE), 17_891_328),
        (LLAMA_7B, LoRA(rank=8), 19_988_480),
        (LLAMA_13B, LoRA(rank=8, targets=BAIZE), 28_016_640),
        # Pu et al. 2023 give 3.5M, 0.9M, 1.2M and 0.2M on FLAN-T5-XL.
        (T5_XL, Full(), 2_849_757_184),
        (T5_XL, Prompt(100), 204_800),
        (T5_XL, Prompt(100, stacks=("encoder", "decoder")), 409_600),
        (T5_XL, BitFit(), 1_179_648),
        (T5_XL, IA3(), 540_672),
        (T5_XL, IA3(targets=("query", "key", "value", "gate", "up")), 933_888),
        (T5_XL, LoRA(rank=3, targets=("attention",)), 3_538_944),
        (T5_XL, LoRA(rank=4, targets=("query", "key", "value")), 3_538_944),
        # One third of the attention blocks, one half of the layers.
        (T5_XL, LoRA(rank=3, targets=("cross_attention",)), 3_538_944 // 3),
        (T5_XL, LoRA(rank=3, targets=("self_attention",), layers="last 12"), 3_538_944 // 3),
        (T5_XL, LoRA(rank=3, targets=("attention",), layers="random 12 seed 5"), 3_538_944 // 2),
        (T5_XL, LoRA(rank=3, targets=("encoder/attention",), layers="first 6"), 3_538_944 // 12),
        (T5_XL, BitFit(targets=("decoder/feed_forward",), layers=(0, 23)), 2 * (2 * 5120 + 2048)),
    ],
    ids=lambda value: value.name if isinstance(value, ModelConfig) else None,
)
def test_trained_parameters(model, method, number):
    assert made.program(method, model).trained_parameters() == number


def test_a_prompt_of_100_is_as_large_as_the_paper_says():
    """Zhang et al. 2024: on the 1B model a prompt of 100 adds 0.017%."""
    configuration.parse(["gin_configs/models/decoder_1b.gin"], imports=["scaling_jax.models.families"])
    config = named_model("decoder_1b", 1000)
    added = made.program(Prompt(100), config).trained_parameters()
    assert round(100 * added / counts.model_parameters(config), 3) == 0.017
