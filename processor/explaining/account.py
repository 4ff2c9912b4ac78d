"""What is said of a pipeline: of each rule all in words, its memory, its traffic, its warnings."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from processor.config.checks import is_global
from processor.config.lints import Warning
from processor.core import versions
from processor.explaining import windows, words
from processor.explaining.memory import Memory, memory_of
from processor.explaining.traffic import Assumed, Traffic, traffic_of
from processor.model import Pipeline, RuleSpec


class Rule(Struct, frozen=True):
    name: str
    version: str
    is_global: bool
    is_grouped: bool
    tells_windows: bool
    scope: str
    counts: str
    figures: list[str]
    window: str
    tells: list[str]
    late: str
    groups: str
    detectors: list[str]
    maintenance: list[str]
    budget: list[str]
    collapses: list[str]
    sends: list[str]
    max_groups: int
    memory: Memory
    memory_groups: int  # on one shard, where all that are assumed are on it
    memory_bytes: int  # of those
    memory_bytes_max: int  # at max_groups, a shard
    traffic: Traffic
    warnings: list[str]


class Account(Struct, frozen=True):
    """`warnings`: of what belongs to no rule."""

    app: str
    assumed: Assumed
    repeats: str
    rules: list[Rule]
    warnings: list[str]


def account(pipeline: Pipeline, warnings: Sequence[Warning], assumed: Assumed) -> Account:
    rules = [_rule(pipeline, rule, warnings, assumed) for rule in pipeline.rules]
    told = {text for rule in rules for text in rule.warnings}
    rest = [text for text in map(str, warnings) if text not in told]
    return Account(pipeline.app, assumed, words.repeats(pipeline.event), rules, rest)


def _rule(
    pipeline: Pipeline, rule: RuleSpec, warnings: Sequence[Warning], assumed: Assumed
) -> Rule:
    event = pipeline.event
    is_global_ = is_global(event, rule)
    most = rule.max_groups if rule.group_by else 1
    groups = min(assumed.keys, most)
    memory = memory_of(rule, event)
    merge = pipeline.merge if is_global_ else None
    sink = pipeline.sinks.get(rule.emit_windows or "")
    is_paid = sink is not None and sink.kind == "eventbridge"
    path = f"rules.{rule.name}"
    return Rule(
        name=rule.name,
        version=versions.rule_version(pipeline, rule),
        is_global=is_global_,
        is_grouped=bool(rule.group_by),
        tells_windows=rule.emit_windows is not None,
        scope=words.scope(rule, event, merge),
        counts=words.counted(rule),
        figures=words.figures(rule),
        window=windows.of(rule.window),
        tells=list(windows.when_told(rule, event, is_global=is_global_)),
        late=windows.what_is_late(rule, event),
        groups=words.keys(rule),
        detectors=words.detects(rule),
        maintenance=words.maintenance(rule),
        budget=words.budget(rule, is_global=is_global_),
        collapses=words.collapses(rule),
        sends=list(words.sent(rule, pipeline.sinks)),
        max_groups=rule.max_groups,
        memory=memory,
        memory_groups=groups,
        memory_bytes=memory.of(groups),
        memory_bytes_max=memory.of(most),
        traffic=traffic_of(rule, assumed, merge, is_paid=is_paid, a_window=memory.a_window),
        warnings=[str(one) for one in warnings if f"{one.path}.".startswith(f"{path}.")],
    )
