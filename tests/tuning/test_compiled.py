"""The compiled training step: what a frozen base saves, read off XLA's own program and its account.

Operations are counted over unrolled layers, since XLA's account on CPU takes the body of a loop once
however often it runs; the loop over steps runs once here. Memory is that of scanned layers, as large
models run. Nothing of the model's size is ever allocated.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import pytest

from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.training.costs import flops_per_token
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.precision import stored_as
from scaling_jax.training.program import Program
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.prompt import Prompt

# No two sides that could be taken for one another, nor for rows, positions or their product.
MODEL = ModelConfig("wide", 2, 6, 64, 512, 1536, 1000, unroll=2)
LLAMA = dataclasses.replace(
    MODEL, name="wide_llama", key_value_heads=2, activation="silu", embedding_scale="none", output="untied"
)
T5 = dataclasses.replace(
    MODEL,
    name="wide_t5",
    layers=1,
    encoder_layers=1,
    positions="relative",
    attention_scale="none",
    embedding_scale="none",
    output="untied",
    unroll=1,
)
OTHERS = {"llama": LLAMA, "t5": T5}
ROWS, LENGTH, ENCODER_LENGTH, PROMPT = 4, 120, 136, 24
METHODS = {
    "full": Full(),
    "lora": LoRA(rank=4),
    "lora_last": LoRA(rank=4, layers="last 1"),
    "ia3": IA3(),
    "bitfit": BitFit(),
    "prompt": Prompt(PROMPT),
}
ADAPTED = ("lora", "ia3", "bitfit")


@functools.cache
def compiled(name, remat="none", base_dtype="float32", unroll=2, model=MODEL):
    """One step of a method."""
    model = dataclasses.replace(model, remat=remat, unroll=unroll, logits_chunk=LENGTH)
    program = Program(model, METHODS[name], Optimizer("adamw"), Layout())
    base = stored_as(counts.abstract_parameters(model), base_dtype)
    tokens = jax.ShapeDtypeStruct((1, ROWS, LENGTH), jnp.int32)
    batches = {
        "inputs": tokens,
        "targets": tokens,
        "weights": jax.ShapeDtypeStruct(tokens.shape, jnp.float32),
    }
    if model.encoder_layers:
        read = (1, ROWS, ENCODER_LENGTH)
        batches["encoder_inputs"] = jax.ShapeDtypeStruct(read, jnp.int32)
        batches["encoder_mask"] = jax.ShapeDtypeStruct(read, jnp.bool_)
    # Machine code is not what is looked at.
    return program.lower_train(base, batches).compile({"xla_backend_optimization_level": 0})


def flops(name, remat="none", **model):
    return compiled(name, remat, **model).cost_analysis()["flops"]


def products(program):
    """Shapes of the results of all matrix products, sides sorted, sides of 1 left out."""
    shapes = re.findall(r"= (?:f32|bf16)\[([\d,]+)\]\S* (?:dot|custom-call)\(", program.as_text())
    return {tuple(sorted(int(side) for side in shape.split(",") if side != "1")) for shape in shapes}


def gradients_of_matrices(model=MODEL):
    """Shapes of the gradients of every matrix of the base, sides sorted."""
    flat = jax.tree_util.tree_leaves_with_path(counts.abstract_parameters(model))
    return {tuple(sorted(leaf.shape[-2:])) for path, leaf in flat if path[-1].key in ("kernel", "table")}


@pytest.mark.parametrize("name", ["full", *ADAPTED, "prompt"])
def test_no_product_gives_a_frozen_matrix_gradient(name):
    wanted = gradients_of_matrices()
    assert wanted == {(384, 512), (64, 512), (512, 1536), (512, 1000)}
    found = products(compiled(name)) & wanted
    assert found == (wanted if name == "full" else set())


@pytest.mark.parametrize(
    ("name", "remat", "most"),
    [
        *((name, "none", 0.75) for name in ADAPTED),
        ("lora", "full", 0.80),
        pytest.param("ia3", "full", 0.80, marks=pytest.mark.slow),
        pytest.param("bitfit", "full", 0.80, marks=pytest.mark.slow),
    ],
)
def test_operations_of_a_step(name, remat, most):
    share = flops(name, remat) / flops("full", remat)
    assert 0.6 < share <= most


@pytest.mark.slow
@pytest.mark.parametrize("family", OTHERS)
@pytest.mark.parametrize("name", ADAPTED)
def test_other_architectures_save_as_much(family, name):
    """Shared key-value heads, and two stacks with attention between them."""
    model = OTHERS[family]
    own, full = (compiled(one, unroll=model.unroll, model=model) for one in (name, "full"))
    wanted = gradients_of_matrices(model) - {(6, 32)}  # distances: a table that no product gives
    assert products(full) >= wanted and not products(own) & wanted
    assert 0.6 < own.cost_analysis()["flops"] / full.cost_analysis()["flops"] <= 0.75
    own, full = (compiled(one, "full", unroll=model.unroll, model=model) for one in (name, "full"))
    assert 0.6 < own.cost_analysis()["flops"] / full.cost_analysis()["flops"] <= 0.80


@pytest.mark.slow
def test_the_backward_pass_ends_at_the_first_chosen_layer():
    """Where layers are unrolled; a scan goes through all of them."""
    below = flops("lora_last") / flops("lora")
    assert 0.70 < below < 0.80
    own, every = (compiled(name).memory_analysis().temp_size_in_bytes for name in ("lora_last", "lora"))
    assert own < 0.7 * every


@pytest.mark.parametrize("name", [*ADAPTED, "prompt"])
def test_the_stated_formula_is_what_is_compiled(name):
    """Within 2% of a full step: XLA has the masked half of attention too, and counts norms and softmax."""
    tuned = Program(MODEL, METHODS[name], Optimizer(), Layout()).abstract_tuned()
    stated = flops_per_token(MODEL, METHODS[name], tuned, LENGTH, LENGTH).saved
    assert abs(1 - flops(name) / flops("full") - stated) < 0.02


def test_a_full_step_is_what_the_formula_says():
    """Within 3%: XLA has the masked half of attention too, and counts norms, softmax and the optimizer."""
    program = Program(MODEL, METHODS["full"], Optimizer(), Layout())
    stated = flops_per_token(MODEL, METHODS["full"], program.abstract_tuned(), LENGTH, LENGTH)
    seen = counts.attention_flops_per_token(MODEL, LENGTH)
    masked = seen * (2 * LENGTH / (LENGTH + 1) - 1)
    by_formula = ROWS * LENGTH * (stated.forward + stated.backward + 3 * masked)
    assert abs(flops("full") / by_formula - 1) < 0.03


def test_operations_of_a_prompt_step_per_position():
    share = flops("prompt") / (LENGTH + PROMPT) / (flops("full") / LENGTH)
    assert 0.6 < share <= 0.75


@pytest.mark.parametrize(
    "name", ["lora", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ia3", "bitfit", "prompt"))]
)
def test_memory_of_a_step(name):
    """Temporary arrays, and what goes in and out: parameters, gradients, the optimizer's moments."""
    own, full = (compiled(one, unroll=1).memory_analysis() for one in (name, "full"))
    assert own.temp_size_in_bytes < full.temp_size_in_bytes
    # AdamW keeps two moments of what is trained: a third of full tuning's state is the model.
    assert own.argument_size_in_bytes < 0.4 * full.argument_size_in_bytes


def test_a_base_in_half_the_bytes():
    dtypes = ("bfloat16", "float32")
    half, whole = (compiled("lora", base_dtype=dtype, unroll=1).memory_analysis() for dtype in dtypes)
    saved = whole.argument_size_in_bytes - half.argument_size_in_bytes
    assert abs(saved / (2 * counts.model_parameters(MODEL)) - 1) < 0.01
