"""Adapters in PEFT's format, there and back; peft itself is in the parity tests."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.interop import adapters, conversion, hugging_face, tensor_files
from scaling_jax.interop.adapters_reading import read_adapter
from scaling_jax.models import counts
from scaling_jax.training import bases, checkpoints
from scaling_jax.training.mesh import Layout
from scaling_jax.tuning.bitfit import BitFit
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.ia3 import IA3
from scaling_jax.tuning.lora import LoRA
from scaling_jax.tuning.prompt import Prompt
from tests.interop import cases
from tests.training import tiny

LLAMA, T5 = "llama_grouped_query", "t5_gated"
METHODS = {
    "lora_everywhere": (LLAMA, LoRA(rank=2, alpha=6.0, dropout=0.1)),
    "lora_of_last_layers": (LLAMA, LoRA(rank=3, targets=("query", "down"), layers="last 2")),
    "lora_of_cross_attention": (T5, LoRA(rank=2, targets=("cross_attention",))),
    "ia3": (T5, IA3()),
    "ia3_of_the_decoder": (LLAMA, IA3(layers=(0, 2))),
    "prompt": (LLAMA, Prompt(5)),
    "prompt_of_the_encoder": (T5, Prompt(4)),
    "lora_on_our_decoder": ("own_decoder", LoRA(rank=2)),
}


def tuned_tree(model, method, seed=3):
    """Random arrays of what a method trains, without training."""
    generator = np.random.default_rng(seed)
    added = counts.abstract_variables(model, method)["tuned"]
    shapes = jax.eval_shape(method.kept, jax.tree.map(lambda leaf: leaf, unboxed(added)))
    return jax.tree.map(lambda leaf: (generator.normal(size=leaf.shape) / 4).astype(np.float32) + 0.5, shapes)


def unboxed(tree):
    import flax.linen as nn

    return nn.unbox(tree)


@pytest.mark.parametrize("name", METHODS)
def test_there_and_back(tmp_path, name):
    case, method = METHODS[name]
    model = cases.CASES[case]
    tuned = tuned_tree(model, method)
    adapters.write_adapter(tmp_path / "a", model, method, tuned, "base")
    found = read_adapter(tmp_path / "a", model)
    jax.tree.map(np.testing.assert_array_equal, found.tuned, tuned)
    again = tuned_tree(model, found.method)
    assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, tuned), "the settings choose the same"
    for field in {"rank", "dropout", "length"} & {field.name for field in dataclasses.fields(method)}:
        assert getattr(found.method, field) == getattr(method, field)
    if isinstance(method, LoRA):
        assert found.method.scale == method.scale


def test_an_adapter_is_written_as_people_write_it(tmp_path):
    case, method = METHODS["lora_everywhere"]
    model = cases.CASES[case]
    adapters.write_adapter(tmp_path / "a", model, method, tuned_tree(model, method), "meta/llama")
    settings = files.read_json(tmp_path / "a/adapter_config.json")
    names = ["down_proj", "gate_proj", "k_proj", "o_proj", "q_proj", "up_proj", "v_proj"]
    assert settings["target_modules"] == names
    assert (settings["r"], settings["lora_alpha"], settings["peft_type"]) == (2, 6.0, "LORA")
    assert (settings["base_model_name_or_path"], settings["task_type"]) == ("meta/llama", "CAUSAL_LM")
    stored = tensor_files.open_file(tmp_path / "a/adapter_model.safetensors")
    first = stored["base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"]
    assert first.shape == (2, model.feed_forward_dim) and len(stored) == 3 * 7 * 2
    case, method = METHODS["lora_of_last_layers"]
    adapters.write_adapter(tmp_path / "b", model, method, tuned_tree(model, method), "x")
    targets = files.read_json(tmp_path / "b/adapter_config.json")["target_modules"]
    wanted = [
        f"model.layers.{layer}.{part}" for part in ("self_attn.q_proj", "mlp.down_proj") for layer in (1, 2)
    ]
    assert targets == wanted


def test_what_has_no_form_there(tmp_path):
    for case, method, says in (
        (LLAMA, BitFit(), "BitFit has no form among PEFT's adapters .* --to hugging_face"),
        (LLAMA, BitFit(targets=("query", "down")), "BitFit has no form .* --to hugging_face"),
        (T5, BitFit(targets=("query", "up")), r"nor has the merged .*: query and up here, none there\)$"),
        (LLAMA, Full(), "Full has no form among PEFT's adapters .* --to hugging_face"),
        (T5, Full(), "Full has no form among PEFT's adapters .* --to hugging_face"),
        (T5, Prompt(3, ("decoder",)), "a prompt of the decoder has no form"),
        (T5, Prompt(3, ("encoder", "decoder")), "a prompt of the decoder has no form"),
    ):
        model = cases.CASES[case]
        tuned = tuned_tree(model, method) if isinstance(method, Prompt) else {}
        with pytest.raises(InputError, match=says):
            adapters.write_adapter(tmp_path / "a", model, method, tuned, "base")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def written(tmp_path):
    """(folder, settings) of a LoRA adapter that a test may change."""
    case, method = METHODS["lora_of_last_layers"]
    model = cases.CASES[case]
    adapters.write_adapter(tmp_path / "a", model, method, tuned_tree(model, method), "base")
    return tmp_path / "a", files.read_json(tmp_path / "a/adapter_config.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"peft_type": "LOHA"}, "peft_type 'LOHA': known are LORA, IA3, PROMPT_TUNING"),
        ({"use_dora": True}, "what our methods do not have: {'use_dora': True}"),
        (
            {"rank_pattern": {"q_proj": 8}, "bias": "all"},
            "'rank_pattern'.*'bias': 'all'|'bias'.*'rank_pattern'",
        ),
        *(
            ({name: value}, f"what our methods do not have: .*{name}")
            for name, value in {
                "alpha_pattern": {"q_proj": 3},
                "modules_to_save": ["lm_head"],
                "lora_bias": True,
                "trainable_token_indices": [1],
                "alora_invocation_tokens": [5, 6],
                "layer_replication": [[0, 2], [1, 3]],
                "target_parameters": ["experts.down_proj"],
                "use_qalora": True,
                "use_bdlora": {"nblocks": 2},
                "kasa_config": {"beta": 0.1},
                "init_lora_weights": "pissa_niter_4",
                "loftq_config": {"loftq_bits": 4},
                "of_a_later_version": "yes",
            }.items()
        ),
        ({"r": 4}, r"misshapen: .*lora_A.weight \[3, 40\] for \[4, 40\]"),
        ({"r": None}, "adapter_config.json: r = None: a whole number above 0"),
        ({"lora_alpha": "6"}, "lora_alpha = '6': a number"),
        ({"lora_alpha": None}, "lora_alpha = None: a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan: a number"),
        ({"lora_alpha": float("inf")}, "lora_alpha = inf: a number"),
        ({"lora_dropout": None}, "lora_dropout = None: a number"),
        ({"lora_dropout": 1.5}, "adapter_config.json: lora.dropout = 1.5: a share"),
        ({"use_rslora": "no"}, "use_rslora = 'no': true or false"),
        ({"peft_type": ["LORA"]}, r"peft_type \['LORA'\]: known are LORA"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path = 5: a text"),
        *(
            ({name: value}, f"adapter_config.json: {name} = .*: a text or a list of texts")
            for name in ("target_modules", "exclude_modules", "feedforward_modules", "layers_pattern")
            for value in (5, [5], {"a": 1}, True)
        ),
        *(
            ({name: "(model"}, f"adapter_config.json: {name} = '.model' is no regular expression")
            for name in ("target_modules", "exclude_modules", "feedforward_modules", "layers_pattern")
        ),
        ({"layers_pattern": ["layers", "("]}, r"layers_pattern = '\(' is no regular expression"),
        *(
            ({"layers_to_transform": value}, "layers_to_transform = .*: a whole number from 0 on, or a list")
            for value in ("abc", ["1"], [-1], 1.0, True, {})
        ),
        (
            {"target_modules": ["q_proj", "down_proj"]},
            r"for this base: missing: .*layers\.0\.mlp\.down_proj\.lora_A.weight, .*q_proj\.lora_B",
        ),
        ({"target_modules": ["q_proj"], "layers_to_transform": [1, 2]}, r"extra: .*mlp\.down_proj\.lora_A"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_adapters_that_cannot_be_read(written, changes, says):
    folder, settings = written
    (folder / "adapter_config.json").write_text(json.dumps(settings | changes))
    with pytest.raises(InputError, match=says):
        read_adapter(folder, cases.CASES[LLAMA])


@pytest.mark.parametrize("content", ["[1]", '"LORA"', "{", '{"r": 2}'])
def test_settings_that_are_none(written, content):
    folder, _ = written
    (folder / "adapter_config.json").write_text(content)
    with pytest.raises(InputError, match="adapter_config.json"):
        read_adapter(folder, cases.CASES[LLAMA])


# As peft 0.21 writes a plain LoRA adapter, with all that it has a setting for.
PLAIN = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": {"base_model_class": "LlamaForCausalLM", "parent_library": "transformers"},
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "loftq_config": {},
    "lora_bias": False,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "rank_pattern": {},
    "revision": None,
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {
            "target_modules": ["q_proj", "down_proj"],
            "layers_to_transform": [1, 2],
            "layers_pattern": "layers",
        },
        {"target_modules": r"model\.layers\.[12]\.(self_attn\.q_proj|mlp\.down_proj)"},
        {
            "target_modules": ["q_proj", "down_proj"],
            "exclude_modules": ["model.layers.0.self_attn.q_proj", "layers.0.mlp.down_proj"],
        },
        {
            "target_modules": ["q_proj", "down_proj"],
            "layers_to_transform": [1, 2],
            "layers_pattern": "(h|layers)",
        },
        {"target_modules": None},
    ],
)
def test_a_plain_adapter_with_every_setting(written, chosen):
    """The same projections named in each of PEFT's ways."""
    folder, settings = written
    before = read_adapter(folder, cases.CASES[LLAMA])
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | settings | chosen))
    found = read_adapter(folder, cases.CASES[LLAMA])
    assert found.method == before.method
    jax.tree.map(np.testing.assert_array_equal, found.tuned, before.tuned)


