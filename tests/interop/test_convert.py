"""From a Hugging Face folder to a tuned model and back, through the command line."""

import dataclasses
import json
import shutil
import signal

import jax
import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.interop import adapters, conversion, hugging_face, reading
from scaling_jax.training import checkpoints
from scaling_jax.training.bases import load_base, load_tuned
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.mesh import Layout
from scaling_jax.training.split_loss import evaluate_checkpoint
from scaling_jax.tuning.lora import LoRA
from tests.interop import cases
from tests.interop.test_adapters import tuned_tree
from tests.training import tiny

NAMES = ("t5_gated", "llama_grouped_query")


@pytest.fixture(autouse=True)
def configured():
    tiny.configure()


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """A finetuning store, and per family a folder as one downloads it and the checkpoint made of it."""
    room = tmp_path_factory.mktemp("room")
    tiny.write_stores(room)
    for name in NAMES:
        hugging_face.write_model(room / name, cases.CASES[name], cases.parameters(name))
        (room / name / "tokenizer_config.json").write_text('{"a": 1}')
        settings = files.read_json(room / name / "config.json") | {"bos_token_id": 5, "max_length": 77}
        (room / name / "config.json").write_text(json.dumps(settings))
        asked = ["convert", str(room / name), str(room / f"{name}-made")]
        assert main([*asked, "--vocabulary", str(room / "finetune")]) == 0
    return room


def logits(config, params):
    return cases.logits(config, params, cases.batch(config))


@pytest.mark.parametrize("name", NAMES)
def test_a_converted_checkpoint_is_the_model(room, name):
    made = room / f"{name}-made"
    config, params, about = load_base(made, Layout())
    np.testing.assert_allclose(cases.seen(logits(config, params)), cases.golden()[name], atol=1e-4)
    assert about["hash"] == checkpoints.tree_hash(cases.parameters(name))
    assert about["start_id"] == {"t5_gated": 0, "llama_grouped_query": 5}[name]
    assert (made / "tokenizer" / "tokenizer_config.json").read_text() == '{"a": 1}'
    assert not list(room.glob(".*"))


@pytest.mark.parametrize("name", NAMES)
def test_tuned_and_brought_back(room, name, tmp_path):
    base = room / f"{name}-made"
    tiny.configure("FinetuneSettings.optimizer=@Optimizer()", "Optimizer.name='adamw'")
    run = FinetuneRun(str(base), str(room / "finetune"), "lora", learning_rate=0.02)
    record = finetune(run, tmp_path / "run")
    assert record["status"] == "done"
    assert record["results"]["dev_loss"] < 0.9 * record["results"]["start_dev_loss"]
    assert evaluate_checkpoint(tmp_path / "run/checkpoint", run.store, "test", None, 4)[0] == pytest.approx(
        record["results"]["loss"], rel=1e-6
    )
    assert (
        main(["convert", str(tmp_path / "run/checkpoint"), str(tmp_path / "out"), "--to", "hugging_face"])
        == 0
    )
    merged, params, _ = load_base(tmp_path / "run/checkpoint", Layout())
    folder = hugging_face.open_model(tmp_path / "out")
    found = logits(folder.model, reading.read_parameters(folder))
    np.testing.assert_allclose(found, logits(merged, params), atol=1e-5)
    assert np.abs(found - logits(*load_base(base, Layout())[:2])).max() > 0.1, "what was tuned is in it"
    about = files.read_json(tmp_path / "run/checkpoint/about.json")
    files.write_json(
        tmp_path / "run/checkpoint/about.json", about | {"base": about["base"] | {"path": "gone"}}
    )
    asked = ["convert", str(tmp_path / "run/checkpoint"), str(tmp_path / "moved"), "--to", "hugging_face"]
    assert main(asked) == 2
    assert main([*asked, "--base", str(base)]) == 0
    for file in ("config.json", "model.safetensors", "tokenizer_config.json"):
        assert (tmp_path / "moved" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()
    settings = files.read_json(tmp_path / "out/config.json")
    assert (settings["bos_token_id"], settings["max_length"]) == (5, 77), "kept from where it came"
    assert (tmp_path / "out/tokenizer_config.json").read_text() == '{"a": 1}'


def test_full_tuning_of_an_encoder_decoder_by_parts(room, tmp_path):
    tiny.configure("FinetuneSettings.microbatches=2")
    run = FinetuneRun(str(room / "t5_gated-made"), str(room / "finetune"), "full", learning_rate=0.05)
    record = finetune(run, tmp_path / "run")
    assert record["results"]["dev_loss"] < 0.9 * record["results"]["start_dev_loss"]
    assert record["parameters"]["trained"] == record["parameters"]["total"]
    config, params, _ = load_base(tmp_path / "run/checkpoint", Layout())
    assert config.encoder_layers == 3 and "cross_attention" in params["decoder"]["layers"]["layer"]


def test_a_model_that_computes_in_bfloat16(room, tmp_path):
    flags = ["--dtype", "bfloat16", "--activations", "bfloat16", "--remat", "full", "--name", "mine"]
    made = ["convert", str(room / "t5_gated"), str(tmp_path / "made"), *flags]
    assert main([*made, "--vocabulary", str(room / "finetune")]) == 0
    config, params, _ = load_base(tmp_path / "made", Layout())
    assert (config.name, config.dtype, config.remat) == ("mine", "bfloat16", "full")
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(params)} == {"float32"}
    for found, wanted in zip(
        jax.tree.leaves(params), jax.tree.leaves(cases.parameters("t5_gated")), strict=True
    ):
        np.testing.assert_allclose(found, wanted, rtol=2**-8)


