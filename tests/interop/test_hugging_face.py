"""Hugging Face folders without torch: logits as transformers gave them, folders there and back, bad ones."""

import dataclasses
import json
import struct

import jax
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.interop import hugging_face, reading, tensor_files
from scaling_jax.models import counts
from scaling_jax.training.mesh import Layout
from tests.interop import cases


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Every case as a Hugging Face folder."""
    room = tmp_path_factory.mktemp("folders")
    for name, config in cases.CASES.items():
        hugging_face.write_model(room / name, config, cases.parameters(name))
    return room


@pytest.fixture
def copied(folders, tmp_path):
    """A copy of one that a test may damage, as (folder, header of its tensors, their bytes)."""

    def copy(name):
        for file in (folders / name).iterdir():
            (tmp_path / file.name).write_bytes(file.read_bytes())
        content = (tmp_path / "model.safetensors").read_bytes()
        length = struct.unpack("<Q", content[:8])[0]
        return tmp_path, json.loads(content[8 : 8 + length]), content[8 + length :]

    return copy


def rewrite(folder, header, content):
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + content)


@pytest.mark.parametrize("name", cases.CASES)
def test_logits_are_those_of_transformers(folders, name):
    folder = hugging_face.open_model(folders / name)
    found = cases.logits(folder.model, reading.read_parameters(folder), cases.batch(folder.model))
    np.testing.assert_allclose(cases.seen(found), cases.golden()[name], atol=1e-4)
    assert np.ptp(cases.golden()[name]) > 1


@pytest.mark.parametrize("name", [name for name in cases.CASES if name != "own_decoder"])
def test_there_and_back_is_the_same(folders, name):
    folder = hugging_face.open_model(folders / name, name=cases.CASES[name].name)
    assert folder.model == cases.CASES[name]
    found, wanted = reading.read_parameters(folder), cases.parameters(name)
    assert jax.tree.structure(found) == jax.tree.structure(counts.abstract_parameters(folder.model))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_our_decoder_becomes_a_llama(folders):
    model = hugging_face.open_model(folders / "own_decoder").model
    assert (model.output, model.embedding_scale, model.activation) == ("untied", "none", "gelu")
    assert model.key_value_heads == 1


def test_many_files_and_their_index(folders, tmp_path):
    name = "t5_gated"
    params = cases.parameters(name)
    hugging_face.write_model(tmp_path / "m", cases.CASES[name], params, bytes_per_file=20_000)
    written = sorted(path.name for path in (tmp_path / "m").glob("*.safetensors"))
    assert len(written) > 3 and written[0] == f"model-00001-of-{len(written):05}.safetensors"
    found = reading.read_parameters(hugging_face.open_model(tmp_path / "m"))
    jax.tree.map(np.testing.assert_array_equal, found, params)
    (tmp_path / "m" / written[1]).unlink()
    with pytest.raises(InputError, match=f"cannot read .*{written[1]}: No such file"):
        hugging_face.open_model(tmp_path / "m")


def test_bfloat16_files_and_arrays(tmp_path):
    params = cases.parameters("llama_tied")
    hugging_face.write_model(tmp_path / "m", cases.CASES["llama_tied"], params, dtype="bfloat16")
    folder = hugging_face.open_model(tmp_path / "m")
    assert {str(tensor.dtype) for tensor in folder.tensors.values()} == {"bfloat16"}
    single = reading.read_parameters(folder)
    half = reading.read_parameters(folder, dtype="bfloat16")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(single)} == {"float32"}
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(half)} == {"bfloat16"}
    for found, wanted in zip(jax.tree.leaves(single), jax.tree.leaves(params), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=2**-8)


def test_arrays_are_placed_where_they_are_asked(folders):
    folder = hugging_face.open_model(folders / "llama_grouped_query")
    layout = Layout()
    shardings = layout.parameter_shardings(counts.abstract_variables(folder.model)["params"], layout.mesh())
    found = reading.read_parameters(folder, shardings)
    assert jax.tree.map(lambda leaf: leaf.sharding, found) == shardings
    jax.tree.map(np.testing.assert_array_equal, found, cases.parameters("llama_grouped_query"))


def test_missing_extra_and_misshapen_tensors_are_all_named(copied):
    folder, header, content = copied("llama_tied")
    header["model.layers.1.self_attn.q_proj.weight"]["shape"] = [24, 32]
    header["model.layers.0.mlp.other.weight"] = header.pop("model.layers.0.mlp.up_proj.weight")
    del header["model.norm.weight"]
    rewrite(folder, header, content)
    with pytest.raises(InputError) as error:
        hugging_face.open_model(folder)
    for part in (
        "missing: model.layers.0.mlp.up_proj.weight, model.norm.weight",
        "extra: model.layers.0.mlp.other.weight",
        "misshapen: model.layers.1.self_attn.q_proj.weight [24, 32] for [32, 24]",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_a_truncated_file(copied, kept):
    folder, _, _ = copied("llama_tied")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(InputError, match="model.safetensors.*(truncated|not a safetensors file)"):
        hugging_face.open_model(folder)


def test_other_files_that_cannot_be_used(copied, tmp_path):
    folder, header, content = copied("t5_tied")
    settings = json.loads((folder / "config.json").read_text())

    def refused(says, **changes):
        (folder / "config.json").write_text(json.dumps(settings | changes))
        with pytest.raises(InputError, match=says):
            hugging_face.open_model(folder)

    refused("model_type 'mamba'; known are llama, t5", model_type="mamba")
    refused("feed_forward_proj 'gated-swish': known are gated-gelu", feed_forward_proj="gated-swish")
    refused("missing: decoder.block.3", num_decoder_layers=4)
    llama = {"model_type": "llama", "num_attention_heads": 2, "hidden_size": 8}
    refused("config.json: no num_hidden_layers", **llama)
    llama |= {"num_hidden_layers": 1, "intermediate_size": 8}
    refused("rotary positions of type 'yarn': known are", rope_scaling={"type": "yarn"}, **llama)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json:1:2: not JSON"):
        hugging_face.open_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"is no Hugging Face model \(no config.json\)"):
        hugging_face.open_model(folder)


def test_a_pickle_is_not_loaded(copied):
    folder, _, _ = copied("t5_tied")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="pytorch_model.bin is a pickle, which is never loaded"):
        hugging_face.open_model(folder)


def test_values_that_should_repeat_and_do_not(copied):
    folder, header, content = copied("t5_tied")
    same = dict(header["shared.weight"])
    header["encoder.embed_tokens.weight"] = same
    rewrite(folder, header, content)
    reading.read_parameters(hugging_face.open_model(folder))
    end = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
    size = same["data_offsets"][1] - same["data_offsets"][0]
    header["encoder.embed_tokens.weight"] = same | {"data_offsets": [end, end + size]}
    rewrite(folder, header, content + b"\1" * size)
    with pytest.raises(
        InputError, match="encoder.embed_tokens.weight is shared.weight again, but its values"
    ):
        reading.read_parameters(hugging_face.open_model(folder))


def test_nothing_half_written(tmp_path, monkeypatch):
    name = "llama_tied"
    broken = cases.parameters(name)
    broken["layers"]["layer"]["attention"]["out"]["kernel"] = np.zeros((3, 1, 1), np.float32)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tensor_files, "write_file", fails)
    with pytest.raises(InputError, match="cannot write .*: No space left on device"):
        hugging_face.write_model(tmp_path / "m", cases.CASES[name], broken)
    assert list(tmp_path.iterdir()) == []


def test_models_that_neither_family_can_express(tmp_path):
    params = cases.parameters("t5_gated")
    for changes in ({"key_value_heads": 2}, {"activation": "silu", "feed_forward": "plain"}):
        with pytest.raises(InputError, match="cannot be written as a T5"):
            hugging_face.write_model(tmp_path / "m", dataclasses.replace(cases.T5, **changes), params)
    with pytest.raises(InputError, match="cannot be written as a LLaMA: .*biases"):
        changed = dataclasses.replace(cases.LLAMA, biases=("query",))
        hugging_face.write_model(tmp_path / "m", changed, params)
    assert not (tmp_path / "m").exists()
