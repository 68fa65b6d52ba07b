"""Expressions: their values, and that nothing but columns and arithmetic is reachable."""

import ast
import builtins
import time
import warnings

import numpy as np
import pytest

from scaling_jax.errors import InputError
from scaling_jax.laws.expressions import (
    FALSE,
    FUNCTIONS,
    TRUE,
    UNKNOWN,
    column_names,
    evaluate,
    quoted,
    truth,
)

COLUMNS = {
    "n": np.array([1.0, 2.0, np.nan]),
    "d": np.array([10.0, 20.0, 30.0]),
    "method": np.array(["full", "lora", "lora"], object),
    "Model Size": np.array([1e8, 1e9, 1e10]),
    "größe": np.array([1.0, 2.0, 3.0]),
    "nothing": np.full(3, np.nan),
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
        ("\nd > 10 and\n  n > 1\n", [False, True, False]),
    ],
)
def test_conditions(text, expected):
    np.testing.assert_array_equal(evaluate(text, COLUMNS, 3), expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n > 1", [FALSE, TRUE, UNKNOWN]),
        ("n != 1", [FALSE, TRUE, UNKNOWN]),
        ("not n > 1", [TRUE, FALSE, UNKNOWN]),
        ("n > 1 and d > 100", [FALSE, FALSE, FALSE]),
        ("n > 1 or d > 20", [FALSE, TRUE, TRUE]),
        ("n in (1, 2)", [TRUE, TRUE, UNKNOWN]),
        ("n not in (1, 7)", [FALSE, TRUE, UNKNOWN]),
        ("n in ()", [FALSE, FALSE, FALSE]),
        ("0 / (d - 10) == 0", [UNKNOWN, TRUE, TRUE]),
        ("log(1 - n) < 5", [TRUE, UNKNOWN, UNKNOWN]),
        ("nothing == 'full'", [UNKNOWN, UNKNOWN, UNKNOWN]),
        ("True", [TRUE, TRUE, TRUE]),
    ],
)
def test_what_was_not_measured_is_neither_true_nor_false(text, expected):
    found = truth(text, COLUMNS, 3)
    assert found.dtype == np.int8
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`Model Size` > 1e9", [False, False, True]),
        ("`Model Size`/`Model Size` == 1 and `d` >= 20", [False, True, True]),
        ("` größe ` > 2", [False, False, True]),
        ("method != '`Model Size`'", [True, True, True]),
        ("""method == "it's `" or d > 20""", [False, False, True]),
        (r"method == 'a\'`' or d > 20", [False, False, True]),
    ],
)
def test_any_column_can_be_named_in_backquotes(text, expected):
    np.testing.assert_array_equal(evaluate(text, COLUMNS, 3), expected)


def test_quoted_names_read_back():
    assert [quoted(name) for name in ("d", "Model Size", "größe", "in", "1")] == [
        "d",
        "`Model Size`",
        "`größe`",
        "`in`",
        "`1`",
    ]
    for name in COLUMNS:
        assert column_names(f"{quoted(name)} > 1") == (name,)
    assert column_names("column0 > `Model Size` + column1") == ("column0", "Model Size", "column1")


def test_functions():
    for name in ("log", "log10", "exp", "sqrt"):
        np.testing.assert_array_equal(evaluate(f"{name}(d)", COLUMNS, 3), getattr(np, name)(COLUMNS["d"]))
    np.testing.assert_array_equal(evaluate("abs(15 - d)", COLUMNS, 3), [5.0, 5.0, 15.0])
    np.testing.assert_array_equal(evaluate("min(d, 15, 12)", COLUMNS, 3), [10.0, 12.0, 12.0])
    np.testing.assert_array_equal(evaluate("max(d, 15)", COLUMNS, 3), [15.0, 20.0, 30.0])
    np.testing.assert_array_equal(evaluate("max(n, 15)", COLUMNS, 3), [15.0, 15.0, np.nan])
    assert column_names("log(d) > max(n, 1)") == ("d", "n")


def test_a_column_of_a_function_s_name_is_a_column():
    columns = {"log": np.array([1.0, 2.0])}
    np.testing.assert_array_equal(evaluate("log > 1", columns, 2), [False, True])
    with pytest.raises(InputError, match="calls log, which is a column"):
        evaluate("log(log)", columns, 2)


