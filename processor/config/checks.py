"""What only shows when the parts of a pipeline file are seen together: contradictions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from processor import aggregators, codecs, detectors
from processor.config.section import Faults
from processor.config.values import show_duration
from processor.core import patterns
from processor.core.matching import EVERY_TYPE, JsonType
from processor.model import EventSpec, MergeSpec, Pipeline, RuleSpec, SourceSpec
from processor.wording import did_you_mean, one_of

# ---- contradictions -------------------------------------------------------------------------


def check_chain(source: SourceSpec, faults: Faults) -> None:
    expected = codecs.chain_fault(source.decode)
    if expected is not None:
        faults.add("source.decode", f"[{', '.join(source.decode)}]", expected)


def check_emits(rule: RuleSpec, sinks: Collection[str], faults: Faults) -> None:
    for key, sink in (("windows", rule.emit_windows), ("anomalies", rule.emit_anomalies)):
        if sink is not None and sink not in sinks:
            expected = one_of(sorted(sinks)) + did_you_mean(sink, sinks) if sinks else "a sink"
            faults.add(f"rules.{rule.name}.emit.{key}", f"no sink {sink}", expected)


def check_keys(rule: RuleSpec, faults: Faults) -> None:
    """A group that goes must not be one that has to stay."""
    path = f"rules.{rule.name}"
    if rule.overflow == "evict" and any(detect.kind == "absence" for detect in rule.detect):
        expected = "other or dead_letter: absence watches groups that are silent, which go first"
        faults.add(f"{path}.overflow", "evict", expected)
    for detect in rule.detect:
        most = getattr(detectors.get(detect.kind), "keys_max", rule.max_groups)
        if rule.max_groups > most:
            expected = f"at most {most}: each {detect.kind} takes up to 0.6 MB and 0.2 ms a window"
            faults.add(f"{path}.max_groups", str(rule.max_groups), expected)
    if rule.forget_after_ms is not None and rule.window.kind == "running":
        found = show_duration(rule.forget_after_ms)
        expected = "none: of a running window, its own length says when a group is forgotten"
        faults.add(f"{path}.forget_after", found, expected)


def check_scope(
    event: EventSpec, rules: Iterable[RuleSpec], faults: Faults, *, has_merge: bool
) -> None:
    """A group whose records come from several shards needs a place where these meet."""
    found = [rule for rule in rules if is_global(event, rule)]
    if found and not has_merge:
        expected = (
            f"a Kinesis stream of its own, merge: {{stream: NAME}}, for {_scope(event, found)}"
        )
        faults.add("merge", "nothing", expected)
    for rule in found:
        for key, what, why in _shard_only(rule):
            expected = f"none: the rule is global ({_because(event)}), and {why}"
            faults.add(f"rules.{rule.name}.{key}", what, expected)


def is_global(event: EventSpec, rule: RuleSpec) -> bool:
    """Whether the rule's figures need all shards together."""
    return event.partition_key not in rule.group_by


def has_global_rule(pipeline: Pipeline) -> bool:
    return any(is_global(pipeline.event, rule) for rule in pipeline.rules)


def _scope(event: EventSpec, rules: Sequence[RuleSpec]) -> str:
    """Which rules are global, and why."""
    names = ", ".join(f"rules.{rule.name}" for rule in rules)
    if event.partition_key is None:
        return f"{names}: without event.partition_key every rule is global"
    verb = "do" if len(rules) > 1 else "does"
    return f"{names}, global as group_by {verb} not contain {event.partition_key}"


def _because(event: EventSpec) -> str:
    if event.partition_key is None:
        return "event.partition_key is not given"
    return f"group_by lacks {event.partition_key}, the partition key"


_PIECES = "its records are counted on several shards at once"


def _shard_only(rule: RuleSpec) -> Iterator[tuple[str, str, str]]:
    """What a rule asks for that only a single shard can do exactly: where, what, why not."""
    panes, kind = rule.panes, rule.window.kind
    if kind == "session":
        yield "window", "a session window", "a session may go on on a shard that has yet to report"
    if kind == "running":
        yield "window", "a running window", "shards tell what they counted when a window ends"
    for key in ("early_every_ms", "early_count", "early_when"):
        if getattr(panes, key) is not None:
            yield "panes.early", f"a pane early by {key[6:].removesuffix('_ms')}", _PIECES
    if rule.overflow == "evict":
        yield "overflow", "evict", "which group is the oldest, each shard would see otherwise"


