"""FLOPs by formula, by hand on small models, and when a run had converged."""

import numpy as np
import pytest

from scaling_jax.models import counts
from scaling_jax.training.costs import converged_step, flops_per_token
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.prompt import Prompt
from tests.tuning import made
from tests.tuning.architectures import ARCHITECTURES, T5

DECODER = ARCHITECTURES["decoder"]
LENGTH, TARGETS = 20, 8


def flops(model, method):
    tuned = made.program(method, model).abstract_tuned()
    return flops_per_token(model, method, tuned, LENGTH, TARGETS)


def per_token(model):
    """(matrices with the output matrix, attention), forward, of a decoder."""
    attention = counts.attention_flops_per_token(model, LENGTH)
    return counts.forward_flops_per_token(model, LENGTH) - attention, attention


def test_full_tuning_is_three_forward_passes():
    for model in ARCHITECTURES.values():
        forward = counts.forward_flops_per_token(model, LENGTH, TARGETS)
        found = flops(model, Full())
        assert found == pytest.approx((forward, 2 * forward, 0.0))


def test_a_frozen_matrix_has_no_gradient():
    matrices, attention = per_token(DECODER)
    assert matrices == 2 * (DECODER.layers * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24) + 48 * 16)
    assert attention == 2 * 4 * 16 * (LENGTH + 1) / 2
    method = LoRA(rank=2, layers="last 1")
    added = 2 * made.program(method).trained_parameters()
    found = flops(DECODER, method)
    assert found.forward == pytest.approx(matrices + attention + added)
    assert found.backward == pytest.approx(matrices + 2 * attention + 2 * added)
    assert found.saved == pytest.approx((matrices - 3 * added) / (3 * (matrices + attention)))


def test_a_prompt_lengthens_the_sequence():
    found = flops(DECODER, Prompt(5))
    longer = LENGTH + 5
    layers = 2 * DECODER.layers * (2 * 16 * 16 + 2 * 16 * 8 + 3 * 16 * 24)
    attention = longer * 2 * 4 * 16 * (longer + 1) / 2
    forward = longer * layers + LENGTH * 2 * 48 * 16 + attention
    assert found.forward == pytest.approx(forward / LENGTH)
    assert found.backward == pytest.approx((forward + attention) / LENGTH)


def test_stacks_of_an_encoder_decoder_read_their_own_tokens():
    """A BitFit number is one addition per token that passes it."""
    plain, own = flops(T5, Full()), {}
    for target in ("encoder/query", "decoder/attention/query", "cross_attention/key"):
        method = BitFit(targets=(target,))
        trained = made.program(method, T5).trained_parameters()
        own[target] = (flops(T5, method).forward - plain.forward) * LENGTH / trained
    tokens = {"encoder/query": LENGTH - TARGETS, "decoder/attention/query": TARGETS}
    np.testing.assert_allclose(list(own.values()), [*tokens.values(), LENGTH - TARGETS])
    encoder, both = (flops(T5, Prompt(3, stacks)) for stacks in ((), ("encoder", "decoder")))
    assert plain.forward < encoder.forward < both.forward


def test_converged_within_one_percent_of_the_best():
    history = [
        {"step": step, "dev_loss": loss} for step, loss in ((0, 3.0), (10, 2.021), (20, 2.019), (30, 2.0))
    ]
    assert converged_step(history) == 20
    assert converged_step(history[:1]) == 0
    assert converged_step([]) is None
