"""One study made by several machines: in parts, in one folder, or every run by several processes."""

import csv
import signal

import pytest

from scaling_jax.studies.results import COST_COLUMNS
from tests.studies.small_study import write_gin, write_stores
from tests.training import several

pytestmark = pytest.mark.slow
SMALL = (
    "Study.learning_rates=None",
    "Study.workers=1",
    "Grid.pretrain_tokens=[1280]",
    "Grid.finetune_examples=[8, 16]",
    "Grid.methods=['full', 'lora']",
)


@pytest.fixture(scope="module")
def gin_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared")
    return write_gin(folder / "study.gin", write_stores(folder / "stores"))


def command(gin_file, out, *flags):
    bindings = [f"--gin.{binding}" for binding in SMALL]
    return ["study", "--gin_file", str(gin_file), *bindings, *flags, "--out", str(out)]


@pytest.fixture(scope="module")
def whole(gin_file, tmp_path_factory):
    """Rows of the study made by one machine."""
    out = tmp_path_factory.mktemp("whole") / "study"
    finished(several.start(command(gin_file, out), devices=1))
    return rows(out)


def finished(started):
    """What they printed; all must have ended well."""
    texts = []
    for code, out, error in several.ended(started):
        assert code == 0, f"{out[-1500:]}\n{error[-3000:]}"
        texts.append(out)
    return texts


def rows(study):
    with open(study / "results.csv", newline="") as file:
        return [{k: v for k, v in row.items() if k not in COST_COLUMNS} for row in csv.DictReader(file)]


def test_parts_made_at_the_same_time_are_the_study(gin_file, whole, tmp_path):
    out = tmp_path / "study"
    parts = [several.start(command(gin_file, out, f"--shard={i}/2"), devices=1)[0] for i in (1, 2)]
    said = finished(parts)
    assert sum("results.csv: 8 done" in text for text in said) >= 1, "who ended last wrote the table"
    assert rows(out) == whole
    made = [int(text.split(" made now")[0].split()[-1]) for text in said]
    assert sum(made) == 8 and min(made) > 0
    assert {path.name for path in out.glob("plan*.json")} == {"plan-1-of-2.json", "plan-2-of-2.json"}


def test_parts_made_apart_are_collected(gin_file, whole, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for index, out in ((1, one), (2, two)):
        (said,) = finished(several.start(command(gin_file, out, f"--shard={index}/2"), devices=1))
        assert "have not ended" in said or "are not made" in said
        assert not (out / "results.csv").exists()
    for folder in ("runs", "pretraining"):
        for run in (two / folder).iterdir():
            if not (one / folder / run.name).exists():
                run.rename(one / folder / run.name)
    (said,) = finished(several.start(command(gin_file, one), devices=1))
    assert "0 made now" in said
    assert rows(one) == whole


def test_two_processes_make_every_run_together(gin_file, whole, tmp_path):
    out = tmp_path / "study"
    arguments = command(gin_file, out)
    first, second = several.start(arguments, processes=2, devices=1)
    for line in first.stdout:
        if "3/" in line:  # some runs are made
            break
    second.send_signal(signal.SIGTERM)
    assert [code for code, _, _ in several.ended([first, second])] == [143, 143]
    assert not (out / "results.csv").exists()
    said = finished(several.start(arguments, processes=2, devices=1))
    assert "results.csv: 8 done" in said[0]
    # Of the second process there are Gloo's own lines alone.
    assert [line for line in said[1].splitlines() if not line.startswith("[Gloo]")] == []
    for found, wanted in zip(rows(out), whole, strict=True):
        for name in ("run_id", "status", "steps", "tuning_params"):
            assert found[name] == wanted[name]
        for name in ("loss", "dev_loss"):
            assert float(found[name]) == pytest.approx(float(wanted[name]), rel=1e-4)
