"""Tuning from a tuned model, and a frozen base in bfloat16."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.training import checkpoints
from scaling_jax.training.bases import load_base, load_tuned
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.mesh import Layout
from scaling_jax.training.precision import stored_as
from scaling_jax.training.pretrain import pretrain
from scaling_jax.training.split_loss import evaluate_checkpoint
from tests.models import tiny as tiny_model
from tests.training import tiny


@pytest.fixture(autouse=True)
def configured():
    tiny.configure("FinetuneSettings.max_steps=4")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """(store, {"base": checkpoint, "full": tuned on it}, folder)."""
    folder = tmp_path_factory.mktemp("room")
    windows, store = tiny.write_stores(folder)
    tiny.configure("FinetuneSettings.max_steps=4")
    pretrain("tiny", windows, (192,), 0, folder / "base")
    base = folder / "base/checkpoints/192"
    finetune(FinetuneRun(str(base), store, "full"), folder / "full")
    return store, {"base": base, "full": folder / "full/checkpoint"}, folder


@pytest.mark.parametrize("first", ["full", pytest.param("bitfit", marks=pytest.mark.slow)])
def test_lora_after_another_method(room, tmp_path, first):
    """It begins at the loss where the first method ended, and its checkpoint finds its way back."""
    store, made, _ = room
    if first not in made:
        finetune(FinetuneRun(str(made["base"]), store, first), tmp_path / first)
    tuned = made.get(first, tmp_path / first / "checkpoint")
    ended = evaluate_checkpoint(tuned, store, "dev", None, 4)[0]
    record = finetune(FinetuneRun(str(tuned), store, "lora"), tmp_path / "lora")
    assert abs(record["results"]["start_dev_loss"] - ended) < 1e-5
    assert record["base"]["tuned_from"]["method"]["name"] == first
    assert record["base"]["tuned_from"]["base"]["path"] == str(made["base"])
    again = evaluate_checkpoint(tmp_path / "lora/checkpoint", store, "test", None, 4)[0]
    assert again == record["results"]["loss"]
    with pytest.raises(InputError, match="is not the base that"):
        evaluate_checkpoint(tmp_path / "lora/checkpoint", store, "test", None, 4, base=made["base"])
    config, _, about = load_base(tmp_path / "lora/checkpoint", Layout())
    assert config.biases == (
        () if first == "full" else ("query", "key", "value", "out", "gate", "up", "down")
    )
    assert about["pretrain_tokens"] == 192 and about["hash"] not in (record["base"]["hash"], None)


def test_a_prompt_is_no_base(room, tmp_path):
    store, made, _ = room
    about = checkpoints.about(made["full"]) | {"method": {"name": "prompt", "length": 3, "stacks": []}}
    checkpoints.save(tmp_path / "prompt", {"embedding": {"prompt": jnp.zeros((3, 16))}}, about)
    with pytest.raises(InputError, match="prompt cannot be a base: prompt cannot be merged"):
        finetune(FinetuneRun(str(tmp_path / "prompt"), store, "lora"), tmp_path / "a")
    checkpoints.save(tmp_path / "other", {"x": jnp.zeros(2)}, {"kind": "resume"})
    with pytest.raises(InputError, match="is a resume checkpoint, a pretrained or tuned one is needed"):
        load_base(tmp_path / "other", Layout())
    assert not (tmp_path / "a").exists()


def test_a_full_checkpoint_needs_no_base(room, tmp_path):
    store, made, _ = room
    about = checkpoints.about(made["full"])
    found = load_tuned(made["full"], Layout())
    files_there = files.read_json(made["full"] / "about.json")
    assert found.base == {} and about["hash"] == checkpoints.tree_hash(found.tuned) == files_there["hash"]
    checkpoints.save(tmp_path / "full", found.tuned, about | {"base": about["base"] | {"path": "/gone"}})
    assert evaluate_checkpoint(tmp_path / "full", store, "dev", None, 4) == evaluate_checkpoint(
        made["full"], store, "dev", None, 4
    )


def test_a_hash_of_large_arrays(monkeypatch):
    """Layer by layer it is the same."""
    tree = {
        "a": jnp.arange(24.0).reshape(2, 3, 4),
        "b": np.arange(6).reshape(2, 3),
        "c": jnp.ones(3, jnp.bfloat16),
    }
    whole = checkpoints.tree_hash(tree)
    monkeypatch.setattr(checkpoints, "HASHED_AT_ONCE", 0)
    assert checkpoints.tree_hash(tree) == whole
    assert checkpoints.tree_hash(tree | {"a": tree["a"].at[1, 2, 3].set(0)}) != whole


def test_a_merged_base_lies_as_a_pretrained_one(room, tmp_path):
    store, made, _ = room
    finetune(FinetuneRun(str(made["base"]), store, "lora"), tmp_path / "lora")
    _, base, _ = load_base(made["base"], Layout())
    _, merged, about = load_base(tmp_path / "lora/checkpoint", Layout())
    assert (
        about["hash"]
        == checkpoints.about(tmp_path / "lora/checkpoint")["hash"]
        != checkpoints.tree_hash(merged)
    )
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), merged) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype, leaf.sharding), base
    )


def test_a_frozen_base_in_bfloat16(room, tmp_path):
    store, made, _ = room
    tiny.configure("FinetuneSettings.max_steps=4", "FinetuneSettings.base_dtype='bfloat16'")
    record = finetune(FinetuneRun(str(made["base"]), store, "lora"), tmp_path / "lora")
    assert record["base"]["dtype"] == "bfloat16"
    found = load_tuned(tmp_path / "lora/checkpoint", Layout())
    assert {leaf.dtype for leaf in jax.tree.leaves(found.tuned)} == {jnp.dtype("float32")}
    again = evaluate_checkpoint(tmp_path / "lora/checkpoint", store, "test", None, 4)[0]
    assert again == record["results"]["loss"]
    full = files.read_json(made["full"].parent / "record.json")
    assert full["base"]["dtype"] == "float32", "what is trained is"


def test_matrices_in_bfloat16_and_vectors_in_float32():
    config = dataclasses.replace(tiny_model.CONFIG, biases=("query",))
    base = jax.tree.map(jnp.asarray, tiny_model.parameters(config))
    stored = stored_as(base, "bfloat16")
    small = {
        jax.tree_util.keystr(path)
        for path, leaf in jax.tree_util.tree_leaves_with_path(stored)
        if leaf.dtype == jnp.float32
    }
    assert len(small) == 4 and all("scale" in name or "bias" in name for name in small)
    abstract = stored_as(jax.eval_shape(lambda: base), "bfloat16")
    assert jax.tree.map(jnp.dtype, jax.tree.map(lambda leaf: leaf.dtype, abstract)) == jax.tree.map(
        lambda leaf: leaf.dtype, stored
    )
    for leaf, other in zip(jax.tree.leaves(stored), jax.tree.leaves(base), strict=True):
        np.testing.assert_allclose(np.asarray(leaf, np.float32), other, rtol=2**-8)
    with pytest.raises(InputError, match="base_dtype = 'float16': 'float32' or 'bfloat16'"):
        stored_as(base, "float16")
