"""Gin errors that say what would be right."""

import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.models.families import named_model
from scaling_jax.training.finetune import settings_for
from scaling_jax.training.pretrain import PretrainSettings
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
        ("7", 7),
        ("1e-3", 1e-3),
        ("None", None),
        ("(1, 'a')", (1, "a")),
    ],
)
def test_values_without_quotes(text, value):
    parse(f"PretrainSettings.dev_windows={text}")
    assert PretrainSettings().dev_windows == value


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
