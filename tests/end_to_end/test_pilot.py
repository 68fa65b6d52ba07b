"""A new user's way: examples and a small LLaMA from Hugging Face -> pilot -> final run -> adapter.

The examples are pairs of the lab, or Multi30k where SCALING_JAX_DATA names the folder of real data.
"""

import contextlib
import gzip
import io
import itertools
import json
import os
import shlex
from pathlib import Path

import jax
import numpy as np
import pytest

from scaling_jax import configuration, files
from scaling_jax.cli.main import main
from scaling_jax.interop import hugging_face
from scaling_jax.laws.table import read_table
from scaling_jax.models import counts
from scaling_jax.models.config import ModelConfig
from scaling_jax.tasks import registry

pytestmark = pytest.mark.slow

EXAMPLES = 900
MODEL = ModelConfig(
    "llama",
    layers=2,
    heads=4,
    head_dim=8,
    model_dim=32,
    feed_forward_dim=64,
    vocabulary_size=256,
    key_value_heads=2,
    activation="silu",
    norm_epsilon=1e-5,
    embedding_scale="none",
    output="untied",
)
QUICK = [
    "FinetuneSettings.max_epochs=4",
    "FinetuneSettings.dev_examples=64",
    "FinetuneSettings.test_examples=64",
    "FinetuneSettings.eval_interval=10",
    "FinetuneSettings.steps_per_call=10",
    "LearningRateSearch.rates={'lora': [0.03, 0.1]}",
]


def real_pairs(folder):
    texts = [gzip.open(folder / f"multi30k/train.{side}.gz", "rt", encoding="utf-8") for side in ("en", "de")]
    with texts[0], texts[1]:
        return [
            (one.strip(), two.strip()) for one, two in itertools.islice(zip(*texts, strict=True), EXAMPLES)
        ]


def lab_pairs():
    registry.load_all()
    configuration.parse([], [f"lab_translation.examples={{'train': {EXAMPLES}, 'dev': 1, 'test': 1}}"])
    blocks = registry.find("lab_translation").call().splits["train"]()
    return [pair for block in blocks for pair in zip(block["inputs"], block["targets"], strict=True)]


def llama_folder(folder, texts):
    """A folder as one downloads it: config.json, safetensors, the tokenizer; random weights."""
    import sentencepiece

    generator = np.random.default_rng(0)

    def drawn(path, leaf):
        if path[-1].key == "scale":
            return np.ones(leaf.shape, np.float32)
        return (generator.normal(size=leaf.shape) * 0.1).astype(np.float32)

    parameters = jax.tree_util.tree_map_with_path(drawn, counts.abstract_parameters(MODEL))
    hugging_face.write_model(folder, MODEL, parameters)
    settings = files.read_json(folder / "config.json") | {"bos_token_id": 1, "eos_token_id": 2}
    files.write_json(folder / "config.json", settings)
    pieces = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts),
        model_writer=pieces,
        vocab_size=MODEL.vocabulary_size,
        model_type="bpe",
        byte_fallback=False,
        character_coverage=0.995,
        minloglevel=3,
    )
    files.write_bytes(folder / "tokenizer.model", pieces.getvalue())


