"""recommend and backtest as a person types them."""

import json

import numpy as np
import pytest

from scaling_jax.cli.main import main
from scaling_jax.decisions.pilot_fits import fit_pilot
from scaling_jax.laws.fit import Settings
from scaling_jax.laws.results import write_fits
from scaling_jax.laws.table import read_table
from tests.decisions.curves import SIZES

AT = "finetune_examples=1e6,model_params=1e8"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two methods of one model; full costs four times the memory; BLEU falls with the loss."""
    random = np.random.default_rng(0)
    lines = [
        "task,method,model,model_params,finetune_examples,loss,bleu,train_seconds,peak_memory_bytes,"
        "checkpoint_bytes,status"
    ]
    for method, (scale, beta, floor) in {"full": (25.0, 0.4, 1.0), "lora": (6.0, 0.2, 0.9)}.items():
        for size in SIZES[:8]:
            loss = (scale * size**-beta + floor) * np.exp(0.002 * random.standard_normal())
            memory = 2**32 if method == "full" else 2**30
            stored = 2**30 if method == "full" else ""
            bleu = 60 * np.exp(-0.5 * loss)
            lines.append(f"t,{method},m,1e8,{size:g},{loss:.6f},{bleu:.4f},{size:g},{memory},{stored},done")
    path = tmp_path_factory.mktemp("table") / "results.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def fits(results):
    quick = Settings(loss="squared", bootstrap=100)
    made = fit_pilot(read_table(results), {"d": "finetune_examples"}, settings=quick)
    return write_fits(results.parent / "fits.json", made)


def test_a_decision_from_fits(fits, tmp_path, capsys):
    """Costs come from the results.csv beside; what the file said before is kept."""
    out = tmp_path / "decision.json"
    out.write_text('{"crossings": [], "made_from": {"results.csv": "abc"}}')
    assert main(["recommend", str(fits), "--at", AT, "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith("At finetune_examples=1,000,000 take full: loss 1.")
    assert "twice the examples" in text and "Prior (published studies" in text
    content = json.loads(out.read_text())
    assert content["made_from"] == {"results.csv": "abc"} and content["crossings"] == []
    found = content["recommendation"]
    assert (found["choice"], found["status"]) == ("full", "clear")
    hours = found["candidates"][0]["cost"]["hours"]["value"]
    assert hours == pytest.approx(1e6 / 3600, rel=0.01)


def test_a_table_is_fitted_and_scored(results, capsys):
    arguments = ["recommend", str(results), "--at", AT, "--memory_gib", "2", "--score", "bleu", "--json"]
    assert main(arguments) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["choice"] == "lora"
    assert found["candidates"][1]["excluded_by"] == ["needs 4 GiB of memory, the limit is 2"]
    lora = found["candidates"][0]
    assert lora["score"]["low"] < 60 * np.exp(-0.5 * lora["loss"]["value"]) < lora["score"]["high"]
    assert lora["cost"]["checkpoint_mib"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--at", "finetune_examples=1e6,model_params=1e9"], "say nothing of 1e+09"),
        (["--at", "finetune_examples=many"], "must be a number"),
        (["--at", AT, "--methods", "full,laura"], "did you mean 'lora'"),
        (["--at", AT, "--memory_gib", "-3"], "above zero"),
        ([], "give --at"),
    ],
)
def test_bad_targets(fits, capsys, arguments, message):
    assert main(["recommend", str(fits), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: [rows[0], *(row for row in rows[1:] if ",200," in row)], "needs 3 at least"),
        (lambda rows: [rows[0].replace("method", "way"), *rows[1:]], "no column 'method'"),
        (lambda rows: [rows[0], *(row.replace(",done", ",failed") for row in rows[1:])], "no row"),
        (lambda rows: [*rows, *(row.replace("t,", "u,", 1) for row in rows[1:])], "several task"),
    ],
)
def test_bad_tables(results, tmp_path, capsys, change, message):
    path = tmp_path / "results.csv"
    path.write_text("\n".join(change(results.read_text().splitlines())) + "\n")
    assert main(["recommend", str(path), "--at", "finetune_examples=1e6"]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_no_method_fits(fits, capsys):
    assert main(["recommend", str(fits), "--at", AT, "--memory_gib", "0.5"]) == 2
    text = capsys.readouterr().out
    assert "no method keeps the limits; --memory_gib 1 would admit lora" in text


def test_the_prior_alone(capsys):
    assert main(["recommend", "--prior", "--task", "generation", "--examples", "2000"]) == 0
    assert "nothing was measured here): try lora" in capsys.readouterr().out
    assert main(["recommend", "--prior", "--task", "poetry", "--examples", "2000"]) == 2
    assert main(["recommend"]) == 2


def test_backtest(results, tmp_path, capsys):
    arguments = ["backtest", str(results), "--by", "method", "--ends", "1/4", "--law", "pure_power,power"]
    assert main([*arguments, "--draws", "40", "--out", str(tmp_path)]) == 0
    assert "AtS" in capsys.readouterr().out
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["backtest.json", "backtest.md", "backtest.png"]
    assert main([*arguments[:-4], "--ends", "1/0"]) == 2
    assert main([*arguments, "--select", "model"]) == 2
    assert "not one of --by" in capsys.readouterr().err
