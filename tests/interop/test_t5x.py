"""Checkpoints that T5X wrote, read without it, and logits of T5X's own network.

`t5x_checkpoints.tar.xz` was written by T5X (commit of 2026-04-21) with its `Checkpointer`: the T5 network
of `t5x/examples/t5` with random weights, gated and untied, plain and tied, and what it computes.
"""

import functools
import json
import shutil
import tarfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore
from flax import serialization

from scaling_jax import files
from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.interop import reading, t5x_arrays, t5x_checkpoints
from scaling_jax.models.hooks import Hook
from scaling_jax.models.model import model_of
from scaling_jax.training.bases import load_base
from scaling_jax.training.mesh import Layout
from tests.training import bucket

KINDS = ("gated", "plain")


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    room = tmp_path_factory.mktemp("t5x")
    with tarfile.open(Path(__file__).with_name("t5x_checkpoints.tar.xz")) as archive:
        archive.extractall(room, filter="data")
    return room


@pytest.fixture
def damaged(room, tmp_path):
    """A copy of the gated checkpoint."""
    return Path(shutil.copytree(checkpoint(room, "gated"), tmp_path / "checkpoint_0"))


def checkpoint(room, kind):
    (found,) = (room / kind).iterdir()
    return found


@functools.cache
def parameters(path):
    return reading.read_parameters(t5x_checkpoints.open_checkpoint(path))


def t5x_tree(path):
    """The arrays of a checkpoint under T5X's names, nested as T5X nests them."""
    tree = {}
    for name, tensor in t5x_checkpoints.open_checkpoint(path).tensors.items():
        *above, last = name.split(".")
        functools.reduce(lambda part, key: part.setdefault(key, {}), above, tree)[last] = tensor.read()
    return tree


@pytest.mark.parametrize("kind", KINDS)
def test_logits_are_those_of_t5x(room, kind):
    wanted = json.loads((room / "logits.json").read_text())[kind]
    source = t5x_checkpoints.open_checkpoint(checkpoint(room, kind))
    assert source.model.output == {"gated": "untied", "plain": "tied_scaled"}[kind]
    assert (source.model.encoder_layers, source.model.layers, source.model.head_dim) == (3, 2, 4)
    read = np.array(wanted["encoder_inputs"], np.int32)
    apply = jax.jit(functools.partial(model_of(source.model, Hook()).apply, method="logits"))
    params = {"params": parameters(checkpoint(room, kind))}
    found = np.asarray(apply(params, np.array(wanted["inputs"], np.int32), read, read > 0))
    np.testing.assert_allclose(found[:, [3, 17, 29]], wanted["logits"], atol=1e-4)
    assert np.ptp(wanted["logits"]) > 1


def test_the_other_forms_hold_the_same(room, damaged, tmp_path):
    tree, wanted = t5x_tree(damaged), parameters(checkpoint(room, "gated"))
    state = {"step": np.int32(3)}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1/state", {"target": tree, "state": state})
    held = {"version": 3, "optimizer": {"target": tree, "state": state}}
    (tmp_path / "model.checkpoint_2").write_bytes(serialization.msgpack_serialize(held))
    placed = jax.tree_util.tree_map_with_path(
        lambda path, _: "PLACEHOLDER://target." + ".".join(key.key for key in path), tree
    )
    (damaged / "checkpoint").write_bytes(serialization.msgpack_serialize({"target": placed}))
    for path in (tmp_path / "checkpoint_1", tmp_path / "model.checkpoint_2", damaged):
        assert t5x_arrays.is_checkpoint(path)
        found = reading.read_parameters(t5x_checkpoints.open_checkpoint(path))
        jax.tree.map(np.testing.assert_array_equal, found, wanted)


COMPRESSORS = [None, {"id": "gzip", "level": 1}, {"id": "zstd", "level": 1}, {"id": "blosc", "cname": "lz4"}]


@pytest.mark.parametrize("compressor", COMPRESSORS, ids=lambda value: value["id"] if value else "none")
def test_arrays_in_bfloat16_and_compressed(room, damaged, compressor):
    """T5X's `save_dtype = 'bfloat16'`, by whichever compressor."""
    wanted = parameters(checkpoint(room, "gated"))
    for folder in damaged.glob("target.*"):
        place = {"driver": "zarr", "kvstore": t5x_arrays.store_of(folder)}
        array = tensorstore.open(place, open=True).result().read().result()
        shutil.rmtree(folder)
        metadata = {
            "shape": array.shape,
            "chunks": array.shape,
            "dtype": "bfloat16",
            "compressor": compressor,
        }
        spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(folder)}, "metadata": metadata}
        written = tensorstore.open(spec, create=True).result()
        written.write(array.astype(jnp.bfloat16)).result()
    found = reading.read_parameters(t5x_checkpoints.open_checkpoint(damaged))
    rounded = 0
    for ours, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert ours.dtype == jnp.float32
        np.testing.assert_allclose(ours, other, rtol=2**-8)
        rounded += not np.array_equal(ours, other)
    assert rounded > 10


