"""Scores in studies: columns of results.csv, models before they are tuned, nothing done twice."""

import csv
import json

import gin
import pytest

from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.evaluation.evaluations import Evaluation
from scaling_jax.studies.plan import Study
from scaling_jax.studies.results import with_means
from tests.evaluation import small_runs

GIN = """
small/decoder_config.layers = 1
small/decoder_config.heads = 2
small/decoder_config.head_dim = 4
small/decoder_config.model_dim = 8
small/decoder_config.feed_forward_dim = 16
PretrainSettings.batch_size = 4
FinetuneSettings.batch_size = 4
FinetuneSettings.max_steps = 4
FinetuneSettings.eval_interval = 4
FinetuneSettings.learning_rate = 0.01
lora.rank = 2
Study.name = 'scored'
Study.workers = 1
Study.grids = [@Grid()]
Grid.models = ['small']
Grid.pretrain_tokens = [0]
Grid.finetune_examples = [8, 16]
Grid.methods = ['lora']
Study.evaluations = [@own/Evaluation(), @elsewhere/Evaluation()]
Study.base_evaluations = [@own/Evaluation(), @one_shot/Evaluation(), @elsewhere/Evaluation()]
own/Evaluation.scores = ('exact_match', 'bleu')
own/Evaluation.examples = 4
elsewhere/Evaluation.name = 'described'
elsewhere/Evaluation.store = 'described'
elsewhere/Evaluation.scores = ('chrf',)
elsewhere/Evaluation.loss = True
Study.means = {'both': ('one_shot', 'described')}
one_shot/Evaluation.name = 'one_shot'
one_shot/Evaluation.shots = 1
one_shot/Evaluation.loss = True
Decoding.max_new_tokens = 5
"""


def rows_of(path) -> list[dict]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scored")
    made = small_runs.write_stores(folder / "stores")
    stores = {"pretrain": made["windows"], "finetune": made["copies"], "described": made["described"]}
    path = folder / "study.gin"
    path.write_text(f"{GIN}Study.stores = {stores}\n", "utf-8")
    arguments = ["study", "--gin_file", str(path), "--out", str(folder / "study")]
    assert main(arguments) == 0
    gin.clear_config()
    return arguments, folder / "study"


def test_scores_are_columns(finished):
    _, study = finished
    rows = rows_of(study / "results.csv")
    assert [row["finetune_examples"] for row in rows] == ["16", "8"]
    for row in rows:
        record = json.loads((study / row["record"]).read_text())
        own, other = record["evaluations"]["task"], record["evaluations"]["described"]
        assert float(row["exact_match"]) == own["exact_match"] and float(row["bleu"]) == own["bleu"]
        assert float(row["described_chrf"]) == other["chrf"]
        assert float(row["described_loss"]) == other["loss"]
        assert float(row["loss"]) == record["results"]["loss"]
        assert "task" not in row["task"] and not {"signatures", "examples", "described_notes"} & set(row)
        assert (
            len((study / f"runs/{row['run_id']}/evaluations/task/answers.jsonl").read_text().splitlines())
            == 4
        )


def test_models_are_evaluated_before_they_are_tuned(finished):
    _, study = finished
    (row,) = rows_of(study / "bases.csv")
    assert (row["base_id"], row["task"], row["pretrain_tokens"]) == ("base-small-p0", "copies_v1", "0")
    assert row["status"] == "done" and 3 < float(row["one_shot_loss"]) < 20
    assert 3 < float(row["described_loss"]) < 20 and row["exact_match"] == "0.0"
    assert float(row["described_loss"]) > 0 and "described_chrf" in row
    mean = (float(row["one_shot_loss"]) + float(row["described_loss"])) / 2
    assert float(row["both_loss"]) == pytest.approx(mean) and "both_chrf" not in row
    evaluations = json.loads((study / row["record"]).read_text())["evaluations"]
    assert set(evaluations) == {"finetune"} and set(evaluations["finetune"]) == {
        "task",
        "one_shot",
        "described",
    }


@pytest.mark.parametrize(
    ("means", "says"),
    [
        ({"one": ("flores_fe",)}, "no evaluation 'flores_fe'; did you mean 'flores_fr'"),
        ({"flores_fr": ("flores_fr",)}, "'flores_fr' is an evaluation's own name"),
        ({"one": ()}, "'one' is a mean of nothing"),
    ],
)
def test_means_that_cannot_be(means, says):
    with pytest.raises(InputError, match=says):
        Study("one", (), evaluations=(Evaluation("flores_fr", scores=("bleu",)),), means=means)


def test_a_mean_is_empty_where_a_part_is():
    measured = {"fr": {"bleu": 10.0, "chrf": 3.0, "seconds": 1.0}, "zh": {"bleu": 20.0, "chrf": None}}
    assert with_means(measured, {"all": ("fr", "zh")})["all"] == {"bleu": 15.0}
    assert with_means(measured, {"all": ("fr", "hi")})["all"] == {}


def test_what_was_answered_is_not_asked_again(finished, capsys):
    arguments, study = finished
    run = study / "runs/lora-t2-small-p0-d8-s0"
    answers = run / "evaluations/task/answers.jsonl"
    before = {path: path.stat().st_mtime_ns for path in study.rglob("*.jsonl")}
    scores = json.loads((run / "record.json").read_text())["evaluations"]["task"]["bleu"]
    (run / "record.json").unlink()  # killed after it was scored, before its record
    assert main(arguments) == 0
    assert "1 made now" in capsys.readouterr().out
    assert before[answers] == answers.stat().st_mtime_ns
    assert before == {path: path.stat().st_mtime_ns for path in study.rglob("*.jsonl")}
    assert json.loads((run / "record.json").read_text())["evaluations"]["task"]["bleu"] == scores


def test_the_plan_counts_them(finished, capsys):
    arguments, _ = finished
    assert main([*arguments, "--dry_run"]) == 0
    text = capsys.readouterr().out
    assert "evaluation described: 2 tuned models, chrf, loss on all examples of test of described" in text
    assert "evaluation one_shot: 1 models before they are tuned" in text
    assert "base evaluation: 1 jobs" in text


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("own/Evaluation.scores = ('blue',)", "did you mean 'bleu'"),
        ("own/Evaluation.name = 'described'", "two evaluations are named 'described'"),
        ("elsewhere/Evaluation.store = 'describd'", "there is no store 'describd'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_before_anything_runs(
    finished, tmp_path, capsys, binding, message
):
    arguments, _ = finished
    out = tmp_path / "out"
    assert main([*arguments[:-1], str(out), "--gin", binding]) == 2
    assert message in capsys.readouterr().err
    assert not (out / "runs").exists() and not (out / "pretraining").exists()