def test_arithmetic():
    np.testing.assert_allclose(evaluate("d * 2 + 1", COLUMNS, 3), [21.0, 41.0, 61.0])
    assert column_names("d > n and d < 3") == ("d", "n")


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "d.__class__",
        "d.shape",
        "(1).__class__",
        "'a'.format(d)",
        "d[0]",
        "d[:]",
        "'abc'[0] == 'a'",
        "(lambda: 1)()",
        "lambda: 1",
        "[x for x in d]",
        "(x for x in d)",
        "{x for x in d}",
        "{x: 1 for x in d}",
        "f'{d}'",
        "f'{d.shape}' == method",
        "print(d)",
        "open('x')",
        "eval('1')",
        "getattr(d, 'shape')",
        "sum(d)",
        "log()",
        "log(d, n) > 1",
        "log(x=d) > 1",
        "log(*d) > 1",
        "max(**d) > 1",
        "max(d) > 1",
        "log(log)",
        "log",
        "log(d)(d)",
        "`log`(d) > 1",
        "log.__call__(d)",
        "sqrt(method) > 1",
        "log(d > 1) > 1",
        "d if d else n",
        "{'a': d}",
        "{d, n}",
        "(d := 1)",
        "*d",
        "d @ n",
        "d & n",
        "d | n",
        "d ^ n",
        "~d",
        "d << 2",
        "d // 2",
        "d is n",
        "None",
        "d == None",
        "...",
        "b'x' == method",
        "1j > d",
        "import os",
        "yield d",
        "await d",
        "d > 1; n > 1",
        "d = 1",
        "class",
        "if d: n",
        "",
        " ",
        "d >",
        "d > 1 \x00",
        "\x00",
        "d > 1\n\nn > 1",
        "größe > 1",
        "𝐝 > 1",
        "ｄ > 1",
        "d > \u0661",
        "\ud800 > 1",
        "`Model Size > 1",
        "Model Size > 1",
        "`d``n` > 1",
        "`Model Sise` > 1",
        "`` > 1",
        "`__class__` > 1",
        "'''full''' == method",
        "(" * 300 + "d" + ")" * 300,
        "-" * 1900 + "d > 1",
        "not " * 480 + "d > 1",
        "d" + " + d" * 450 + " > 1",
        "log(" * 150 + "d" + ")" * 150 + " > 1",
        "[" * 90 + "]" * 90,
        "d > 1 " + "or d > 1 " * 400,
        "d > " + "9" * 1900,
        "d > " + "9" * 400,
        "d > 1e999",
        "d > -1e999",
        "d in 'full'",
        "method in 'full'",
        "d in n",
        "d in ((1, 2), 3)",
        "(d > 1) + 1 > 0",
        "(d > 1) == (n > 1)",
        "-(d > 1) > 0",
    ],
)
def test_nothing_else_is_reachable(text):
    begin = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError) as error:
            truth(text, COLUMNS, 3)
    assert time.process_time() - begin < 1
    assert len(str(error.value)) < 600


_PLAIN = (
    "d + 1",
    "d > 1 and n > 1",
    "d > 1 or n > 1",
    "-d",
    "not d > 1",
    "d",
    "1",
    "d in (1, 2)",
    "d in [1]",
    "log(d)",
)
_ONE_OF_EACH = (
    *("(d := 1)", "lambda: d", "d if d else n", "{'a': d}", "{d}", "[d for d in n]", "{d for d in n}"),
    *("{d: n for d in n}", "(d for d in n)", "(await d)", "(yield d)", "(yield from d)", "d < n", "f(d)"),
    *("f'{d}'", "None", "d.shape", "d[0]", "d[1:2]", "(*d, n)", "[d]", "(d, n)"),
)


def test_no_node_but_the_listed_ones_is_accepted():
    """Every kind of expression Python has, each at its simplest: only those we list evaluate."""
    accepted = set()
    for text in (*_ONE_OF_EACH, *_PLAIN):
        kinds = {type(node) for node in ast.walk(ast.parse(text, mode="eval").body)}
        try:
            evaluate(text, COLUMNS, 3)
            accepted |= kinds
        except InputError:
            pass
    known = {kind for kind in vars(ast).values() if isinstance(kind, type) and issubclass(kind, ast.expr)}
    assert accepted & known == {
        *(
            ast.BinOp,
            ast.BoolOp,
            ast.Call,
            ast.Compare,
            ast.Constant,
            ast.List,
            ast.Name,
            ast.Tuple,
            ast.UnaryOp,
        )
    }
    tried = {type(ast.parse(text, mode="eval").body) for text in (*_ONE_OF_EACH, *_PLAIN)}
    current = {kind for kind in known if kind._fields and not kind.__name__.startswith("_")}
    # Those that never stand alone, and what older Pythons called constants.
    inside = {"Slice", "Starred", "FormattedValue", "TemplateStr", "Interpolation", "expr"}
    old = {"Num", "Str", "Bytes", "NameConstant", "Ellipsis"}
    assert {kind.__name__ for kind in current - tried} <= inside | old


def test_functions_are_just_these():
    assert set(FUNCTIONS) == {"log", "log10", "exp", "sqrt", "abs", "min", "max"}
    for name in (*dir(builtins), *dir(np)):
        if name not in FUNCTIONS:
            with pytest.raises(InputError):
                evaluate(f"{name}(d)", COLUMNS, 3)


@pytest.mark.parametrize(
    "text", ["d / 0 > 1", "d % 0 == 0", "exp(d * 1000) > 1", "log(0 * d) < 0", "sqrt(-d) > 1"]
)
def test_no_warning_and_no_error_at_the_edge_of_arithmetic(text):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert truth(text, COLUMNS, 3).shape == (3,)


def test_a_huge_power_ends_at_once():
    assert not evaluate("d < 9 ** 9 ** 9 ** 9 - 9 ** 9 ** 9", COLUMNS, 3).any()


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
        truth(text, COLUMNS, 3)
    assert message in str(error.value)


def test_a_message_says_where_a_column_became_text():
    with pytest.raises(InputError, match="column 'method' is text here"):
        truth("method > 1", COLUMNS, 3, lambda column: " here")