def test_arrays_in_zarr_3(room, tmp_path):
    tree = t5x_tree(checkpoint(room, "gated"))
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True, use_zarr3=True)) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_1/state", {"target": tree})
    found = reading.read_parameters(t5x_checkpoints.open_checkpoint(tmp_path / "checkpoint_1"))
    jax.tree.map(np.testing.assert_array_equal, found, parameters(checkpoint(room, "gated")))


def test_scanned_layers_are_refused(damaged):
    """As T5X's `scalable_t5` names them: all layers of a stack are one array."""
    tree = t5x_tree(damaged)
    scanned = {"token_embedder": tree["token_embedder"]}
    for stack in ("encoder", "decoder"):
        layers = [tree[stack][name] for name in sorted(tree[stack]) if name.startswith("layers_")]
        stacked = jax.tree.map(lambda *arrays: np.stack(arrays, 1), *layers)
        scanned[stack] = {stack: stacked | {"relpos_bias": tree[stack]["relpos_bias"]}}
    (damaged / "checkpoint").write_bytes(serialization.msgpack_serialize({"target": scanned}))
    with pytest.raises(InputError, match=r"are scanned \(encoder.encoder, T5X's scalable.*share one table"):
        t5x_checkpoints.open_checkpoint(damaged)


def test_convert_makes_a_checkpoint_of_it(room, tmp_path):
    source = checkpoint(room, "plain")
    assert main(["convert", str(source), str(tmp_path / "made"), "--name", "from_t5x"]) == 0
    config, params, about = load_base(tmp_path / "made", Layout())
    assert (config.name, about["start_id"]) == ("from_t5x", 0)
    jax.tree.map(np.testing.assert_array_equal, params, parameters(source))


def test_a_chunk_that_is_missing_is_no_zeros(damaged):
    folder = damaged / "target.encoder.layers_1.mlp.wo.kernel"
    (folder / "0.0").unlink()
    source = t5x_checkpoints.open_checkpoint(damaged)
    with pytest.raises(InputError, match=r"encoder.layers_1.mlp.wo.kernel cannot be read"):
        reading.read_parameters(source)
    (folder / ".zarray").write_text("{")
    with pytest.raises(InputError, match=r"says: unreadable: encoder.layers_1.mlp.wo.kernel \("):
        t5x_checkpoints.open_checkpoint(damaged)


DEFINING = ("token_embedder.embedding", "decoder.logits_dense.kernel", "encoder.relpos_bias.rel_embedding")


def test_all_missing_arrays_are_named(damaged):
    names = [*DEFINING, "decoder.relpos_bias.rel_embedding", "encoder.layers_0.attention.query.kernel"]
    for name in names:
        shutil.rmtree(damaged / f"target.{name}")
    with pytest.raises(InputError) as error:
        t5x_checkpoints.open_checkpoint(damaged)
    assert str(error.value).endswith(f"model that it says: missing: {', '.join(sorted(names))}")


def leaf_of(tree, name):
    *above, last = name.split(".")
    return functools.reduce(lambda part, key: part[key], above, tree), last


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers_0.mlp.wo.kernel",
        "encoder.layers_0.attention.query.kernel",
        "encoder.layers_0.attention.out.kernel",
        "token_embedder.embedding",
        "encoder.relpos_bias.rel_embedding",
    ],
)
def test_the_odd_array_is_named(room, damaged, kind, name):
    """Also where it is one that the config is read from; too narrow, of one dimension, turned."""
    turned = (np.transpose,) if name.endswith("wo.kernel") else ()
    for change in (lambda array: array[:, :-1], lambda array: array[:, 0], *turned):
        tree = t5x_tree(checkpoint(room, kind))
        part, last = leaf_of(tree, name)
        right = part[last].shape
        part[last] = change(part[last])
        (damaged / "checkpoint").write_bytes(serialization.msgpack_serialize({"target": tree}))
        with pytest.raises(InputError) as error:
            t5x_checkpoints.open_checkpoint(damaged)
        wrong = f"{name} {list(part[last].shape)} for {list(right)}"
        assert str(error.value).endswith(f"model that it says: misshapen: {wrong}")


def test_trees_with_other_keys_and_specs(damaged):
    tree = t5x_tree(damaged)

    def refused(says, changed):
        content = serialization.msgpack_serialize({"target": tree | changed})
        (damaged / "checkpoint").write_bytes(content)
        with pytest.raises(InputError, match=says):
            t5x_checkpoints.open_checkpoint(damaged)

    refused(r"checkpoint: vision.3: 3 is no name of an array", {"vision": {3: np.zeros(2)}})
    for spec in ({"driver": "zarr"}, {"driver": "zarr", "kvstore": {"driver": "file"}}):
        refused("vision: its zarr spec has no path", {"vision": spec})
    refused("vision: its zarr spec has no path", {"vision": {"driver": "zarr", "path": 3}})
    refused("vision is neither an array nor says where", {"vision": "elsewhere"})


