"""A study whose workers make runs at the same time gives the table of one whose workers do not."""

import csv
import json

import pytest

from scaling_jax.cli.main import main
from scaling_jax.errors import InputError
from scaling_jax.studies.plan import Study
from scaling_jax.studies.runner import Crew, crew_for
from tests.studies.small_study import write_gin, write_stores


@pytest.mark.slow
def test_cohorts_give_the_same_table(tmp_path, capsys):
    stores = write_stores(tmp_path / "stores")
    gin_file = write_gin(tmp_path / "study.gin", stores)
    tables = {}
    for cohort in (1, 3):
        out = tmp_path / str(cohort)
        flags = [f"--gin.Study.cohort={cohort}", "--gin.Grid.models=['small_a']", "--gin.Grid.seeds=[0, 1]"]
        flags += ["--gin.Grid.methods=['full', 'lora', 'lora_attention', 'prompt']"]
        flags += ["--gin", "lora/lora_attention/lora.targets = ('attention',)"]
        flags += ["--gin.Grid.pretrain_tokens=[2560]"]
        assert main(["study", "--gin_file", str(gin_file), "--out", str(out), *flags]) == 0
        with open(out / "results.csv", newline="") as file:
            tables[cohort] = list(csv.DictReader(file))
    said = capsys.readouterr().out
    assert "each on a core of its own, one run at a time" in said
    assert "each on a core of its own, up to 3 runs of one program at a time" in said
    assert len(tables[1]) == len(tables[3]) == 4 * 3 * 2
    at_once = {"full": set(), "lora": set(), "lora_attention": set(), "prompt": set()}
    rates, trained = {}, {}
    for alone, together in zip(tables[1], tables[3], strict=True):
        assert alone["run_id"] == together["run_id"] and together["status"] == "done"
        assert float(together["loss"]) == pytest.approx(float(alone["loss"]), rel=1e-3)
        record = json.loads((tmp_path / "3" / together["record"]).read_text())
        at_once[together["method"]].add(record["costs"]["runs_at_once"])
        rates[together["method"]] = record["settings"]["learning_rate"]
        trained[together["method"]] = int(together["tuning_params"])
    assert at_once["full"] == {1} and max(at_once["lora"]) == max(at_once["prompt"]) == 3
    assert rates["lora"] == rates["lora_attention"] in (0.01, 0.1), "a variant takes its method's rate"
    assert trained["lora_attention"] < trained["lora"]


@pytest.mark.parametrize(
    ("backend", "bindings", "cores", "cohort", "said"),
    [
        ("cpu", {}, (4, 7), 1, "2 workers on CPU, each on a core of its own, one run at a time"),
        ("gpu", {}, (None,), 8, "1 worker on the accelerator, up to 8 runs of one program at a time"),
        ("tpu", {"cohort": 1}, (None,), 1, "1 worker on the accelerator, one run at a time"),
        (
            "cpu",
            {"workers": 3, "cohort": 2},
            (4, 7, 4),
            2,
            "3 workers on CPU, each on a core of its own, up to 2 runs of one program at a time",
        ),
    ],
)
def test_a_study_chooses_how_it_runs_and_says_it(backend, bindings, cores, cohort, said):
    assert crew_for(Study("one", (), **bindings), backend, (4, 7)) == Crew(cores, cohort, said)


@pytest.mark.parametrize("name", ["workers", "cohort"])
def test_fewer_than_none_is_refused(name):
    with pytest.raises(InputError, match=f"Study.{name} = -1: at least 1, or 0"):
        Study("one", (), **{name: -1})
