"""The loss of a checkpoint, and its perplexity, against a forward pass written in NumPy, in float64."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from scaling_jax.cli.main import main
from scaling_jax.data.store import open_store
from scaling_jax.training import checkpoints
from scaling_jax.training.bases import load_base, load_checkpoint
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.mesh import Layout
from scaling_jax.training.split_loss import split_loss
from tests.models import tiny as tiny_model
from tests.training import tiny


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """(folder, finetuning store): random parameters in folder/base and LoRA tuning of them."""
    folder = tmp_path_factory.mktemp("by_hand")
    tiny.configure()
    _, store = tiny.write_stores(folder)
    params = tiny_model.parameters()
    about = {
        "kind": "pretrained",
        "model": dataclasses.asdict(tiny_model.CONFIG),
        "hash": checkpoints.tree_hash(params),
        "pretrain_tokens": 0,
        "vocabulary_sha256": open_store(store).vocabulary.sha256(),
    }
    checkpoints.save(folder / "base", params, about)
    finetune(FinetuneRun(str(folder / "base"), store, "lora"), folder / "lora")
    return folder, store


def rms_norm(values, scale, epsilon):
    return values / np.sqrt(np.mean(values**2, axis=-1, keepdims=True) + epsilon) * scale


def gelu(values):
    return values / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (values + 0.044715 * values**3)))


def rotated(vectors, base):
    """[length, head_dim] turned by position: pair (i, i + half) by position / base^(i / half) radians."""
    half = vectors.shape[1] // 2
    angles = np.arange(len(vectors))[:, None] / base ** (np.arange(half) / half)
    turned = (vectors[:, :half] + 1j * vectors[:, half:]) * np.exp(1j * angles)
    return np.concatenate([turned.real, turned.imag], axis=1)


def attention(config, layer, values):
    """Multi-query: one key and value for all heads."""
    queries = values @ layer["query"]["kernel"]
    key = rotated(values @ layer["key"]["kernel"], config.rotary_base)
    value = values @ layer["value"]["kernel"]
    heads = []
    for head in range(config.heads):
        own = slice(head * config.head_dim, (head + 1) * config.head_dim)
        scores = rotated(queries[:, own], config.rotary_base) @ key.T / math.sqrt(config.head_dim)
        scores[np.triu_indices(len(values), 1)] = -np.inf
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        heads.append(weights / weights.sum(axis=1, keepdims=True) @ value)
    return np.concatenate(heads, axis=1) @ layer["out"]["kernel"]


def log_probabilities(config, params, tokens):
    """Log-probabilities [length, vocabulary] of what follows each token: the decoder of Zhang et al."""
    assert config.key_value_heads == 1 and config.feed_forward == "gated" and config.output == "tied"
    table, epsilon = params["embedding"]["table"], config.norm_epsilon
    hidden = table[tokens] * math.sqrt(config.model_dim)
    for number in range(config.layers):
        layer = jax.tree.map(lambda leaf: leaf[number], params["layers"]["layer"])  # noqa: B023
        normed = rms_norm(hidden, layer["attention_norm"]["scale"], epsilon)
        hidden = hidden + attention(config, layer["attention"], normed)
        normed = rms_norm(hidden, layer["feed_forward_norm"]["scale"], epsilon)
        forward = {name: layer["feed_forward"][name]["kernel"] for name in ("gate", "up", "down")}
        hidden = hidden + (gelu(normed @ forward["gate"]) * (normed @ forward["up"])) @ forward["down"]
    logits = rms_norm(hidden, params["final_norm"]["scale"], epsilon) @ table.T
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def loss_by_hand(config, params, store, split):
    """Nats of every target token, EOS too, after start, inputs and earlier targets; one mean over all."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    opened = open_store(store)
    examples = opened.split(split)
    nats = []
    for index in range(len(examples)):
        read, written = (examples[index][feature].astype(int) for feature in ("inputs", "targets"))
        whole = np.concatenate([[opened.vocabulary.pad_id], read, written])
        logs = log_probabilities(config, params, whole[:-1])
        nats += [-logs[len(read) + place, token] for place, token in enumerate(written)]
    return float(np.mean(nats)), len(nats)


@pytest.mark.parametrize("checkpoint", ["base", "lora/checkpoint"])
def test_loss_and_perplexity_are_those_by_hand(room, capsys, checkpoint):
    """A tuned checkpoint is compared by its merged parameters, so that the hook and the merge are one."""
    folder, store = room
    config, params, _ = load_base(folder / checkpoint, Layout())
    wanted, tokens = loss_by_hand(config, params, store, "test")
    assert tokens == open_store(store).manifest["splits"]["test"]["tokens"]["targets"]
    assert main(["evaluate", str(folder / checkpoint), "--store", store, "--batch_size", "4", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["loss"] == pytest.approx(wanted, rel=2e-6)
    assert printed["perplexity"] == pytest.approx(math.exp(wanted), rel=2e-6)
    assert printed["examples"] == 9
    if checkpoint.startswith("lora"):
        record = json.loads((folder / checkpoint).parent.joinpath("record.json").read_text())
        assert record["results"]["loss"] == pytest.approx(wanted, rel=2e-6)


def test_a_mean_of_batches_would_differ(room):
    """The loss is a mean over tokens, whatever the batches; that of batches or examples is another number."""
    folder, store = room
    program, tuned, base, about = load_checkpoint(folder / "lora/checkpoint", Layout())
    losses = {split_loss(program, tuned, base, about, store, "test", None, rows)[0] for rows in (2, 9)}
    assert max(losses) == pytest.approx(min(losses), rel=1e-6)
    config, params, _ = load_base(folder / "lora/checkpoint", Layout())
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    examples = open_store(store).split("test")
    means = []
    for index in range(len(examples)):
        read, written = (examples[index][feature].astype(int) for feature in ("inputs", "targets"))
        logs = log_probabilities(config, params, np.concatenate([[0], read, written])[:-1])
        means.append(np.mean([-logs[len(read) + place, token] for place, token in enumerate(written)]))
    assert abs(np.mean(means) - min(losses)) > 1e-3


def test_examples_are_the_first(room, capsys):
    folder, store = room
    program, tuned, base, about = load_checkpoint(folder / "lora/checkpoint", Layout())
    one = split_loss(program, tuned, base, about, store, "test", 1)
    assert one[1] == 1 and one[0] != split_loss(program, tuned, base, about, store, "test", 2)[0]
    assert split_loss(program, tuned, base, about, store, "test", 100)[1] == 9
    arguments = ["evaluate", str(folder / "lora/checkpoint"), "--store", store, "--examples", "1"]
    assert main(arguments) == 0
    assert f"{one[0]:.5f} nats" in capsys.readouterr().out
