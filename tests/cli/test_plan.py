"""The verb `plan` on gin files of runs and studies; nothing is compiled but what a test says."""

import json

import gin
import pytest

from scaling_jax.cli.main import main

FINETUNE = (
    *("--gin_file", "gin_configs/models/decoder_1b.gin", "--gin_file", "gin_configs/runs/finetune.gin"),
    *("--gin_file", "gin_configs/methods/zhang2024.gin", "--gin.STORE=wmt", "--gin.EXAMPLES=100000"),
)
PRETRAIN = (
    *("--gin_file", "gin_configs/models/decoder_1b.gin", "--gin_file", "gin_configs/runs/pretrain.gin"),
    *("--gin_file", "gin_configs/methods/zhang2024.gin", "--gin.STORE=mc4", "--gin.MODEL=decoder_1b"),
)


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    gin.clear_config()


def plan(capsys, *flags, topology="here", compiled="none"):
    """(exit code, what was printed, the error)."""
    code = main(["plan", "--topology", topology, "--compile", compiled, "--mesh", "auto", *flags])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_finetuning_run_without_store_or_checkpoint(capsys):
    flags = (*FINETUNE, "--gin.INITIAL_CHECKPOINT=checkpoints/decoder_1b", "--gin.METHOD=lora")
    code, told, _ = plan(capsys, *flags, "--lengths", "256,256", "--peak_tflops", "100", "--json")
    record = json.loads(told)
    one = record["workloads"][0]
    assert one["rows"] == 16 and one["lengths"] == [256, 256, 512] and one["remat"] == "full"
    # 100 epochs of 100,000 examples in batches of 16 are more than the 200,000 steps that a run may take.
    assert one["cost"]["steps"] == 200000 and record["efficiency"] == 0.4
    assert one["cost"]["step_seconds"] == pytest.approx(
        one["cost"]["flops_per_step"] / (one["devices"] * 1e14 * 0.4)
    )
    assert "taken to be 'decoder_1b' of the gin files" in record["assumed"][-1]
    assert one["estimate"]["frozen"] > 1e9 and code == int(not one["fits"])


def test_a_pretraining_run(capsys):
    tokens = 100 * 2048 * 1024
    _, told, _ = plan(capsys, *PRETRAIN, f"--gin.TOKENS=({tokens},)", "--lengths", "1024")
    assert "pretraining of decoder_1b: here" in told and "2,048 rows of 1,024 tokens a step" in told
    assert "1 runs, 1" in told and "estimated" in told and "peak not known" in told


def test_a_study_with_its_runs_and_pretraining_apart(capsys):
    flags = ("--gin_file", "gin_configs/studies/zhang2024_en_de.gin", "--gin.SIZES=['decoder_1b']")
    _, told, _ = plan(capsys, *flags, "--peak_tflops", "200", "--json")
    record = json.loads(told)
    totals = record["totals"]
    assert totals["pretraining"]["runs"] == 1
    # Three seeds: 5 lengths of pretraining x (10 of full, 2 x 11 of LoRA and prompt), 12 other sizes x 11.
    assert totals["finetuning"]["runs"] == 3 * (5 * (10 + 22) + 12 * 11)
    hours = sum(one["cost"]["chip_hours"] for one in record["workloads"] if one["kind"] == "finetuning")
    assert totals["finetuning"]["chip_hours"] == pytest.approx(hours)


@pytest.mark.parametrize(
    "flags, says",
    [
        ((*FINETUNE, "--gin.INITIAL_CHECKPOINT=nowhere", "--gin.METHOD=lora"), "holds no checkpoint"),
        ((*FINETUNE, "--gin.INITIAL_CHECKPOINT=decoder_1b", "--gin.METHOD=lroa"), "did you mean 'lora'?"),
        (("--gin_file", "gin_configs/models/decoder_1b.gin"), "nothing to plan: the gin files bind no"),
        ((*PRETRAIN, "--gin.TOKENS=(1,)", "--lengths", "12,12"), "--lengths 12,12: pretraining has one"),
        ((*PRETRAIN, "--gin.TOKENS=(1,)", "--lengths", "many"), "--lengths many: token counts"),
        ((*PRETRAIN, "--gin.TOKENS=(1,)", "--mfu", "40"), "--mfu 40: a share of the peak"),
        ((*PRETRAIN, "--gin.TOKENS=(1,)", "--gin.MODEL=decoder_1c"), "no model 'decoder_1c'"),
    ],
)
def test_what_cannot_be_planned_is_one_line(capsys, flags, says):
    code, told, error = plan(capsys, *flags)
    assert code == 2 and says in error and told == "" and len(error.splitlines()) == 1


def test_an_unknown_topology_lists_those_known(capsys):
    code, _, error = plan(capsys, *PRETRAIN, topology="v7:4x4")
    assert code == 2 and "known: v4, v5e, v5p, v6e" in error and "v5p such as v5p:4x4x8" in error
