"""The pipeline file's keys, in one list: reader, schema, resolved file and documentation use it.

Defaults stand in the Structs of `model`, and nowhere else.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import NamedTuple

from processor import codecs
from processor.config import values
from processor.config.values import Type

EVENTBRIDGE_BYTES_MAX = 999_999  # the service takes requests of less than 1 MB
BUCKETS_MAX = 256  # each is a record of every closing of every shard: more only cost
FORGET_MS_MIN = 60_000  # all groups are looked at eight times in that
MAX_GROUPS_MAX = 10_000_000  # some GB of state a shard: beyond is a mistake


class Key(NamedTuple):
    """A key of a mapping; `field` is the Struct's name for it where that differs."""

    name: str
    type: Type
    about: str
    field: str = ""
    is_required: bool = False

    @property
    def attribute(self) -> str:
        return self.field or self.name


class SinkKind(NamedTuple):
    about: str
    target: Type
    options: tuple[Key, ...] = ()


APP = Key(
    "app", values.NAMED, "The application's name; part of every derived event's id.", "", True
)

EVENT = (
    Key("id", values.FIELD, "Field that identifies an event; a repeat is dropped."),
    Key("time", values.FIELD, "Field with the event's time; without it arrival time counts."),
    Key(
        "unit", values.choice(("s", "ms", "us", "ns", "iso8601")), "What event.time is written in."
    ),
    Key("partition_key", values.FIELD, "Field that the producer takes as partition key."),
    Key("correlation_id", values.FIELD, "Field whose samples derived events carry on."),
    Key("traceparent", values.FIELD, "Field with the W3C trace context."),
    Key(
        "out_of_orderness",
        values.duration(),
        "How much later than a newer event an event may come and still count.",
        "out_of_orderness_ms",
    ),
    Key(
        "dedupe_horizon",
        values.duration(),
        "How long an event's id is remembered, in event time.",
        "dedupe_horizon_ms",
    ),
)

DAY_MS = 86_400_000
_SIZE_MS_MIN = 1_000
_OFFSET = Key("offset", values.duration(), "Shift of all windows; less than one.", "offset_ms")
_ZONE = Key("zone", values.ZONE, "Time zone, by its IANA name: of days, and of detectors' hours.")
# By kind; the first key says which it is.
WINDOWS: Mapping[str, tuple[Key, ...]] = {
    "tumbling": (
        Key(
            "tumbling",
            values.duration(_SIZE_MS_MIN),
            "Size of a window; they follow each other.",
            "size_ms",
            True,
        ),
        _OFFSET,
        _ZONE,
    ),
    "hopping": (
        Key(
            "hopping",
            values.duration(_SIZE_MS_MIN),
            "Size of a window; they overlap.",
            "size_ms",
            True,
        ),
        Key("every", values.duration(_SIZE_MS_MIN), "How far apart they begin.", "every_ms", True),
        _OFFSET,
        _ZONE,
    ),
    "calendar": (
        Key(
            "calendar",
            values.choice(("day", "week", "month", "year")),
            "Windows from midnight to midnight of the zone, of 23 and 25 hours too; weeks begin on"
            " Mondays.",
            "",
            True,
        ),
        Key(
            "offset",
            values.duration(0, DAY_MS - 1),
            "Time of day at which they begin, if not midnight.",
            "offset_ms",
        ),
        _ZONE,
    ),
    "session": (
        Key(
            "session",
            values.duration(_SIZE_MS_MIN),
            "Records of a group, each less than this apart; a session ends so long after its last.",
            "gap_ms",
            True,
        ),
        _ZONE,
    ),
    "running": (
        Key(
            "running",
            values.duration(_SIZE_MS_MIN),
            "One window a group, told by early panes, until it is silent for so long.",
            "ttl_ms",
            True,
        ),
        _ZONE,
    ),
}

LATENESS_MS_MAX = 31 * DAY_MS  # windows stay in memory for so long
PANES = (
    Key(
        "discarding",
        values.BOOLEAN,
        "A pane tells only what the one before did not; else all so far.",
        "is_discarding",
    ),
    Key(
        "emit_empty",
        values.BOOLEAN,
        "Where panes discard: one on time also where early ones told everything.",
    ),
)
EARLY = (
    Key(
        "every",
        values.duration(_SIZE_MS_MIN),
        "Each time that event time passes a multiple of this, where something new came.",
        "early_every_ms",
    ),
    Key("count", values.integer(1, 2**31 - 1), "Records since the last pane.", "early_count"),
)
EARLY_WHEN = "EventBridge event pattern over the figures; once a window and group."
LATE = (Key("count", values.integer(1, 2**31 - 1), "Late records a pane.", "late_count", True),)

EMIT = (
    Key("windows", values.NAMED, "Sink that gets each window's result.", "emit_windows"),
    Key("anomalies", values.NAMED, "Sink that gets what the detectors find.", "emit_anomalies"),
)

