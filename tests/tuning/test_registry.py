"""How a method is found by its name, and by that of a file of one's own."""

import pytest

from scaling_jax import configuration
from scaling_jax.errors import InputError
from scaling_jax.tuning.method import method_names, named_method, restored_method
from tests.models import tiny
from tests.tuning import made


def test_names_and_sizes():
    imports = ["scaling_jax.studies.configurables"]
    bindings = ["lora.rank=7", "prompt.length=11", "ia3.targets=['attention']", "bitfit.layers=[0, 1]"]
    configuration.parse([], bindings, imports=imports)
    assert {"full", "lora", "ia3", "bitfit", "prompt"} <= set(method_names())
    assert (named_method("lora").tuning_size, named_method("prompt").tuning_size) == (7, 11)
    assert named_method("ia3").targets == ("attention",) and named_method("bitfit").layers == (0, 1)
    assert {named_method(name).tuning_size for name in ("full", "ia3", "bitfit")} == {None}
    assert (named_method("lora", 3).rank, named_method("prompt", 3).length) == (3, 3)
    assert made.program(named_method("bitfit")).trained_parameters() == tiny.CONFIG.layers * (
        3 * 24 - 24 + 64
    )
    with pytest.raises(InputError, match="no tuning method 'lorra'; did you mean 'lora'"):
        named_method("lorra")
    with pytest.raises(InputError, match="Full has no tuning size, 3"):
        named_method("full", 3)


def test_a_recorded_method_comes_back_whatever_gin_says():
    import dataclasses
    import json

    from scaling_jax.tuning.bitfit import BitFit

    method = BitFit(targets=("attention",), layers=(1,))
    recorded = json.loads(json.dumps({"name": "bitfit", **dataclasses.asdict(method)}))
    configuration.parse([], ["bitfit.layers='all'"], imports=["scaling_jax.studies.configurables"])
    assert restored_method(recorded) == method
    with pytest.raises(InputError, match="no tuning method 'bitfits'"):
        restored_method({"name": "bitfits"})


def test_a_method_in_a_file_of_ones_own(tmp_path):
    mine = tmp_path / "my_method.py"
    mine.write_text(
        "import dataclasses\n"
        "from scaling_jax.tuning.full import Full\n"
        "from scaling_jax.tuning.method import register\n"
        "@register('mine_for_a_test')\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Mine(Full):\n"
        "    strength: float = 1.0\n"
    )
    configuration.parse([], ["mine_for_a_test.strength=2.5"], imports=[str(mine)])
    assert named_method("mine_for_a_test").strength == 2.5
