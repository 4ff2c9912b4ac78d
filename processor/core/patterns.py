"""EventBridge event patterns, compiled once and evaluated on columns.

A pattern names fields by nested keys, or by dotted ones: `order: {type: […]}` is `order.type: […]`.
Each has a list of alternatives. Fields are ANDed, alternatives ORed. The alternatives:

    "x" 5 true null              equal, and of the same type: "1" is not 1, true is not 1, 1 is 1.0
    {exactly: "x"}               that text
    {prefix: "x"} {suffix: "x"}  a text that starts or ends so; or {prefix: {equals-ignore-case: x}}
    {equals-ignore-case: "x"}    that text, whatever the case of its letters
    {wildcard: "a*b"}            * stands for any text; \\* and \\\\ for themselves
    {numeric: [">", 0, "<=", 5]} a number in the range; also = < <= > >= alone
    {cidr: "10.0.0.0/24"}        an address of the block, IPv4 or IPv6, written as a text
    {anything-but: "x"}          a value that is none of these: a text, a number, a list of either,
                                 or {prefix: …}, {suffix: …}, {equals-ignore-case: …} or
                                 {wildcard: …} of a text or a list; never an absent field
    {exists: true}               a value is there, null included; false: none is

`$or: [{…}, {…}]` beside fields takes what one of its patterns takes. Semantics are EventBridge's
(Event Ruler's README and compiler): each way through the `$or`s is a conjunction of its own, in
which the last list for a field counts. `alternatives` reads a field's list, `matching` holds what a
value is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from math import prod
from operator import and_
from typing import Any

import numpy as np
from msgspec import Struct

from processor.codecs.json import Elements
from processor.core.alternatives import OPERATORS, read_field
from processor.core.matching import ABSENT, FieldTest, JsonType, mask, take_together
from processor.errors import ConfigError
from processor.model import Bools
from processor.wording import describe, is_field_path

__all__ = ["ABSENT", "OPERATORS", "OR", "JsonType", "Pattern", "compile"]

OR = "$or"
# "over 1000 rule combinations" are refused (EventBridge User Guide, "Or" matching).
COMBINATIONS_MAX = 1000
# Names that a pattern inside $or must not use for its fields (Event Ruler, Constants.java).
RESERVED = frozenset(OPERATORS) | {
    *("=", "<", "<=", ">", ">=", "regex", "not-wildcard", "not-equals-ignore-case"),
    *("date-after", "date-on-or-after", "date-before", "date-on-or-before", "in-date-range"),
    *("ip-address-in-range", "ip-address-not-in-range"),
}


class Pattern(Struct, frozen=True):
    """A compiled pattern: events for which all tests of one branch hold.

    `branches` holds indices into `tests`; a pattern without fields has one empty branch, and takes
    every event. `places`: where each test stands in the file; `replaced`: places whose list a later
    one for the same field replaced.
    """

    tests: tuple[FieldTest, ...]
    places: tuple[str, ...]
    branches: tuple[tuple[int, ...], ...]
    replaced: tuple[str, ...] = ()

    @property
    def fields(self) -> dict[str, frozenset[JsonType]]:
        """By dotted path, the types of leaves that can match; a field may be an array of them."""
        types: dict[str, frozenset[JsonType]] = {}
        for test in self.tests:
            types[test.path] = types.get(test.path, frozenset()) | test.types
        return types

    def mask(self, columns: Mapping[str, Sequence[Any]], n: int) -> Bools:
        """Which of n events match: bool[n].

        `columns[path]`, for every path of `fields`: n JSON values (list for an array, dict for an
        object), ABSENT where there is none, `Elements` where an array stands for an object.
        """
        assert all(len(columns[test.path]) == n for test in self.tests), "columns of other lengths"
        types = {test.path: set(map(type, columns[test.path])) for test in self.tests}
        masks = [mask(test, columns[test.path], types[test.path]) for test in self.tests]
        if len(self.branches) == 1:
            result = reduce(and_, masks, np.ones(n, np.bool_))
        else:
            result = _any_branch(masks, self.branches, n)
        if len(self.tests) > 1 and any(Elements in each for each in types.values()):
            self._keep_together(columns, result)
        return result

    def _keep_together(self, columns: Mapping[str, Sequence[Any]], result: Bools) -> None:
        """Of fields in an array of objects, one object must match all: ask such events alone."""
        for i in np.flatnonzero(result).tolist():
            values = [columns[test.path][i] for test in self.tests]
            if Elements in set(map(type, values)):
                ways = ([(self.tests[k], values[k]) for k in branch] for branch in self.branches)
                result[i] = any(map(take_together, ways))


def _any_branch(masks: Sequence[Bools], branches: Sequence[Sequence[int]], n: int) -> Bools:
    """Of up to a thousand; `&` of two integers is ten times as fast as of two arrays."""
    bits = [int.from_bytes(np.packbits(each)) for each in masks]
    taken = 0
    for branch in branches:
        taken |= reduce(and_, [bits[i] for i in branch])
    packed = np.frombuffer(taken.to_bytes((n + 7) // 8), np.uint8)
    return np.unpackbits(packed, count=n).view(np.bool_)


def compile(pattern: Any, path: str) -> Pattern:
    """Raises `ConfigError` at the dotted path below `path` of the first fault."""
    if not isinstance(pattern, Mapping):
        raise ConfigError(path, describe(pattern), "an event pattern, such as {type: [a, b]}")
    _check_combinations(pattern, path)
    try:
        return _Compiler(is_or=True).compile(pattern, path)
    except ConfigError as error:
        # A `$or` that can't be the operator may still be a field's name, for EventBridge as well.
        try:
            return _Compiler(is_or=False).compile(pattern, path)
        except ConfigError:
            raise error from None


def _check_combinations(pattern: Mapping[str, Any], path: str) -> None:
    found = _combinations(pattern)
    if found > COMBINATIONS_MAX:
        expected = f"at most {COMBINATIONS_MAX}, as EventBridge counts: all lengths multiplied"
        raise ConfigError(path, f"{OR} lists that make {found} combinations", expected)


def _combinations(node: Any) -> int:
    """As its documentation says: "multiply the total number of arguments from each $or array"."""
    if isinstance(node, list):
        return max(len(node), 1) * prod(map(_combinations, node))
    if not isinstance(node, Mapping):
        return 1
    return prod(
        _combinations(value)
        for key, value in node.items()
        if isinstance(value, Mapping) or (key == OR and isinstance(value, list))
    )


Branch = dict[str, tuple[str, FieldTest]]  # by field's path: the place and the test that counts


class _Compiler:
    """Walks a pattern in the order of the file, writing each field into every branch so far."""

    def __init__(self, *, is_or: bool) -> None:
        self._is_or = is_or
        self._replaced: dict[str, None] = {}

    def compile(self, pattern: Mapping[str, Any], path: str) -> Pattern:
        branches = self._walk(pattern, "", path, [{}], inside_or=False)
        numbers: dict[str, int] = {}
        tests: list[FieldTest] = []
        for branch in branches:
            for place, test in branch.values():
                if numbers.setdefault(place, len(tests)) == len(tests):
                    tests.append(test)
        ways = [tuple(numbers[place] for place, _ in branch.values()) for branch in branches]
        return Pattern(tuple(tests), tuple(numbers), tuple(ways), tuple(self._replaced))

    def _walk(
        self,
        node: Mapping[str, Any],
        prefix: str,
        path: str,
        branches: list[Branch],
        *,
        inside_or: bool,
    ) -> list[Branch]:
        for key, value in node.items():
            field, place = f"{prefix}{key}", f"{path}.{key}"
            if key == OR and self._is_or:
                branches = self._fork(value, prefix, place, branches)
                continue
            _check_key(key, place, inside_or=inside_or)
            if isinstance(value, Mapping):
                _check_object(value, place)
                branches = self._walk(value, f"{field}.", place, branches, inside_or=inside_or)
            else:
                branches = self._write(read_field(field, value, place), place, branches)
        return branches

    def _fork(self, patterns: Any, prefix: str, path: str, branches: list[Branch]) -> list[Branch]:
        if not isinstance(patterns, list) or len(patterns) < 2:
            raise ConfigError(path, describe(patterns), "a list of two patterns or more")
        forked = []
        for i, pattern in enumerate(patterns):
            place = f"{path}[{i}]"
            if not isinstance(pattern, Mapping) or not pattern:
                raise ConfigError(place, describe(pattern), "a pattern, such as {type: [a, b]}")
            forked += self._walk(pattern, prefix, place, branches, inside_or=True)
        return forked

    def _write(self, test: FieldTest, place: str, branches: list[Branch]) -> list[Branch]:
        for branch in branches:
            if test.path in branch:
                self._replaced[branch[test.path][0]] = None
        return [{**branch, test.path: (place, test)} for branch in branches]


def _check_key(key: Any, place: str, *, inside_or: bool) -> None:
    if not isinstance(key, str) or not is_field_path(key):
        raise ConfigError(place, describe(key), "a field's name; elements of arrays have none")
    if inside_or and key in RESERVED:
        expected = f"the name of a field: {OR} has a list of patterns, such as {{type: [a, b]}}"
        raise ConfigError(place, f"the operator {key}", expected)


def _check_object(value: Mapping[str, Any], place: str) -> None:
    """`{type: {prefix: x}}` would ask for a field `type.prefix`: nobody means that."""
    if not value:
        raise ConfigError(place, "an empty mapping", "at least one field")
    name = next(iter(value))
    if len(value) == 1 and name in OPERATORS and not isinstance(value[name], list | Mapping):
        raise ConfigError(place, "a mapping", f"a list of alternatives, such as [{{{name}: …}}]")
