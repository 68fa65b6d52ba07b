"""Expressions over a table's columns, for --where, --derive and --hold_out.

Columns, numbers, strings, arithmetic, comparisons, `and`, `or`, `not`, `in`, and the functions log,
log10, exp, sqrt, abs, min and max: nothing else parses. There are no attributes, subscripts or
other calls, so an expression can reach nothing but the table. A column whose name is not one word
of ASCII letters, digits and underscores is written in backquotes: `Model Size`.

A comparison with a cell that was not measured, or with 0 / 0, is neither true nor false: `and`,
`or` and `not` carry that on as in SQL, so that a table can count the rows of which a condition
says nothing.
"""

import ast
import keyword
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from scaling_jax.errors import InputError, did_you_mean

FALSE, UNKNOWN, TRUE = np.int8(0), np.int8(1), np.int8(2)
_LONGEST = 2000
_DEEPEST = 100
_SHOWN = 200
_ARITHMETIC = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Mod: np.mod,
}
_COMPARISONS = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}
_ONE_ARGUMENT = {"log": np.log, "log10": np.log10, "exp": np.exp, "sqrt": np.sqrt, "abs": np.abs}
_MORE_ARGUMENTS = {"min": np.minimum, "max": np.maximum}
FUNCTIONS = (*_ONE_ARGUMENT, *_MORE_ARGUMENTS)
_ALLOWED = (
    *(ast.Name, ast.Load, ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.In, ast.NotIn),
    *(ast.Eq, ast.NotEq, *_ARITHMETIC, *_COMPARISONS),
    *(ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Tuple, ast.List, ast.Call),
)
# A quoted string is passed over, so that a backquote inside it stays text.
_QUOTED = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"|`([^`]*)`""", re.DOTALL)


@dataclass(frozen=True)
class _Scope:
    text: str
    columns: Mapping[str, np.ndarray]
    origin: Callable[[str], str]

    def refuse(self, problem: str) -> InputError:
        return InputError(f"expression {_shown(self.text)} {problem}")


def quoted(column: str) -> str:
    """A column's name as an expression writes it: in backquotes unless it is one plain word."""
    plain = column.isascii() and column.isidentifier() and not keyword.iskeyword(column)
    return column if plain else f"`{column}`"


def column_names(text: str) -> tuple[str, ...]:
    """The columns an expression names, in order of first use.

    Raises:
        InputError: not an expression, or one that uses more than columns and arithmetic.
    """
    return _names(_parse(text))


def evaluate(
    text: str, columns: Mapping[str, np.ndarray], rows: int, origin: Callable[[str], str] | None = None
) -> np.ndarray:
    """Evaluates over all rows.

    Args:
        text: the expression.
        columns: name -> float64 (rows,) with NaN where empty, or an object array of strings (rows,).
        rows: how many.
        origin: column -> words for a message on a column that is text, for example where its first text is.

    Returns:
        (rows,) of bool, float64 or str objects. A comparison that cannot be told (see the module) is False.

    Raises:
        InputError: as `column_names`; an unknown column; text where a number is needed.
    """
    value = _value(text, columns, rows, origin)
    return value == TRUE if value.dtype == np.int8 else value


def truth(
    text: str, columns: Mapping[str, np.ndarray], rows: int, origin: Callable[[str], str] | None = None
) -> np.ndarray:
    """Like `evaluate`, but of a condition: (rows,) of int8, each FALSE, UNKNOWN or TRUE."""
    value = _value(text, columns, rows, origin)
    if value.dtype != np.int8:
        raise InputError(
            f"expression {_shown(text)} is not a condition; write for example 'finetune_examples > 0'"
        )
    return value


def _value(text: str, columns: Mapping, rows: int, origin: Callable | None) -> np.ndarray:
    tree = _parse(text)
    scope = _Scope(text, columns, origin or (lambda column: ""))
    for name in _names(tree):
        if name not in columns:
            raise InputError(f"expression {_shown(text)}: no column {name!r}{did_you_mean(name, columns)}")
    with np.errstate(all="ignore"):
        value = _evaluate(tree, scope)
    return np.broadcast_to(np.asarray(value), (rows,))