def test_a_disk_that_is_full(tmp_path, monkeypatch):
    case, method = METHODS["lora_everywhere"]
    model = cases.CASES[case]
    tuned = tuned_tree(model, method)

    def fails(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(adapters, "write_file", fails)
    with pytest.raises(InputError, match="cannot write .*: No space left on device"):
        adapters.write_adapter(tmp_path / "a", model, method, tuned, "base")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "first", [LoRA(rank=2), BitFit(targets=("attention",)), Prompt(3)], ids=lambda m: type(m).__name__
)
def test_an_adapter_on_a_tuned_base(tmp_path, first):
    """The model is then the one that the base merges to; one that cannot be merged is no base."""
    model = cases.CASES[LLAMA]
    about = {"kind": "pretrained", "model": dataclasses.asdict(model), "vocabulary_sha256": "v"}
    about |= {"pretrain_tokens": 5, "hash": checkpoints.tree_hash(cases.parameters(LLAMA))}
    checkpoints.save(tmp_path / "base", cases.parameters(LLAMA), about)
    arrays = tuned_tree(model, first)
    own = {"kind": "tuned", "method": {"name": method_name(first), **dataclasses.asdict(first)}}
    own |= {"base": {"path": str(tmp_path / "base"), "hash": about["hash"], "pretrain_tokens": 5}}
    own |= {"model": about["model"], "vocabulary_sha256": "v"}
    checkpoints.save(tmp_path / "first", arrays, own | {"hash": bases.tuned_hash(arrays, own)})
    method = LoRA(rank=2, alpha=5.0)
    adapters.write_adapter(tmp_path / "a", model, method, tuned_tree(model, method, seed=4), "base")
    if isinstance(first, Prompt):
        with pytest.raises(InputError, match="first cannot be a base: prompt cannot be merged"):
            conversion.from_adapter(tmp_path / "a", tmp_path / "second", tmp_path / "first")
        return
    conversion.from_adapter(tmp_path / "a", tmp_path / "second", tmp_path / "first")
    found = bases.load_tuned(tmp_path / "second", Layout())
    assert found.program.model.biases == (() if isinstance(first, LoRA) else ("query", "key", "value", "out"))
    assert tuple(found.about["model"]["biases"]) == found.program.model.biases
    merged = first.merge(arrays, cases.parameters(LLAMA))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found.base, merged)
    said = checkpoints.about(tmp_path / "first")
    assert found.about["base"]["tuned_from"] == {"method": said["method"], "base": said["base"]}

    def refused(says):
        with pytest.raises(InputError, match=says):
            conversion.to_adapter(tmp_path / "second", tmp_path / "out")
        assert not (tmp_path / "out").exists()

    says = "second was tuned from .*first, which was tuned itself: write that with --to hugging_face and name"
    refused(says)
    written = files.read_json(tmp_path / "second/about.json")
    older = written | {"base": {key: value for key, value in written["base"].items() if key != "tuned_from"}}
    files.write_json(tmp_path / "second/about.json", older)  # as earlier versions wrote it
    refused(says)
    files.write_json(tmp_path / "second/about.json", written)
    (tmp_path / "first").rename(tmp_path / "moved")
    refused(says)
    if isinstance(first, BitFit):  # its biases are in a LLaMA of theirs, which PEFT leaves as they are
        conversion.to_hugging_face(tmp_path / "moved", tmp_path / "export")
    conversion.to_adapter(tmp_path / "second", tmp_path / "out", base="exports/merged")
    settings = files.read_json(tmp_path / "out/adapter_config.json")
    assert settings["base_model_name_or_path"] == "exports/merged"


