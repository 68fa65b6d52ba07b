"""Hugging Face folders without torch: logits as transformers gave them, folders there and back, bad ones."""

import dataclasses
import json
import math
import weakref

import jax
import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.interop import hugging_face, reading, tensor_files
from scaling_jax.models import counts
from scaling_jax.training.mesh import Layout
from tests.interop import cases
from tests.interop.damage import rewrite


def without(header, content, name):
    """Takes a tensor out of a header; returns the bytes of the others."""
    begin, end = header.pop(name)["data_offsets"]
    for other, entry in header.items():
        if other != "__metadata__" and entry["data_offsets"][0] >= end:
            entry["data_offsets"] = [place - (end - begin) for place in entry["data_offsets"]]
    return content[:begin] + content[end:]


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
    index = json.loads((tmp_path / "m" / tensor_files.INDEX).read_text())
    placed = index["weight_map"]
    held = [tensor for tensor, file in placed.items() if file == written[1]]

    def refused(says, **changes):
        (tmp_path / "m" / tensor_files.INDEX).write_text(json.dumps({"weight_map": placed | changes}))
        with pytest.raises(InputError, match=says):
            hugging_face.open_model(tmp_path / "m")

    refused("index.json names tensors that no file holds: a, b", a=written[0], b=written[1])
    refused("index.json names files outside its folder: ../x.safetensors", a="../x.safetensors")
    absolute = str(tmp_path / "m" / written[0])
    refused("index.json names files outside its folder: /.*m/model-00001", **{held[0]: absolute})
    refused("index.json names files that are not there: '', 'sub/x'", a="sub/x", b="")
    refused("no weight_map", a=5)
    (tmp_path / "m" / written[1]).rename(tmp_path / "m" / "other")
    (tmp_path / "m" / written[2]).unlink()
    refused(f"names files that are not there: '{written[1]}', '{written[2]}'$")
    (tmp_path / "m" / written[2]).write_bytes((tmp_path / "m" / "other").read_bytes())
    (tmp_path / "m" / written[1]).write_bytes((tmp_path / "m" / "other").read_bytes())
    refused(f"{written[2]} and {written[1]} both hold .*{held[0]}")


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
    rewrite(folder, header, without(header, content, "model.norm.weight"))
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

    refused("model_type 'mamba': known are llama, t5", model_type="mamba")
    refused("feed_forward_proj 'gated-swish': known are gated-gelu", feed_forward_proj="gated-swish")
    refused("missing: decoder.block.3", num_decoder_layers=4)
    llama = {"model_type": "llama", "num_attention_heads": 2, "hidden_size": 8}
    refused("config.json: no num_hidden_layers", **llama)
    llama |= {"num_hidden_layers": 1, "intermediate_size": 8}
    for content, says in (
        ('{"a": ' * 200_000, "is nested too deeply"),
        ('{"a": ' + "9" * 5000, "cannot be read"),
    ):
        (folder / "config.json").write_text(content)
        with pytest.raises(InputError, match=f"config.json: JSON that {says}"):
            hugging_face.open_model(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json:1:2: not JSON"):
        hugging_face.open_model(folder)
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"is no Hugging Face model \(no config.json\)"):
        hugging_face.open_model(folder)


LLAMA = "llama_rotary_scaling"
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


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
        *(
            (LLAMA, {name: value}, f"config.json: {name} = .*: a number above 0")
            for name in ("rms_norm_eps", "rope_theta")
            for value in ("1e-6", 0, -1.0, True, [1], float("nan"), float("inf"), 10**400)
        ),
        (LLAMA, {"rms_norm_eps": None}, "rms_norm_eps = None: a number above 0"),
        *(
            (LLAMA, {name: value}, f"config.json: {name} = .*: true or false")
            for name in ("attention_bias", "mlp_bias", "tie_word_embeddings")
            for value in ("false", 0, [])
        ),
        *(
            (LLAMA, {"hidden_act": value}, "config.json: hidden_act .*: known are silu")
            for value in (["silu"], {}, 5, None)
        ),
        *(
            (LLAMA, {"model_type": value}, "config.json: model_type .*: known are llama, t5")
            for value in (["llama"], {"a": 1}, 5, None)
        ),
        *(
            (LLAMA, {"rope_scaling": LLAMA3 | {name: value}}, says)
            for name, value, says in (
                ("factor", "8", "factor = '8': a number above 0"),
                ("factor", 0, "factor = 0: a number above 0"),
                ("factor", -8.0, "factor = -8.0: a number above 0"),
                ("low_freq_factor", 4.0, "low_freq_factor = 4.0: a number below high_freq_factor"),
                ("low_freq_factor", 5, "low_freq_factor = 5: a number below high_freq_factor"),
                ("high_freq_factor", None, "high_freq_factor = None: a number above 0"),
                ("original_max_position_embeddings", "16", "embeddings = '16': a whole number above 0"),
                ("rope_theta", "1e4", "rope_theta = '1e4': a number above 0"),
            )
        ),
        *(
            (LLAMA, {name: value}, f"{name} (= .*: a whole number above 0|is above 2147483647)")
            for name in ("num_hidden_layers", "hidden_size", "vocab_size", "num_attention_heads")
            for value in (3.0, True, None, -1, 10**30)
        ),
        (LLAMA, {"hidden_size": 3, "head_dim": None}, "head_dim = 0: a whole number above 0"),
        (
            LLAMA,
            {"num_hidden_layers": 1_000_000_000},
            r"not hold the model that it says: 1000000000 layers .*, 3 tensors model.layers.\{layer\}.self",
        ),
        ("t5_gated", {"num_layers": 10**9}, r"1000000000 layers .*, 3 tensors encoder.block.\{layer\}"),
        *(("t5_gated", {"feed_forward_proj": value}, "feed_forward_proj .*: known are") for value in ([], 5)),
        *(
            ("t5_gated", {"layer_norm_epsilon": value}, "layer_norm_epsilon = .*: a number above 0")
            for value in ("1e-6", None, 0)
        ),
        ("t5_gated", {"scale_decoder_outputs": "no"}, "scale_decoder_outputs = 'no': true or false"),
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
    content = without(header, content, "lm_head.weight")
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


