"""A method with other settings under a name of its own, by gin alone."""

import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.training.finetune import settings_for
from scaling_jax.tuning.method import method_names, method_scope, named_method, registered_name

IMPORTS = ["scaling_jax.studies.configurables"]


def test_a_variant_has_its_own_settings_and_the_rest_of_its_method():
    bindings = [
        "lora.rank=3",
        "lora/FinetuneSettings.learning_rate=0.25",
        "lora/lora_last_half/lora.layers='last 2'",
        "lora/lora_last_half/FinetuneSettings.max_steps=7",
        "lora/lora_attention/lora.targets=('attention',)",
    ]
    configuration.parse([], bindings, imports=IMPORTS)
    assert {"lora", "lora_last_half", "lora_attention"} <= set(method_names())
    last, attention, plain = (named_method(name) for name in ("lora_last_half", "lora_attention", "lora"))
    assert (last.layers, attention.layers, plain.layers) == ("last 2", "all", "all")
    assert attention.targets == ("attention",) and last.targets == plain.targets
    assert last.rank == attention.rank == plain.rank == 3
    assert named_method("lora_last_half", 8).rank == 8
    assert settings_for("lora_last_half").learning_rate == settings_for("lora").learning_rate == 0.25
    assert settings_for("lora_last_half").max_steps == 7 != settings_for("lora").max_steps
    assert (registered_name("lora_attention"), registered_name("full")) == ("lora", "full")
    assert (method_scope("lora_attention"), method_scope("lora")) == ("lora/lora_attention", "lora")


def test_variants_come_back_from_the_resolved_configuration(tmp_path):
    configuration.parse([], ["ia3/ia3_first/ia3.layers='first 1'"], imports=IMPORTS)
    (tmp_path / "config.gin").write_text(configuration.resolved())
    configuration.parse([str(tmp_path / "config.gin")], imports=IMPORTS)
    assert named_method("ia3_first").layers == "first 1"


def test_other_training_settings_make_a_variant():
    configuration.parse([], ["lora/lora_slow/FinetuneSettings.learning_rate=1e-4"], imports=IMPORTS)
    assert "lora_slow" in method_names() and named_method("lora_slow") == named_method("lora")
    assert settings_for("lora_slow").learning_rate == 1e-4 != settings_for("lora").learning_rate


def test_a_scope_that_is_no_variant_makes_no_method():
    bindings = ["lora/last_half/lora.layers='last 2'", "lora/lora_slow/Grid.seeds=[1]"]
    configuration.parse([], bindings, imports=IMPORTS)
    assert not {"last_half", "lora_slow"} & set(method_names())
    with pytest.raises(InputError, match="no tuning method 'lora_slow'"):
        named_method("lora_slow")
