"""Expressions of header fields, such as ``FieldRecord == 3 and TraceNumber in [1, 2, 48]``."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpcfwi.errors import InputError
from hpcfwi.formats.trace_headers import HeaderField, parse_field

MAX_LENGTH, MAX_DEPTH = 1000, 100
BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: np.mod, ast.Div: np.true_divide,
}  # fmt: skip
COMPARISONS: dict[type, Callable[[Any, Any], Any]] = {
    ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}  # fmt: skip


class HeaderExpression:
    """A condition on the header fields of a trace.

    It may have names of fields, numbers, lists of numbers, comparisons, ``in``, ``and``, ``or``, ``not``, ``+ - * / %`` and
    ``abs()``. Raises InputError, which names the configuration's ``key``, if it is malformed.
    """

    def __init__(self, text: str, key: str) -> None:
        self.text, self._where = text, f"{key}: {text[:100]!r}"
        if len(text) > MAX_LENGTH:
            raise InputError(f"{self._where} has {len(text)} characters; at most {MAX_LENGTH} are possible")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, MemoryError, RecursionError):
            raise self._malformed("it cannot be parsed") from None
        if _depth(self._tree) > MAX_DEPTH:
            raise self._malformed(f"it is nested deeper than {MAX_DEPTH} levels")
        names = {node.id for node in ast.walk(self._tree) if isinstance(node, ast.Name)} - {"abs"}
        self.fields: dict[str, HeaderField] = {name: parse_field(name, key) for name in sorted(names)}
        if not names:
            raise self._malformed("it names no header field")
        self.evaluate({name: np.ones(1) for name in names})  # tells what is malformed

    def evaluate(self, values: Mapping[str, NDArray]) -> NDArray[np.bool_]:
        """For which traces the condition holds; ``values`` are those of the fields by their names in the expression."""
        # in double precision, in which products do not overflow and whole numbers are exact
        numbers = {name: array.astype(np.float64) for name, array in values.items()}
        with np.errstate(all="ignore"):
            return np.asarray(self._condition(self._tree, numbers))

    def _value(self, node: ast.expr, values: Mapping[str, NDArray]) -> Any:
        match node:
            case ast.Name(id=name) if name in values:
                return values[name]
            case ast.Constant(value=value) if isinstance(value, (int, float)) and not isinstance(value, bool):
                if abs(value) > 1e15:
                    raise self._malformed(f"{value!r} is too large")
                return np.float64(value)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -self._number(operand, values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return ~self._condition(operand, values)
            case ast.BoolOp(op=op, values=parts):
                combine = np.logical_and if isinstance(op, ast.And) else np.logical_or
                return reduce(combine, [self._condition(part, values) for part in parts])
            case ast.BinOp(left=left, op=op, right=right) if type(op) in BINARY:
                return BINARY[type(op)](self._number(left, values), self._number(right, values))
            case ast.Call(func=ast.Name(id="abs"), args=[argument], keywords=[]):
                return np.abs(self._number(argument, values))
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn() as op], comparators=[others]):
                found = np.isin(self._number(left, values), self._listed(others))
                return ~found if isinstance(op, ast.NotIn) else found
            case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in COMPARISONS for op in ops):
                operands = [self._number(each, values) for each in (left, *others)]
                pairs = zip(ops, operands[:-1], operands[1:], strict=True)
                return reduce(np.logical_and, [COMPARISONS[type(op)](a, b) for op, a, b in pairs])
        raise self._malformed(f"{ast.unparse(node)[:60]!r} is not possible in it")

    def _listed(self, node: ast.expr) -> list[Any]:
        """The numbers behind ``in``."""
        items = node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]
        return [self._number(item, {}) for item in items]

    def _number(self, node: ast.expr, values: Mapping[str, NDArray]) -> Any:
        found = self._value(node, values)
        if np.asarray(found).dtype == bool:
            raise self._malformed(f"{ast.unparse(node)[:60]!r} is a condition, not a number")
        return found

    def _condition(self, node: ast.expr, values: Mapping[str, NDArray]) -> Any:
        found = np.asarray(self._value(node, values))
        if found.dtype != bool:
            raise self._malformed(f"{ast.unparse(node)[:60]!r} is a number, not a condition")
        return found

    def _malformed(self, why: str) -> InputError:
        return InputError(
            f'{self._where} is malformed: {why}. It should be a condition such as "FieldRecord == 3 and TraceNumber <= 4"'
        )


def _depth(tree: ast.AST) -> int:
    """Levels of a syntax tree."""
    depth, level = 0, [tree]
    while level:
        depth, level = depth + 1, [child for node in level for child in ast.iter_child_nodes(node)]
    return depth
