"""Reads what is expected after a step: derived events by some of their fields, and drops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Any

from processor.config.document import plain
from processor.config.section import Faults, is_mapping, read_section
from processor.config.values import Wrong
from processor.core import events, patterns
from processor.errors import ConfigError
from processor.model import Pipeline
from processor.testing import shape, times
from processor.testing.suite import Expect, Expected, Leaf
from processor.wording import describe, did_you_mean, one_of

NOTHING = "nothing"
DETAIL_TYPES = [events.WINDOW_RESULT, *events.ANOMALY_TYPES.values()]
EXPECTED = "nothing, a list of events, or a mapping with exactly or contains"


class Expectations:
    """`line_of`: where a path of the file stands."""

    def __init__(
        self, pipeline: Pipeline, start_ms: int, line_of: Callable[[str], int], faults: Faults
    ) -> None:
        self._rules = {rule.name: rule for rule in pipeline.rules}
        self._sinks = list(pipeline.sinks)
        self._start_ms = start_ms
        self._line_of = line_of
        self._faults = faults

    def read(self, tree: Any, path: str) -> Expect:
        value = plain(tree)
        if value == NOTHING:
            return Expect(self._line_of(path))
        if isinstance(value, list):
            return Expect(self._line_of(path), self._events(value, path))
        if not isinstance(value, dict):
            self._faults.add(path, describe(value), EXPECTED)
            return Expect(0)
        return self._whole(tree, value, path)

    def _whole(self, tree: Any, value: dict[str, Any], path: str) -> Expect:
        given = read_section(tree, path, shape.EXPECT, self._faults, shape.EXPECT_ALSO)
        if "exactly" in value and "contains" in value:
            self._faults.add(path, "both exactly and contains", "one of them")
        key = "contains" if "contains" in value else "exactly"
        return Expect(
            self._line_of(path),
            self._events(value.get(key, []), f"{path}.{key}"),
            is_exact=key == "exactly",
            dead_letters=self._letters(value.get("dead_letters", []), f"{path}.dead_letters"),
            late=self._late(value.get("late", 0), f"{path}.late"),
            **given,
        )

    def check_rule(self, name: Any, path: str) -> None:
        if name not in self._rules:
            expected = one_of(list(self._rules)) + did_you_mean(str(name), self._rules)
            self._faults.add(path, describe(name), expected)

    def _late(self, tree: Any, path: str) -> Any:
        """A number over all rules, or one a rule."""
        each = tree if isinstance(tree, dict) else {"": tree}
        for rule, count in each.items():
            if rule:
                self.check_rule(rule, f"{path}.{rule}")
            try:
                shape.COUNT.read(count)
            except Wrong as wrong:
                self._faults.add(path, describe(count), wrong.expected)
        return tree

    def _letters(self, tree: Any, path: str) -> tuple[Expected, ...]:
        if tree == NOTHING:
            return ()
        return tuple(
            Expected(self._line_of(place), self._leaves(letter, (), place), letter)
            for letter, place in self._listed(tree, path)
            if is_mapping(letter, place, shape.LETTER_KEYS, self._faults)
        )

    # ---- events

    def _events(self, tree: Any, path: str) -> tuple[Expected, ...]:
        if tree == NOTHING:
            return ()
        return tuple(
            Expected(self._line_of(place), self._leaves(event, (), place), event)
            for event, place in self._listed(tree, path)
            if self._is_event(event, place)
        )

    def _listed(self, tree: Any, path: str) -> Iterator[tuple[Any, str]]:
        if not isinstance(tree, list):
            self._faults.add(path, describe(tree), "a list, or nothing")
            return
        yield from ((each, f"{path}[{i}]") for i, each in enumerate(tree))

    def _is_event(self, event: Any, path: str) -> bool:
        """Whether what is named can be there at all; a slip would never be found otherwise."""
        before = len(self._faults)
        if not is_mapping(event, path, shape.EVENT_KEYS, self._faults):
            return False
        rules = list(self._rules.values())
        if isinstance(event.get("rule"), str):
            self.check_rule(event["rule"], f"{path}.rule")
            rules = [rule for rule in rules if rule.name == event["rule"]] or rules
        names = (a.name for rule in rules for a in rule.aggregates)
        fields = (field for rule in rules for field in rule.group_by)
        self._check_choice(event, "detail_type", DETAIL_TYPES, path)
        self._check_choice(event, "sink", self._sinks, path)
        self._check_part(event, "values", names, path)
        self._check_part(event, "key", fields, path)
        self._check_part(event, "window", shape.WINDOW_KEYS, path)
        self._check_part(event, "anomaly", shape.ANOMALY_KEYS, path)
        return len(self._faults) == before

    def _check_choice(
        self, event: dict[str, Any], name: str, known: Collection[str], path: str
    ) -> None:
        found = event.get(name)
        if isinstance(found, str) and found not in known:
            expected = one_of(known) + did_you_mean(found, known) if known else "none"
            self._faults.add(f"{path}.{name}", describe(found), expected)

    def _check_part(
        self, event: dict[str, Any], name: str, known: Iterable[str], path: str
    ) -> None:
        part = event.get(name)
        if part is not None and not isinstance(part, list):
            is_mapping(part, f"{path}.{name}", list(dict.fromkeys(known)), self._faults)

    def _leaves(self, tree: Any, path: tuple[str, ...], place: str) -> tuple[Leaf, ...]:
        if isinstance(tree, dict) and tree:
            return tuple(
                leaf
                for name, value in tree.items()
                for leaf in self._leaves(value, (*path, name), f"{place}.{name}")
            )
        return (self._leaf(tree, path, place),)

    def _leaf(self, value: Any, path: tuple[str, ...], place: str) -> Leaf:
        if isinstance(value, list) and path != ("correlation_ids",):
            return self._pattern(value, path, place)
        if path in shape.TIME_LEAVES and isinstance(value, str):
            try:
                value = times.parse(value, self._start_ms)
            except Wrong as wrong:
                self._faults.add(place, describe(value), wrong.expected)
        return Leaf(path, value)

    def _pattern(self, value: list[Any], path: tuple[str, ...], place: str) -> Leaf:
        """Alternatives, as in an event pattern: `[{numeric: [">", 5]}]`."""
        try:
            compiled = patterns.compile({"value": value}, place)
        except ConfigError as error:
            self._faults.add(place, error.found, error.expected)
            return Leaf(path, value)
        return Leaf(path, value, compiled)
