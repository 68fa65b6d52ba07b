"""Kernels for attention against plain products: numbers, and which one is taken where."""

import dataclasses
import re
from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from scaling_jax.errors import InputError
from scaling_jax.models import attention, placement
from scaling_jax.models.attention import KERNELS, Inputs
from scaling_jax.training.mesh import AXES, RULES


def inputs(length, memory_length, heads, shared, causal, read=None, head_dim=8, rows=2, dtype=np.float32):
    """Random ones; `read` is how many keys of each row are read."""
    generator = np.random.default_rng(0)
    shapes = ((length, heads), (memory_length, shared), (memory_length, shared))
    arrays = (jnp.asarray(generator.normal(size=(rows, *shape, head_dim)), dtype) for shape in shapes)
    mask = None if read is None else jnp.arange(memory_length) < jnp.asarray(read)[:, None]
    return Inputs(*arrays, head_dim**-0.5, causal, mask)


def values_and_gradients(attend, given):
    """Of a sum with random weights, by query, key and value."""
    weights = np.random.default_rng(1).normal(size=given.query.shape).astype(np.float32)

    def total(query, key, value):
        attended = attend(given._replace(query=query, key=key, value=value))
        return jnp.sum(attended * weights), attended

    compute = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))
    compiled = compute.lower(*given[:3]).compile({"xla_backend_optimization_level": 0})
    return jax.tree.leaves(compiled(*given[:3]))


@pytest.mark.parametrize(
    "given",
    [
        pytest.param((300, 300, 2, 1, True), id="multi-query-causal-filled-up"),
        pytest.param((40, 300, 2, 2, False, (200, 7)), id="to-a-padded-memory"),
        pytest.param((256, 256, 4, 2, True), id="grouped-query", marks=pytest.mark.slow),
    ],
)
def test_splash_equals_plain_products(given):
    given = inputs(*given)
    wanted = values_and_gradients(attention.xla, given)
    found = values_and_gradients(KERNELS["splash_interpreted"].attend, given)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_lengths_of_rows_equal_a_mask():
    """What cuDNN is called with, computed by XLA."""
    given = inputs(6, 12, 2, 1, False, (12, 5))
    wanted = values_and_gradients(attention.xla, given)
    found = values_and_gradients(lambda one: attention.by_lengths(one, "xla"), given)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["splash_interpreted", "lengths"])
def test_a_row_without_keys_is_finite(name):
    """Rows that fill up an evaluation batch have none, and no weight."""
    attend = KERNELS[name].attend if name in KERNELS else lambda one: attention.by_lengths(one, "xla")
    assert np.isfinite(attend(inputs(4, 128, 1, 1, False, (0, 128)))).all()


def at(platform, shape=(1, 1, 1)):
    """A trace for devices that are not here."""
    names = {"cpu": "cpu", "tpu": "TPU v4"}
    given = {"device_kind": names.get(platform, "NVIDIA H100"), "num_cores": None, "platform": platform}
    known = {field.name for field in dataclasses.fields(AbstractDevice)}  # before JAX 0.10 no platform
    device = AbstractDevice(**{name: value for name, value in given.items() if name in known})
    mesh = AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 3, abstract_device=device)
    return jax.sharding.use_abstract_mesh(mesh)


LONG = inputs(256, 256, 2, 1, True, dtype=jnp.bfloat16)


@pytest.mark.parametrize(
    ("platform", "given", "wanted"),
    [
        ("cpu", LONG, "xla"),
        ("gpu", LONG, "cudnn"),
        ("cuda", LONG, "cudnn"),
        ("tpu", LONG, "splash"),
        ("tpu", inputs(256, 256, 2, 1, True), "splash"),
        ("gpu", inputs(256, 256, 2, 1, True), "xla"),  # float32
        ("gpu", inputs(256, 256, 1, 1, True, head_dim=12, dtype=jnp.bfloat16), "xla"),
        ("tpu", inputs(255, 255, 2, 1, True), "xla"),
        ("tpu", LONG._replace(bias=jnp.zeros((1, 2, 256, 256))), "xla"),
    ],
)
def test_the_automatic_choice(platform, given, wanted):
    with at(platform):
        assert placement.platform() == platform.replace("cuda", "gpu")
        assert attention.chosen("auto", given) is KERNELS[wanted]


@pytest.mark.parametrize(
    ("name", "wanted"), [("cpu", "cpu"), ("TPU v5 lite", "tpu"), ("NVIDIA H100 80GB HBM3", "gpu")]
)
def test_the_platform_by_the_name_of_a_device(monkeypatch, name, wanted):
    mesh = SimpleNamespace(abstract_device=SimpleNamespace(device_kind=name))
    monkeypatch.setattr(jax.sharding, "get_abstract_mesh", lambda: mesh)
    assert placement.platform() == wanted


def test_what_the_devices_do_not_divide_is_left_to_xla():
    with nn.logical_axis_rules(RULES):
        for shape, wanted in (((2, 1, 2), "splash"), ((4, 1, 1), "xla"), ((1, 1, 4), "xla")):
            with at("tpu", shape):
                assert attention.chosen("auto", LONG) is KERNELS[wanted]


@pytest.mark.parametrize(
    ("name", "platform", "given", "says"),
    [
        ("splash", "gpu", LONG, "'splash' runs on tpu, this is gpu: choose 'auto'"),
        ("cudnn", "cpu", LONG, "'cudnn' runs on gpu, this is cpu"),
        ("cudnn", "gpu", inputs(256, 256, 2, 1, True), "takes bfloat16, not float32"),
        ("cudnn", "gpu", inputs(256, 256, 1, 1, True, head_dim=12, dtype=jnp.bfloat16), "head_dim .* not 12"),
    ],
)
def test_a_kernel_that_cannot_run_is_refused(name, platform, given, says):
    with at(platform), pytest.raises(InputError, match=says):
        attention.chosen(name, given)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 1, 2)])
@pytest.mark.parametrize(("causal", "mask_type"), [(True, "CAUSAL"), (False, "PADDING")])
def test_the_gpu_gets_flash_attention_forward_and_backward(monkeypatch, shape, causal, mask_type):
    """Lowered for a GPU that is not here; only whether cuDNN is installed is not asked."""
    version = type("Versions", (), {"cudnn_get_version": staticmethod(lambda: 91000)})
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.cuda_versions", version)
    given = inputs(256, 256, 2, 1, causal, rows=2, read=None if causal else (256, 7), dtype=jnp.bfloat16)

    def total(query, key, value):
        with at("cuda", shape), nn.logical_axis_rules(RULES):
            arrays = given._replace(query=query, key=key, value=value)
            return jnp.sum(attention.attend("auto", arrays).astype(jnp.float32))

    traced = jax.jit(jax.grad(total, argnums=(0, 1, 2))).trace(*given[:3])
    program = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = re.findall(r"custom_call @__cudnn\$(\w+)\(", program)
    assert calls == ["fmhaSoftmax", "fmhaSoftmaxBackward"]
    assert set(re.findall(r"mask_type\\22: \\22(\w+)\\22", program)) == {mask_type}
