"""Gin errors that say what would be right."""

import gin
import pytest

from scaling_jax import configuration
from scaling_jax.data.objectives.causal_lm import CausalLM
from scaling_jax.data.objectives.span_corruption import SpanCorruption
from scaling_jax.errors import InputError
from scaling_jax.models.families import named_model
from scaling_jax.training.finetune import settings_for
from scaling_jax.training.pretrain import PretrainRun, PretrainSettings
from scaling_jax.training.schedules import Schedule
from scaling_jax.tuning.method import named_method

CONFIGURABLES = ["scaling_jax.studies.configurables"]


def parse(*bindings, files=(), **more):
    configuration.parse(list(files), list(bindings), imports=CONFIGURABLES, **more)


@pytest.mark.parametrize(
    ("binding", "says"),
    [
        ("PretrainSetting.batch_size=3", "PretrainSetting.*did you mean 'PretrainSettings'"),
        ("PretrainSettings.batch_sise=3", "batch_sise.*did you mean 'batch_size'"),
        ("lora.ranks=3", "ranks.*did you mean 'rank'"),
        ("PretrainSettings.schedule=@Schedul()", "Schedul.*did you mean 'Schedule'"),
        ("PretrainSettings.schedule=[@Schedul()]", "Schedul.*did you mean 'Schedule'"),
        ("PretrainSettings.batch_size", "write NAME=VALUE"),
        (
            "PretrainSettings.batch_size=%BATCH_SIZE",
            "macro %BATCH_SIZE is used and never set: add BATCH_SIZE = VALUE",
        ),
    ],
)
def test_names_that_do_not_exist(binding, says):
    with pytest.raises(InputError, match=says) as caught:
        parse(binding)
    assert "\n" not in str(caught.value)


def test_a_misspelt_gin_file_has_a_near_one():
    for asked in ("gin_configs/runs/finetnue.gin", "finetune.gin"):
        with pytest.raises(InputError, match="did you mean 'gin_configs/runs/finetune.gin'"):
            configuration.parse([asked])


def test_the_same_in_a_file(tmp_path):
    file = tmp_path / "run.gin"
    file.write_text("PretrainSettings.batch_sise = 3\n")
    with pytest.raises(InputError, match="run.gin: .*batch_sise.*did you mean 'batch_size'"):
        parse(files=[str(file)])
    file.write_text("PretrainSettings.batch_size = [3\n")
    with pytest.raises(InputError, match="run.gin"):
        parse(files=[str(file)])
    file.write_text("include 'nowhere.gin'\n")
    with pytest.raises(InputError, match="nowhere.gin"):
        parse(files=[str(file)])
    with pytest.raises(InputError, match="no gin file nowhere.gin: looked in the working folder, /here"):
        parse(files=["nowhere.gin"], search_paths=["/here"])


def test_search_paths_and_order_of_bindings(tmp_path):
    (tmp_path / "a.gin").write_text(
        "PretrainSettings.batch_size = 3\nPretrainSettings.epochs = %EPOCHS\nEPOCHS = 2\n"
    )
    parse("PretrainSettings.batch_size = 5", "EPOCHS=4", files=["a.gin"], search_paths=[str(tmp_path)])
    assert (PretrainSettings().batch_size, PretrainSettings().epochs) == (5, 4)
    parse("EPOCHS=1")
    assert PretrainSettings().batch_size == 32, "nothing stays of an earlier parse"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("cosine", "cosine"),
        ("some text with spaces", "some text with spaces"),
        ("/data/it's here.txt", "/data/it's here.txt"),
        ("3b and more", "3b and more"),
        ("[1, 2", "[1, 2"),
        ("'quoted'", "quoted"),
        ("", ""),
        ("7", 7),
        ("1e-3", 1e-3),
        ("None", None),
        ("(1, 'a')", (1, "a")),
    ],
)
def test_values_without_quotes(text, value):
    parse(f"WRITTEN={text}")
    assert gin.query_parameter("WRITTEN/gin.macro.value") == value


def test_scopes_and_objects():
    parse(
        "FinetuneSettings.batch_size=8",
        "lora/FinetuneSettings.learning_rate=0.5",
        "FinetuneSettings.schedule=@linear/Schedule()",
        "linear/Schedule.shape=linear",
        "lora.targets=['query', 'value']",
    )
    assert (settings_for("lora").learning_rate, settings_for("full").learning_rate) == (0.5, 1e-3)
    assert settings_for("lora", 0.25).learning_rate == 0.25
    assert settings_for("full").batch_size == 8
    assert settings_for("full").schedule == Schedule("linear")
    assert named_method("lora").targets == ("query", "value")
    hash(named_method("lora"))


