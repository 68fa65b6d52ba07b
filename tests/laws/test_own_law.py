"""A law in a user's own file, by the command line alone: the example of docs/laws.md."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from scaling_jax.cli.main import main
from scaling_jax.laws.law import find_law
from scaling_jax.laws.results import read_fits

FILE = Path(__file__).parents[2] / "docs" / "examples" / "repeated_epochs.py"
LAW = f"{FILE}:repeated_epochs"
COLUMNS = ["--column", "n=params", "--column", "u=unique_tokens", "--column", "epochs=epochs"]
TRUTH = {"A": 480.0, "B": 2100.0, "alpha": 0.35, "beta": 0.37, "R": 15.0, "E": 1.8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The simulated runs that the example's file prints."""
    path = tmp_path_factory.mktemp("own_law") / "runs.csv"
    printed = subprocess.run([sys.executable, FILE], capture_output=True, text=True, check=True)
    path.write_text(printed.stdout)
    return path


@pytest.fixture(scope="module")
def fitted(runs):
    out = runs.parent / "fits"
    how = ["--bootstrap", "300", "--level", "0.99", "--out", str(out)]
    assert main(["fit", str(runs), "--law", LAW, *COLUMNS, *how]) == 0
    return out


def test_the_truth_is_in_the_intervals(fitted):
    (fit,) = read_fits(fitted)
    assert fit.rows == {"fitted": 120, "held_out": 0, "dropped": 0}
    assert fit.status == "identified"
    for name, value in TRUTH.items():
        low, high = fit.intervals[name]
        assert low < value < high, name
    # Such data say much of R and beta: the interval is of use.
    assert fit.intervals["R"][1] < 1.4 * fit.intervals["R"][0]
    # The noise is 0.5% of the loss.
    assert fit.errors["fitted_rmsd_log"] == pytest.approx(0.005, rel=0.2)


def test_fits_json_names_the_file_and_the_columns(fitted):
    (content,) = json.loads((fitted / "fits.json").read_text())
    assert content["law"] == LAW
    assert content["columns"] == {"n": "params", "u": "unique_tokens", "epochs": "epochs", "y": "loss"}
    assert content["fitted_range"]["epochs"] == [1.0, 100.0]


def test_a_picture_is_drawn(fitted):
    (picture,) = fitted.glob("*.png")
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert "repeated_epochs" in picture.name


