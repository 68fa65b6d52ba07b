"""fit, predict and compare as a person types them."""

import json

import numpy as np
import pytest

from scaling_jax.cli.main import main


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    random = np.random.default_rng(0)
    lines = ["method,model_params,pretrain_tokens,finetune_examples,loss,status,reason"]
    for method, (scale, beta) in {"full": (400.0, 0.35), "lora": (90.0, 0.15)}.items():
        for size in (1e6, 4e6, 1.6e7):
            for tokens in (1e6, 2e6):
                for examples in (0, 100, 1000, 10000, 100000):
                    loss = scale * size**-0.3 * max(examples, 10) ** -beta + 0.8
                    loss *= np.exp(0.003 * random.standard_normal())
                    lines.append(f"{method},{size:g},{tokens:g},{examples},{loss:.6f},done,")
    lines.append("lora,1e6,1e6,50,,diverged,loss not finite")
    path = tmp_path_factory.mktemp("table") / "results.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def fit_arguments(results, where="pretrain_tokens == 1e6 and finetune_examples > 0"):
    columns = ["--x", "model_params", "--d", "finetune_examples", "--y", "loss"]
    quick = ["--by", "method", "--bootstrap", "64"]
    return [
        "fit",
        str(results),
        "--law",
        "multiplicative",
        *columns,
        *quick,
        *(["--where", where] if where else []),
    ]