def test_which_vocabulary_a_model_reads(room, tmp_path):
    name = "llama_grouped_query"
    none = conversion.to_checkpoint(room / name, tmp_path / "none")
    assert none.vocabulary is None
    run = FinetuneRun(str(tmp_path / "none"), str(room / "finetune"), "lora")
    with pytest.raises(
        InputError, match="does not say which vocabulary .* convert it again with --vocabulary"
    ):
        finetune(run, tmp_path / "run")
    hugging_face.write_model(tmp_path / "with", cases.CASES[name], cases.parameters(name))
    (tmp_path / "with/tokenizer.model").write_bytes(b"pieces")
    found = conversion.to_checkpoint(tmp_path / "with", tmp_path / "made")
    assert found.vocabulary == files.sha256(tmp_path / "with/tokenizer.model")
    assert (tmp_path / "made/tokenizer/tokenizer.model").read_bytes() == b"pieces"
    run = FinetuneRun(str(tmp_path / "made"), str(room / "finetune"), "lora")
    with pytest.raises(InputError, match="was made with another vocabulary"):
        finetune(run, tmp_path / "run")
    hugging_face.write_model(tmp_path / "small", *smaller(name))
    with pytest.raises(InputError, match="finetune has 48 tokens, .*small reads 40"):
        conversion.to_checkpoint(tmp_path / "small", tmp_path / "x", vocabulary=room / "finetune")


def smaller(name):
    """The case with a vocabulary of 40."""
    params = cases.parameters(name)
    cut = {part: {"table": params[part]["table"][:40]} for part in ("embedding", "output")}
    return dataclasses.replace(cases.CASES[name], vocabulary_size=40), params | cut