def check_merge(source: SourceSpec, merge: MergeSpec | None, faults: Faults) -> None:
    """Another stream than the source's, in the same region."""
    if merge is None:
        return
    if _stream_name(merge.stream) == _stream_name(source.stream):
        expected = "a stream of its own: it would read what it sends"
        faults.add("merge.stream", f"{merge.stream}, the source's own", expected)
    here, there = source.region or arn_region(source.stream), arn_region(merge.stream)
    if here and there and here != there:
        faults.add("merge.stream", f"a stream in {there}", f"one in the source's region, {here}")


def arn_region(stream: str) -> str | None:
    """The region that a stream's ARN names; None where it is a name.

    >>> arn_region("arn:aws:kinesis:eu-central-1:123456789012:stream/orders")
    'eu-central-1'
    """
    return stream.split(":")[3] if stream.startswith("arn:") else None


def _stream_name(stream: str) -> str:
    return stream.rpartition("/")[2]


class Use(NamedTuple):
    """One place that reads a field; `types` are the JSON types that it can do something with."""

    field: str
    role: str  # "" where any type will do
    types: frozenset[JsonType]
    path: str


NUMBER, KEY, TIME = "a number", "a key", "an ISO 8601 time"
_TYPES: dict[str, frozenset[JsonType]] = {
    NUMBER: frozenset({"number"}),
    KEY: frozenset({"string", "number"}),
    TIME: frozenset(),  # read as a time: patterns can't look at its text
    "": EVERY_TYPE,
}


def check_fields(event: EventSpec, rules: Iterable[RuleSpec], faults: Faults) -> None:
    """A field is decoded once, as one type, for all rules."""
    uses = [*_event_uses(event), *(use for rule in rules for use in _rule_uses(rule))]
    first: dict[str, Use] = {}
    for use in uses:
        if use.role:
            known = first.setdefault(use.field, use)
            if known.role != use.role:
                faults.add(use.path, f"{use.field} used as {use.role}", _one_type(known))
    for use in uses:
        known = first.get(use.field, use)
        if not use.role and not use.types & known.types:
            wanted = one_of(sorted(use.types))
            faults.add(use.path, f"a pattern for {wanted}", _one_type(known))
    _check_nesting(uses, faults)


def _one_type(known: Use) -> str:
    return f"one type: {known.path} reads {known.field} as {known.role}"


def _event_uses(event: EventSpec) -> Iterator[Use]:
    roles = {
        "id": KEY,
        "time": TIME if event.unit == "iso8601" else NUMBER,
        "correlation_id": "",
        "traceparent": "",
    }
    for name, role in roles.items():
        field = getattr(event, name)
        if field is not None:
            yield Use(field, role, _TYPES[role], f"event.{name}")


def _rule_uses(rule: RuleSpec) -> Iterator[Use]:
    path = f"rules.{rule.name}"
    for field in rule.group_by:
        yield Use(field, KEY, _TYPES[KEY], f"{path}.group_by")
    for aggregate in rule.aggregates:
        place = f"{path}.aggregates.{aggregate.name}"
        if aggregate.field is not None:
            is_key = aggregators.get(aggregate.kind).reads == "keys"
            role = KEY if is_key else NUMBER
            yield Use(aggregate.field, role, _TYPES[role], place)
        yield from _pattern_uses(aggregate.where, f"{place}.where")
    yield from _pattern_uses(rule.where, f"{path}.where")


def _pattern_uses(where: Mapping[str, Any], path: str) -> Iterator[Use]:
    pattern = patterns.compile(where, path)
    for test, place in zip(pattern.tests, pattern.places, strict=True):
        yield Use(test.path, "", test.types, place)


def _check_nesting(uses: Sequence[Use], faults: Faults) -> None:
    """`order` can't be a value here and an object with `order.id` there."""
    first = {use.field: use for use in reversed(uses)}
    for use in uses:
        parts = use.field.split(".")
        for length in range(1, len(parts)):
            outer = first.get(".".join(parts[:length]))
            if outer is not None:
                found = f"{use.field}, so that {outer.field} is an object"
                faults.add(use.path, found, f"a value, as {outer.path} reads it")