@pytest.fixture(scope="module")
def fits(results, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fits")
    hold_out = ["--hold_out", "model_params >= 1e7"]
    assert main([*fit_arguments(results), *hold_out, "--out", str(folder)]) == 0
    return folder


def test_fit_writes_fits_and_pictures(fits, capsys):
    assert len(json.loads((fits / "fits.json").read_text())) == 2
    pictures = sorted(path.name for path in fits.glob("*.png"))
    assert pictures == ["00_multiplicative_full.png", "01_multiplicative_lora.png"]
    assert (fits / pictures[0]).read_bytes().startswith(b"\x89PNG")


def test_fit_prints_a_table_that_names_what_was_dropped(results, capsys):
    assert main(fit_arguments(results)) == 0
    text = capsys.readouterr().out
    assert "L = A * X^-alpha * D^-beta + E    [method=full]" in text
    assert "12 rows fitted, 0 held out, 1 dropped (1 diverged: loss not finite)" in text
    assert "90% interval" in text


def test_json_is_what_is_written(results, capsys):
    assert main([*fit_arguments(results), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [entry["group"]["method"] for entry in content] == ["full", "lora"]


def test_predict(fits, capsys):
    at = "model_params=1.6e7,finetune_examples=1e4"
    assert main(["predict", str(fits), "--at", at, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["group"]["method"] for row in rows] == ["full", "lora"]
    for row in rows:
        assert row["low"] <= row["loss"] <= row["high"]
        assert row["extrapolates"]
    assert main(["predict", str(fits / "fits.json"), "--at", f"{at},method=lora"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and "method=lora" in lines[1]


def test_compare(fits, capsys):
    assert main(["compare", str(fits), "--methods", "full,lora", "--at", "model_params=4e6"]) == 0
    text = capsys.readouterr().out
    assert "lora is better below" in text
    at = "model_params=4e6,finetune_examples=100000"
    assert main(["compare", str(fits), "--at", at, "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    # (400 / 90)^(1 / 0.2): the two laws differ in nothing but A and beta.
    assert entry["crossings"][0]["size"] == pytest.approx((400 / 90) ** 5, rel=0.3)
    assert entry["difference"]["value"] < 0


def columns_of(results, *more):
    return [
        "fit",
        str(results),
        "--x",
        "model_params",
        "--d",
        "finetune_examples",
        "--bootstrap",
        "64",
        *more,
    ]


def test_several_laws_are_compared(results, tmp_path, capsys):
    where = ["--where", "pretrain_tokens == 1e6 and finetune_examples > 0", "--by", "method"]
    laws = ["--law", "multiplicative,additive", "--hold_out_largest", "d"]
    assert main(columns_of(results, *where, *laws, "--out", str(tmp_path))) == 0
    text = capsys.readouterr().out
    assert text.count("Which law?") == 2
    assert "held out: finetune_examples >= 100000.0" in text
    choices = json.loads((tmp_path / "choice.json").read_text())
    assert {score["law"] for score in choices[0]["scores"]} == {"multiplicative", "additive"}
    assert len(json.loads((tmp_path / "fits.json").read_text())) == 4
    assert len(list(tmp_path.glob("*.png"))) == 4
    assert main(columns_of(results, *where, "--law", "multiplicative", "--rolling", "d", "--json")) == 0
    content = json.loads(capsys.readouterr().out)
    assert list(content["choices"][0]["scores"][0]["by_size"]) == ["100000.0"]


def test_parameters_are_shared_by_groups(results, capsys):
    where = ["--where", "finetune_examples > 0 and method == 'full'", "--by", "pretrain_tokens"]
    assert main(columns_of(results, *where, "--law", "multiplicative", "--share", "beta,E", "--json")) == 0
    one, two = json.loads(capsys.readouterr().out)
    assert one["parameters"]["beta"] == two["parameters"]["beta"]
    assert one["parameters"]["A"] != two["parameters"]["A"]
    assert one["shared"] == ["beta", "E"]


def test_the_joint_recipe_prints_table_4(results, tmp_path, capsys):
    arguments = ["fit", str(results), "--recipe", "joint", "--residual", "linear", "--bootstrap", "64"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    rows = [line.split()[0] for line in text.splitlines() if line.strip()]
    assert rows[:8] == ["full", "A_m", "alpha_m", "A_p", "alpha_p", "beta", "E", "m"]
    fits = json.loads((tmp_path / "fits.json").read_text())
    assert [fit["group"]["factor"] for fit in fits] == ["model_size", "pretraining"] * 2
    assert len(list(tmp_path.glob("*.png"))) == 4
    at = "model_params=4e6,finetune_examples=1e4,factor=model_size"
    assert main(["predict", str(tmp_path), "--at", at]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_losses_residuals_and_intervals(results, capsys):
    where = ["--where", "pretrain_tokens == 1e6 and finetune_examples > 0", "--by", "method"]
    how = ["--loss", "squared", "--residual", "linear", "--intervals", "rows", "--level", "0.95"]
    assert main(columns_of(results, *where, *how, "--law", "multiplicative")) == 0
    text = capsys.readouterr().out
    assert "95% interval" in text and "sum of squares" in text and "intervals: rows, 64 draws" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --law, or --recipe joint"),
        (["--law", "power", "--recipe", "joint"], "give --law, or --recipe joint"),
        (["--recipe", "joint"], "leave out --x"),
        (
            ["--law", "multiplicative", "--rolling", "z"],
            "'z' is no role of the fit; there are x (model_params)",
        ),
        (["--law", "multiplicative", "--hold_out_largest", "d=x"], "is not ROLE or ROLE=N"),
        (["--law", "multiplicative,additive"], "add --hold_out"),
        (["--law", "multiplicative,additive", "--share", "E"], "several laws are compared without it"),
        (["--law", "multiplicative", "--rolling", "d", "--hold_out", "d > 1"], "--rolling chooses"),
        (["--law", "multiplicative", "--share", "E"], "--share needs --by"),
        (["--law", "multiplicative", "--level", "1"], "the level between 0 and 1"),
        (["--law", "multiplicative", "--weights", "los"], "did you mean 'loss'"),
    ],
)
def test_flags_that_make_no_sense(results, capsys, arguments, message):
    where = ["--where", "pretrain_tokens == 1e6 and finetune_examples > 0 and method == 'full'"]
    assert main(columns_of(results, *where, *arguments)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_compare_between_another_column(results, tmp_path, capsys):
    where = ["--where", "finetune_examples > 0 and method == 'full'", "--by", "pretrain_tokens"]
    assert main(columns_of(results, *where, "--law", "multiplicative", "--out", str(tmp_path))) == 0
    capsys.readouterr()
    at = ["--at", "model_params=4e6"]
    assert main(["compare", str(tmp_path), "--between", "pretrain_tokens", *at]) == 0
    assert "1e+06 and 2e+06" in capsys.readouterr().out
    assert main(["compare", str(tmp_path), *at]) == 2
    assert "no fit has 'method' in its group" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("verb", "message"),
    [
        (["--where", "finetune_examples > 0"], "'pretrain_tokens' varies in the group method=full"),
        (["--where", "pretrain_tokens == 1e6"], "leave such rows out with --where 'finetune_examples > 0'"),
        (["--where", "open('x')"], "can be called"),
        (["--law", "cubic"], "no law is named 'cubic'"),
        (["--column", "z"], "is not ROLE=COLUMN"),
        (["--derive", "loss = 1"], "already has a column"),
        (["--y", "los"], "did you mean 'loss'"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(results, capsys, verb, message):
    assert main([*fit_arguments(results), *verb]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_fits_do_not_land_in_a_study(results, tmp_path, capsys):
    (tmp_path / "study.json").write_text("{}")
    assert main([*fit_arguments(results), "--out", str(tmp_path)]) == 2
    assert "holds a study" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "FITS", "--at", "model_parms=1,finetune_examples=1"], "did you mean 'model_params'"),
        (["predict", "FITS", "--at", "model_params=1"], "needs 'finetune_examples'"),
        (["predict", "FITS", "--at", "model_params"], "is not COLUMN=VALUE"),
        (["predict", "FITS", "--at", "model_params=x,finetune_examples=1"], "must be"),
        (["predict", "FITS", "--at", "method=prompt,model_params=1,finetune_examples=1"], "no fit in"),
        (["predict", "nowhere.json", "--at", "a=1"], "cannot read nowhere.json"),
        (["compare", "FITS", "--methods", "full,lor"], "did you mean 'lora'"),
        (["compare", "FITS"], "needs 'model_params'"),
        (["compare", "FITS", "--at", "model_params=1e6", "--range", "x"], "is not LOW,HIGH"),
    ],
)
def test_bad_predict_and_compare(fits, capsys, arguments, message):
    assert main([str(fits) if part == "FITS" else part for part in arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