def test_bad_input_writes_nothing(room, tmp_path, capsys):
    def refused(says, *arguments):
        assert main(["convert", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert says in error and error.count("\n") == 1
        assert not (tmp_path / "out").exists() and not list(tmp_path.glob(".*"))

    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (room / "t5_gated").iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    content = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(content[:-10])
    refused("is truncated", broken, tmp_path / "out")
    (broken / "model.safetensors").write_bytes(content)
    settings = files.read_json(broken / "config.json")
    files.write_json(broken / "config.json", settings | {"model_type": "mamba"})
    refused("model_type 'mamba': known are llama, t5", broken, tmp_path / "out")
    other = {"num_decoder_layers": 1, "num_layers": 4, "d_ff": 48}
    files.write_json(broken / "config.json", settings | other)
    for says in ("missing: encoder.block.3.", "; extra: decoder.block.1.", "; misshapen: decoder.block.0."):
        refused(says, broken, tmp_path / "out")
    adapters.write_adapter(
        tmp_path / "adapter", cases.T5, LoRA(rank=2), tuned_tree(cases.T5, LoRA(rank=2)), "base"
    )
    base = room / "llama_grouped_query-made"
    refused("no adapter for this base: extra: ", tmp_path / "adapter", tmp_path / "out", "--base", base)
    refused("is no Hugging Face model", room / "t5_gated-made", tmp_path / "out")
    refused("holds no checkpoint", room / "t5_gated", tmp_path / "out", "--to", "hugging_face")
    refused("already exists and is not an empty folder", room / "t5_gated", room / "t5_gated")
    for to in ("hugging_face", "adapter"):
        refused("already exists and is not", room / "t5_gated-made", room / "t5_gated", "--to", to)
    refused(
        "cannot read the vocabulary", room / "t5_gated", tmp_path / "out", "--vocabulary", tmp_path / "no"
    )


@pytest.mark.parametrize(
    ("given", "to", "says"),
    [
        *(
            ([flag, value], to, f"{flag} would have no effect with --to {to}: leave it out")
            for to in ("hugging_face", "adapter")
            for flag, value in (
                ("--name", "x"),
                ("--remat", "none"),
                ("--activations", "float32"),
                ("--vocabulary", "x"),
            )
        ),
        (["--dtype", "float32"], "adapter", "--dtype would have no effect with --to adapter"),
        (["--base", "x"], "checkpoint", "--base would have no effect for a whole model that is read"),
        (
            ["--dtype", "float32", "--vocabulary", "x"],
            "read",
            "--dtype, --vocabulary would have no effect for an adapter that is read",
        ),
    ],
)
def test_flags_without_effect(tmp_path, capsys, given, to, says):
    (tmp_path / "from").mkdir()
    if to == "read":
        (tmp_path / "from/adapter_config.json").write_text("{}")
        to = "checkpoint"
    assert main(["convert", str(tmp_path / "from"), str(tmp_path / "out"), "--to", to, *given]) == 2
    assert capsys.readouterr().err.strip().endswith(says.removesuffix(": leave it out") + ": leave it out")
    assert [path.name for path in tmp_path.iterdir()] == ["from"]


def test_what_is_said_of_an_adapter_that_was_read(room, tmp_path, capsys):
    """Its base's vocabulary is named when that is converted; and which base it names."""
    name = "llama_grouped_query"
    model, method = cases.CASES[name], LoRA(rank=2)
    adapters.write_adapter(tmp_path / "adapter", model, method, tuned_tree(model, method), "their/llama-2")
    conversion.to_checkpoint(room / name, tmp_path / "base")
    asked = ["convert", str(tmp_path / "adapter"), str(tmp_path / "out"), "--base", str(tmp_path / "base")]
    assert main(asked) == 0
    said = capsys.readouterr().out
    assert "no tokenizer beside it: to tune it, convert the base again with --vocabulary STORE" in said
    assert f"made for 'their/llama-2' and {tmp_path / 'base'} is '{name}': see that they are the same" in said


class Killed(BaseException):
    """What no `except Exception` sees."""


@pytest.mark.parametrize("to", ["checkpoint", "hugging_face"])
def test_stopped_in_the_middle(room, tmp_path, monkeypatch, to):
    """Nothing is there after an end that is noticed; what an unnoticed one leaves is in no one's way."""
    source = room / ("t5_gated" if to == "checkpoint" else "t5_gated-made")
    asked = ["convert", str(source), str(tmp_path / "out"), "--to", to]

    def stopped(*_):
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(files, "write_json", stopped)  # the last thing that either writes
        main(asked)
    assert list(tmp_path.iterdir()) == []
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(files, "write_json", stopped)
        patched.setattr(shutil, "rmtree", lambda *_, **__: None)  # as after SIGKILL
        main(asked)
    assert not (tmp_path / "out").exists() and len(list(tmp_path.glob(".out*"))) == 1
    assert main(asked) == 0
    assert (tmp_path / "out" / ("about.json" if to == "checkpoint" else "config.json")).is_file()


@pytest.fixture
def interruptible():
    """SIGINT as in a terminal, also where the tests run in the background, which makes a shell ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("to", ["checkpoint", "hugging_face"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop(room, tmp_path, monkeypatch, capsys, to, number):
    source = room / ("t5_gated" if to == "checkpoint" else "t5_gated-made")
    asked = ["convert", str(source), str(tmp_path / "out"), "--to", to]
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr(files, "write_json", lambda *_: signal.raise_signal(number))
    if number == signal.SIGTERM:
        with pytest.raises(SystemExit) as ended:
            main(asked)
        assert ended.value.code == 143
    else:
        assert main(asked) == 130
        error = capsys.readouterr().err
        assert error == "interrupted; nothing was written, run the same command again\n"
    assert list(tmp_path.iterdir()) == [] and signal.getsignal(signal.SIGTERM) == before


def test_a_disk_that_is_full(room, tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing: No space left on device")

    monkeypatch.setattr(checkpoints.ocp.Checkpointer, "save", fails)
    assert main(["convert", str(room / "t5_gated"), str(tmp_path / "out")]) == 2
    assert "cannot write checkpoint" in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_a_state_to_resume_from_is_no_model(room, tmp_path, capsys):
    checkpoints.save(tmp_path / "resume", {"x": np.zeros(2)}, {"plan": {}, "progress": {}})
    for to, says in (
        ("hugging_face", "a pretrained or tuned one is needed"),
        ("adapter", "is made of a tuned"),
    ):
        assert main(["convert", str(tmp_path / "resume"), str(tmp_path / "out"), "--to", to]) == 2
        assert says in capsys.readouterr().err
    with pytest.raises(InputError, match="resume is .*pretrained or tuned"):
        evaluate_checkpoint(tmp_path / "resume", str(room / "finetune"), "dev", None, 4)
    with pytest.raises(InputError, match="is a resume checkpoint, a tuned one is needed"):
        load_tuned(tmp_path / "resume", Layout())


def test_a_store_with_more_tokens_than_the_model(room, tmp_path):
    """The same vocabulary by its hash, but a model that was cut."""
    hugging_face.write_model(tmp_path / "small", *smaller("llama_grouped_query"))
    conversion.to_checkpoint(tmp_path / "small", tmp_path / "made")
    about = files.read_json(tmp_path / "made/about.json") | {"vocabulary_sha256": "bytes-48"}
    files.write_json(tmp_path / "made/about.json", about)
    with pytest.raises(InputError, match="finetune has 48 tokens, .*made reads 40"):
        evaluate_checkpoint(tmp_path / "made", str(room / "finetune"), "dev", None, 4)


def test_a_model_of_ours_ends_where_its_vocabulary_says(room, tmp_path, capsys):
    """And where nothing is known, which a user is told."""
    name = "own_decoder"
    about = {"kind": "pretrained", "model": dataclasses.asdict(cases.CASES[name]), "hash": "of the arrays"}
    about |= {"vocabulary_sha256": "v"}
    checkpoints.save(tmp_path / "base", cases.parameters(name), about | {"token_ids": {"pad": 3, "end": 4}})
    assert main(["convert", str(tmp_path / "base"), str(tmp_path / "out"), "--to", "hugging_face"]) == 0
    settings = files.read_json(tmp_path / "out/config.json")
    ids = {"bos_token_id": 3, "pad_token_id": 3, "eos_token_id": 4}
    assert ids.items() <= settings.items() and "not known" not in capsys.readouterr().out
    checkpoints.save(tmp_path / "base", cases.parameters(name), about)
    assert main(["convert", str(tmp_path / "base"), str(tmp_path / "more"), "--to", "hugging_face"]) == 0
    assert "first and last token are not known: set them in config.json" in capsys.readouterr().out