def called(arguments):
    """(exit code, what was printed)."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = main(arguments)
    return code, printed.getvalue()


@pytest.fixture(scope="module")
def way(tmp_path_factory):
    """The whole way up to the recommendation."""
    room = tmp_path_factory.mktemp("pilot")
    data = os.environ.get("SCALING_JAX_DATA")
    pairs = real_pairs(Path(data)) if data else lab_pairs()
    lines = (json.dumps({"source": source, "target": target}) for source, target in pairs)
    (room / "mine.jsonl").write_text("\n".join(lines) + "\n")
    llama_folder(room / "llama", [text for pair in pairs for text in pair])
    asked = [
        "pilot",
        "--model",
        str(room / "llama"),
        "--data",
        str(room / "mine.jsonl"),
        "--methods",
        "lora,prompt",
    ]
    asked += ["--lengths", "48,48", "--smallest", "16", "--out", str(room / "out")]
    asked += [part for binding in QUICK for part in ("--gin", binding)]
    code, refused = called([*asked, "--hours", "0.0001"])
    assert code == 2 and "the least that would do is --hours" in refused, refused
    least = float(refused.split("--hours ")[-1].split()[0])
    asked += ["--hours", f"{1.5 * least:.5f}"]
    code, plan = called([*asked, "--dry_run"])
    assert code == 0, plan
    code, printed = called(asked)
    assert code == 0, printed
    return {"room": room, "asked": asked, "plan": plan, "printed": printed}


@pytest.fixture(scope="module")
def exported(way):
    """The final run and its export, by the commands that the pilot printed."""
    commands = files.read_json(way["room"] / "out/decision.json")["pilot"]["commands"]
    for command in commands:
        assert command in way["printed"]
        words = shlex.split(command)
        assert words[0] == "scaling-jax"
        code, printed = called(words[1:])
        assert code == 0, printed
    return Path(shlex.split(commands[1])[3])


def test_what_was_planned_was_made(way):
    out = way["room"] / "out"
    record, table = files.read_json(out / "pilot.json"), read_table(out / "study/results.csv")
    runs = [run for entry in record["rounds"] for run in entry["runs"]]
    assert len(table) == len(runs) and all(entry["finished"] for entry in record["rounds"])
    assert record["ended"] and record["ended"] in way["printed"]
    made = {(run["method"], run["finetune_examples"], run["seed"]) for run in runs}
    columns = zip(
        table.text("method"), table.numbers("finetune_examples"), table.numbers("seed"), strict=True
    )
    assert made == {(method, int(examples), int(seed)) for method, examples, seed in columns}
    assert "expected width of the 90% interval" in way["plan"]


def test_what_is_recommended(way):
    out = way["room"] / "out"
    found = files.read_json(out / "decision.json")["recommendation"]
    assert found["choice"] in ("lora", "prompt") and found["at"]["finetune_examples"] == 720
    chosen = next(one for one in found["candidates"] if one["method"] == found["choice"])
    assert chosen["loss"]["low"] <= chosen["loss"]["value"] <= chosen["loss"]["high"]
    assert (out / "study/report.html").is_file() and (out / "fits.json").is_file()


def test_the_same_command_redoes_nothing_and_more_money_goes_on(way):
    out = way["room"] / "out"
    before = (out / "study/results.csv").read_bytes()
    code, printed = called(way["asked"])
    assert code == 0 and not any(line.startswith("round ") for line in printed.splitlines()), printed
    assert (out / "study/results.csv").read_bytes() == before
    hours = float(way["asked"][-1])
    code, printed = called([*way["asked"][:-1], f"{1.6 * hours:.5f}"])
    assert code == 0, printed
    kept = set(read_table(out / "study/results.csv").text("run_id"))
    assert {line.split(b",")[0].decode() for line in before.splitlines()[1:]} <= kept


def test_the_final_run_is_exported_as_an_adapter(way, exported):
    record = files.read_json(way["room"] / "out/final/record.json")
    assert record["status"] == "done" and record["finetune_examples"] == 720
    settings = files.read_json(exported / "adapter_config.json")
    assert settings["peft_type"] in ("LORA", "PROMPT_TUNING")
    assert settings["base_model_name_or_path"] == str(way["room"] / "llama")
    assert (exported / "adapter_model.safetensors").is_file()


@pytest.mark.parity
def test_peft_loads_the_adapter(way, exported):
    torch = pytest.importorskip("torch", reason="the extra `parity` is not installed")
    transformers = pytest.importorskip("transformers", reason="the extra `parity` is not installed")
    peft = pytest.importorskip("peft", reason="the extra `parity` is not installed")
    base = transformers.LlamaForCausalLM.from_pretrained(way["room"] / "llama", dtype=torch.float32).eval()
    tokens = torch.tensor([[1, 40, 41, 42, 43, 44]])
    with torch.no_grad():
        before = base(input_ids=tokens).logits[:, -6:].numpy()
        tuned = peft.PeftModel.from_pretrained(base, exported).eval()
        after = tuned(input_ids=tokens, attention_mask=torch.ones_like(tokens)).logits[:, -6:].numpy()
    assert np.isfinite(after).all() and np.abs(after - before).max() > 1e-3
