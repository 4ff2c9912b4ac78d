"""One field of an event pattern: what it takes, asked of a value or of a whole column.

Only leaves are values: of an array each element is one, and one that matches is enough; an empty
array and an object hold none. A column of one type, the usual thing, is done by loops in C. Where
an array holds objects, fields of one object must match together (`Elements`, `take_together`).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
from msgspec import Struct

from processor.codecs.json import Elements
from processor.core.texts import Cidr, IgnoreCase, Wildcard
from processor.model import Bools, Floats

ABSENT = msgspec.UNSET  # what a column holds where the event has no such field, or no parent of it

JsonType = Literal["string", "number", "boolean", "null"]
EVERY_TYPE: frozenset[JsonType] = frozenset({"string", "number", "boolean", "null"})

COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
Bound = tuple[str, int | float]  # (">", 0): the value is greater than 0


class Values(Struct, frozen=True):
    """Leaves by type; type-strict, because a Python set takes True for 1."""

    strings: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    shapes: tuple[Wildcard | IgnoreCase | Cidr, ...] = ()
    numbers: frozenset[int | float] = frozenset()
    ranges: tuple[tuple[Bound, ...], ...] = ()
    booleans: frozenset[bool] = frozenset()
    has_null: bool = False

    def has(self, leaf: Any) -> bool:
        kind = type(leaf)
        if kind is str:
            return (
                leaf in self.strings
                or leaf.startswith(self.prefixes)
                or leaf.endswith(self.suffixes)
                or self.has_shape(leaf)
            )
        if kind is int or kind is float:
            return leaf in self.numbers or any(_in_range(leaf, r) for r in self.ranges)
        if kind is bool:
            return leaf in self.booleans
        return leaf is None and self.has_null

    def has_shape(self, text: str) -> bool:
        return any(shape.has(text) for shape in self.shapes)


class FieldTest(Struct, frozen=True):
    """All alternatives for one field."""

    path: str
    any_of: Values
    but: tuple[Values, ...] = ()
    if_present: bool = False
    if_absent: bool = False

    def takes(self, value: Any) -> bool:
        """Whether one value, array, object, `Elements` or ABSENT matches."""
        if type(value) is Elements:
            return take_together([(self, value)])
        is_present = False
        for leaf in _leaves(value):
            is_present = True
            if self.takes_leaf(leaf):
                return True
        return not is_present and self.if_absent

    def takes_leaf(self, leaf: Any) -> bool:
        return (
            self.if_present
            or self.any_of.has(leaf)
            or any(not excluded.has(leaf) for excluded in self.but)
        )

    @property
    def types(self) -> frozenset[JsonType]:
        if self.but or self.if_present or self.if_absent:
            return EVERY_TYPE
        return _types_of(self.any_of)


def mask(test: FieldTest, column: Sequence[Any], types: set[type]) -> Bools:
    """Which values, arrays, objects, `Elements` or ABSENT match: bool[len(column)].

    `types`: those of the column's values.
    """
    n = len(column)
    if not types.isdisjoint((list, dict, Elements)):
        return np.fromiter(map(test.takes, column), np.bool_, n)
    if msgspec.UnsetType not in types:
        return _scalars(test, column, types)
    is_present = np.fromiter((value is not ABSENT for value in column), np.bool_, n)
    present = [value for value in column if value is not ABSENT]
    result = np.full(n, test.if_absent)
    result[is_present] = _scalars(test, present, types - {msgspec.UnsetType})
    return result


def _scalars(test: FieldTest, leaves: Sequence[Any], types: set[type]) -> Bools:
    if test.if_present:
        return np.ones(len(leaves), np.bool_)
    if types <= {str}:
        return _any_of(test, leaves, _strings)
    if types <= {int, float}:
        return _any_of(test, leaves, _numbers)
    return np.fromiter(map(test.takes_leaf, leaves), np.bool_, len(leaves))


def _any_of(
    test: FieldTest, leaves: Sequence[Any], has: Callable[[Values, Sequence[Any]], Bools]
) -> Bools:
    result = has(test.any_of, leaves)
    for excluded in test.but:
        result |= ~has(excluded, leaves)
    return result


def _strings(allowed: Values, column: Sequence[str]) -> Bools:
    n = len(column)
    result = np.fromiter(map(allowed.strings.__contains__, column), np.bool_, n)
    if allowed.prefixes:
        result |= np.fromiter((v.startswith(allowed.prefixes) for v in column), np.bool_, n)
    if allowed.suffixes:
        result |= np.fromiter((v.endswith(allowed.suffixes) for v in column), np.bool_, n)
    if allowed.shapes:
        # Dearer than the rest, and a page repeats most of its texts: each is asked once.
        verdicts = {text: allowed.has_shape(text) for text in set(column)}
        result |= np.fromiter(map(verdicts.__getitem__, column), np.bool_, n)
    return result


def _numbers(allowed: Values, column: Sequence[int | float]) -> Bools:
    """numpy is some 8 times as fast, where float64 says the same as Python's exact comparison."""
    values = _as_exact_floats(column)
    if values is None or not _is_exact(allowed):
        return np.fromiter(map(allowed.has, column), np.bool_, len(column))
    result = (
        np.isin(values, list(allowed.numbers))
        if allowed.numbers
        else np.zeros(len(values), np.bool_)
    )
    for bounds in allowed.ranges:
        result |= np.logical_and.reduce([COMPARISONS[sign](values, b) for sign, b in bounds])
    return result


