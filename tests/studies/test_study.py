"""Studies end to end: rows, resume after a kill, refusals."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scaling_jax.cli.main import main
from scaling_jax.studies.columns import COLUMNS
from scaling_jax.studies.results import COST_COLUMNS
from tests.studies.small_study import VocabularyFile, write_gin, write_stores


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    return write_stores(tmp_path_factory.mktemp("stores"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, stores):
    folder = tmp_path_factory.mktemp("finished")
    gin_file = write_gin(folder / "study.gin", stores)
    assert main(["study", "--gin_file", str(gin_file), "--out", str(folder / "study")]) == 0
    return folder / "study"


def rows_of(study: Path) -> list[dict]:
    with open(study / "results.csv", newline="") as file:
        return list(csv.DictReader(file))


def without_costs(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in COST_COLUMNS} for row in rows]


def study_command(gin_file: Path, out: Path) -> list[str]:
    program = [sys.executable, "-m", "scaling_jax.cli.main"]
    return [*program, "study", "--gin_file", str(gin_file), "--out", str(out)]


def test_every_point_is_a_row_with_a_loss(finished):
    rows = rows_of(finished)
    assert tuple(rows[0]) == tuple(COLUMNS)
    assert len(rows) == 2 * 2 * 3 * 3
    assert {row["status"] for row in rows} == {"done"}
    assert all(0 < float(row["loss"]) < 6 for row in rows)
    assert {row["tuning_size"] for row in rows if row["method"] == "lora"} == {"2"}
    assert {row["tuning_size"] for row in rows if row["method"] == "full"} == {""}


def test_a_row_is_traceable_to_its_record(finished):
    row = rows_of(finished)[0]
    record = json.loads((finished / row["record"]).read_text())
    assert float(row["loss"]) == record["results"]["loss"]
    assert record["environment"]["versions"]["jax"]
    assert "Study.name = 'small'" in record["config"]


def test_a_lora_checkpoint_holds_only_its_own_leaves(finished):
    row = next(row for row in rows_of(finished) if row["method"] == "lora")
    checkpoint = (finished / row["record"]).parent / "checkpoint"
    import orbax.checkpoint as ocp

    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.metadata((checkpoint / "arrays").absolute()).item_metadata.tree
    leaves = {name for kind in tree["layers"]["layer"].values() for part in kind.values() for name in part}
    assert leaves == {"lora_a", "lora_b"}
    assert set(tree) == {"layers"}


def test_all_methods_share_nested_subsets(finished):
    examples = {}
    for row in rows_of(finished):
        examples.setdefault(row["finetune_examples"], set()).add(row["finetune_tokens"])
    assert all(len(tokens) == 1 for tokens in examples.values())


def test_learning_rates_are_searched_on_dev_and_recorded(finished):
    study = json.loads((finished / "study.json").read_text())
    searched = study["learning_rate_search"]["lora"]
    best = min(searched["dev_losses"], key=searched["dev_losses"].get)
    assert searched["learning_rate"] == float(best)
    row = next(row for row in rows_of(finished) if row["method"] == "lora")
    assert json.loads((finished / row["record"]).read_text())["settings"]["learning_rate"] == float(best)


def test_a_second_call_redoes_nothing(finished, capsys):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/record.json")}
    assert main(["study", "--gin_file", str(finished / "config.gin"), "--out", str(finished)]) == 0
    assert "0 made now" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.glob("runs/*/record.json")}


def test_killed_and_rerun_equals_uninterrupted(tmp_path, stores, finished):
    gin_file = write_gin(tmp_path / "study.gin", stores)
    out = tmp_path / "study"
    command = study_command(gin_file, out)
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("runs/*/record.json"))) < 5:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "results.csv").exists()
    assert main(["study", "--gin_file", str(gin_file), "--out", str(out)]) == 0
    assert without_costs(rows_of(out)) == without_costs(rows_of(finished))


def test_sigterm_lets_the_workers_save(tmp_path, stores):
    """One run of very many steps; whatever step it has come to, the same command goes on from there."""
    gin_file = write_gin(tmp_path / "study.gin", stores)
    with open(gin_file, "a") as file:
        file.write("Study.workers = 1\nGrid.models = ['small_a']\nGrid.methods = ['full']\n")
        file.write("Grid.pretrain_tokens = [0]\nGrid.finetune_examples = [32]\nStudy.hold_out = ''\n")
        file.write("Study.learning_rates = None\nFinetuneSettings.max_steps = 100000\n")
        file.write("FinetuneSettings.max_epochs = 10000000\nFinetuneSettings.checkpoint_interval = 500\n")
    out = tmp_path / "study"
    process = subprocess.Popen(study_command(gin_file, out), stdout=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 300
        while not list(out.glob("runs/*/resume/*")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.terminate()
        stdout, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped: 1 of 1 workers saved what they were making; the same command goes on" in stdout


def test_workers_die_with_their_study(tmp_path, stores):
    gin_file = write_gin(tmp_path / "study.gin", stores)
    out = tmp_path / "study"
    command = study_command(gin_file, out)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if "worker" in line:
            break
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while subprocess.run(["pgrep", "-f", f"studies.worker {out}"], capture_output=True).stdout:
        assert time.monotonic() < deadline, "workers outlived the study"
        time.sleep(0.2)


def refused(arguments: list[str], capsys) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1
    return error


def test_another_study_in_the_folder_is_refused(finished, stores, tmp_path, capsys):
    other = write_gin(tmp_path / "other.gin", stores, name="other")
    before = (finished / "results.csv").read_bytes()
    error = refused(["study", "--gin_file", str(other), "--out", str(finished)], capsys)
    assert "already holds another study" in error and "Study.name" in error
    assert (finished / "results.csv").read_bytes() == before


def test_a_folder_with_other_things_is_refused(tmp_path, stores, capsys):
    gin_file = write_gin(tmp_path / "study.gin", stores)
    assert "holds no study" in refused(["study", "--gin_file", str(gin_file), "--out", str(tmp_path)], capsys)


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("Grid.finetune_examples = [8, 65]", "has 64 examples"),
        ("Grid.methods = ['lorra']", "did you mean 'lora'"),
        ("Grid.models = ['small_c']", "did you mean 'small_"),
        ("Grid.finetune_examples = [0]", "at least 1"),
        ("Grid.seeds = []", "Grid.seeds is empty"),
        ("Grid.model = ['small_a']", "did you mean 'models'"),
        ("Gird.models = ['small_a']", "did you mean 'Grid'"),
        ("Grid.pretrain_tokens = [1000000]", "pretraining asks for"),
        ("Study.pretrain_store = '/nowhere'", "is not a token store"),
        (
            "lora.targets = ['keys']",
            "model 'small_a': lora.targets: 'keys' matches no projection; those that",
        ),
        ("lora.rank = 5", "model 'small_a': lora.rank = 5 is above the smaller side of key [8, 4]"),
        ("lora.layers = 'last 2'", "model 'small_a': lora.layers = 'last 2': the model has 1 layers"),
        ("prompt.stacks = ['encoder']", "this model has no encoder; it has decoder"),
    ],
)
def test_bad_bindings_are_refused(tmp_path, stores, capsys, binding, message):
    gin_file = write_gin(tmp_path / "study.gin", stores)
    error = refused(
        ["study", "--gin_file", str(gin_file), "--gin", binding, "--out", str(tmp_path / "out")], capsys
    )
    assert message in error


def test_stores_of_two_vocabularies_are_refused(tmp_path, capsys):
    stores = write_stores(tmp_path / "stores", finetune_vocabulary=VocabularyFile("bytes", 64))
    gin_file = write_gin(tmp_path / "study.gin", stores)
    error = refused(["study", "--gin_file", str(gin_file), "--out", str(tmp_path / "out")], capsys)
    assert "another vocabulary" in error


def test_dry_run_prints_the_plan_and_writes_nothing(tmp_path, stores, capsys):
    gin_file = write_gin(tmp_path / "study.gin", stores)
    assert main(["study", "--gin_file", str(gin_file), "--out", str(tmp_path / "out"), "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "36 finetuning runs" in text and "small_b" in text and "core-minutes" in text
    assert not (tmp_path / "out").exists()
