"""Derived events: what names them, and the bytes of their detail.

An id says what an event is about: which rule in which version, over which stream's incarnation,
for which key and window. Nothing that a worker, a page cut, a restart or a clock could change is
in it, nor in the detail: the same id always carries the same bytes.

The sink is in neither, so one event may go to two targets under one id. Floats are in no id: their
last bit depends on the machine.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from msgspec import Struct

from processor.core.alarms.alarm import Alarm, Collapsed
from processor.model import DerivedEvent

SCHEMA_VERSION = 1
# 40 characters for 200 bits of sha256; EventBridge and SQS take up to 128 to recognise a duplicate.
_ID_BYTES = 25
ID_LENGTH = _ID_BYTES * 8 // 5

WINDOW_RESULT = "Window Result"
ANOMALY_TYPES = {
    "opened": "Anomaly Opened",
    "escalated": "Anomaly Escalated",
    "resolved": "Anomaly Resolved",
    "collapsed": "Anomaly Collapsed",
}

Key = tuple[tuple[str, str | int], ...]  # (field, value), in the order of the rule's group_by
Value = int | float | None | list[Any]  # a list: of `top_k`

# https://www.w3.org/TR/trace-context/#traceparent-header-field-values (version 00)
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-([0-9a-f]{2})")
_TAGS = {str: "s", int: "i", bool: "b"}


class Identity(Struct, frozen=True):
    """Who speaks: constant for a rule while its stream is neither made anew, sought nor reset."""

    app: str
    incarnation: str  # the stream's creation time, and the number of seeks and resets
    rule: str
    rule_version: str


class Window(Struct, frozen=True):
    """One closed window of one key: all that its events are made of.

    `values` in the rule's order of aggregates. `part` is the shard where the key has no hash home
    (`other`), else None. `traceparent` is a sample record's, or None. `is_partial`: records of it
    came before its rule began to count. `origin` names that beginning where another one could tell
    something else of the same window; else it is "", and the same result has the same id.
    `is_complete`: no shard of the source was left behind. `pane` tells results of one window
    apart: `early:k`, `on_time`, `late:k`, `final`, `evicted:k`; after one that `is_final` none.
    """

    start_ms: int
    end_ms: int
    key: Key
    values: Mapping[str, Value]
    count: int
    part: str | None = None
    correlation_ids: Sequence[str] = ()
    traceparent: str | None = None
    arrival_ms: int = 0
    is_partial: bool = False
    origin: str = ""
    is_complete: bool = True
    pane: str = "on_time"
    is_final: bool = True


# ---- names ----------------------------------------------------------------------------------


def event_id(fields: Sequence[str]) -> str:
    """Base32 of sha256 over the fields, each led by its length: no two lists of fields agree."""
    raws = [field.encode() for field in fields]
    digest = hashlib.sha256(b"".join([b"%d:%b" % (len(raw), raw) for raw in raws])).digest()
    return base64.b32encode(digest[:_ID_BYTES]).decode().lower()


def dead_letter_id(
    stream: str, shard_id: str, sequence_number: str, index: int, rule: str | None = None
) -> str:
    """A bad record's id: its place, so that a repeat is recognised.

    `index` counts the events in one record; `rule` is the one that refused it, None where it is
    bad for all. An event that a target refused keeps its own id.
    """
    by = () if rule is None else ("rule", rule)
    return event_id(("record", stream, shard_id, sequence_number, str(index), *by))


# ---- events ---------------------------------------------------------------------------------


def window_event(identity: Identity, window: Window, *, sink: str) -> DerivedEvent:
    """The result of a window."""
    return _event(identity, window, sink, WINDOW_RESULT, ("window", "", ""), None)


def anomaly_event(identity: Identity, window: Window, alarm: Alarm, *, sink: str) -> DerivedEvent:
    """A series that became strange, or calm again, in this window."""
    detect = alarm.detect
    kind = (f"anomaly:{alarm.state}", detect.aggregate, detect.name)
    anomaly = {
        "detector": detect.name,
        "kind": detect.kind,
        "aggregate": detect.aggregate,
        "state": alarm.state,
        "value": alarm.value,
        "expected": alarm.expected,
        "lower": alarm.lower,
        "upper": alarm.upper,
        "difference": alarm.difference,
        "difference_percent": alarm.difference_percent,
        "direction": alarm.direction,
        "score": alarm.score,
        "threshold": alarm.threshold,
        "raised_bar": alarm.raised_bar,
        "severity": alarm.severity,
        "confidence": alarm.confidence,
        "expected_every": alarm.expected_every,
        "part": alarm.part,
        "nearest": alarm.nearest,
        "nearest_seen_at": alarm.nearest_ms,
        "bin": alarm.bin,
        "opened_at": alarm.opened_ms,
        "sentence": alarm.sentence,
    }
    return _event(identity, window, sink, ANOMALY_TYPES[alarm.state], kind, anomaly)


def storm_event(identity: Identity, window: Window, what: Collapsed, *, sink: str) -> DerivedEvent:
    """Many series of one rule that became strange in one window, or calm again since."""
    anomaly = {
        "detector": what.detect.name,
        "kind": what.detect.kind,
        "state": what.state,
        "severity": what.severity,
        "series": what.series,
        "by_detector": what.by_detector,
        "worst": what.worst,
        "still_open": what.still_open,
        "left": what.left,
        "opened_at": what.opened_ms,
        "sentence": what.sentence,
    }
    kind = (f"storm:{what.state}", "", str(what.of))
    return _event(identity, window, sink, ANOMALY_TYPES[what.state], kind, anomaly)


def _event(
    identity: Identity,
    window: Window,
    sink: str,
    detail_type: str,
    kind: tuple[str, str, str],
    anomaly: dict[str, Any] | None,
) -> DerivedEvent:
    id_ = event_id(_id_fields(identity, window, kind))
    return DerivedEvent(
        id=id_,
        sink=sink,
        source=f"processor.{identity.app}",
        detail_type=detail_type,
        time_ms=window.end_ms,
        detail=_detail(id_, identity, window, anomaly),
        group=group(identity.rule, window.key, window.part),
        arrival_ms=window.arrival_ms,
    )


def group(rule: str, key: Key, part: str | None) -> str:
    """What keeps its order: a rule's key (and shard, where the key has no home)."""
    values = orjson.dumps([value for _, value in key]).decode()
    return f"{rule}{values}" if part is None else f"{rule}{values}@{part}"