def test_what_was_resolved_can_be_parsed_again(tmp_path):
    parse("MODEL=48", "a/decoder_config.model_dim=%MODEL", "a/decoder_config.layers=3")
    (tmp_path / "again.gin").write_text(configuration.resolved())
    parse(*[f"a/decoder_config.{name}=4" for name in ("heads", "head_dim", "feed_forward_dim")], files=[])
    first = configuration.resolved()
    assert "MODEL" not in first
    parse(
        *[f"a/decoder_config.{name}=4" for name in ("heads", "head_dim", "feed_forward_dim")],
        files=[str(tmp_path / "again.gin")],
    )
    assert (named_model("a", 10).model_dim, named_model("a", 10).layers) == (48, 3)


def test_imports(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text("import gin\n@gin.configurable\ndef my_own(a=1):\n    return a\n")
    configuration.parse([], ["my_own.a=2"], imports=[str(mine)])
    for name in ("scaling_jax.nothing", str(tmp_path / "none.py")):
        with pytest.raises(InputError, match="cannot import"):
            configuration.parse([], [], imports=[name])


def test_a_parameter_without_a_value():
    import gin

    @gin.configurable("needs_more_for_a_test")
    def needs_more(a, b=1):
        return a + b

    configuration.parse([])
    with pytest.raises(InputError, match="needs 'a'"):
        configuration.call(needs_more)
    configuration.parse([], ["needs_more_for_a_test.a=2"])
    assert configuration.call(needs_more) == 3


@pytest.mark.parametrize(
    ("binding", "says"),
    [
        ("PretrainSettings.objective=@ul2", r"^PretrainSettings.objective = @ul2: write @ul2\(\)"),
        (
            "lora/FinetuneSettings.schedule=@mine/Schedule",
            r"^lora/FinetuneSettings.schedule = @mine/Schedule: write",
        ),
        ("Study.grids=[@small/Grid(), @large/Grid]", r"^Study.grids = @large/Grid: write @large/Grid\(\)"),
    ],
)
def test_a_configurable_that_is_not_called(binding, says):
    with pytest.raises(InputError, match=says):
        parse(binding)


def test_a_users_own_configurable_may_take_a_function(tmp_path):
    mine = tmp_path / "mine_too.py"
    mine.write_text("import gin\n@gin.configurable\ndef takes_a_function(f=None):\n    return f\n")
    configuration.parse([], ["takes_a_function.f=@takes_a_function"], imports=[str(mine)])


def test_files_are_found_where_a_checkout_is_importable(tmp_path, monkeypatch):
    """A folder on sys.path without __init__.py is a namespace package, in which gin looks for files too."""
    checkout, elsewhere = tmp_path / "checkout", tmp_path / "elsewhere"
    (checkout / "gin_configs_of_a_test").mkdir(parents=True)
    elsewhere.mkdir()
    (checkout / "gin_configs_of_a_test/inner.gin").write_text("PretrainSettings.batch_size = 3\n")
    outer = checkout / "outer.gin"
    outer.write_text("include 'gin_configs_of_a_test/inner.gin'\n")
    monkeypatch.syspath_prepend(str(checkout))
    monkeypatch.chdir(elsewhere)
    parse(files=[str(outer)], search_paths=[str(checkout)])
    assert PretrainSettings().batch_size == 3
    outer.write_text("include 'gin_configs_of_a_test/none.gin'\n")
    with pytest.raises(InputError, match="Unable to open file: gin_configs_of_a_test/none.gin"):
        parse(files=[str(outer)], search_paths=[str(checkout)])


def test_the_run_files_that_come_along_parse_anywhere(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    parse("MODEL=ladder_60k", "STORE=stores/x", "TOKENS=(64, 128)", files=["gin_configs/runs/pretrain.gin"])
    run = configuration.call(PretrainRun)
    assert (run.model, run.store, tuple(run.tokens), run.mixture) == ("ladder_60k", "stores/x", (64, 128), "")
    assert PretrainSettings().objective == CausalLM() and PretrainSettings().mixture == {}
    with pytest.raises(InputError, match=r"PretrainRun.tokens = %TOKENS = 128000: .* such as \(128000,\)"):
        parse("TOKENS=128000", "MODEL=a", "STORE=b", files=["gin_configs/runs/pretrain.gin"])
    given = ["MODEL=a", "STORE=b", "TOKENS=(64,)", "OBJECTIVE=@span_corruption()", "MIXTURE={'en': 1.0}"]
    parse(*given, "span_corruption.rate=0.5", files=["gin_configs/runs/pretrain.gin"])
    assert PretrainSettings().objective == SpanCorruption(0.5) and PretrainSettings().mixture == {"en": 1.0}
    assert (
        named_model("t5_ladder_65k", 512).encoder_layers and not named_model("ladder_25k", 512).encoder_layers
    )
    assert "not found" not in caplog.text, "looking in several places is no error"
