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
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json:1:2: not JSON"):
        hugging_face.open_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"is no Hugging Face model \(no config.json\)"):
        hugging_face.open_model(folder)


LLAMA = "llama_rotary_scaling"


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        *(
            (LLAMA, {"rope_scaling": {"rope_type": kind, "factor": 2.0}}, f"of type '{kind}': known are 'def")
            for kind in ("linear", "dynamic", "yarn", "longrope")
        ),
        (LLAMA, {"rope_scaling": {"type": "linear", "factor": 2.0}}, "of type 'linear'"),
        (LLAMA, {"rope_scaling": {"full_attention": {"rope_type": "default"}}}, "that all layers share"),
        (LLAMA, {"rope_scaling": "llama3"}, "rotary positions 'llama3'"),
        (LLAMA, {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "config.json: no low_freq_factor"),
        (LLAMA, {"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
        (LLAMA, {"hidden_act": "gelu"}, "hidden_act 'gelu': known are silu, swish, gelu_pytorch_tanh"),
        (LLAMA, {"num_hidden_layers": "3"}, "num_hidden_layers = '3': a whole number above 0"),
        (LLAMA, {"num_attention_heads": 0}, "num_attention_heads = 0"),
        (LLAMA, {"num_key_value_heads": 3}, "no multiple of key_value_heads 3"),
        (
            LLAMA,
            {"head_dim": 6},
            r"misshapen: model.layers.0.self_attn.k_proj.weight \[16, 24\] for \[12, 24\]",
        ),
        (LLAMA, {"attention_bias": True}, "missing: model.layers.0.self_attn.k_proj.bias, "),
        (LLAMA, {"tie_word_embeddings": True}, None),
        (LLAMA, {"bos_token_id": 48}, "the first token is 48, an id below 48 is needed"),
        (LLAMA, {"bos_token_id": [1, 2]}, r"the first token is \[1, 2\]"),
        (LLAMA, {"quantization_config": {"quant_method": "gptq"}}, "the tensors are quantised"),
        ("t5_gated", {"is_gated_act": False}, "'gated-gelu' and {'is_gated_act': False} are not the same"),
        (
            "t5_plain",
            {"dense_act_fn": "gelu_new"},
            "'relu' and {'dense_act_fn': 'gelu_new'} are not the same",
        ),
        ("t5_plain", {"feed_forward_proj": "gelu"}, "feed_forward_proj 'gelu': known are"),
        (
            "t5_gated",
            {"feed_forward_proj": "relu"},
            "missing: decoder.block.0.layer.2.DenseReluDense.wi.weight",
        ),
        ("t5_gated", {"d_kv": None}, "d_kv = None: a whole number"),
        ("t5_gated", {"decoder_start_token_id": -1}, "the first token is -1"),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else "",
)
def test_options_that_we_do_not_have(copied, name, changes, says):
    folder, _, _ = copied(name)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | changes))
    if says is None:  # a tied model whose file holds another output matrix
        with pytest.raises(InputError, match="lm_head.weight is model.embed_tokens.weight again, but its"):
            reading.read_parameters(hugging_face.open_model(folder))
        return
    with pytest.raises(InputError, match=says):
        hugging_face.open_model(folder)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("llama_multi_head", {"hidden_act": "swish"}),
        ("llama_multi_head", {"head_dim": None, "num_key_value_heads": None}),
        ("llama_multi_head", {"rope_scaling": {"rope_type": "default"}, "sliding_window": None}),
        ("llama_multi_head", {"hidden_size": 24, "rope_parameters": {"rope_theta": 10000.0}}),
        ("t5_gated", {"is_gated_act": True, "dense_act_fn": "gelu_new", "num_decoder_layers": 2}),
        ("t5_plain", {"is_gated_act": False, "dense_act_fn": "relu"}),
    ],
)
def test_the_same_model_said_otherwise(copied, name, changes):
    folder, _, _ = copied(name)
    settings = json.loads((folder / "config.json").read_text())
    if name == "llama_multi_head" and "head_dim" in changes:
        changes |= {"num_attention_heads": 3}  # 24 / 3 is the 8 of the case
        expected = dataclasses.replace(cases.CASES[name], heads=3, key_value_heads=3)
        read = hugging_face.FAMILIES["llama"].read_config(settings | changes, {}, "llama")
        assert read == expected
        return
    (folder / "config.json").write_text(json.dumps(settings | changes))
    assert hugging_face.open_model(folder, cases.CASES[name].name).model == cases.CASES[name]


def test_which_t5_has_an_output_of_its_own(copied):
    """Before transformers 5 tie_word_embeddings says it; since then the tensors do, and another field
    whether outputs are scaled."""
    folder, header, content = copied("t5_gated")
    settings = json.loads((folder / "config.json").read_text())
    del settings["scale_decoder_outputs"]

    def output(**changes):
        (folder / "config.json").write_text(json.dumps(settings | changes))
        return hugging_face.open_model(folder).model.output

    assert output(tie_word_embeddings=False) == "untied"
    assert output(tie_word_embeddings=True, scale_decoder_outputs=False) == "untied"
    del header["lm_head.weight"]
    rewrite(folder, header, content)
    with pytest.raises(InputError, match="missing: lm_head.weight$"):
        output(tie_word_embeddings=False)
    assert output(tie_word_embeddings=True, scale_decoder_outputs=False) == "tied"
    assert output(tie_word_embeddings=True) == "tied_scaled"


def test_tensors_of_whole_numbers(copied):
    folder, header, content = copied("llama_tied")
    header["model.norm.weight"] |= {"dtype": "I32"}
    rewrite(folder, header, content)
    with pytest.raises(InputError, match="model.norm.weight holds int32, which are no parameters"):
        reading.read_parameters(hugging_face.open_model(folder))
    header["model.norm.weight"] |= {"dtype": "F8_E4M3"}
    rewrite(folder, header, content)
    with pytest.raises(InputError, match="model.norm.weight is F8_E4M3; known: F64, F32"):
        hugging_face.open_model(folder)


@pytest.mark.parametrize(
    "entry", [None, {"dtype": "F32"}, {"dtype": "F32", "shape": [2], "data_offsets": ["a", "b"]}, [1, 2]]
)
def test_a_damaged_header(copied, entry):
    folder, header, content = copied("llama_tied")
    rewrite(folder, header | {"model.norm.weight": entry}, content)
    with pytest.raises(InputError, match="not a safetensors file .its header is damaged"):
        hugging_face.open_model(folder)
    rewrite(folder, [1], content)
    with pytest.raises(InputError, match="its header is damaged"):
        hugging_face.open_model(folder)


def test_token_ids_of_where_it_came_from_stay(tmp_path):
    for name, given in (("t5_gated", {"decoder_start_token_id": 7, "eos_token_id": 9}), ("llama_tied", {})):
        hugging_face.write_model(tmp_path / name, cases.CASES[name], cases.parameters(name), settings=given)
        settings = json.loads((tmp_path / name / "config.json").read_text())
        assert given.items() <= settings.items()
    settings = json.loads((tmp_path / "t5_gated/config.json").read_text())
    assert settings["pad_token_id"] == 0 and hugging_face.open_model(tmp_path / "t5_gated").start_id == 7


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
