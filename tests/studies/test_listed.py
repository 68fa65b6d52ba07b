"""A study whose runs are a list in a file."""

import dataclasses
import json

import pytest

from scaling_jax import configuration, files
from scaling_jax.errors import InputError
from scaling_jax.studies.listed import ListedRun, ListedRuns, read_runs, write_runs
from scaling_jax.studies.plan import Study, claim_folder
from tests.interop import cases

CONFIGURABLES = ["scaling_jax.studies.configurables"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """What a checkpoint says of itself; its arrays are not asked for."""
    folder = tmp_path_factory.mktemp("bases") / "small"
    about = {"kind": "pretrained", "hash": "h", "vocabulary_sha256": "bytes-48", "pretrain_tokens": 64}
    files.write_json(folder / "about.json", about | {"model": dataclasses.asdict(cases.CASES["own_decoder"])})
    return str(folder)


def test_runs_are_points_and_may_be_added(base, tmp_path):
    runs = [ListedRun(base, "lora", 8, 0), ListedRun(base, "full", 16, 1)]
    write_runs(tmp_path / "runs.json", runs)
    assert read_runs(tmp_path / "runs.json") == runs
    configuration.parse(
        [],
        ["Study.name=s", "Study.grids=[@ListedRuns()]", f"ListedRuns.file={tmp_path / 'runs.json'}"],
        imports=CONFIGURABLES,
    )
    study = configuration.call(Study)
    assert [point.run_id for point in study.points()] == ["lora-own-p64-d8-s0", "full-own-p64-d16-s1"]
    assert study.bases() == [base]
    claim_folder(tmp_path / "study", study)
    write_runs(tmp_path / "runs.json", [*runs, ListedRun(base, "full", 16, 2)])
    claim_folder(tmp_path / "study", configuration.call(Study))
    assert len(configuration.call(Study).points()) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"base": "b", "method": "full"}]', "a list of objects with base, method, finetune_examples, seed"),
        ("[3]", "a list of objects"),
        ("[", "not JSON"),
    ],
)
def test_a_list_that_cannot_be_read(tmp_path, content, message):
    (tmp_path / "runs.json").write_text(content)
    with pytest.raises(InputError, match=message):
        ListedRuns(str(tmp_path / "runs.json")).points()


def test_no_examples_are_refused(base, tmp_path):
    entry = {"base": base, "method": "full", "finetune_examples": 0, "seed": 0}
    (tmp_path / "runs.json").write_text(json.dumps([entry]))
    with pytest.raises(InputError, match="run 0 has 0 examples"):
        ListedRuns(str(tmp_path / "runs.json")).points()