@pytest.fixture
def served(monkeypatch):
    server = bucket.serve(monkeypatch)
    yield
    server.shutdown()


def upload(folder, name):
    for file in folder.rglob("*"):
        if file.is_file():
            bucket.put(f"{name}/{file.relative_to(folder)}", file.read_bytes())


def test_a_checkpoint_in_a_bucket(room, served, tmp_path, capsys):
    for kind in KINDS:
        upload(checkpoint(room, kind), f"theirs/{kind}/checkpoint_7")
    tree = {"target": t5x_tree(checkpoint(room, "gated"))}
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
        checkpointer.save(tmp_path / "checkpoint_8/state", tree)
    upload(tmp_path / "checkpoint_8", "theirs/gated/checkpoint_8")
    bucket.put("theirs/spiece.model", b"tokens")
    for kind, step in (("gated", 7), ("plain", 7), ("gated", 8)):
        out = tmp_path / f"{kind}_{step}"
        asked = ["convert", f"gs://theirs/{kind}/checkpoint_{step}", str(out)]
        assert main([*asked, "--vocabulary", "gs://theirs/spiece.model"]) == 0
        config, params, about = load_base(out, Layout())
        assert config.name == f"checkpoint_{step}" and about["vocabulary_sha256"]
        jax.tree.map(np.testing.assert_array_equal, params, parameters(checkpoint(room, kind)))
    bucket.put("theirs/hub/config.json", b"{}")
    refusals = {
        "gs://theirs/hub": "copy it here first: gcloud storage cp --recursive gs://theirs/hub downloads/",
        "gs://theirs/gated": "checkpoints (checkpoint_7, checkpoint_8): name one of them, the newest is gs",
        "gs://theirs/nothing": "gs://theirs/nothing: no such folder",
    }
    for source, says in refusals.items():
        assert main(["convert", source, str(tmp_path / "out")]) == 2
        assert says in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "gated_7"), "gs://theirs/out", "--to", "hugging_face"]) == 2
    assert "gs://theirs/out: --to hugging_face writes a folder of this machine" in capsys.readouterr().err


def test_specs_of_buckets():
    spec = {"driver": "gcs", "bucket": "t5-data", "path": "t5x/checkpoint_9/target.a/"}
    assert t5x_arrays.store_of(files.at("gs://t5-data/t5x/checkpoint_9") / "target.a") == spec
    with pytest.raises(InputError, match=r"s3://theirs/one: buckets that can be read are gs://"):
        t5x_arrays.store_of("s3://theirs/one")


def test_what_is_no_model_is_said(room, tmp_path, capsys):
    for step in (5, 20, 100):
        shutil.copytree(checkpoint(room, "plain"), tmp_path / f"run/checkpoint_{step}")
    (tmp_path / "run/checkpoint_200").mkdir()
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    run = tmp_path / "run"
    refusals = {
        str(run): f"(checkpoint_5, checkpoint_20, checkpoint_100): name one of them, the newest is {run}",
        "google/flan-t5-none": "no such folder. Nothing is downloaded here: if it is a model's name, "
        "`hf download google/flan-t5-none --local-dir downloads/flan-t5-none`",
        str(tmp_path / "none"): "none: no such folder\n",
        str(tmp_path / "file"): "is a file: name a Hugging Face folder",
        str(tmp_path / "empty"): "no config.json",
    }
    for source, says in refusals.items():
        assert main(["convert", source, str(tmp_path / "out")]) == 2
        assert says in capsys.readouterr().err


def test_checkpoints_that_cannot_be_used(room, damaged, tmp_path, capsys):
    tree = t5x_tree(damaged)

    def refused(says, target):
        (damaged / "checkpoint").write_bytes(serialization.msgpack_serialize({"target": target}))
        with pytest.raises(InputError, match=says):
            t5x_checkpoints.open_checkpoint(damaged)

    refused(r"T5 network: it has no encoder.layers_0 \(it holds decoder", {"decoder": tree["decoder"]})
    refused("no trained parameters", {})
    refused("no trained parameters", 3)
    short = tree | {"decoder": tree["decoder"] | {"layers_1": {"mlp": tree["decoder"]["layers_1"]["mlp"]}}}
    refused(r"missing: decoder.layers_1.encoder_decoder_attention.key.kernel, .*self_attention", short)
    refused(r"extra: vision.kernel", tree | {"vision": {"kernel": np.zeros(2, np.float32)}})
    content = (checkpoint(room, "gated") / "checkpoint").read_bytes()
    (damaged / "checkpoint").write_bytes(content[:-20])
    assert main(["convert", str(damaged), str(tmp_path / "out")]) == 2
    assert "not a T5X checkpoint, or truncated" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
