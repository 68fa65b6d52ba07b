"""Whole runs on a tiny store: records, exact resume, and what is refused."""

import dataclasses
import json
import math
import os
import signal

import jax
import numpy as np
import pytest

from scaling_jax import files
from scaling_jax.data.store import VocabularyFile
from scaling_jax.errors import InputError
from scaling_jax.training import checkpoints, data_sets
from scaling_jax.training.bases import load_base
from scaling_jax.training.evaluate import mean_loss
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.loop import Interrupted, LoopSettings
from scaling_jax.training.mesh import Layout
from scaling_jax.training.optimizers import Optimizer
from scaling_jax.training.pretrain import pretrain
from scaling_jax.training.program import Program
from scaling_jax.training.split_loss import evaluate_checkpoint
from scaling_jax.tuning.full import Full
from scaling_jax.tuning.method import named_method
from tests.training import tiny

LEVELS = (192, 320)  # 6 and 10 steps of 4 windows of 8 tokens


class Killed(Exception):
    """Stands for the end of a process."""


@pytest.fixture(autouse=True)
def configured():
    tiny.configure()


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """(folder, pretraining store, finetuning store, pretraining record), with a base made in folder/base."""
    folder = tmp_path_factory.mktemp("room")
    stores = tiny.write_stores(folder)
    tiny.configure()
    return folder, *stores, pretrain("tiny", stores[0], LEVELS, 0, folder / "base")


def run(room, method="full", **changes):
    return FinetuneRun(str(room[0] / "base/checkpoints/320"), room[2], method, **changes)


def arrays(folder):
    """Bytes of all arrays of a checkpoint, by path."""
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(use_ocdbt=True)) as checkpointer:
        tree = checkpointer.restore(folder.absolute() / "arrays")
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(key.key) for key in path): np.asarray(leaf).tobytes() for path, leaf in flat}


def numbers(record):
    """What two runs of one plan must have in common."""
    return {key: record[key] for key in ("status", "metrics", "seeds", "parameters")} | {
        "results": record.get("results")
    }


def stops_at(step):
    def on_evaluation(progress):
        if progress.step == step:
            raise Killed

    return on_evaluation


def test_pretraining_keeps_every_level(room):
    folder, _, _, record = room
    assert record["status"] == "done"
    assert [level["step"] for level in record["levels"]] == [6, 10]
    kept = [arrays(folder / "base/checkpoints" / str(level)) for level in LEVELS]
    assert kept[0].keys() == kept[1].keys() and all(kept[0][name] != kept[1][name] for name in kept[0])
    for level in LEVELS:
        about = checkpoints.about(folder / "base/checkpoints" / str(level))
        config, params, _ = load_base(folder / "base/checkpoints" / str(level), Layout())
        assert about["pretrain_tokens"] == level and about["hash"] == checkpoints.tree_hash(params)
        assert config.vocabulary_size == 48
    assert [row["step"] for row in record["metrics"]] == [0, 4, 6, 8, 10]  # both levels too
    assert record["metrics"][-1]["dev_loss"] < record["metrics"][0]["dev_loss"] < math.log(48) + 1
    assert files.read_json(folder / "base/record.json") == json.loads(json.dumps(record))
    assert not (folder / "base/resume").exists()
    assert list((folder / "base/tensorboard").glob("events.*"))


def test_pretraining_resumes_to_the_same_bits(room, tmp_path):
    tiny.configure("PretrainSettings.checkpoint_interval=3")
    pretrain("tiny", room[1], LEVELS, 0, tmp_path / "whole")
    with pytest.raises(Killed):
        pretrain("tiny", room[1], LEVELS, 0, tmp_path / "killed", on_evaluation=stops_at(8))
    seen = []
    record = pretrain(
        "tiny", room[1], LEVELS, 0, tmp_path / "killed", on_evaluation=lambda p: seen.append(p.step)
    )
    assert seen == [8, 10], "it went on from step 6"
    assert numbers(record) == numbers(files.read_json(tmp_path / "whole/record.json"))
    for level in LEVELS:
        names = [tmp_path / name / "checkpoints" / str(level) for name in ("whole", "killed")]
        assert arrays(names[0]) == arrays(names[1])


