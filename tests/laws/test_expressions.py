"""Expressions: their values, and that nothing but columns and arithmetic is reachable."""

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.laws.expressions import column_names, condition, evaluate

COLUMNS = {
    "n": np.array([1.0, 2.0, np.nan]),
    "d": np.array([10.0, 20.0, 30.0]),
    "method": np.array(["full", "lora", "lora"], object),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("d > 10", [False, True, True]),
        ("10 <= d < 30", [True, True, False]),
        ("n > 1 or method == 'full'", [True, True, False]),
        ("not (method == 'lora' and d >= 30)", [True, True, False]),
        ("method in ('full', 'prompt')", [True, False, False]),
        ("method not in ['full']", [False, True, True]),
        ("method != 'lora'", [True, False, False]),
        ("d / (6 * n) ** 2 > 0.2", [True, False, False]),
        ("-d < -15", [False, True, True]),
        ("n == 2", [False, True, False]),
        ("1 < 2", [True, True, True]),
    ],
)
def test_conditions(text, expected):
    np.testing.assert_array_equal(condition(text, COLUMNS, 3), expected)


def test_arithmetic():
    np.testing.assert_allclose(evaluate("d * 2 + 1", COLUMNS, 3), [21.0, 41.0, 61.0])
    assert column_names("d > n and d < 3") == ("d", "n")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "d.__class__",
        "d.shape",
        "d[0]",
        "(lambda: 1)()",
        "[x for x in d]",
        "f'{d}'",
        "print(d)",
        "d if d else n",
        "{'a': d}",
        "(d := 1)",
        "*d",
        "d @ n",
        "d & n",
        "None",
        "...",
        "b'x' == method",
        "1j > d",
        "import os",
        "d > 1; n > 1",
        "",
        "d >",
        "(" * 300 + "d" + ")" * 300,
        "d > 1 " + "or d > 1 " * 400,
    ],
)
def test_nothing_else_is_reachable(text):
    with pytest.raises(InputError):
        condition(text, COLUMNS, 3)


def test_a_huge_power_ends_at_once():
    assert not condition("d < 9 ** 9 ** 9 ** 9 - 9 ** 9 ** 9", COLUMNS, 3).any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nn > 1", "no column 'nn'; did you mean 'n'"),
        ("method > 1", "needs a number where there is text"),
        ("method == 1", "compares text with a number"),
        ("d + 1", "is not a condition"),
        ("d and n", "and, or, not join comparisons"),
        ("(d, n)", "uses a list outside of `in`"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(InputError) as error:
        condition(text, COLUMNS, 3)
    assert message in str(error.value)
