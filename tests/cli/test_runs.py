"""The verbs that make and evaluate one run, as a user calls them."""

import json

import pytest

from scaling_jax.cli.main import main
from tests.studies.small_study import VocabularyFile, write_gin, write_stores


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A gin file, stores, and a pretrained run of two levels."""
    folder = tmp_path_factory.mktemp("runs")
    stores = write_stores(folder / "stores")
    gin_file = write_gin(folder / "study.gin", stores)
    flags = [
        "--gin_file",
        str(gin_file),
        "--gin.PretrainRun.model=small_a",
        "--gin.PretrainRun.tokens=(1280, 2560)",
    ]
    arguments = [
        "pretrain",
        *flags,
        f"--gin.PretrainRun.store={stores['pretrain']}",
        "--out",
        str(folder / "base"),
    ]
    assert main(arguments) == 0
    return {"folder": folder, "gin": gin_file, "stores": stores, "pretrain": arguments}


def finetune_arguments(base, out, method="lora", store=None, examples=16, tokens=2560):
    bindings = {
        "base": base["folder"] / "base" / "checkpoints" / str(tokens),
        "store": store or base["stores"]["finetune"],
        "method": method,
        "examples": examples,
    }
    flags = [f"--gin.FinetuneRun.{name}={value}" for name, value in bindings.items()]
    return ["finetune", "--gin_file", str(base["gin"]), *flags, "--out", str(out)]


@pytest.mark.parametrize("method", ["full", "lora", "prompt"])
def test_evaluate_repeats_the_test_loss_of_a_tuned_checkpoint(base, tmp_path, capsys, method):
    assert main(finetune_arguments(base, tmp_path / "run", method)) == 0
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    capsys.readouterr()
    arguments = [
        "evaluate",
        str(tmp_path / "run" / "checkpoint"),
        "--store",
        base["stores"]["finetune"],
        "--json",
    ]
    assert main(arguments) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["loss"] == pytest.approx(record["results"]["loss"], abs=1e-6)
    assert printed["examples"] == 16


def test_evaluate_takes_a_pretrained_checkpoint(base, capsys):
    checkpoint = str(base["folder"] / "base" / "checkpoints" / "2560")
    assert main(["evaluate", checkpoint, "--store", base["stores"]["pretrain"], "--split", "dev"]) == 0
    record = json.loads((base["folder"] / "base" / "record.json").read_text())
    assert f"{record['metrics'][-1]['dev_loss']:.5f} nats" in capsys.readouterr().out


def test_every_level_is_listed_and_evaluated(base):
    record = json.loads((base["folder"] / "base" / "record.json").read_text())
    assert [level["pretrain_tokens"] for level in record["levels"]] == [1280, 2560]
    evaluated = {row["step"] for row in record["metrics"]}
    assert {level["step"] for level in record["levels"]} <= evaluated


def test_a_finished_run_is_not_redone(base, capsys):
    assert main(base["pretrain"]) == 0
    assert "nothing redone" in capsys.readouterr().out


def refused(arguments, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    return error


def test_a_folder_of_another_run_is_refused(base, tmp_path, capsys):
    assert main(finetune_arguments(base, tmp_path / "run")) == 0
    before = (tmp_path / "run" / "record.json").read_bytes()
    error = refused(finetune_arguments(base, tmp_path / "run", examples=8), capsys)
    assert "another configuration" in error
    assert (tmp_path / "run" / "record.json").read_bytes() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"examples": 65}, "has 64 examples"),
        ({"tokens": 999}, "holds no checkpoint"),
        ({"method": "lorra"}, "did you mean 'lora'"),
    ],
)
def test_what_cannot_be_tuned_is_refused(base, tmp_path, capsys, changes, message):
    assert message in refused(finetune_arguments(base, tmp_path / "run", **changes), capsys)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("lora.targets=('query','keys')", "lora.targets: 'keys' matches no projection; those that exist: "),
        ("lora.rank=99", "lora.rank = 99 is above the smaller side of "),
    ],
)
def test_a_method_that_does_not_fit_the_model_is_refused(base, tmp_path, capsys, binding, message):
    assert message in refused([*finetune_arguments(base, tmp_path / "run"), f"--gin.{binding}"], capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_another_vocabulary_is_refused(base, tmp_path, capsys):
    stores = write_stores(tmp_path / "stores", finetune_vocabulary=VocabularyFile("bytes", 64))
    error = refused(finetune_arguments(base, tmp_path / "run", store=stores["finetune"]), capsys)
    assert "another vocabulary" in error and "small" not in error


def test_a_base_that_changed_is_refused(base, tmp_path, capsys):
    assert main(finetune_arguments(base, tmp_path / "run")) == 0
    arguments = ["evaluate", str(tmp_path / "run" / "checkpoint"), "--store", base["stores"]["finetune"]]
    other = str(base["folder"] / "base" / "checkpoints" / "1280")
    assert "another hash" in refused([*arguments, "--base", other], capsys)