def test_prediction_from_the_file(fitted, capsys):
    at = "params=1e9,unique_tokens=1e9,epochs=50"
    assert main(["predict", str(fitted), "--at", at, "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    truth = find_law(LAW).predict(TRUTH, {"n": 1e9, "u": 1e9, "epochs": 50.0})
    assert row["low"] < truth < row["high"]
    assert row["high"] - row["low"] < 0.02 * truth
    assert row["extrapolates"] == []
    assert main(["predict", str(fitted), "--at", "params=1e9,unique_tokens=1e9,epochs=500", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["extrapolates"] == ["epochs outside the fitted 1 to 100"]


def test_its_limits():
    law = find_law(LAW)
    at = {"n": 1e9, "u": 1e9}
    hoffmann = find_law("additive").predict(TRUTH, {"x": 1e9, "d": 1e9})
    assert law.predict(TRUTH, {**at, "epochs": 1.0}) == pytest.approx(hoffmann, rel=1e-12)
    # Repeated for ever, data are worth 1 + R times themselves.
    most = find_law("additive").predict(TRUTH, {"x": 1e9, "d": 16e9})
    assert law.predict(TRUTH, {**at, "epochs": 1e6}) == pytest.approx(most, rel=1e-12)


def test_a_pre_learned_size_that_does_not_move():
    own = find_law(f"{FILE.parent / 'moving_pre_learned.py'}:moving_pre_learned")
    truth = {"A": 5000.0, "alpha": 0.26, "beta": 0.28, "E": 1.1}
    at = {"x": np.array([1e8, 1e9, 1e10]), "d": np.array([[200.0], [1e6]])}
    expected = find_law("rectified_multiplicative").predict({**truth, "D_l": 14.0}, at)
    assert own.predict({**truth, "D_1": 14.0, "gamma": 0.0}, at) == pytest.approx(expected, rel=1e-12)
    # With gamma above 0 the larger model has the longer flat start.
    moved = own.predict({**truth, "D_1": 14.0, "gamma": 0.2}, at)
    assert np.all((moved < expected) == np.array([False, False, True]))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("def law(:\n", "law", "cannot be imported (SyntaxError"),
        ("import no_such_module\n", "law", "cannot be imported (ModuleNotFoundError"),
        ("law = 3\n", "law", "holds no Law named 'law'"),
        (FILE.read_text(), "repeated_epoch", "did you mean 'repeated_epochs'?"),
        (FILE.read_text().replace('linear=("A", "B", "E")', 'linear=("A", "C")'), "law", "['C'] are not"),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, runs, capsys, content, name, message):
    path = tmp_path / "broken.py"
    path.write_text(content)
    assert main(["fit", str(runs), "--law", f"{path}:{name}", *COLUMNS]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(path) in error and message in error


def test_a_column_that_is_not_given_is_named(runs, capsys):
    assert main(["fit", str(runs), "--law", LAW, *COLUMNS[:-2]]) == 2
    assert "--column epochs=COLUMN (how often each was seen" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "def terms(p, logs):\n    return -p['b'] * logs['d'], 0.0\n",
            "log_terms takes (parameters, logs, array)",
        ),
        ("def terms(p, logs, array):\n    return -p['c'] * logs['d'], 0.0\n", "KeyError: 'c'"),
        (
            "def terms(p, logs, array):\n    return (-p['b'] * logs['d'],)\n",
            "cannot be evaluated (ValueError",
        ),
        (
            "def terms(p, logs, array):\n"
            "    return (-p['b'] if float(p['b'][0]) > 0 else p['b']) * logs['d'], 0.0\n",
            "no `if` on values",
        ),
    ],
)
def test_a_slip_in_a_law_is_one_line(tmp_path, capsys, body, message):
    path = tmp_path / "mine.py"
    path.write_text(
        "from scaling_jax.laws.law import Law, Parameter\n"
        + body
        + "mine = Law('mine', 'L = A / D^b + E', 'a test', (('d', 'size'),),\n"
        "    (Parameter('A', 'scale'), Parameter('b', 'exponent', 0.0, 4.0), Parameter('E', 'floor')),\n"
        "    linear=('A', 'E'), log_terms=terms)\n"
    )
    table = tmp_path / "t.csv"
    table.write_text("d,loss\n" + "".join(f"{d},{12 * d**-0.2 + 0.7}\n" for d in (10, 100, 1000, 1e4, 1e5)))
    assert main(["fit", str(table), "--law", f"{path}:mine", "--d", "d", "--bootstrap", "20"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_own_law_beside_one_of_ours(tmp_path, capsys):
    """Also one with the name of one of ours: it is found by its file."""
    path = tmp_path / "same.py"
    path.write_text(
        "from scaling_jax.laws.law import Law, Parameter, register\n"
        "mine = register(Law('mine', 'L = A * D^-b', 'a test', (('d', 'size'),),\n"
        "    (Parameter('A', 'scale'), Parameter('b', 'exponent', 0.0, 4.0)), linear=('A',),\n"
        "    log_terms=lambda p, logs, array: (-p['b'] * logs['d'],)))\n"
    )
    table = tmp_path / "t.csv"
    sizes = [10 * 2**k for k in range(12)]
    table.write_text("d,loss\n" + "".join(f"{d},{12 * d**-0.2 * (1 + 0.002 * (d % 3))}\n" for d in sizes))
    arguments = ["fit", str(table), "--law", f"{path}:mine,power", "--d", "d", "--bootstrap", "40"]
    assert main([*arguments, "--hold_out_largest", "d=3"]) == 0
    text = capsys.readouterr().out
    assert "mine" in text.split("Which law?")[1] and str(path) not in text.split("Which law?")[1]
    assert main([*arguments, "--rolling", "d", "--json"]) == 0
