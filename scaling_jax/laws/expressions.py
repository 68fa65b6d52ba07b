"""Expressions over a table's columns, for --where, --derive and --hold_out.

Columns, numbers, strings, arithmetic, comparisons, `and`, `or`, `not`, `in`: nothing else parses.
There are no calls, attributes or subscripts, so an expression can reach nothing but the table.
"""

import ast
from collections.abc import Callable, Mapping

import numpy as np

from scaling_jax.errors import InputError, did_you_mean

_LONGEST = 2000
_ARITHMETIC = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.Mod: np.mod,
}
_COMPARISONS = {
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
}


def column_names(text: str) -> tuple[str, ...]:
    """The columns an expression names, in order of first use.

    Raises:
        InputError: not an expression, or one that uses more than columns and arithmetic.
    """
    tree = _parse(text)
    _check(tree, text)
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return tuple(dict.fromkeys(names))


def evaluate(text: str, columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """Evaluates over all rows.

    Args:
        text: the expression.
        columns: name -> float64 (rows,) with NaN where empty, or an object array of strings (rows,).
        rows: how many.

    Returns:
        (rows,) of bool, float64 or str objects.

    Raises:
        InputError: as `column_names`; an unknown column; text where a number is needed.
    """
    for name in column_names(text):
        if name not in columns:
            raise InputError(f"expression {text!r}: no column {name!r}{did_you_mean(name, columns)}")
    with np.errstate(all="ignore"):
        value = _evaluate(_parse(text), columns, text)
    return np.broadcast_to(np.asarray(value), (rows,))


def condition(text: str, columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """Like `evaluate`, but the expression must be true or false at every row; (rows,) of bool."""
    value = evaluate(text, columns, rows)
    if value.dtype != bool:
        raise InputError(f"expression {text!r} is not a condition; write for example 'finetune_examples > 0'")
    return value


def _parse(text: str) -> ast.expr:
    if len(text) > _LONGEST:
        raise InputError(f"an expression is longer than {_LONGEST} characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise InputError(
            f"{text!r} is not an expression; write for example 'finetune_examples > 0'"
        ) from error


def _check(tree: ast.expr, text: str) -> None:
    leaves = (ast.Name, ast.Load, ast.And, ast.Or, ast.Not, ast.USub, ast.UAdd, ast.In, ast.NotIn)
    inner = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Tuple, ast.List)
    allowed = leaves + inner + tuple(_ARITHMETIC) + tuple(_COMPARISONS)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float | str):
            continue
        if not isinstance(node, allowed):
            what = type(node).__name__
            raise InputError(
                f"expression {text!r}: {what} is not allowed; columns, numbers, strings, arithmetic, "
                "comparisons, and, or, not, in"
            )


def _evaluate(node: ast.expr, columns, text: str):
    match node:
        case ast.Name(id=name):
            return columns[name]
        case ast.Constant(value=bool() as value):
            return np.bool_(value)
        case ast.Constant(value=str() as value):
            return value
        case ast.Constant(value=value):
            # Floats: an integer power could otherwise grow without end.
            return np.float64(value)
        case ast.BinOp(left=left, op=operator, right=right):
            apply = _ARITHMETIC[type(operator)]
            return _numeric(apply, _evaluate(left, columns, text), _evaluate(right, columns, text), text)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.logical_not(_truth(_evaluate(operand, columns, text), text))
        case ast.UnaryOp(op=operator, operand=operand):
            value = _evaluate(operand, columns, text)
            return _numeric(np.multiply, -1.0 if isinstance(operator, ast.USub) else 1.0, value, text)
        case ast.BoolOp(op=operator, values=parts):
            join = np.logical_and if isinstance(operator, ast.And) else np.logical_or
            truths = [_truth(_evaluate(part, columns, text), text) for part in parts]
            return join.reduce(np.broadcast_arrays(*truths))
        case ast.Compare(left=left, ops=operators, comparators=others):
            sides = [left, *others]
            pairs = zip(sides[:-1], operators, sides[1:], strict=True)
            return np.logical_and.reduce(
                [_compare(a, operator, b, columns, text) for a, operator, b in pairs]
            )
    raise InputError(f"expression {text!r} uses a list outside of `in`")


def _compare(left, operator, right, columns, text):
    first = _evaluate(left, columns, text)
    if isinstance(operator, ast.In | ast.NotIn):
        if not isinstance(right, ast.Tuple | ast.List):
            raise InputError(
                f"expression {text!r}: `in` needs a list, for example method in ('full', 'lora')"
            )
        members = [_equal(first, _evaluate(item, columns, text), text) for item in right.elts]
        found = np.logical_or.reduce(members) if members else np.False_
        return np.logical_not(found) if isinstance(operator, ast.NotIn) else found
    second = _evaluate(right, columns, text)
    if isinstance(operator, ast.Eq):
        return _equal(first, second, text)
    if isinstance(operator, ast.NotEq):
        return np.logical_not(_equal(first, second, text))
    return _numeric(_COMPARISONS[type(operator)], first, second, text)


def _equal(first, second, text):
    if _is_text(first) != _is_text(second):
        raise InputError(f"expression {text!r} compares text with a number; quote a text value, not a number")
    return np.equal(np.asarray(first), np.asarray(second)).astype(bool)


def _numeric(apply: Callable, first, second, text):
    if _is_text(first) or _is_text(second):
        raise InputError(f"expression {text!r} needs a number where there is text")
    return apply(first, second)


def _truth(value, text):
    value = np.asarray(value)
    if value.dtype != bool:
        raise InputError(f"expression {text!r}: and, or, not join comparisons, not numbers or text")
    return value


def _is_text(value) -> bool:
    return np.asarray(value).dtype.kind in "OUS"