def _id_fields(identity: Identity, window: Window, kind: tuple[str, str, str]) -> list[str]:
    out = [identity.app, identity.incarnation, identity.rule, identity.rule_version, *kind]
    out += (str(window.start_ms), str(window.end_ms), str(len(window.key)))
    for field, value in window.key:
        out += (field, _TAGS[type(value)], str(value))  # the tag keeps 1 and "1" apart
    out += (window.pane, "" if window.part is None else f"@{window.part}")
    if window.origin:
        out.append(f"since {window.origin}")
    return out


def _detail(id_: str, identity: Identity, window: Window, anomaly: dict[str, Any] | None) -> bytes:
    """The detail as JSON; its key order is this order; NaN and infinities become null."""
    detail: dict[str, Any] = {
        "id": id_,
        "schema_version": SCHEMA_VERSION,
        "kind": "window" if anomaly is None else "anomaly",
        "app": identity.app,
        "rule": identity.rule,
        "rule_version": identity.rule_version,
        "key": dict(window.key),
    }
    if window.part is not None:
        detail["part"] = window.part
    detail["window"] = {"start": window.start_ms, "end": window.end_ms}
    detail["pane"] = window.pane
    detail["is_final"] = window.is_final
    if window.is_partial:
        detail["partial"] = True
    if not window.is_complete:
        detail["complete"] = False
    detail["count"] = window.count
    detail["values"] = dict(window.values)
    if anomaly is not None:
        detail["anomaly"] = anomaly
    detail["correlation_ids"] = list(window.correlation_ids)
    traceparent = derived_traceparent(window.traceparent, id_)
    if traceparent is not None:
        detail["traceparent"] = traceparent
    # A copy: orjson's own keeps 4 KiB of memory, and thousands of events are held at a time.
    return memoryview(orjson.dumps(detail, option=orjson.OPT_SERIALIZE_NUMPY)).tobytes()


def derived_traceparent(sample: str | None, id_: str) -> str | None:
    """The sample's trace with a span of our own, the same on every repeat; None if not a trace."""
    match = _TRACEPARENT.fullmatch(sample) if sample else None
    if match is None:
        return None
    span = hashlib.sha256(id_.encode()).hexdigest()[:16]
    return f"00-{match[1]}-{span}-{match[2]}"