def method_name(method):
    return type(method).name if hasattr(type(method), "name") else "prompt"


@pytest.mark.parametrize(
    ("named", "path", "differs"),
    [
        ("meta-llama/Llama", None, False),
        ("./downloads/llama/", None, False),
        ("C:\\models\\LLAMA", None, False),
        ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-hf", False),
        ("meta-llama/Llama-2-7b-hf", None, True),
        ("meta-llama/Llama-2-7b-hf", "huggyllama/llama-7b", True),
        (None, None, False),
        ("", None, False),
    ],
)
def test_the_name_of_the_base_that_an_adapter_was_made_for(tmp_path, written, named, path, differs):
    """Models of one shape are told apart by nothing else."""
    folder, settings = written
    (folder / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": named}))
    about = {"kind": "pretrained", "model": dataclasses.asdict(cases.CASES[LLAMA]), "vocabulary_sha256": "v"}
    about |= {"pretrain_tokens": 5, "hash": "h", "hugging_face": {"_name_or_path": path} if path else {}}
    checkpoints.save(tmp_path / "base", cases.parameters(LLAMA), about)
    remark = conversion.from_adapter(folder, tmp_path / "out", tmp_path / "base").remark
    assert bool(remark) == differs
    if differs:
        ours = f"'llama' or '{path}'" if path else "'llama'"
        assert remark.startswith(f"the adapter was made for '{named}' and {tmp_path / 'base'} is {ours}: see")


@pytest.mark.parametrize(("value", "says"), [(np.nan, "not finite"), (None, "holds int32")])
def test_an_adapter_of_no_numbers(written, value, says):
    folder, _ = written
    stored = tensor_files.open_file(folder / "adapter_model.safetensors")
    arrays = {name: tensor.read() for name, tensor in stored.items()}
    last = sorted(arrays)[-1]
    arrays[last] = arrays[last].astype(np.int32) if value is None else np.full_like(arrays[last], value)
    new = [
        tensor_files.NewTensor(name, array.dtype, array.shape, lambda array=array: array)
        for name, array in arrays.items()
    ]
    tensor_files.write_file(folder / "adapter_model.safetensors", new)
    with pytest.raises(InputError, match=f"{last} .*{says}|{last} {says}"):
        read_adapter(folder, cases.CASES[LLAMA])


def test_an_adapter_for_another_base(written):
    folder, _ = written
    wider = dataclasses.replace(cases.CASES[LLAMA], feed_forward_dim=48)
    with pytest.raises(InputError, match=r"no adapter for this base: misshapen: .*\[3, 40\] for \[3, 48\]"):
        read_adapter(folder, wider)
    shallow = dataclasses.replace(cases.CASES[LLAMA], layers=2)
    with pytest.raises(InputError, match=r"no adapter for this base: extra: .*layers\.2\.mlp\.down_proj"):
        read_adapter(folder, shallow)
    with pytest.raises(InputError, match="no adapter for this base: extra: "):
        read_adapter(folder, cases.CASES[T5])


def test_vectors_before_the_last_projection_are_those_after_up(tmp_path):
    """PEFT's usual (IA)3 multiplies the input of down_proj, which is our output of up."""
    model, method = cases.CASES[LLAMA], IA3()
    tuned = tuned_tree(model, method)
    adapters.write_adapter(tmp_path / "a", model, method, tuned, "base")
    stored = tensor_files.open_file(tmp_path / "a/adapter_model.safetensors")
    arrays = {}
    for name, tensor in stored.items():
        values = tensor.read()
        arrays[name.replace("up_proj", "down_proj")] = values.T if "up_proj" in name else values
    new = [
        tensor_files.NewTensor(name, array.dtype, array.shape, lambda array=array: array)
        for name, array in arrays.items()
    ]
    tensor_files.write_file(tmp_path / "a/adapter_model.safetensors", new)
    settings = files.read_json(tmp_path / "a/adapter_config.json")
    usual = {"target_modules": ["k_proj", "v_proj", "down_proj"], "feedforward_modules": ["down_proj"]}
    (tmp_path / "a/adapter_config.json").write_text(json.dumps(settings | usual))
    jax.tree.map(np.testing.assert_array_equal, read_adapter(tmp_path / "a", model).tuned, tuned)
    usual["feedforward_modules"] = r".*mlp\.down_proj"
    (tmp_path / "a/adapter_config.json").write_text(json.dumps(settings | usual))
    jax.tree.map(np.testing.assert_array_equal, read_adapter(tmp_path / "a", model).tuned, tuned)
    usual["feedforward_modules"] = ["k_proj"]
    (tmp_path / "a/adapter_config.json").write_text(json.dumps(settings | usual))
    with pytest.raises(InputError, match="k_proj has its input multiplied"):
        read_adapter(tmp_path / "a", model)


def test_by_the_command_line(tmp_path, capsys):
    """A store, a base, an adapter made a tuned checkpoint, evaluated merged and written again."""
    tiny.configure()
    tiny.write_stores(tmp_path)
    case, method = METHODS["lora_everywhere"]
    model = cases.CASES[case]
    hugging_face.write_model(tmp_path / "hf", model, cases.parameters(case))
    conversion.to_checkpoint(tmp_path / "hf", tmp_path / "base", vocabulary=tmp_path / "finetune")
    tuned = tuned_tree(model, method)
    adapters.write_adapter(tmp_path / "adapter", model, method, tuned, "base")
    capsys.readouterr()

    assert main(["convert", str(tmp_path / "adapter"), str(tmp_path / "tuned")]) == 2
    assert "name the checkpoint of its base with --base" in capsys.readouterr().err
    asked = ["convert", str(tmp_path / "adapter"), str(tmp_path / "tuned"), "--base", str(tmp_path / "base")]
    assert main(asked) == 0
    found = bases.load_tuned(tmp_path / "tuned", Layout())
    jax.tree.map(np.testing.assert_array_equal, found.tuned, tuned)
    assert found.program.method.dropout == 0.1
    asked = [
        "convert",
        str(tmp_path / "tuned"),
        str(tmp_path / "again"),
        "--to",
        "adapter",
        "--base",
        "a/name",
    ]
    assert main(asked) == 0
    for file in ("adapter_model.safetensors",):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "adapter" / file).read_bytes()
    assert files.read_json(tmp_path / "again/adapter_config.json")["base_model_name_or_path"] == "a/name"
    merged = bases.load_base(tmp_path / "tuned", Layout())[1]
    by_hand = method.merge(tuned, cases.parameters(case))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), merged, by_hand)
    assert main(["convert", str(tmp_path / "base"), str(tmp_path / "x"), "--to", "adapter"]) == 2
    assert "is a pretrained checkpoint, an adapter is made of a tuned one" in capsys.readouterr().err
