"""Reads one field's alternatives in an event pattern, and refuses what EventBridge refuses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from processor.core import texts
from processor.core.matching import COMPARISONS, Bound, FieldTest, Values
from processor.core.texts import Cidr, IgnoreCase, Place, Wildcard
from processor.errors import ConfigError
from processor.wording import describe, did_you_mean, one_of

Shape = Wildcard | IgnoreCase | Cidr

IGNORE_CASE, WILDCARD = "equals-ignore-case", "wildcard"
AFFIXES: Mapping[str, Place] = {"prefix": Place.START, "suffix": Place.END}
LOWER, UPPER = (">", ">="), ("<", "<=")  # what may begin and what may end a range
_CASE_FORM = f"or {{{IGNORE_CASE}: …}}"


def read_field(field: str, alternatives: Any, place: str) -> FieldTest:
    """Raises `ConfigError` at the first fault's place, which is `place` or one below it."""
    if not isinstance(alternatives, list) or not alternatives:
        expected = "a list of alternatives, such as [a, {prefix: b}]"
        raise ConfigError(place, describe(alternatives), expected)
    parts = [_alternative(field, each, f"{place}[{i}]") for i, each in enumerate(alternatives)]
    return FieldTest(
        field,
        _union([part.any_of for part in parts]),
        tuple(excluded for part in parts for excluded in part.but),
        any(part.if_present for part in parts),
        any(part.if_absent for part in parts),
    )


def _union(parts: Sequence[Values]) -> Values:
    return Values(
        strings=frozenset().union(*(part.strings for part in parts)),
        prefixes=tuple(prefix for part in parts for prefix in part.prefixes),
        suffixes=tuple(suffix for part in parts for suffix in part.suffixes),
        shapes=tuple(shape for part in parts for shape in part.shapes),
        numbers=frozenset().union(*(part.numbers for part in parts)),
        ranges=tuple(bounds for part in parts for bounds in part.ranges),
        booleans=frozenset().union(*(part.booleans for part in parts)),
        has_null=any(part.has_null for part in parts),
    )


def _alternative(field: str, value: Any, place: str) -> FieldTest:
    if isinstance(value, Mapping):
        name, operand = _operator(value, place, tuple(_OPERATOR))
        return _OPERATOR[name](field, operand, f"{place}.{name}")
    return FieldTest(field, _exactly([value], place))


def _operator(value: Mapping[Any, Any], place: str, known: Sequence[str]) -> tuple[str, Any]:
    expected = one_of(known)
    if len(value) != 1:
        raise ConfigError(place, f"a mapping of {len(value)} keys", f"one key: {expected}")
    [(name, operand)] = value.items()
    if name not in known:
        raise ConfigError(place, describe(name), expected + did_you_mean(str(name), known))
    return name, operand


# ---- equality and numbers -------------------------------------------------------------------


def _exactly(values: Sequence[Any], place: str) -> Values:
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
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(place, str(value), "a number that JSON can write")


def _check_comparable(number: int | float, place: str) -> None:
    """EventBridge compares doubles, and refuses an integer that would become another one."""
    _check_finite(number, place)
    try:
        is_exact = float(number) == number
    except OverflowError:
        is_exact = False
    if not is_exact:
        raise ConfigError(place, describe(number), "an integer that a double holds, such as 2^53")


def _numeric(field: str, value: Any, place: str) -> FieldTest:
    if not isinstance(value, list) or len(value) not in (2, 4):
        expected = 'comparisons and numbers, such as [">", 0, "<=", 5] or ["=", 3]'
        raise ConfigError(place, describe(value), expected)
    bounds = tuple(zip(value[::2], value[1::2], strict=True))
    for sign, number in bounds:
        if not isinstance(sign, str) or sign not in COMPARISONS:
            raise ConfigError(place, describe(sign), f"one of {' '.join(COMPARISONS)}")
        if not _is_number(number):
            raise ConfigError(place, describe(number), f"a number after {sign}")
        _check_comparable(number, place)
    if len(bounds) == 2:
        _check_range(bounds, place)
    return FieldTest(field, Values(ranges=(bounds,)))


def _check_range(bounds: tuple[Bound, ...], place: str) -> None:
    (low_sign, low), (high_sign, high) = bounds
    if low_sign not in LOWER or high_sign not in UPPER:
        raise ConfigError(place, f"{low_sign} then {high_sign}", "a lower bound, then an upper one")
    if low >= high:
        found = f"{low_sign} {low} and {high_sign} {high}"
        raise ConfigError(
            place, found, 'a lower bound below the upper one; for one number ["=", 3]'
        )


