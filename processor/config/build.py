"""From the document's tree to a `Pipeline`; whatever is wrong is collected, not raised."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from msgspec import Struct

from processor.config import checks, shape
from processor.config.document import plain
from processor.config.rules import check_name, read_rule
from processor.config.section import Faults, read_section, read_value
from processor.config.shape import Key
from processor.model import (
    DeadLetterSpec,
    EventSpec,
    HttpSpec,
    MergeSpec,
    Pipeline,
    RuleSpec,
    SinkSpec,
    SourceSpec,
    StateSpec,
)
from processor.wording import describe, did_you_mean, one_of

SECTIONS = ("source", "event", "sinks", "rules", "merge", "state", "dead_letters", "http")

S = TypeVar("S", bound=Struct)


def read_pipeline(root: Any, faults: Faults) -> Pipeline | None:
    """None where there are faults."""
    app = read_section(root, "", (shape.APP,), faults, SECTIONS).get("app")
    if not isinstance(root, dict):
        return None
    source = _section(SourceSpec, root, "source", shape.source(), faults)
    if source is not None:
        checks.check_chain(source, faults)
    event = _section(EventSpec, root, "event", shape.EVENT, faults)
    sinks = _sinks(root.get("sinks"), faults)
    rules = _rules(root.get("rules"), faults)
    merge = _merge(root, faults)
    state = _section(StateSpec, root, "state", shape.STATE, faults, table=f"processor-{app}")
    queue = f"processor-{app}-dead-letters"
    dead_letters = _section(
        DeadLetterSpec, root, "dead_letters", shape.DEAD_LETTERS, faults, sqs=queue
    )
    http = _section(HttpSpec, root, "http", shape.HTTP, faults)
    _cross_check(root, event, rules, faults)
    if source is not None:
        checks.check_merge(source, merge, faults)
    if faults.errors or not (app and source and event and state and dead_letters and http):
        return None
    return Pipeline(app, source, event, sinks, tuple(rules), state, dead_letters, http, merge)


def _merge(root: dict[str, Any], faults: Faults) -> MergeSpec | None:
    if plain(root.get("merge")) is None:
        return None
    return _section(MergeSpec, root, "merge", shape.MERGE, faults)


def _section(
    type_: type[S], root: dict[str, Any], name: str, keys: Iterable[Key], faults: Faults, **own: Any
) -> S | None:
    """A part that may be left out where none of its keys is required."""
    before, tree = len(faults), root.get(name)
    given = read_section({} if tree is None else tree, name, keys, faults)
    return type_(**{**own, **given}) if len(faults) == before else None


def _cross_check(
    root: dict[str, Any], event: EventSpec | None, rules: list[RuleSpec], faults: Faults
) -> None:
    """Over what could be read: a sink with a fault of its own is still there to be named."""
    sinks = root.get("sinks")
    for rule in rules:
        checks.check_keys(rule, faults)
        checks.check_emits(rule, list(sinks) if isinstance(sinks, dict) else [], faults)
    if event is not None:
        has_merge = plain(root.get("merge")) is not None
        checks.check_scope(event, rules, faults, has_merge=has_merge)
        checks.check_fields(event, rules, faults)


def _rules(tree: Any, faults: Faults) -> list[RuleSpec]:
    if not isinstance(tree, dict) or not tree:
        faults.add("rules", describe(plain(tree)), "at least one rule by its name")
        return []
    rules = [read_rule(name, rule, faults) for name, rule in tree.items()]
    return [rule for rule in rules if rule is not None]


def _sinks(tree: Any, faults: Faults) -> dict[str, SinkSpec]:
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        faults.add("sinks", describe(plain(tree)), "sinks by name: {alerts: {eventbridge: BUS}}")
        return {}
    sinks = {name: _sink(name, sink, faults) for name, sink in tree.items()}
    return {name: sink for name, sink in sinks.items() if sink is not None}


def _sink(name: str, tree: Any, faults: Faults) -> SinkSpec | None:
    """`{KIND: target, option: value}`."""
    path, before = f"sinks.{name}", len(faults)
    check_name(name, path, faults)
    if not isinstance(tree, dict) or not tree:
        faults.add(path, describe(plain(tree)), "a kind and its target: {eventbridge: BUS}")
        return None
    kind = next((key for key in tree if key in shape.SINKS), None)
    if kind is None:
        key = next(iter(tree))
        near = did_you_mean(key, shape.SINKS)
        faults.add(f"{path}.{key}", "no kind of sink", one_of(list(shape.SINKS)) + near)
        return None
    target = Key("target", shape.SINKS[kind].target, "")
    given: dict[str, Any] = {}
    read_value(target, tree[kind], f"{path}.{kind}", given, faults)
    others = {key: value for key, value in tree.items() if key != kind}
    options = read_section(others, path, shape.SINKS[kind].options, faults)
    return SinkSpec(name, kind, given["target"], options) if len(faults) == before else None