def test_pretraining_asks_for_more_than_there_is(room, tmp_path):
    with pytest.raises(InputError, match="asks for 544 tokens, .*pretrain has 512"):
        pretrain("tiny", room[1], (544,), 0, tmp_path / "a")
    with pytest.raises(InputError, match="pretraining needs a store of windows"):
        pretrain("tiny", room[2], (64,), 0, tmp_path / "a")
    with pytest.raises(InputError, match="finetuning needs inputs and targets"):
        finetune(dataclasses.replace(run(room), store=room[1]), tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("method", ["lora", "prompt"])
def test_the_same_seed_gives_the_same_run(room, tmp_path, method):
    base = arrays(room[0] / "base/checkpoints/320")
    records = [finetune(run(room, method, examples=10), tmp_path / name) for name in "ab"]
    assert numbers(records[0]) == numbers(records[1])
    found = arrays(tmp_path / "a/checkpoint")
    assert found == arrays(tmp_path / "b/checkpoint")
    names = {"lora": {"lora_a", "lora_b"}, "prompt": {"prompt"}}[method]
    assert {name.split("/")[-1] for name in found} == names
    assert sum(len(content) for content in found.values()) == 4 * records[0]["parameters"]["trained"]
    other = finetune(run(room, method, examples=10, seed=1), tmp_path / "c")
    assert other["metrics"] != records[0]["metrics"]
    assert records[0]["results"]["dev_loss"] < records[0]["results"]["start_dev_loss"]
    assert arrays(room[0] / "base/checkpoints/320") == base
    if method == "lora":
        full = finetune(run(room), tmp_path / "full")
        assert full["metrics"][0]["dev_loss"] == records[0]["metrics"][0]["dev_loss"], (
            "step 0 of LoRA is the base"
        )


def test_a_record_says_what_was_run(room, tmp_path):
    record = finetune(run(room, examples=10, subset_seed=3), tmp_path)
    assert files.read_json(tmp_path / "record.json") == json.loads(json.dumps(record))
    assert (record["status"], record["finetune_examples"], record["method"]) == ("done", 10, "full")
    assert record["finetune_tokens"] < 10 * 8
    assert record["seeds"] == {"seed": 0, "subset_seed": 3}
    assert record["base"]["pretrain_tokens"] == 320
    assert record["parameters"]["total"] == record["parameters"]["trained"]
    assert record["costs"]["checkpoint_bytes"] > 4 * record["parameters"]["trained"]
    assert record["costs"]["train_seconds"] > 0
    speed = record["costs"]["tokens_per_second_per_device"]
    assert speed == pytest.approx(record["costs"]["tokens_per_second"]) and speed > 0
    assert record["costs"]["mfu"] is None, "the peak of a CPU is not known"
    assert "tiny/decoder_config.layers = 2" in record["config"]
    assert record["environment"]["versions"]["jax"] == jax.__version__


def test_the_best_step_is_saved_and_evaluated(room, tmp_path):
    tiny.configure("FinetuneSettings.learning_rate=0.5", "FinetuneSettings.max_steps=24")
    record = finetune(run(room, examples=4), tmp_path)
    losses = {row["step"]: row["dev_loss"] for row in record["metrics"]}
    best = min(losses, key=losses.get)
    assert best == record["results"]["best_step"] < max(losses), "it overfits, so the best is not the last"
    assert record["results"]["dev_loss"] == losses[best]
    config, _, about = load_base(room[0] / "base/checkpoints/320", Layout())
    program = Program(config, Full(), Optimizer(), Layout())
    like = jax.eval_shape(program.initial_parameters, 0)
    saved = checkpoints.restore(tmp_path / "checkpoint", checkpoints.like(like, program.shardings["params"]))
    sequences = data_sets.sequences_at(room[2], config)
    dev, test = (data_sets.evaluation_at(room[2], name, None, 4, sequences) for name in ("dev", "test"))
    assert mean_loss(program, saved, {}, dev) == losses[best]
    test = mean_loss(program, saved, {}, test)
    assert test == record["results"]["loss"]
    assert checkpoints.about(tmp_path / "checkpoint")["step"] == best
    assert evaluate_checkpoint(tmp_path / "checkpoint", room[2], "test", None, 4) == (test, 9)
    with pytest.raises(InputError, match="192 is not the base that"):
        evaluate_checkpoint(
            tmp_path / "checkpoint", room[2], "test", None, 4, base=room[0] / "base/checkpoints/192"
        )


def test_patience_stops(room, tmp_path):
    tiny.configure(
        "FinetuneSettings.patience=2", "FinetuneSettings.learning_rate=0.0", "FinetuneSettings.max_steps=40"
    )
    record = finetune(run(room), tmp_path)
    assert (record["status"], record["results"]["steps"], record["results"]["best_step"]) == ("done", 8, 0)
    assert record["results"]["dev_loss"] == record["results"]["start_dev_loss"]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_resume_after_a_kill_is_exact(room, tmp_path, method):
    tiny.configure("FinetuneSettings.checkpoint_interval=3")
    whole = finetune(run(room, method), tmp_path / "whole")
    with pytest.raises(Killed):
        finetune(run(room, method), tmp_path / "killed", on_evaluation=stops_at(8))
    assert not (tmp_path / "killed/record.json").exists()
    assert checkpoints.about(tmp_path / "killed/resume/6")["progress"]["step"] == 6
    seen = []
    resumed = finetune(
        run(room, method), tmp_path / "killed", on_evaluation=lambda progress: seen.append(progress.step)
    )
    assert seen == [8, 12]
    assert numbers(resumed) == numbers(whole)
    assert arrays(tmp_path / "killed/checkpoint") == arrays(tmp_path / "whole/checkpoint")
    assert not (tmp_path / "killed/resume").exists()


def test_resume_under_another_plan_is_refused(room, tmp_path):
    tiny.configure("FinetuneSettings.checkpoint_interval=4")
    with pytest.raises(Killed):
        finetune(run(room), tmp_path, on_evaluation=stops_at(8))
    for other, says in (
        (run(room, learning_rate=0.01), "settings differ"),
        (run(room, examples=20), "examples differ"),
        (run(room, seed=1), "seed differ"),
        (dataclasses.replace(run(room), base=str(room[0] / "base/checkpoints/192")), "about differ"),
    ):
        with pytest.raises(InputError, match=f"saved under another plan.*{says}"):
            finetune(other, tmp_path)
    assert finetune(run(room), tmp_path)["status"] == "done"


@pytest.mark.parametrize("step", [4, 12])
def test_sigterm_saves_and_the_same_command_goes_on(room, tmp_path, step):
    whole = finetune(run(room), tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)

    def terminate(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match=f"stopped at step {step}") as stopped:
        finetune(run(room), tmp_path / "stopped", on_evaluation=terminate)
    assert stopped.value.code == 143 and not isinstance(stopped.value, Exception)
    assert signal.getsignal(signal.SIGTERM) is before, "outside of training the signal ends the process again"
    resumed = finetune(run(room), tmp_path / "stopped")
    assert numbers(resumed) == numbers(whole)
    assert arrays(tmp_path / "stopped/checkpoint") == arrays(tmp_path / "whole/checkpoint")


def test_a_diverged_run_is_recorded(room, tmp_path):
    record = finetune(run(room, learning_rate=1e30), tmp_path)
    assert record["status"] == "diverged" and "not finite by step 4" in record["reason"]
    assert record["results"]["loss"] is None and record["results"]["best_step"] == 0
    assert files.read_json(tmp_path / "record.json")["status"] == "diverged"
    assert not (tmp_path / "checkpoint").exists()


def test_what_is_refused(room, tmp_path):
    _, other = tiny.write_stores(tmp_path, VocabularyFile("bytes", 50))
    with pytest.raises(InputError, match="another vocabulary .bytes-50. than checkpoint .*bytes-48"):
        finetune(dataclasses.replace(run(room), store=other), tmp_path / "a")
    for count in (0, 41):
        with pytest.raises(InputError, match=f"finetune_examples = {count}, but .* 40 examples"):
            finetune(run(room, examples=count), tmp_path / "a")
    with pytest.raises(InputError, match="holds no checkpoint"):
        finetune(dataclasses.replace(run(room), base=str(tmp_path / "none")), tmp_path / "a")
    with pytest.raises(InputError, match="keep_checkpoint = 'last': 'best' or 'none'"):
        tiny.configure("FinetuneSettings.keep_checkpoint=last")
        finetune(run(room), tmp_path / "a")
    with pytest.raises(InputError, match="eval_interval 0"):
        LoopSettings(4, 0)
    assert not (tmp_path / "a").exists()


def test_call_bounds_stop_where_they_must():
    bounds = LoopSettings(20, 8, 5, 0, 6, (7,)).call_bounds(0)
    assert bounds == [(0, 5), (5, 6), (6, 7), (7, 8), (8, 12), (12, 16), (16, 18), (18, 20)]
    assert LoopSettings(20, 8, 5, 0, 6, (7,)).call_bounds(12) == bounds[5:]
    assert LoopSettings(20, 8, 5).call_bounds(20) == []


def test_checkpoints_of_something_else(room, tmp_path):
    base = room[0] / "base/checkpoints/320"
    config, params, _ = load_base(base, Layout())
    shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
    like = checkpoints.like(params, shardings)
    missing = {name: part for name, part in like.items() if name != "final_norm"}
    with pytest.raises(InputError, match="extra: final_norm/scale"):
        checkpoints.restore(base, missing)
    more = like | {"head": {"kernel": like["final_norm"]["scale"]}}
    with pytest.raises(InputError, match="missing: head/kernel"):
        checkpoints.restore(base, more)
    wide = dataclasses.replace(config, vocabulary_size=64)
    program = Program(wide, named_method("full"), Optimizer(), Layout())
    wide_like = checkpoints.like(jax.eval_shape(program.initial_parameters, 0), program.shardings["params"])
    with pytest.raises(InputError, match=r"misshapen: embedding/table \(48, 16\) for \(64, 16\)"):
        checkpoints.restore(base, wide_like)
    checkpoints.save(tmp_path / "copy", params, {"kind": "copy"})
    largest = max(
        (tmp_path / "copy/arrays").rglob("*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    largest.write_bytes(largest.read_bytes()[:100])
    with pytest.raises(InputError, match="copy cannot be read"):
        checkpoints.restore(tmp_path / "copy", like)
