"""A pipeline file, compiled once a process: fields, their types, patterns and rule versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from processor import codecs
from processor.codecs.base import Codec, Splitter
from processor.codecs.json import Fields
from processor.core import intake, patterns, versions
from processor.core.figures import field_uses
from processor.core.patterns import Pattern
from processor.core.rules import RulePlan
from processor.core.windows import Grid, Predicate, grid
from processor.core.zone import UTC, Zone
from processor.model import Bools, EventSpec, Pipeline, RuleSpec

_NO_ZONES: Mapping[str, Zone] = {}


class Plan(Struct, frozen=True):
    """What every shard's pipeline shares."""

    pipeline: Pipeline
    fields: Fields
    codec: Codec
    splitter: Splitter | None
    rules: tuple[RulePlan, ...]
    reading: str  # tells pipelines apart that take other times or ids from a record


def compile(pipeline: Pipeline, zones: Mapping[str, Zone] = _NO_ZONES) -> Plan:
    """Raises ConfigError where a pattern is wrong. `zones`: all that windows name."""
    rules = tuple(
        RulePlan(
            rule,
            versions.rule_version(pipeline, rule),
            versions.state_version(pipeline, rule),
            patterns.compile(rule.where, f"rules.{rule.name}.where"),
            pipeline.event.partition_key,
            field_uses(rule.aggregates),
            _filters(rule),
            _buckets(pipeline, rule),
            _grid(rule, zones),
            UTC if rule.window.zone is None else zones[rule.window.zone],
            _predicate(rule),
        )
        for rule in pipeline.rules
    )
    fields = Fields(_field_types(pipeline.event, rules))
    codec = codecs.get(pipeline.source.decode[-1])(fields.row_type)
    return Plan(
        pipeline,
        fields,
        codec,
        codecs.splitter(pipeline.source.decode),
        rules,
        versions.reading(pipeline),
    )


def _grid(rule: RuleSpec, zones: Mapping[str, Zone]) -> Grid | None:
    if rule.window.kind in ("session", "running"):
        return None
    return grid.of(rule.window, zones)


def _predicate(rule: RuleSpec) -> Predicate | None:
    """Which results make an early pane, by their figures."""
    if rule.panes.early_when is None:
        return None
    pattern = patterns.compile(rule.panes.early_when, f"rules.{rule.name}.panes.early.when")

    def matches(values: Mapping[str, Any], n: int) -> Bools:
        columns = {name: _plain(values[name]) for name in pattern.fields}
        return pattern.mask(columns, n)

    return matches


def _plain(column: Any) -> list[Any]:
    """Figures as JSON has them: null where one is not defined."""
    return [None if value != value else value for value in column.tolist()]


def _filters(rule: RuleSpec) -> dict[str, Pattern]:
    """What its figures filter by, each pattern once."""
    return {
        versions.filter_id(a.where): patterns.compile(
            a.where, f"rules.{rule.name}.aggregates.{a.name}.where"
        )
        for a in rule.aggregates
        if a.where
    }


def _buckets(pipeline: Pipeline, rule: RuleSpec) -> int:
    """A group lives on one shard only if the producer's partition key is part of its key."""
    if pipeline.merge is None or pipeline.event.partition_key in rule.group_by:
        return 0
    return pipeline.merge.buckets


def _field_types(event: EventSpec, rules: tuple[RulePlan, ...]) -> dict[str, Any]:
    """Every field in use, with the one type that serves all its uses."""
    uses: dict[str, set[Any]] = {}

    def use(path: str | None, type_: Any) -> None:
        if path is not None:
            uses.setdefault(path, set()).add(type_)

    use(event.id, intake.KEY)
    use(event.time, intake.TIMES[event.unit])
    use(event.correlation_id, Any)
    use(event.traceparent, Any)
    for rule in rules:
        for path in rule.spec.group_by:
            use(path, intake.KEY)
        for path in rule.numeric_fields:
            use(path, intake.NUMBER)
        for path in rule.key_fields:
            use(path, intake.KEY)
        for pattern in (rule.pattern, *rule.filters.values()):
            for path in pattern.fields:
                use(path, Any)
    return {path: intake.field_type(types) for path, types in uses.items()}
