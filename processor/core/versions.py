"""What tells two pipelines apart: which rules give other results, and which need other state.

    rule_version    all that a rule's results depend on; part of every event's id
    state_version   of that, what shapes its state: two rules of one name and state version may go
                    on from each other's state, though thresholds and names of outputs differ
    generation      the versions of all rules: one pipeline, as its workers tell it from another

What stands at its default is left out of each, so that a release may add a setting without
starting everybody's state anew; one that changes a default raises ENGINE_VERSION.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import orjson
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields as struct_fields

from processor import aggregators, detectors
from processor.core.events import event_id
from processor.model import (
    ENGINE_VERSION,
    STATE_VERSION,
    AggregateSpec,
    DetectSpec,
    Pipeline,
    RuleSpec,
    SourceSpec,
)

VERSION_LENGTH = 12  # 60 bits: enough to tell the versions of one rule apart

# Of `event`, what no open window can tell: where an event's trace is found, and how far the
# watermark stays behind. (A window that is still open has not lost a record as late yet.)
TUNABLE_EVENT = frozenset({"correlation_id", "traceparent", "out_of_orderness_ms"})
# Of a rule, what says where results go.
SINKS = frozenset({"emit_windows", "emit_anomalies"})
# … and what says when detectors are to speak, or to look away: what they learnt stays good.
TUNABLE_RULE = frozenset({"maintenance", "alarm_budget", "collapse"})
_NAMED_APART = frozenset({"name", "aggregates", "detect"})


def rule_version(pipeline: Pipeline, rule: RuleSpec) -> str:
    """The version of a rule: a hash of all that its results depend on.

    That is the rule, how events are read, and the engine's version. Where results go is left out:
    it changes neither bytes nor state.
    """
    return _hash(
        {
            "engine": ENGINE_VERSION,
            **_read(pipeline.source),
            "event": _canonical(pipeline.event),
            "rule": _without(_canonical(rule), SINKS),
        }
    )


def state_version(pipeline: Pipeline, rule: RuleSpec) -> str:
    """The version of a rule's state; the rule's name is no part of it.

    Aggregates and detectors count by what they are, not by their names or order.
    """
    names = aggregate_ids(rule.aggregates)
    detects = zip(detect_ids(rule.detect, names), rule.detect, strict=True)
    return _hash(
        {
            "state": STATE_VERSION,
            **_read(pipeline.source),
            "event": _without(_canonical(pipeline.event), TUNABLE_EVENT),
            "rule": _without(_canonical(rule), SINKS | TUNABLE_RULE | _NAMED_APART),
            "aggregates": sorted(set(memory_ids(rule.aggregates).values())),
            "detect": {name: shaping_options(detect) for name, detect in detects},
        }
    )


def reading(pipeline: Pipeline) -> str:
    """The version of what a record's time and id are."""
    event = pipeline.event
    return _hash([_read(pipeline.source), event.id, event.time, event.unit])


def generation(rule_versions: Sequence[str], snapshot_version: int) -> str:
    """A pipeline's name among those that an application ran."""
    return _hash({"rules": sorted(rule_versions), "snapshot": snapshot_version})


# ---- what state is called -------------------------------------------------------------------


def aggregate_ids(aggregates: Sequence[AggregateSpec]) -> dict[str, str]:
    """Each aggregate's name → what it is: `sum:amount`, `quantile:latency(q=0.99)`, or `count`.

    So state outlives a new name, and another order. The second of two alike is `sum:amount#2`.
    """
    plain = {a.name: _figure_id(a, a.options) for a in aggregates}
    for aggregate in aggregates:
        if aggregate.of:
            plain[aggregate.name] = _derived_id(aggregate, plain)
    return dict(zip(plain, _numbered(list(plain.values())), strict=True))


def memory_ids(aggregates: Sequence[AggregateSpec]) -> dict[str, str]:
    """Each aggregate's name → what its memory is called in the state.

    Derived ones have none. It is the id, but for options that only say how the memory is read:
    those are left out, so that two quantiles of a field share theirs.
    """
    ids = aggregate_ids(aggregates)
    counted = [aggregate for aggregate in aggregates if not aggregate.of]
    ids = {aggregate.name: ids[aggregate.name] for aggregate in counted}
    for aggregate in counted:
        tunable = aggregators.get(aggregate.kind).params.tunable
        if tunable:
            ids[aggregate.name] = _figure_id(aggregate, _without(aggregate.options, tunable))
    return ids


def filter_id(where: Mapping[str, Any]) -> str:
    """What tells an event pattern from another: its canonical text."""
    return orjson.dumps(where, option=orjson.OPT_SORT_KEYS).decode()


def _figure_id(aggregate: AggregateSpec, options: Mapping[str, Any]) -> str:
    field = "" if aggregate.field is None else f":{aggregate.field}"
    given = _options_id(options)
    where = f" where {filter_id(aggregate.where)}" if aggregate.where else ""
    return f"{aggregate.kind}{field}{f'({given})' if given else ''}{where}"


def _derived_id(aggregate: AggregateSpec, ids: Mapping[str, str]) -> str:
    given = _options_id(aggregate.options)
    of = ", ".join(ids[name] for name in aggregate.of)
    return f"{aggregate.kind}({of}{f'; {given}' if given else ''})"


def _options_id(options: Mapping[str, Any]) -> str:
    return ",".join(f"{name}={value}" for name, value in sorted(options.items()))


def detect_ids(detects: Sequence[DetectSpec], aggregates: Mapping[str, str]) -> list[str]:
    """Likewise for detectors: `novelty(count)`.

    Two alike keep their names, `threshold(count).low`: by their order, each would go on with the
    other's open alarms when they change places.
    """
    of = [", ".join(aggregates[name] for name in (d.aggregate, *d.others)) for d in detects]
    plain = [f"{detect.kind}({names})" for detect, names in zip(detects, of, strict=True)]
    return [
        f"{what}.{detect.name}" if plain.count(what) > 1 else what
        for what, detect in zip(plain, detects, strict=True)
    ]


def shaping_options(detect: DetectSpec) -> dict[str, Any]:
    """A detector's options that shape what it learns: all but those that it calls tunable."""
    kind = detectors.get(detect.kind).params
    params = msgspec.convert(dict(detect.options), kind)
    return {
        field.encode_name: getattr(params, field.name)
        for field in struct_fields(params)
        if field.encode_name not in kind.tunable and getattr(params, field.name) != _default(field)
    }


def _numbered(names: Sequence[str]) -> list[str]:
    times = [names[: i + 1].count(name) for i, name in enumerate(names)]
    return [name if n == 1 else f"{name}#{n}" for name, n in zip(names, times, strict=True)]


# ---- canonical form -------------------------------------------------------------------------


def _read(source: SourceSpec) -> dict[str, Any]:
    """How records become events."""
    plain = _canonical(source)
    outside = {name: plain[name] for name in ("outside_range",) if name in plain}
    return {"decode": source.decode} | outside


def _hash(value: Any) -> str:
    return event_id((orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode(),))[:VERSION_LENGTH]


def _without(value: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in names}


def _canonical(value: Any) -> Any:
    """A value as plain JSON, without what stands at its default."""
    if isinstance(value, Struct):
        return {
            field.name: _canonical(getattr(value, field.name))
            for field in struct_fields(value)
            if getattr(value, field.name) != _default(field)
        }
    if isinstance(value, Mapping):
        return {str(name): _canonical(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_canonical(item) for item in value]
    return value


def _default(field: Any) -> Any:
    made = field.default_factory
    return field.default if made is NODEFAULT else made()
