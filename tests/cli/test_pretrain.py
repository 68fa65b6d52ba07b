"""The verb `pretrain` as its documentation shows it: the shipped gin file, from any folder."""

import json

import pytest

from scaling_jax.cli.main import main
from scaling_jax.data.store import VocabularyFile
from scaling_jax.training import checkpoints
from tests.training.test_pretraining import write_windows


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stores")
    return {"en": write_windows(folder / "en", 10), "de": write_windows(folder / "de", 30)}


def arguments(out, *bindings):
    flags = [f"--gin.{binding}" for binding in ("PretrainSettings.batch_size=4", *bindings)]
    return ["pretrain", "--gin_file", "gin_configs/runs/pretrain.gin", "--out", str(out), *flags]


def test_a_t5_on_a_mixture_by_span_corruption(stores, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = arguments(
        "base",
        "MODEL=t5_ladder_65k",
        f"STORE={stores}",
        "TOKENS=(0, 1280)",
        "MIXTURE={'en': 0.3, 'de': 0.7}",
        "OBJECTIVE=@span_corruption()",
        "PretrainSettings.steps_per_call=10",
    )
    assert main(given) == 0
    shown = capsys.readouterr().out
    assert "base/checkpoints/0: 0 tokens" in shown and "base/checkpoints/1280: 1,280 tokens" in shown
    record = json.loads((tmp_path / "base/record.json").read_text())
    assert record["data"]["windows"] == {"de": 56, "en": 24}
    assert {"dev_loss", "dev_loss_de", "dev_loss_en"} < record["metrics"][-1].keys()
    assert checkpoints.about(tmp_path / "base/checkpoints/1280")["objective"]["name"] == "span_corruption"
    assert main(given) == 0 and "nothing redone" in capsys.readouterr().out


def test_a_recipe_by_the_name_of_its_scope(stores, tmp_path):
    given = arguments(
        tmp_path / "base",
        "MODEL=ladder_25k",
        f"STORE={stores}",
        "TOKENS=(0,)",
        "PretrainRun.mixture=mostly_de",
        "mostly_de/PretrainSettings.mixture={'en': 0.25, 'de': 0.75}",
    )
    assert main(given) == 0
    record = json.loads((tmp_path / "base/record.json").read_text())
    assert record["data"]["mixture"] == {"de": 0.75, "en": 0.25} and record["status"] == "done"


@pytest.mark.parametrize(
    ("bindings", "says"),
    [
        (
            ["TOKENS=128000"],
            "PretrainRun.tokens = %TOKENS = 128000: a list (a whole number) is needed, such as (128000,)",
        ),
        (["TOKENS=(64,)", "OBJECTIVE=@ul2()"], "@ul2() needs 6 extra ids"),
        (["TOKENS=(64,)", "MODEL=t5_ladder_65k"], "@causal_lm() leaves an encoder nothing to read"),
        (["TOKENS=(64000,)"], "pretraining asks for 64,000 tokens"),
        (["TOKENS=(64,)", "PretrainSettings.objective=@ul2"], "write @ul2(), with its parentheses"),
        (
            ["TOKENS=(64,)", "span_corruption.rate=2", "OBJECTIVE=@span_corruption()"],
            "span_corruption.rate = 2",
        ),
    ],
)
def test_what_cannot_be_pretrained_is_one_line(stores, tmp_path, capsys, bindings, says):
    plain = write_windows(tmp_path / "plain", 10, vocabulary=VocabularyFile("bytes", 48))
    given = arguments(tmp_path / "base", "MODEL=ladder_25k", f"STORE={plain}", *bindings)
    assert main(given) == 2
    error = capsys.readouterr().err.strip()
    assert says in error and len(error.splitlines()) == 1
    assert not (tmp_path / "base").exists(), "so that the corrected command may have the same --out"