def test_a_model_of_nothing_but_nan(tmp_path):
    params = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), cases.parameters("llama_tied"))
    hugging_face.write_model(tmp_path / "m", cases.CASES["llama_tied"], params)
    with pytest.raises(InputError, match="m: model.embed_tokens.weight holds values that are not finite"):
        reading.read_parameters(hugging_face.open_model(tmp_path / "m"))


class Held:
    """Bytes of arrays that were given out and are still held, and the most there were at once."""

    def __init__(self):
        self.now = self.most = 0

    def give(self, shape):
        values = np.zeros(shape, np.float32)
        self.now += values.nbytes
        self.most = max(self.most, self.now)
        weakref.finalize(values, self.left, values.nbytes)
        return values

    def left(self, size):
        self.now -= size


@dataclasses.dataclass
class Counted:
    """A tensor of zeros that is held account of."""

    shape: tuple
    held: Held

    def read(self):
        return self.held.give(self.shape)


def test_host_memory_stays_near_the_largest_tensor(tmp_path):
    """64 layers of more than 1 MB and a table of 8 MB: never more than two tensors are held while read."""
    config = dataclasses.replace(cases.LLAMA, layers=64, model_dim=256, vocabulary_size=8192, output="tied")
    config = dataclasses.replace(config, feed_forward_dim=1024, head_dim=64, rotary_base=1e4)
    held = Held()
    abstract, tensors = reading.by_path(counts.abstract_parameters(config)), {}
    entries = hugging_face.family_of(config).entries(config)
    for entry in entries:
        shape = abstract[entry.ours].shape
        for layer in range(shape[0]) if entry.stacked else (None,):
            tensors[entry.theirs.format(layer=layer)] = Counted(reading.their_shape(entry, shape), held)
    source = reading.check(reading.Source(tmp_path, config, entries, tensors))
    largest = max(4 * math.prod(tensor.shape) for tensor in tensors.values())
    whole = sum(4 * math.prod(tensor.shape) for tensor in tensors.values())
    assert largest == 1 << 23 and whole > 20 * largest
    reading.read_parameters(source)
    assert largest <= held.most <= 2 * largest


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
    begin, end = same["data_offsets"]
    header["encoder.embed_tokens.weight"] = same | {
        "data_offsets": [len(content), len(content) + end - begin]
    }
    rewrite(folder, header, content + content[begin:end])
    reading.read_parameters(hugging_face.open_model(folder))
    rewrite(folder, header, content + b"\1" * (end - begin))
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
    for changes, says in (
        ({"key_value_heads": 2}, r"key_value_heads: 2 here, 4 \(as heads\) there"),
        (
            {"activation": "silu", "feed_forward": "plain"},
            r"activation: silu here, gelu or relu \(in a plain feed-forward\) there",
        ),
        ({"biases": ("query", "up")}, "biases: query and up here, none there"),
    ):
        with pytest.raises(InputError, match=rf"model 't5' cannot be written as a T5 \({says}\)$"):
            hugging_face.write_model(tmp_path / "m", dataclasses.replace(cases.T5, **changes), params)
    with pytest.raises(InputError, match=r"as a LLaMA \(feed_forward: plain here, gated there\)"):
        changed = dataclasses.replace(cases.LLAMA, feed_forward="plain")
        hugging_face.write_model(tmp_path / "m", changed, params)
    assert not (tmp_path / "m").exists()
