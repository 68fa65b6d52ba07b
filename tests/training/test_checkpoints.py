"""Checkpoints that are written while training goes on, in folders and buckets, and where they cannot be."""

import subprocess
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.training import checkpoints
from scaling_jax.training.checkpoints import Kept
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.pretrain import pretrain
from tests.training import bucket, tiny


def tree(value=0.0, size=5_000):
    return {"a": jnp.arange(size, dtype=jnp.float32) + value, "b": {"c": jnp.full((3, 4), value)}}


def like(one):
    return checkpoints.like(one, jax.tree.map(lambda leaf: leaf.sharding, one))


def test_what_is_saved_is_what_was_there_when_it_was_called(tmp_path):
    change = jax.jit(lambda one: jax.tree.map(lambda leaf: -2 * leaf - 1, one), donate_argnums=0)
    kept, now = Kept(tmp_path), tree(size=2_000_000)
    wanted = jax.tree.map(np.array, now)
    kept.save(1, now, {})
    for _ in range(3):  # training takes its memory
        now = change(now)
    jax.block_until_ready(now)
    kept.close()
    found = checkpoints.restore(kept.latest(), like(now))
    jax.tree.map(np.testing.assert_array_equal, found, wanted)


def test_an_older_state_stays_until_the_next_is_whole(tmp_path, monkeypatch):
    kept = Kept(tmp_path)
    assert kept.latest() is None
    kept.save(3, tree(3.0), {"step": 3})
    kept.wait()
    reached, go_on, write = threading.Event(), threading.Event(), files.write_json

    def slowly(path, content):
        reached.set()
        assert go_on.wait(60)
        return write(path, content)

    monkeypatch.setattr(files, "write_json", slowly)
    kept.save(6, tree(6.0), {"step": 6})
    assert reached.wait(60)
    assert (tmp_path / "6/arrays").is_dir(), "a kill here leaves all of its arrays"
    assert Kept(tmp_path).latest().name == "3"
    go_on.set()
    kept.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["6"]
    found = checkpoints.restore(Kept(tmp_path).latest(), like(tree()))
    np.testing.assert_array_equal(found["b"]["c"], np.full((3, 4), 6.0))
    # What a kill has left of a step is no obstacle to saving it again.
    (tmp_path / "9/arrays.half").mkdir(parents=True)
    kept.save(9, tree(9.0), {"step": 9})
    kept.close()
    assert checkpoints.about(Kept(tmp_path).latest()) == {"step": 9}


@pytest.fixture
def full(tmp_path):
    """A file system with room for a little."""
    place = tmp_path / "full"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place]).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk(full):
    large = tree(size=100_000)
    with pytest.raises(InputError, match="cannot write checkpoint .*full/one: .*No space left"):
        checkpoints.save(full / "one", {"a": np.random.default_rng(0).normal(size=100_000)}, {})
    assert list(full.iterdir()) == []
    kept = Kept(full)
    with pytest.raises(InputError, match="cannot write checkpoint .*full: No space left"):
        kept.save(1, jax.tree.map(lambda leaf: jax.random.normal(jax.random.key(0), leaf.shape), large), {})
        kept.wait()
    assert Kept(full).latest() is None


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    for act in (
        lambda: checkpoints.save(tmp_path / "file/one", tree(), {}),
        lambda: Kept(tmp_path / "file/resume").save(1, tree(), {}),
    ):
        with pytest.raises(InputError, match="cannot write checkpoint .*file/.*Not a directory"):
            act()


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture
def served(monkeypatch):
    server = bucket.serve(monkeypatch)
    yield
    server.shutdown()


def test_a_run_in_a_bucket(served, tmp_path):
    windows, pairs = tiny.write_stores(tmp_path)
    tiny.configure("PretrainSettings.checkpoint_interval=4", "FinetuneSettings.max_steps=4")
    wanted = pretrain("tiny", windows, (320,), 0, tmp_path / "run")
    folder = files.at("gs://mine/run")

    def stop(progress):
        if progress.step == 8:
            raise Killed

    with pytest.raises(Killed):
        pretrain("tiny", windows, (320,), 0, folder, stop)
    assert "mine/run/resume/4/about.json" in bucket.HOLDS
    found = pretrain("tiny", windows, (320,), 0, folder)
    assert found["metrics"] == wanted["metrics"]
    assert files.read_json(folder / "record.json")["status"] == "done"
    assert not any("resume" in name for name in bucket.HOLDS)
    assert any(name.startswith("mine/run/tensorboard/events") for name in bucket.HOLDS)
    tuned = finetune(FinetuneRun("gs://mine/run/checkpoints/320", pairs, "lora"), files.at("gs://mine/tuned"))
    local = finetune(FinetuneRun(str(tmp_path / "run/checkpoints/320"), pairs, "lora"), tmp_path / "tuned")
    assert tuned["results"] == local["results"]
    assert checkpoints.about("gs://mine/tuned/checkpoint")["base"]["path"] == "gs://mine/run/checkpoints/320"
