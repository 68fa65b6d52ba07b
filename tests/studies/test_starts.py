"""What runs of a study start from: mixtures, models that were not pretrained, checkpoints, tuned results."""

import csv
import json
import shutil
from pathlib import Path

import gin
import pytest

from scaling_jax import configuration, files
from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.studies.jobs import make_jobs
from scaling_jax.studies.plan import Study
from scaling_jax.studies.worker import CONFIGURABLES
from tests.studies.small_study import write_stores

COMMON = """
small/decoder_config.layers = 1
small/decoder_config.heads = 2
small/decoder_config.head_dim = 4
small/decoder_config.model_dim = 8
small/decoder_config.feed_forward_dim = 16
PretrainSettings.batch_size = 8
PretrainSettings.learning_rate = 0.02
PretrainSettings.eval_interval = 10
FinetuneSettings.batch_size = 4
FinetuneSettings.max_steps = 10
FinetuneSettings.eval_interval = 5
FinetuneSettings.learning_rate = 0.02
lora.rank = 2
Study.name = 'starts'
Study.workers = 1
Grid.finetune_examples = [8]
Grid.methods = ['lora']
"""
MIXED = """
Study.grids = [@mixed/Grid(), @chained/Grid()]
mixed/Grid.models = ['small']
mixed/Grid.mixtures = ['one', 'both']
mixed/Grid.pretrain_tokens = [0, 640, 1280]
one/PretrainSettings.mixture = {'left': 1.0}
both/PretrainSettings.mixture = {'left': 0.5, 'right': 0.5}
chained/Grid.after = @first/Grid()
first/Grid.models = ['small']
first/Grid.mixtures = ['both']
first/Grid.pretrain_tokens = [640]
first/Grid.methods = ['full']
first/Grid.finetune_examples = [16]
"""


@pytest.fixture(autouse=True)
def no_bindings_left():
    yield
    gin.clear_config()


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    found = write_stores(folder)
    shutil.copytree(found["pretrain"], folder / "right")
    return {"left": found["pretrain"], "right": str(folder / "right"), "finetune": found["finetune"]}


def parsed(text: str, stores: dict[str, str], *bindings: str) -> Study:
    bindings = [f"Study.stores = {stores}", *text.splitlines(), *bindings]
    configuration.parse([], [line for line in bindings if line], imports=[CONFIGURABLES])
    return configuration.call(Study)


def written(folder: Path, text: str, stores: dict[str, str]) -> Path:
    path = folder / "study.gin"
    path.write_text(f"{COMMON}{text}\nStudy.stores = {stores}\n", "utf-8")
    return path


