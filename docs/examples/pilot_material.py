"""Something to try `scaling-jax pilot` on: mine.jsonl, pairs of the lab, and llama/, a small LLaMA as one
downloads it from Hugging Face (config.json, safetensors, tokenizer.model), pretrained on text of the lab.

    python docs/examples/pilot_material.py
"""

import json
import shutil
import tempfile
from pathlib import Path

from scaling_jax import configuration
from scaling_jax.cli.main import main
from scaling_jax.tasks import registry

PAIRS, TOKENS = 6000, 614_400
LAB = [
    "lab_text.documents={'train': 16000, 'dev': 200, 'test': 8}",
    "lab_translation.examples={'train': 64, 'dev': 8, 'test': 8}",
]
MODEL = [
    "small/llama_config.layers=2",
    "small/llama_config.heads=4",
    "small/llama_config.head_dim=16",
    "small/llama_config.key_value_heads=2",
    "small/llama_config.model_dim=64",
    "small/llama_config.feed_forward_dim=160",
    "PretrainSettings.learning_rate=2e-2",
]


def called(*arguments):
    """Runs a verb, or ends."""
    if code := main([str(argument) for argument in arguments]):
        raise SystemExit(code)


def flags(bindings):
    """Bindings as flags of a verb."""
    return [part for binding in bindings for part in ("--gin", binding)]


def write_pairs(path):
    """The lab's pairs as JSON lines."""
    registry.load_all()
    configuration.parse(
        ["gin_configs/tasks/lab_translation.gin"],
        [f"lab_translation.examples={{'train': {PAIRS}, 'dev': 8, 'test': 8}}"],
    )
    blocks = registry.find("lab_translation").call().splits["train"]()
    pairs = (pair for block in blocks for pair in zip(block["inputs"], block["targets"], strict=True))
    path.write_text("".join(json.dumps({"source": one, "target": two}) + "\n" for one, two in pairs))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as room:
        room = Path(room)
        task = ["--gin_file", "gin_configs/tasks/lab_translation.gin"]
        called("prepare", *task, *flags(LAB), "--out", room / "stores")
        run = ["PretrainRun.model='small'", f"PretrainRun.store='{room}/stores/pretrain'"]
        run += [f"PretrainRun.tokens=({TOKENS},)", *MODEL]
        methods = ["--gin_file", "gin_configs/methods/cpu_ladder.gin"]
        called("pretrain", *methods, *flags(run), "--out", room / "run")
        called("convert", room / f"run/checkpoints/{TOKENS}", "llama", "--to", "hugging_face")
        shutil.copy(room / "stores/pretrain/vocabulary.model", "llama/tokenizer.model")
    write_pairs(Path("mine.jsonl"))
    print("wrote mine.jsonl and llama/")