LATENESS = Key(
    "lateness",
    values.duration(0, LATENESS_MS_MAX),
    "How long after its end, in event time, a window still takes records.",
    "lateness_ms",
)
RULE = (
    Key(
        "group_by",
        values.GROUPING,
        "Fields whose values make a group's key; [] makes all events one group.",
        "",
        True,
    ),
    Key("max_groups", values.integer(1, MAX_GROUPS_MAX), "Bound on groups, a rule and shard."),
    Key(
        "overflow",
        values.choice(("other", "evict", "dead_letter")),
        "A record of one group more joins `__other__`, takes the place of the oldest groups, which"
        " are told as they stand, or is a dead letter.",
    ),
    Key(
        "forget_after",
        values.duration(FORGET_MS_MIN),
        "So long without a record, in event time, and a group is forgotten; never, if not given.",
        "forget_after_ms",
    ),
    LATENESS,
    Key(
        "alarm_budget",
        values.BUDGET,
        "How many alarms the rule may open: the bar rises until no more are to be expected. Each"
        " shard holds its part of it.",
    ),
    Key(
        "collapse",
        values.COLLAPSE,
        "More than `over` (200) alarms that open in one window of one value of the field `by`, or"
        " of the whole rule, are told as one event. Each shard counts its own.",
    ),
)
# By the key that says which it is.
MAINTENANCE: Mapping[str, tuple[Key, ...]] = {
    "from": (
        Key(
            "from",
            values.LOCAL_TIME,
            "Once, from this local time on, such as 2026-12-24T18:00.",
            "from_ms",
            True,
        ),
        Key(
            "to",
            values.LOCAL_TIME,
            "Up to this local time, at most 31 days after `from`.",
            "to_ms",
            True,
        ),
    ),
    "every": (
        Key(
            "every",
            values.RECURRING,
            "Every day or week at this time, such as `sun 02:00` or `day 02:00`.",
            "",
            True,
        ),
        Key(
            "for",
            values.duration(60_000, 7 * DAY_MS),
            "How long each one lasts, such as 3h.",
            "for_ms",
            True,
        ),
    ),
}
RULE_MAINTENANCE = (
    "When detectors neither score nor learn: windows that overlap a period are left out. An open"
    " alarm stays open in it, and silence is none. Times are local ones of the window's zone."
)
RULE_WHERE = "EventBridge event pattern: which events count; without it all do."
FIGURE_WHERE = "EventBridge event pattern: which of the rule's events this figure counts."
RULE_AGGREGATES = "Figures of a window by name: `count`, or {sum: field} and the like."
RULE_DETECT = "Detectors: {KIND: aggregate, option: value}."

MERGE = (
    Key("stream", values.STREAM, "Kinesis stream, by name or ARN, of the same region.", "", True),
    Key(
        "buckets",
        values.integer(1, BUCKETS_MAX),
        "Parts in which the groups are shared out; fixed by an application's first start.",
    ),
    Key(
        "on_stall",
        values.duration(1_000),
        "Go on, with `complete: false`, without a shard that stands still for so long.",
        "on_stall_ms",
    ),
    Key(
        "max_drift",
        values.duration(1_000),
        "How far, in event time, a shard that catches up may be ahead of the slowest.",
        "max_drift_ms",
    ),
)

STATE = (
    Key("table", values.TABLE, "DynamoDB table of leases; processor-<app> if not given."),
    Key(
        "objects",
        values.OBJECTS,
        "For state too large for the table: s3://bucket/prefix, or a folder shared by all workers.",
    ),
    Key(
        "checkpoint",
        values.duration(1_000, 3_600_000),
        "How often state is saved.",
        "checkpoint_ms",
    ),
)

DEAD_LETTERS = (
    Key(
        "sqs",
        values.QUEUE,
        "Queue (name or URL) of bad records and refused events;"
        " processor-APP-dead-letters by default.",
    ),
)

HTTP = (
    Key("host", values.HOST, "Address that health and metrics listen on."),
    Key("port", values.integer(0, 65_535), "Port; 0 takes a free one."),
)

SINKS = {
    "eventbridge": SinkKind(
        "EventBridge bus, by name or ARN.",
        values.BUS,
        (
            Key(
                "request_max",
                values.size(1024, EVENTBRIDGE_BYTES_MAX),
                "Largest PutEvents request.",
                "request_bytes_max",
            ),
        ),
    ),
    "stdout": SinkKind("JSON lines on standard output.", values.choice(("json",))),
}


@functools.cache
def source() -> tuple[Key, ...]:
    """A function, because the codecs are found by looking."""
    chain = values.listed(values.choice(codecs.kinds()), "a list of codecs, such as [json]")
    return (
        Key("stream", values.STREAM, "Name or ARN of the Kinesis stream.", "", True),
        Key(
            "start", values.START, "Where a new application begins: trim_horizon, latest or a time."
        ),
        Key("decode", chain, "From payload to event, step by step; [kpl, json] for the KPL's."),
        Key(
            "outside_range",
            values.choice(("keep", "drop")),
            "What becomes of an aggregate's events whose own key is not the shard's; both count.",
        ),
        Key("region", values.REGION, "Where the stream is, if not in the environment's region."),
        Key(
            "on_gap",
            values.choice(("stop", "continue")),
            "Records past retention before they were read: park the shard, or count and go on.",
        ),
    )
