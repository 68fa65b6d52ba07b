"""`scaling-jax report`: what it writes, prints, keeps and refuses."""

import re

import pytest

from scaling_jax import files
from scaling_jax.cli import main as command_line
from scaling_jax.reports import build, update
from tests.reports import simulated_study


@pytest.fixture
def study(tmp_path):
    return simulated_study.write_study(tmp_path / "study")


@pytest.fixture
def counted(monkeypatch):
    """Fits written down in place of fitting, and how often they were asked for."""
    calls = []

    def fit_study(table, hold_out, bootstrap, size_column, further_laws):
        assert size_column == "non_embedding_params" and further_laws == ()
        calls.append((len(table), hold_out, bootstrap))
        return simulated_study.made_fits()

    monkeypatch.setattr(update, "fit_study", fit_study)
    return calls


@pytest.fixture
def quick_page(monkeypatch):
    """An empty page in place of a drawn one, for tests of when and where it is written."""
    monkeypatch.setattr(build, "build_report", lambda study, out: files.write_text(out, "a page"))


def _report(*arguments):
    return command_line.main(["report", *map(str, arguments)])


def test_the_first_call_writes_everything_and_says_where(study, counted, capsys):
    assert _report(study, "--bootstrap", 50) == 0
    printed = capsys.readouterr().out
    assert counted == [(250, simulated_study.HOLD_OUT, 50)]
    assert re.search(r"lora: multiplicative by model_size", printed) and "nearest neighbour" in printed
    assert "Critical finetuning sizes" in printed and "unchanged" not in printed
    assert printed.rstrip().endswith(f"report: {study / 'report.html'}")
    decision = files.read_json(study / "decision.json")
    assert decision["made_from"]["results.csv"] == files.sha256(study / "results.csv")
    assert len(files.read_json(study / "fits.json")) == 12
    assert (study / "report.html").is_file() and (study / "figures" / "entropy.png").is_file()


def test_a_second_call_fits_and_draws_nothing_and_prints_the_same(study, counted, quick_page, capsys):
    _report(study)
    first = capsys.readouterr().out
    before = (study / "report.html").stat().st_mtime_ns
    assert _report(study) == 0
    second = capsys.readouterr().out
    assert len(counted) == 1 and (study / "report.html").stat().st_mtime_ns == before
    assert "unchanged" in second and second.replace(second[second.index("\nresults.csv") :], "") in first


@pytest.mark.parametrize("name", ["results.csv", "study.json", "fits.json"])
def test_a_change_of_any_input_is_noticed(study, counted, quick_page, name):
    _report(study)
    with open(study / name, "a", encoding="utf-8") as file:
        file.write("\n")
    _report(study)
    assert len(counted) == 2


def test_other_resamples_are_other_fits_and_a_lost_page_is_drawn_again(study, counted, quick_page):
    _report(study, "--bootstrap", 50)
    _report(study, "--bootstrap", 60)
    assert [call[2] for call in counted] == [50, 60]
    (study / "report.html").unlink()
    _report(study, "--bootstrap", 60)
    assert len(counted) == 2 and (study / "report.html").is_file()


def test_the_page_goes_where_it_is_asked_for(study, counted, tmp_path):
    assert _report(study, "--out", tmp_path / "elsewhere" / "page.html") == 0
    assert (tmp_path / "elsewhere" / "page.html").is_file() and (tmp_path / "elsewhere" / "figures").is_dir()
    assert not (study / "report.html").exists() and (study / "fits.json").is_file()


def test_bad_input_is_one_line_and_exit_code_two(study, tmp_path, capsys):
    cases = [(tmp_path / "nothing", "is not a folder"), (tmp_path, "has no results.csv")]
    text = (study / "results.csv").read_text("utf-8")
    for name, change, said in (
        ("column", text.replace("finetune_examples", "examples", 1), "no column 'finetune_examples'"),
        ("number", text.replace(",16000,", ",many,", 1), "'many' is not a number"),
        ("none", "\n".join(text.splitlines()[:2]) + "\n", "no row"),
    ):
        folder = tmp_path / name
        files.write_text(folder / "results.csv", change)
        files.write_json(folder / "study.json", files.read_json(study / "study.json"))
        cases.append((folder, said))
    for folder, said in cases:
        assert _report(folder) == 2, folder
        printed = capsys.readouterr().err
        assert said in printed and printed.count("\n") == 1, printed


@pytest.mark.slow
def test_the_whole_way_with_real_fits(tmp_path, capsys):
    study = simulated_study.write_study(tmp_path / "study")
    assert _report(study, "--bootstrap", 40) == 0
    fits = {
        (fit["factor"], fit["law"], fit["group"]["method"]): fit
        for fit in files.read_json(study / "fits.json")
    }
    for method, (_, _, alpha, _, beta) in simulated_study.LAWS.items():
        found = fits["model_size", "multiplicative", method]
        assert found["parameters"]["alpha"] == pytest.approx(alpha, abs=0.06)
        assert found["parameters"]["beta"] == pytest.approx(beta, abs=0.04)
        assert found["errors"]["held_out_mad"] < found["errors"]["nearest_neighbour_mad"] / 2
    assert "full tuning beyond" in (study / "report.html").read_text("utf-8")