def table(study: Path) -> dict[str, dict]:
    with open(study / "results.csv", newline="") as file:
        return {row["run_id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def finished(tmp_path_factory, stores):
    folder = tmp_path_factory.mktemp("finished")
    gin_file = written(folder, MIXED, stores)
    assert main(["study", "--gin_file", str(gin_file), "--out", str(folder / "study")]) == 0
    gin.clear_config()
    return folder / "study"


def test_recipes_are_columns_and_what_is_not_pretrained_has_none(finished):
    rows = table(finished)
    starts = {
        name: (row["pretrain_mixture"], row["pretrain_tokens"], row["after"]) for name, row in rows.items()
    }
    assert starts == {
        "lora-t2-small-p0-d8-s0": ("", "0", ""),
        "lora-t2-small-one-p640-d8-s0": ("one", "640", ""),
        "lora-t2-small-one-p1280-d8-s0": ("one", "1280", ""),
        "lora-t2-small-both-p640-d8-s0": ("both", "640", ""),
        "lora-t2-small-both-p1280-d8-s0": ("both", "1280", ""),
        "full-small-both-p640-d16-s0": ("both", "640", ""),
        "lora-t2-small-both-p640-d8-s0-after-full-d16": ("both", "640", "full-d16"),
    }
    assert {row["status"] for row in rows.values()} == {"done"}
    assert len({row["loss"] for row in rows.values()}) == len(rows)


def test_each_recipe_is_pretrained_once(finished):
    levels = {
        path.name: sorted(int(level.name) for level in (path / "checkpoints").iterdir())
        for path in (finished / "pretraining").iterdir()
    }
    assert levels == {"small": [0], "small-one": [640, 1280], "small-both": [640, 1280]}
    record = json.loads((finished / "pretraining/small-both/record.json").read_text())
    assert record["settings"]["mixture"] == {"left": 0.5, "right": 0.5}


def test_a_run_goes_on_from_the_tuned_result_of_another(finished):
    record = json.loads(
        (finished / "runs/lora-t2-small-both-p640-d8-s0-after-full-d16/record.json").read_text()
    )
    assert record["base"]["path"].endswith("runs/full-small-both-p640-d16-s0/checkpoint")
    assert record["base"]["tuned_from"]["method"]["name"] == "full"
    tuned = json.loads((finished / "runs/full-small-both-p640-d16-s0/checkpoint/about.json").read_text())
    assert record["base"]["hash"] == tuned["hash"]


def test_a_second_call_redoes_nothing(finished, capsys):
    assert main(["study", "--gin_file", str(finished / "config.gin"), "--out", str(finished)]) == 0
    assert "7 done; 0 made now" in capsys.readouterr().out


def test_the_report_keeps_recipes_apart(finished, capsys):
    assert main(["report", str(finished), "--bootstrap", "20"]) == 0
    assert "reversal_v1@both" in capsys.readouterr().out


def test_bases_stand_instead_of_models(finished, stores, tmp_path, capsys):
    bases = [f"{finished}/pretraining/small-both/checkpoints/640", f"{tmp_path}/tuned"]
    shutil.copytree(finished / "runs/full-small-both-p640-d16-s0/checkpoint", bases[1])
    text = f"Study.grids = [@Grid()]\nGrid.bases = {bases}\nStudy.learning_rates = @LearningRateSearch()\n"
    text += f"LearningRateSearch.base = '{bases[0]}'\nLearningRateSearch.finetune_examples = 8\n"
    text += "LearningRateSearch.rates = {'lora': [0.01, 0.1]}\n"
    gin_file, out = written(tmp_path, text, stores), tmp_path / "study"
    arguments = ["study", "--gin_file", str(gin_file), "--out", str(out)]
    assert main(arguments) == 0
    hashes = {base: json.loads((Path(base) / "about.json").read_text())["hash"] for base in bases}
    assert json.loads((out / "study.json").read_text())["bases"] == hashes
    rows = table(out)
    # Two checkpoints of one model are told apart by their hashes.
    wanted = {f"lora-t2-small-{hashes[base][:6]}-p640-d8-s0": base for base in bases}
    assert set(rows) == set(wanted) and {row["status"] for row in rows.values()} == {"done"}
    for name, base in wanted.items():
        record = json.loads((out / rows[name]["record"]).read_text())
        assert (record["base"]["path"], record["base"]["hash"]) == (base, hashes[base])
        assert (rows[name]["pretrain_tokens"], rows[name]["model_params"]) == (
            "640",
            rows[name]["model_params"],
        )
    assert not (out / "pretraining").exists()
    about = json.loads((tmp_path / "tuned/about.json").read_text())
    files.write_json(tmp_path / "tuned/about.json", about | {"hash": "0" * 64})
    capsys.readouterr()
    assert main(arguments) == 2
    assert "is not the checkpoint that this study was begun with" in capsys.readouterr().err


def test_ids_and_folders_of_pretraining(stores):
    jobs = {job.job_id: job for job in make_jobs(parsed(COMMON + MIXED, stores), 48, {"finetune": 9.0})}
    assert jobs["pretrain-small"].details["levels"] == [0]
    assert jobs["pretrain-small-both"].folder == "pretraining/small-both"
    assert jobs["pretrain-small-both"].details["stores"] == ["left", "right"]
    chained = jobs["lora-t2-small-both-p640-d8-s0-after-full-d16"]
    assert chained.needs == ("full-small-both-p640-d16-s0",)
    assert chained.details["base"] == "runs/full-small-both-p640-d16-s0/checkpoint"
    order = list(jobs)
    assert order.index("full-small-both-p640-d16-s0") < order.index("lora-t2-small-one-p1280-d8-s0")


@pytest.mark.parametrize(
    ("binding", "message"),
    [
        ("mixed/Grid.mixtures = ['bth']", "no recipe 'bth'; did you mean 'both'"),
        ("chained/Grid.seeds = [0, 1]", "Grid.seeds holds 1, but the grid that it comes after has the seeds"),
        ("chained/Grid.models = ['small']", "Grid.after says what runs start from, and so does Grid.models"),
        ("chained/Grid.bases = ['here']", "Grid.bases says what runs start from, and so does Grid.after"),
        ("full/FinetuneSettings.keep_checkpoint = 'none'", "keeps no checkpoint"),
        ("first/Grid.methods = ['prompt']", "prompt cannot be merged"),
        ("mixed/Grid.pretrain_tokens = [-1]", "at least 0"),
        ("mixed/Grid.methods = []", "Grid.methods is empty"),
        ("Study.grids = [@nowhere/Grid()]\nnowhere/Grid.bases = ['/no/where']", "holds no checkpoint"),
    ],
)
def test_what_cannot_start_is_refused(stores, tmp_path, capsys, binding, message):
    gin_file = written(tmp_path, f"{MIXED}\n{binding}", stores)
    assert main(["study", "--gin_file", str(gin_file), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and message in error


def test_a_base_of_another_vocabulary_is_refused(finished, tmp_path, capsys):
    from tests.studies.small_study import VocabularyFile

    other = write_stores(tmp_path / "stores", finetune_vocabulary=VocabularyFile("bytes", 64))
    base = finished / "pretraining/small-both/checkpoints/640"
    text = f"Study.grids = [@Grid()]\nGrid.bases = ['{base}']"
    gin_file = written(tmp_path, text, {"finetune": other["finetune"]})
    assert main(["study", "--gin_file", str(gin_file), "--out", str(tmp_path / "out")]) == 2
    assert "was made with another vocabulary" in capsys.readouterr().err


def test_a_variant_may_differ_in_its_training_alone(stores):
    binding = "full/full_slow/FinetuneSettings.learning_rate = 0.001"
    study = parsed(COMMON + MIXED, stores, binding, "mixed/Grid.methods = ['full_slow']")
    assert "full_slow-small-p0-d8-s0" in [point.run_id for point in study.points()]
    with pytest.raises(InputError, match="no tuning method 'full_fast'"):
        parsed(COMMON + MIXED, stores, "mixed/Grid.methods = ['full_fast']").points()
