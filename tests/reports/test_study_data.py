"""What a study folder must hold for a report, and what is said when it does not."""

import pytest

from scaling_jax import files
from scaling_jax.errors import InputError
from scaling_jax.reports.study_data import read_fits, read_runs, read_study
from tests.reports import simulated_study


def _write(path, table):
    simulated_study.write_results(path, table)
    return path


def test_rows_keep_what_was_measured_and_nothing_else(tmp_path):
    runs = read_runs(_write(tmp_path / "results.csv", simulated_study.rows()))
    assert runs[1].loss == pytest.approx(float(simulated_study.rows()[1]["loss"]))
    assert runs[0].status == "diverged" and "loss" not in runs[0].numbers
    assert runs[0].line == 2


@pytest.mark.parametrize(
    ("column", "cell", "said"),
    [
        ("loss", "fast", "3: column 'loss': 'fast' is not a number"),
        ("finetune_examples", "-5", "3: column 'finetune_examples': '-5'; a size is zero or above"),
        ("pretrain_tokens", "nan", "a size is zero or above"),
    ],
)
def test_a_bad_cell_is_named_by_line_and_column(tmp_path, column, cell, said):
    table = simulated_study.rows()
    table[1][column] = cell
    with pytest.raises(InputError, match=said):
        read_runs(_write(tmp_path / "results.csv", table))


def test_a_missing_column_is_named_with_the_nearest_one(tmp_path):
    path = _write(tmp_path / "results.csv", simulated_study.rows())
    path.write_text(path.read_text().replace("finetune_examples", "finetuning_examples", 1))
    with pytest.raises(InputError, match="no column 'finetune_examples'; did you mean 'finetuning_examples'"):
        read_runs(path)


def test_a_short_row_is_refused(tmp_path):
    path = _write(tmp_path / "results.csv", simulated_study.rows())
    path.write_text(path.read_text() + "lonely,cell\n")
    with pytest.raises(InputError, match="another number of cells"):
        read_runs(path)


@pytest.mark.parametrize("missing", ["study.json", "results.csv", "fits.json"])
def test_a_missing_file_is_named(tmp_path, missing):
    study = simulated_study.write_study(tmp_path / "study")
    files.write_json(study / "fits.json", [])
    (study / missing).unlink()
    with pytest.raises(InputError, match=missing):
        read_study(study)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_study(tmp_path / "nothing")


def test_fits_must_be_a_list_of_objects(tmp_path):
    files.write_json(tmp_path / "fits.json", {"fits": [1]})
    with pytest.raises(InputError, match="not a list of fits"):
        read_fits(tmp_path / "fits.json")


def test_facts_come_from_the_finetuning_store(tmp_path):
    study = simulated_study.write_study(tmp_path / "study")
    files.write_json(study / "fits.json", [])
    assert read_study(study).facts["entropy_per_target_token"]["test"] == simulated_study.ENTROPY
