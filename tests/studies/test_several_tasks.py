"""One study over several tasks, and variants of methods in it."""

import shutil
from pathlib import Path

import gin
import pytest

from scaling_jax import configuration, files
from scaling_jax.studies.jobs import make_jobs
from scaling_jax.studies.plan import Study, claim_folder
from scaling_jax.studies.results import write_results
from scaling_jax.studies.runner import run_study
from scaling_jax.studies.worker import CONFIGURABLES, finetune_run
from tests.studies.small_study import write_stores

BENCHMARK = "gin_configs/studies/peft_benchmark.gin"
SMALL = """
small/decoder_config.layers = 2
small/decoder_config.heads = 2
small/decoder_config.head_dim = 4
small/decoder_config.model_dim = 8
small/decoder_config.feed_forward_dim = 16
PretrainSettings.batch_size = 8
PretrainSettings.eval_interval = 10
FinetuneSettings.batch_size = 4
FinetuneSettings.max_steps = 10
FinetuneSettings.eval_interval = 5
lora.rank = 2
lora/lora_last/lora.layers = 'last 1'
Study.name = 'two'
Study.grids = [@first/Grid(), @second/Grid()]
Study.learning_rates = @LearningRateSearch()
Grid.models = ['small']
Grid.pretrain_tokens = [640]
Grid.methods = ['lora', 'lora_last']
first/Grid.finetune_examples = [8]
second/Grid.finetune_examples = [16]
second/Grid.store = 'other'
LearningRateSearch.model = 'small'
LearningRateSearch.pretrain_tokens = 640
LearningRateSearch.finetune_examples = 16
LearningRateSearch.store = 'other'
LearningRateSearch.rates = {'lora': [0.01, 0.1]}
"""


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    gin.clear_config()


@pytest.fixture
def study(tmp_path):
    (tmp_path / "study.gin").write_text(SMALL, "utf-8")

    def parsed(*bindings: str) -> Study:
        configuration.parse([str(tmp_path / "study.gin")], bindings, imports=[CONFIGURABLES])
        return configuration.call(Study)

    return parsed


def test_points_name_their_store_where_it_is_not_the_only_one(study):
    points = study().points()
    assert [point.run_id for point in points] == [
        "lora-t2-small-p640-d8-s0",
        "lora_last-t2-small-p640-d8-s0",
        "other-lora-t2-small-p640-d16-s0",
        "other-lora_last-t2-small-p640-d16-s0",
    ]
    paths = study("Study.finetune_store='given'").store_paths(Path("runs"))
    assert paths == {"pretrain": "runs/stores/pretrain", "finetune": "given", "other": "runs/stores/other"}


def test_a_variant_takes_the_rate_of_its_method(study, tmp_path):
    jobs = make_jobs(study(), 48, {"finetune": 9.0, "other": 9.0})
    rates = ("rate-lora-0.01", "rate-lora-0.1")
    tuned = {job.job_id: job for job in jobs if job.kind == "finetuning"}
    assert {job.needs for job in tuned.values()} == {("pretrain-small", *rates)}
    assert len({job.program for job in tuned.values()}) == 4
    for rate, loss in zip(rates, (3.0, 2.0), strict=True):
        record = {"status": "done", "results": {"dev_loss": loss}}
        files.write_json(tmp_path / "learning_rates" / rate.removeprefix("rate-") / "record.json", record)
    job = tuned["other-lora_last-t2-small-p640-d16-s0"]
    run = finetune_run(tmp_path, job, jobs, {"finetune": "one", "other": "two"})
    assert (run.method, run.store, run.learning_rate) == ("lora_last", "two", 0.1)


def test_rows_have_the_task_of_their_store(study, tmp_path):
    jobs = make_jobs(study(), 48, {"finetune": 9.0, "other": 9.0})
    for job in jobs:
        files.write_json(tmp_path / job.folder / "record.json", {"status": "done"})
    rows = write_results(tmp_path, "two", {"finetune": "one_v1", "other": "two_v1"}, jobs)
    assert [(row["task"], row["method"]) for row in rows] == [
        ("one_v1", "lora"),
        ("one_v1", "lora_last"),
        ("two_v1", "lora"),
        ("two_v1", "lora_last"),
    ]


@pytest.mark.slow
def test_a_study_of_two_stores_end_to_end(study, tmp_path):
    stores = write_stores(tmp_path / "stores")
    folder = tmp_path / "study"
    names = {"pretrain": stores["pretrain"], "finetune": stores["finetune"]}
    parsed = study(*(f"Study.{name}_store='{path}'" for name, path in names.items()))
    claim_folder(folder, parsed)
    shutil.copytree(stores["finetune"], folder / "stores" / "other")
    result = run_study(parsed, folder, say=lambda line: None)
    assert result.statuses == {"done": 4}
    trained = {
        job: files.read_json(folder / "runs" / job / "record.json")["parameters"]["trained"]
        for job in ("other-lora-t2-small-p640-d16-s0", "other-lora_last-t2-small-p640-d16-s0")
    }
    whole, last = trained.values()
    assert whole == 2 * last
    about = files.read_json(folder / "runs" / list(trained)[1] / "checkpoint" / "about.json")
    assert (about["method"]["name"], about["method"]["layers"]) == ("lora", "last 1")


@pytest.mark.parametrize("task", ["e2e_nlg", "cola"])
def test_the_benchmark_compares_five_methods_and_six_ablations_on_two_tasks(task):
    configuration.parse([BENCHMARK], imports=[CONFIGURABLES])
    made = configuration.call(Study)
    points = [point for point in made.points() if point.store == task]
    assert len(points) == 33 and {point.seed for point in points} == {0}
    assert sorted({point.method for point in points}) == [
        "bitfit",
        "full",
        "ia3",
        "ia3_attention",
        "ia3_first_half",
        "ia3_last_half",
        "lora",
        "lora_attention",
        "lora_first_half",
        "lora_last_half",
        "prompt",
    ]
    jobs = make_jobs(made, 2048, {"e2e_nlg": 60.0, "cola": 20.0})
    assert all(job.needs for job in jobs if job.kind != "pretraining")
    # The base and the rates that were tried: prompts learn at rates further apart than the others.
    finetuning = [job for job in jobs if job.kind == "finetuning"]
    assert {(job.details["point"]["method"] == "prompt", len(job.needs)) for job in finetuning} == {
        (False, 4),
        (True, 5),
    }
