"""Safetensors files that are damaged or hold what cannot be parameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.interop import hugging_face, reading, tensor_files
from tests.interop.damage import damaged, rewrite

GOOD = {"dtype": "F32", "shape": [24], "data_offsets": [0, 96]}


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [1, 2],
        {"dtype": "F32"},
        GOOD | {"data_offsets": ["a", "b"]},
        GOOD | {"data_offsets": [0]},
        GOOD | {"data_offsets": [0, 48, 96]},
        GOOD | {"data_offsets": [0.0, 96.0]},
        GOOD | {"data_offsets": [-96, 0]},
        GOOD | {"data_offsets": [False, 96]},
        GOOD | {"data_offsets": None},
        GOOD | {"shape": [-4, -6]},
        GOOD | {"shape": [24.0]},
        GOOD | {"shape": ["24"]},
        GOOD | {"shape": 24},
        GOOD | {"shape": "24"},
        GOOD | {"dtype": ["F32"]},
    ],
    ids=str,
)
def test_a_damaged_header(copied, entry):
    folder, header, content = copied("llama_tied")
    rewrite(folder, header | {"model.norm.weight": entry}, content)
    with pytest.raises(InputError, match="not a safetensors file .its header is damaged: model.norm.weight"):
        hugging_face.open_model(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1]", "its header is damaged"),
        ('{"a": ' * 200_000, "its header is not JSON"),
        ('{"a": ' + "9" * 5000 + "}", "its header is not JSON"),
        ('{"a": ', "its header is not JSON"),
        ("{", "not a safetensors file, or an empty one"),
    ],
    ids=["list", "deep", "digits", "open", "short"],
)
def test_a_header_that_is_none(copied, text, says):
    folder, _, content = copied("llama_tied")
    rewrite(folder, text, content)
    with pytest.raises(InputError, match=says):
        hugging_face.open_model(folder)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("overlap", r"beta begins on bytes of alpha; tensors lie end to end"),
        ("same", r"beta begins on bytes of alpha"),
        ("hole", r"beta begins 4 bytes after empty"),
        ("hole_first", r"alpha begins 4 bytes after the header"),
        ("after", r"3 bytes after its last tensor"),
        ("beyond", r"is truncated: its tensors end at byte"),
    ],
)
def test_tensors_that_do_not_lie_end_to_end(tmp_path, damage, says):
    """As the format's own library has it, which a parity test holds."""
    header, content = damaged(damage)
    rewrite(tmp_path, header, content)
    with pytest.raises(InputError, match=says):
        tensor_files.open_file(tmp_path / "model.safetensors")


def test_tensors_in_any_order_of_names(tmp_path):
    header, content = damaged(None)
    rewrite(tmp_path, dict(reversed(header.items())) | {"__metadata__": {"format": "pt"}}, content)
    found = tensor_files.open_file(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(found["beta"].read(), np.frombuffer(content[16:], "<f4").reshape(2, 2))
    assert found["empty"].read().shape == (0, 3)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:-8])
    with pytest.raises(InputError, match="is truncated: of beta it has 8 bytes"):
        found["beta"].read()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -np.nan])
def test_values_that_are_not_finite(tmp_path, dtype, value):
    dtype = next(known for known in tensor_files.DTYPES.values() if known.name == dtype)
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(dtype)
    for extreme in (0.0, -0.0, jnp.finfo(dtype).max, jnp.finfo(dtype).min, jnp.finfo(dtype).tiny):
        values[0, 0] = extreme
        reading.check_values(tmp_path, "a.b", values)
    reading.check_values(tmp_path, "a.b", values[:0])
    values[1, 2] = value
    with pytest.raises(InputError, match=r"a\.b holds values that are not finite"):
        reading.check_values(tmp_path, "a.b", values)
