"""EventBridge event patterns, compiled once and evaluated on columns.

A pattern names fields by nested keys, or by dotted ones: `order: {type: […]}` is `order.type: […]`.
Each has a list of alternatives. Fields are ANDed, alternatives ORed. The alternatives:

    "x" 5 true null              equal, and of the same type: "1" is not 1, true is not 1, 1 is 1.0
    {prefix: "x"}                a text that starts so
    {numeric: [">", 0, "<=", 5]} a number in the range; also = < <= > >= alone
    {anything-but: "x"}          a value that is none of these: a text, a number, a list of either,
                                 or {prefix: …}; never an absent field
    {exists: true}               a value is there, null included; false: none is

Semantics are EventBridge's (Event Ruler's README); `matching` holds what a value is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct

from processor.core.matching import ABSENT, COMPARISONS, Bound, FieldTest, JsonType, Values, mask
from processor.errors import ConfigError
from processor.model import Bools
from processor.wording import describe, did_you_mean, is_field_path, one_of

__all__ = ["ABSENT", "JsonType", "Pattern", "compile"]

OPERATORS = ("prefix", "numeric", "anything-but", "exists")
LATER = ("suffix", "wildcard", "equals-ignore-case", "cidr", "$or")


class Pattern(Struct, frozen=True):
    """A compiled pattern; without fields it takes every event."""

    tests: tuple[FieldTest, ...]

    @property
    def fields(self) -> dict[str, frozenset[JsonType]]:
        """By dotted path, the types of leaves that can match; a field may be an array of them."""
        return {test.path: test.types for test in self.tests}

    def mask(self, columns: Mapping[str, Sequence[Any]], n: int) -> Bools:
        """Which of n events match: bool[n].

        `columns[path]`, for every path of `fields`: n JSON values (list for an array, dict for an
        object), ABSENT where there is none.
        """
        result = np.ones(n, np.bool_)
        for test in self.tests:
            result &= mask(test, columns[test.path], n)
        return result


def compile(pattern: Any, path: str) -> Pattern:
    """Raises `ConfigError` at the dotted path below `path` of the first fault."""
    if not isinstance(pattern, Mapping):
        raise ConfigError(path, describe(pattern), "an event pattern, such as {type: [a, b]}")
    tests: dict[str, FieldTest] = {}
    for field, alternatives, place in _fields(pattern, "", path):
        if field in tests:
            raise ConfigError(place, f"{field} a second time", "all its alternatives in one list")
        tests[field] = _field_test(field, alternatives, place)
    return Pattern(tuple(tests.values()))


def _fields(pattern: Mapping[str, Any], prefix: str, path: str) -> Iterator[tuple[str, Any, str]]:
    """(field's path, its alternatives, where in the file), objects flattened."""
    for key, value in pattern.items():
        field, place = f"{prefix}{key}", f"{path}.{key}"
        _check_key(key, place)
        if isinstance(value, Mapping):
            if not value:
                raise ConfigError(place, "an empty mapping", "at least one field")
            _check_not_an_operator(value, place)
            yield from _fields(value, f"{field}.", place)
        else:
            yield field, value, place


def _check_key(key: str, place: str) -> None:
    if key in LATER:
        raise ConfigError(place, key, f"fields only: {key} is not supported yet")
    if not isinstance(key, str) or not is_field_path(key):
        raise ConfigError(place, describe(key), "a field's name; elements of arrays have none")


def _check_not_an_operator(value: Mapping[str, Any], place: str) -> None:
    """`{type: {prefix: x}}` would ask for a field `type.prefix`: nobody means that."""
    name = next(iter(value))
    if len(value) == 1 and name in (*OPERATORS, *LATER) and not _is_alternatives(value[name]):
        raise ConfigError(place, "a mapping", f"a list of alternatives, such as [{{{name}: …}}]")


def _is_alternatives(value: Any) -> bool:
    return isinstance(value, list | Mapping)


def _field_test(field: str, alternatives: Any, place: str) -> FieldTest:
    if not isinstance(alternatives, list) or not alternatives:
        raise ConfigError(
            place, describe(alternatives), "a list of alternatives, such as [a, {prefix: b}]"
        )
    parts = [_alternative(field, a, f"{place}[{i}]") for i, a in enumerate(alternatives)]
    return FieldTest(
        field,
        _union([part.any_of for part in parts]),
        tuple(excluded for part in parts for excluded in part.but),
        any(part.if_present for part in parts),
        any(part.if_absent for part in parts),
    )


def _union(parts: list[Values]) -> Values:
    return Values(
        frozenset().union(*(part.strings for part in parts)),
        tuple(prefix for part in parts for prefix in part.prefixes),
        frozenset().union(*(part.numbers for part in parts)),
        tuple(bounds for part in parts for bounds in part.ranges),
        frozenset().union(*(part.booleans for part in parts)),
        any(part.has_null for part in parts),
    )


def _alternative(field: str, value: Any, place: str) -> FieldTest:
    if isinstance(value, Mapping):
        name = _operator(value, place)
        return _OPERATOR[name](field, value[name], f"{place}.{name}")
    return FieldTest(field, _exactly([value], place))


def _operator(value: Mapping[str, Any], place: str) -> str:
    expected = one_of(OPERATORS)
    if len(value) != 1:
        raise ConfigError(place, f"a mapping of {len(value)} keys", f"one key: {expected}")
    name: str = next(iter(value))
    if name in LATER:
        raise ConfigError(place, name, f"{expected}: {name} is not supported yet")
    if name not in OPERATORS:
        raise ConfigError(place, describe(name), expected + did_you_mean(str(name), OPERATORS))
    return name


def _exactly(values: list[Any], place: str) -> Values:
    for value in values:
        if not isinstance(value, str | int | float | None):
            raise ConfigError(place, describe(value), "a text, a number, true, false or null")
        _check_finite(value, place)
    return Values(
        strings=frozenset(v for v in values if isinstance(v, str)),
        numbers=frozenset(v for v in values if _is_number(v)),
        booleans=frozenset(v for v in values if isinstance(v, bool)),
        has_null=None in values,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_finite(value: Any, place: str) -> None:
    if isinstance(value, float) and not np.isfinite(value):
        raise ConfigError(place, str(value), "a number that JSON can write")


def _prefix(field: str, value: Any, place: str) -> FieldTest:
    return FieldTest(field, Values(prefixes=(_prefix_text(value, place),)))


def _prefix_text(value: Any, place: str) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(place, describe(value), "the text that values start with")
    return value


def _exists(field: str, value: Any, place: str) -> FieldTest:
    if not isinstance(value, bool):
        raise ConfigError(place, describe(value), "true or false")
    return FieldTest(field, Values(), if_present=value, if_absent=not value)


def _anything_but(field: str, value: Any, place: str) -> FieldTest:
    if isinstance(value, Mapping):
        name = _operator(value, place)
        if name != "prefix":
            raise ConfigError(place, name, "a text, a number, a list of either, or {prefix: …}")
        texts = value[name] if isinstance(value[name], list) and value[name] else [value[name]]
        prefixes = tuple(_prefix_text(text, f"{place}.prefix") for text in texts)
        return FieldTest(field, Values(), (Values(prefixes=prefixes),))
    values = value if isinstance(value, list) else [value]
    is_uniform = all(isinstance(v, str) for v in values) or all(map(_is_number, values))
    if not values or not is_uniform:
        raise ConfigError(place, describe(value), "a text, a number, or a list of one of the two")
    return FieldTest(field, Values(), (_exactly(values, place),))


def _numeric(field: str, value: Any, place: str) -> FieldTest:
    expected = 'comparisons and numbers, such as [">", 0, "<=", 5] or ["=", 3]'
    if not isinstance(value, list) or len(value) not in (2, 4):
        raise ConfigError(place, describe(value), expected)
    bounds = tuple(zip(value[::2], value[1::2], strict=True))
    for sign, number in bounds:
        if not isinstance(sign, str) or sign not in COMPARISONS:
            raise ConfigError(place, describe(sign), f"one of {' '.join(COMPARISONS)}")
        if not _is_number(number):
            raise ConfigError(place, describe(number), f"a number after {sign}")
        _check_finite(number, place)
    _check_order(bounds, place)
    return FieldTest(field, Values(ranges=(bounds,)))


def _check_order(bounds: tuple[Bound, ...], place: str) -> None:
    if len(bounds) == 1:
        return
    (low_sign, low), (high_sign, high) = bounds
    if low_sign not in (">", ">=") or high_sign not in ("<", "<="):
        raise ConfigError(place, f"{low_sign} then {high_sign}", "a lower bound, then an upper one")
    if low > high or (low == high and (low_sign, high_sign) != (">=", "<=")):
        found = f"{low_sign} {low} and {high_sign} {high}"
        raise ConfigError(place, found, "a range that holds a number")


_OPERATOR: Mapping[str, Callable[[str, Any, str], FieldTest]] = {
    "prefix": _prefix,
    "numeric": _numeric,
    "anything-but": _anything_but,
    "exists": _exists,
}