def _parse(text: str) -> ast.expr:
    """The tree of an expression, checked; its names are columns or, where called, functions."""
    if len(text) > _LONGEST:
        raise InputError(f"an expression is longer than {_LONGEST} characters")
    plain, names = _without_backquotes(text)
    try:
        with warnings.catch_warnings():
            # Python warns of odd but harmless spellings on standard error.
            warnings.simplefilter("ignore")
            # Of a gin file, it may go over several lines.
            tree = ast.parse(" ".join(plain.splitlines()).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{_shown(text)} is not an expression; write for example 'finetune_examples > 0', "
            "and a column whose name is not one word in backquotes"
        ) from error
    _check(tree, text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return tree


def _without_backquotes(text: str) -> tuple[str, dict[str, str]]:
    """Replaces every `column` by a word that is not otherwise in the text: (text, word -> column)."""
    prefix = "column"
    while prefix in text:
        prefix += "_"
    names: dict[str, str] = {}

    def replace(match: re.Match) -> str:
        if match[1] is None:
            return match[0]
        word = f"{prefix}{len(names)}"
        names[word] = match[1].strip()
        return f" {word} "

    plain = _QUOTED.sub(replace, text)
    outside = _QUOTED.sub("", text)
    if "`" in outside:
        raise InputError(f"expression {_shown(text)} has a backquote that is not closed")
    if '"""' in text or "'''" in text:
        raise InputError(f"expression {_shown(text)} has three quotes in a row; write one")
    if not outside.isascii():
        # Python would take look-alike letters for the same name.
        strange = next(character for character in outside if not character.isascii())
        raise InputError(
            f"expression {_shown(text)} has {strange!r} outside of quotes; write such a column in backquotes"
        )
    return plain, names


def _check(tree: ast.expr, text: str) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
            continue
        if isinstance(node, ast.Call) and not _is_plain_call(node):
            raise InputError(
                f"expression {_shown(text)}: only {', '.join(FUNCTIONS)} can be called, with plain arguments"
            )
        if not isinstance(node, _ALLOWED):
            raise InputError(
                f"expression {_shown(text)}: {type(node).__name__} is not allowed; columns, numbers, text, "
                "arithmetic, comparisons, and, or, not, in"
            )
    level = [tree]
    for _ in range(_DEEPEST):
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    if level:
        raise InputError(f"expression {_shown(text)} is nested deeper than {_DEEPEST}")


def _is_plain_call(node: ast.Call) -> bool:
    return (
        isinstance(node.func, ast.Name)
        and node.func.id in FUNCTIONS
        and not node.keywords
        and bool(node.args)
        and not any(isinstance(argument, ast.Starred) for argument in node.args)
    )


def _names(tree: ast.expr) -> tuple[str, ...]:
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    return tuple(
        dict.fromkeys(
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and id(node) not in called
        )
    )


def _evaluate(node: ast.expr, scope: _Scope):
    """The value of a node: float64, str objects, or int8 truth; scalars where no column takes part."""
    match node:
        case ast.Name(id=name):
            return scope.columns[name]
        case ast.Constant(value=bool() as value):
            return TRUE if value else FALSE
        case ast.Constant(value=str() as value):
            return value
        case ast.Constant(value=value):
            return _literal(value, scope)
        case ast.BinOp(left=left, op=operator, right=right):
            return _ARITHMETIC[type(operator)](_number(left, scope), _number(right, scope))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return TRUE - _truth(operand, scope)
        case ast.UnaryOp(op=operator, operand=operand):
            return (-1.0 if isinstance(operator, ast.USub) else 1.0) * _number(operand, scope)
        case ast.BoolOp(op=operator, values=parts):
            join = np.minimum if isinstance(operator, ast.And) else np.maximum
            return _joined(join, [_truth(part, scope) for part in parts])
        case ast.Compare(left=left, ops=operators, comparators=others):
            sides = [left, *others]
            pairs = zip(sides[:-1], operators, sides[1:], strict=True)
            return _joined(np.minimum, [_compare(a, operator, b, scope) for a, operator, b in pairs])
        case ast.Call():
            return _call(node, scope)
    raise scope.refuse("uses a list outside of `in`")


def _literal(value: int | float, scope: _Scope) -> np.float64:
    # Floats: an integer power could otherwise grow without end.
    try:
        number = np.float64(value)
    except OverflowError:
        number = np.float64(np.inf)
    if not np.isfinite(number):
        raise scope.refuse("has a number that is too large")
    return number


def _call(node: ast.Call, scope: _Scope):
    name = node.func.id
    if name in scope.columns:
        raise scope.refuse(f"calls {name}, which is a column of this table")
    values = [_number(argument, scope) for argument in node.args]
    if name in _ONE_ARGUMENT:
        if len(values) != 1:
            raise scope.refuse(f"gives {name} {len(values)} numbers; it takes one")
        return _ONE_ARGUMENT[name](values[0])
    if len(values) < 2:
        raise scope.refuse(f"gives {name} one number; it takes two or more, row by row")
    return _joined(_MORE_ARGUMENTS[name], values)


def _compare(left: ast.expr, operator: ast.cmpop, right: ast.expr, scope: _Scope):
    if isinstance(operator, ast.In | ast.NotIn):
        if not isinstance(right, ast.Tuple | ast.List):
            raise scope.refuse("needs a list after `in`, for example method in ('full', 'lora')")
        found = _joined(np.maximum, [FALSE, *(_equal(left, item, scope) for item in right.elts)])
        return TRUE - found if isinstance(operator, ast.NotIn) else found
    if isinstance(operator, ast.Eq):
        return _equal(left, right, scope)
    if isinstance(operator, ast.NotEq):
        return TRUE - _equal(left, right, scope)
    first, second = _number(left, scope), _number(right, scope)
    return _known(_COMPARISONS[type(operator)](first, second), first, second)


def _equal(left: ast.expr, right: ast.expr, scope: _Scope):
    first, second = _evaluate(left, scope), _evaluate(right, scope)
    if _is_truth(first) or _is_truth(second):
        raise scope.refuse("compares a condition with a value; join conditions by and, or, not")
    if _is_text(first) and _is_text(second):
        return np.where(np.asarray(first, object) == np.asarray(second, object), TRUE, FALSE)
    if not _is_text(first) and not _is_text(second):
        return _known(np.equal(first, second), first, second)
    number = second if _is_text(first) else first
    if np.ndim(number) and np.all(np.isnan(number)):
        # A column in which nothing was measured is of neither kind.
        return np.full(np.shape(number), UNKNOWN)
    blame = _blame(left, scope) or _blame(right, scope)
    raise scope.refuse(f"compares text with a number; quote a text value, not a number{blame}")


def _known(outcome, first, second):
    """Truth of a comparison; UNKNOWN where a side is NaN."""
    return np.where(np.isnan(first) | np.isnan(second), UNKNOWN, np.where(outcome, TRUE, FALSE))


def _number(node: ast.expr, scope: _Scope):
    value = _evaluate(node, scope)
    if _is_text(value):
        raise scope.refuse(f"needs a number where there is text{_blame(node, scope)}")
    if _is_truth(value):
        raise scope.refuse("needs a number where there is a condition")
    return value


def _truth(node: ast.expr, scope: _Scope):
    value = _evaluate(node, scope)
    if not _is_truth(value):
        raise scope.refuse("is mistaken: and, or, not join comparisons, not numbers or text")
    return value


def _joined(join: Callable, values: list):
    result = values[0]
    for value in values[1:]:
        result = join(result, value)
    return result


def _blame(node: ast.expr, scope: _Scope) -> str:
    if isinstance(node, ast.Name) and _is_text(scope.columns[node.id]):
        return f"; column {node.id!r} is text{scope.origin(node.id)}"
    return ""


def _is_text(value) -> bool:
    return np.asarray(value).dtype.kind in "OUS"


def _is_truth(value) -> bool:
    return np.asarray(value).dtype == np.int8


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")
