"""Values of another kind than a parameter is annotated with are refused before anything runs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest

from scaling_jax import binding_types, configuration
from scaling_jax.errors import InputError

CONFIGURABLES = ["scaling_jax.studies.configurables"]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (3, float),
        (3.5, float | None),
        (None, float | None),
        ("a", str),
        ("a", Path),
        ("query", tuple[str, ...]),
        (["query", "key"], tuple[str, ...]),
        ((1, 2), Sequence[int]),
        ([0.1, 2], tuple[float, float]),
        ("last 2", str | tuple[int, ...]),
        ({"en": 1, "de": 0.5}, Mapping[str, float]),
        ({"lora": [0.1, 1]}, Mapping[str, Sequence[float]]),
        ("adamw", Literal["adamw", "adafactor"]),
        (5, Any),
        (["x"], list),
    ],
)
def test_what_fits(value, hint):
    assert binding_types.fits(value, hint)


@pytest.mark.parametrize(
    ("value", "hint", "says"),
    [
        (3.0, int, "a whole number"),
        (True, int, "a whole number"),
        (True, float, "a number"),
        ("3", float | None, "a number or None"),
        (1, bool, "True or False"),
        (None, str, "a text"),
        (5, tuple[str, ...], "a list (a text)"),
        ([5], tuple[str, ...], "a list (a text)"),
        ("1, 2", tuple[int, ...], "a list (a whole number)"),
        ([1, 2, 3], tuple[float, float], "a list (a number, a number)"),
        ({"en": "much"}, Mapping[str, float], "a mapping (a text: a number)"),
        ("sgd", Literal["adamw", "adafactor"], "'adamw' or 'adafactor'"),
    ],
)
def test_what_does_not(value, hint, says):
    assert not binding_types.fits(value, hint)
    assert binding_types.wanted(hint) == says


@pytest.mark.parametrize(
    ("bindings", "says"),
    [
        (["lora.rank = 2.5"], r"^lora\.rank = 2\.5: a whole number is needed$"),
        (
            ["lora.layers = (0.7,)"],
            r"^lora\.layers = \(0\.7,\): a text or a list \(a whole number\) is needed$",
        ),
        (["few/lora.targets = 5"], r"^few/lora\.targets = 5: a list \(a text\) is needed$"),
        (
            ["RANK = 'eight'", "lora.rank = %RANK"],
            r"^lora\.rank = %RANK = 'eight': a whole number is needed$",
        ),
        (["prompt.stacks = None"], r"^prompt\.stacks = None: a list"),
        (["Study.cohort = 'x'"], r"^Study\.cohort = 'x'"),
        (["FinetuneSettings.max_steps = 1e3"], r"max_steps = 1000\.0: a whole number is needed"),
    ],
)
def test_bindings_are_named(bindings, says):
    with pytest.raises(InputError, match=says):
        configuration.parse([], bindings, imports=CONFIGURABLES)


def test_references_are_left_alone():
    bindings = [
        "PretrainSettings.schedule = @Schedule()",
        "Study.grids = [@Grid()]",
        "RANK = 8",
        "lora.rank = %RANK",
    ]
    configuration.parse([], bindings, imports=CONFIGURABLES)


@pytest.mark.parametrize("file", sorted(map(str, Path("gin_configs").glob("**/*.gin"))))
def test_every_file_that_we_ship_fits(file):
    missing = ["INITIAL_CHECKPOINT='c'", "METHOD='lora'", "STORE='s'", "MODEL='ladder_25k'", "TOKENS=(1000,)"]
    runs = missing if "/runs/" in file else []
    imports = [*CONFIGURABLES, *(["scaling_jax.tasks.prepare"] if "/runs/" not in file else [])]
    configuration.parse([file], runs, imports=imports)