def _as_exact_floats(column: Sequence[int | float]) -> Floats | None:
    """None where a number may have been rounded: float64 holds every integer below 2^53."""
    try:
        values = np.array(column, np.float64)
    except OverflowError:  # an integer beyond 1.8e308
        return None
    return values if (np.abs(values) < 2**53).all() else None


def _is_exact(allowed: Values) -> bool:
    numbers = [*allowed.numbers, *(number for bounds in allowed.ranges for _, number in bounds)]
    return all(abs(number) < 2**53 for number in numbers)


def _in_range(number: int | float, bounds: tuple[Bound, ...]) -> bool:
    return all(COMPARISONS[sign](number, bound) for sign, bound in bounds)


def _leaves(value: Any) -> Iterator[Any]:
    """Recursion ends where the JSON parser's own limit on nesting ended it."""
    if isinstance(value, list):
        for element in value:
            yield from _leaves(element)
    elif value is not ABSENT and not isinstance(value, dict):
        yield value


Tree = dict[str, Any]  # by key: another tree, or the test of a field


def take_together(parts: Iterable[tuple[FieldTest, Any]]) -> bool:
    """Whether each value matches its test, those in an array of objects within one object."""
    arrays: dict[str, list[Any]] = {}
    trees: dict[str, Tree] = {}
    for test, value in parts:
        if type(value) is Elements:
            arrays[value.array_path] = value.array
            _plant(test, value.array_path, trees.setdefault(value.array_path, {}))
        elif not test.takes(value):
            return False
    return all(_any_object(trees[path], array) for path, array in arrays.items())


def _plant(test: FieldTest, array_path: str, tree: Tree) -> None:
    *parents, leaf = test.path.removeprefix(f"{array_path}.").split(".")
    for key in parents:
        tree = tree.setdefault(key, {})
    tree[leaf] = test


def _any_object(tree: Tree, value: Any) -> bool:
    """Where there is no object, none of its fields is there; that may be what is asked for."""
    return any(_holds(tree, each) for each in list(_objects(value)) or [{}])


def _holds(tree: Tree, value: dict[str, Any]) -> bool:
    return all(
        _any_object(node, value.get(key, ABSENT))
        if isinstance(node, dict)
        else node.takes(value.get(key, ABSENT))
        for key, node in tree.items()
    )


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, list):
        for element in value:
            yield from _objects(element)
    elif isinstance(value, dict):
        yield value


def _types_of(values: Values) -> frozenset[JsonType]:
    present: dict[JsonType, bool] = {
        "string": bool(values.strings or values.prefixes or values.suffixes or values.shapes),
        "number": bool(values.numbers or values.ranges),
        "boolean": bool(values.booleans),
        "null": values.has_null,
    }
    return frozenset(name for name, is_there in present.items() if is_there)
