"""Whole runs made at the same time leave what they leave alone."""

import dataclasses
import math

import pytest

from scaling_jax.errors import InputError
from scaling_jax.training.finetune import FinetuneRun, finetune
from scaling_jax.training.finetune_cohort import finetune_cohort
from scaling_jax.training.pretrain import pretrain
from scaling_jax.training.split_loss import evaluate_checkpoint
from tests.training import tiny


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """(run on a base, folder)."""
    folder = tmp_path_factory.mktemp("room")
    windows, store = tiny.write_stores(folder)
    tiny.configure()
    pretrain("tiny", windows, (192,), 0, folder / "base")
    return FinetuneRun(str(folder / "base/checkpoints/192"), store, "lora"), folder


def test_runs_of_a_cohort_leave_what_they_leave_alone(room, tmp_path):
    """Of 4, 10 and 30 examples: other lengths, rates, seeds and subsets; the first overfits, one diverges."""
    tiny.configure(
        "FinetuneSettings.max_steps=12", "FinetuneSettings.max_epochs=6", "FinetuneSettings.patience=2"
    )
    run, _ = room
    runs = [
        dataclasses.replace(run, examples=4, learning_rate=0.3, seed=1, subset_seed=1),
        dataclasses.replace(run, examples=10),
        dataclasses.replace(run, examples=30, learning_rate=1e30),
    ]
    alone = [finetune(one, tmp_path / f"alone-{index}") for index, one in enumerate(runs)]
    folders = [tmp_path / f"cohort-{index}" for index in range(len(runs))]
    together = finetune_cohort(runs, folders)
    assert [record["status"] for record in together] == ["done", "done", "diverged"]
    for one, other, folder in zip(alone, together, folders, strict=True):
        assert one.keys() == other.keys() and one["costs"].keys() == other["costs"].keys()
        assert [row["step"] for row in one["metrics"]] == [row["step"] for row in other["metrics"]]
        for found, wanted in zip(other["metrics"], one["metrics"], strict=True):
            assert found == pytest.approx(wanted, rel=1e-3)
        for name in ("steps", "best_step", "converged_step"):
            assert one["results"][name] == other["results"][name]
        assert (other["costs"]["runs_at_once"], one["costs"]["runs_at_once"]) == (3, 1)
        assert (other["cohort"], one["cohort"]) == (["cohort-0", "cohort-1", "cohort-2"], [])
        assert one["seeds"] == other["seeds"] and one["data"] == other["data"]
        if other["status"] == "done":
            assert other["results"]["loss"] == pytest.approx(one["results"]["loss"], rel=1e-3)
            again = evaluate_checkpoint(folder / "checkpoint", run.store, "test", None, 4)[0]
            assert again == other["results"]["loss"]
        assert (folder / "record.json").exists()
    assert together[0]["results"]["steps"] == 6 < together[1]["results"]["steps"] == 12
    assert all(math.isfinite(row["dev_loss"]) for record in together for row in record["metrics"])


def test_what_cannot_be_a_cohort(room, tmp_path):
    run, _ = room
    tiny.configure("lora/lora_half/FinetuneSettings.base_dtype='bfloat16'", "lora/lora_half/lora.rank=2")
    others = ({"tuning_size": 3}, {"method": "ia3"}, {"method": "lora_half"})
    for other in (dataclasses.replace(run, **changes) for changes in others):
        with pytest.raises(InputError, match="differ in more than data, seed, learning rate and length"):
            finetune_cohort([run, other], [tmp_path / "a", tmp_path / "b"])
    assert not (tmp_path / "a").exists()