def _exists(field: str, value: Any, place: str) -> FieldTest:
    if not isinstance(value, bool):
        raise ConfigError(place, describe(value), "true or false")
    return FieldTest(field, Values(), if_present=value, if_absent=not value)


# ---- texts ----------------------------------------------------------------------------------


def _text(value: Any, place: str, expected: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(place, describe(value), expected)
    return value


def _literal(field: str, value: Any, place: str) -> FieldTest:
    return FieldTest(field, Values(strings=frozenset([_text(value, place, "a text")])))


def _affix(name: str) -> Callable[[str, Any, str], FieldTest]:
    """An empty one takes every text, and nothing else."""

    def read(field: str, value: Any, place: str) -> FieldTest:
        if isinstance(value, Mapping):
            inner, operand = _operator(value, place, (IGNORE_CASE,))
            return FieldTest(field, _ignore_case(operand, f"{place}.{inner}", AFFIXES[name]))
        return FieldTest(field, _affix_values(name, value, place, f"{name}'s text, {_CASE_FORM}"))

    return read


def _affix_values(name: str, value: Any, place: str, expected: str) -> Values:
    found = (_text(value, place, expected),)
    return Values(prefixes=found) if name == "prefix" else Values(suffixes=found)


def _ignore_case(value: Any, place: str, where: Place = Place.WHOLE) -> Values:
    return Values(shapes=(texts.ignore_case(_text(value, place, "a text"), where),))


def _shape(compile: Callable[[str], Shape], value: Any, place: str, expected: str) -> Values:
    try:
        return Values(shapes=(compile(_text(value, place, expected)),))
    except ValueError as error:
        raise ConfigError(place, describe(value), str(error)) from error


def _wildcard(value: Any, place: str) -> Values:
    return _shape(texts.wildcard, value, place, "a text in which * stands for any other")


def _cidr(field: str, value: Any, place: str) -> FieldTest:
    expected = "a block of addresses, such as 10.0.0.0/24"
    return FieldTest(field, _shape(texts.cidr, value, place, expected))


# ---- anything-but ---------------------------------------------------------------------------


def _anything_but(field: str, value: Any, place: str) -> FieldTest:
    if isinstance(value, Mapping):
        name, operand = _operator(value, place, tuple(_EXCLUDED))
        return FieldTest(field, Values(), (_excluded(name, operand, f"{place}.{name}"),))
    values = value if isinstance(value, list) else [value]
    is_uniform = all(isinstance(v, str) for v in values) or all(map(_is_number, values))
    if not values or not is_uniform:
        expected = f"a text, a number, a list of one of the two, or {{{one_of(_EXCLUDED)}: …}}"
        raise ConfigError(place, describe(value), expected)
    for number in filter(_is_number, values):
        _check_comparable(number, place)
    return FieldTest(field, Values(), (_exactly(values, place),))


def _excluded(name: str, operand: Any, place: str) -> Values:
    if not isinstance(operand, list):
        return _EXCLUDED[name](operand, place)
    if not operand:
        raise ConfigError(place, describe(operand), "a text or a list of texts")
    return _union([_EXCLUDED[name](each, f"{place}[{i}]") for i, each in enumerate(operand)])


def _excluded_affix(name: str) -> Callable[[Any, str], Values]:
    def read(value: Any, place: str) -> Values:
        if value == "":
            raise ConfigError(place, describe(value), f"a {name} of one letter or more")
        return _affix_values(name, value, place, "a text or a list of texts")

    return read


_EXCLUDED: Mapping[str, Callable[[Any, str], Values]] = {
    "prefix": _excluded_affix("prefix"),
    "suffix": _excluded_affix("suffix"),
    IGNORE_CASE: _ignore_case,
    WILDCARD: _wildcard,
}

_OPERATOR: Mapping[str, Callable[[str, Any, str], FieldTest]] = {
    "prefix": _affix("prefix"),
    "suffix": _affix("suffix"),
    IGNORE_CASE: lambda field, value, place: FieldTest(field, _ignore_case(value, place)),
    WILDCARD: lambda field, value, place: FieldTest(field, _wildcard(value, place)),
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
    "cidr": _cidr,
    "exactly": _literal,
}
OPERATORS = tuple(_OPERATOR)
