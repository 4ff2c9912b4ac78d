"""The keys of a file of cases, in one list: the reader and the JSON Schema go by it."""

from __future__ import annotations

from typing import Any

from processor.config import values
from processor.config.shape import Key
from processor.config.values import Type, Wrong
from processor.testing import times
from processor.wording import describe

SHARDS_MAX = 64  # more show nothing that a few do not
REPEATS_MAX = 100_000  # records that one step may send
IDLE_MS_MAX = 31 * 86_400_000  # judged each 5 s, as a reader does: half a million times

EVENT_KEYS = (
    *("rule", "key", "window", "pane", "count", "values", "anomaly", "kind", "is_final", "partial"),
    *("complete", "part", "detail_type", "sink", "correlation_ids", "traceparent", "id", "app"),
    *("rule_version", "schema_version"),
)
ANOMALY_KEYS = (
    *("detector", "kind", "aggregate", "state", "value", "expected", "lower", "upper", "score"),
    *("difference", "difference_percent", "direction", "threshold", "raised_bar", "severity"),
    *("confidence", "expected_every", "part", "nearest", "nearest_seen_at", "bin"),
    *("opened_at", "sentence", "series", "by_detector", "worst", "still_open", "left"),
)
WINDOW_KEYS = ("start", "end")
LETTER_KEYS = ("reason", "detail", "payload")
TIME_LEAVES = {
    ("window", "start"),
    ("window", "end"),
    ("anomaly", "opened_at"),
    ("anomaly", "nearest_seen_at"),
}


def moment(start_ms: int | None) -> Type:
    """Milliseconds UTC from a time; `start_ms`: what +10m is counted from."""

    def read(tree: Any) -> int:
        if not isinstance(tree, str):
            raise Wrong(times.EXPECTED, describe(tree))
        return times.parse(tree, start_ms)

    return Type(read, {"type": "string"})


PATH = values.text(
    "a file's path", lambda text: text != "" and text.isprintable(), {"minLength": 1}
)
TEXT = values.text("a text", lambda _: True, {})

TOP = (
    Key("pipeline", PATH, "The pipeline file, beside this one; or -c on the command line."),
    Key("start", moment(None), "Where time begins; +10m is ten minutes later."),
)
CASE = (
    Key("shards", values.integer(1, SHARDS_MAX), "Shards; records go where their key belongs."),
    Key("rules", values.listed(values.NAMED, "a list of rules"), "The only ones looked at."),
)
REPEAT = (
    Key("times", values.integer(1, REPEATS_MAX), "How often the records are sent.", "", True),
    Key("every", values.duration(1), "How much later each time: event time, too.", "", True),
)
COUNT = values.integer(0, 2**31)


def step(start_ms: int) -> tuple[Key, ...]:
    return (
        Key("idle", values.duration(1, IDLE_MS_MAX), "So much time passes without records."),
        Key("watermark", moment(start_ms), "The watermark goes there."),
        Key("shard", values.integer(0, SHARDS_MAX - 1), "The only shard that it is about."),
        Key("arrival", moment(start_ms), "When the records arrive; else when they happen."),
        Key("partition_key", TEXT, "Of the records; else the field event.partition_key."),
    )


ACTIONS = ("records", "idle", "watermark")
STEP_ALSO = ("records", "repeat", "expect")
EXPECT = (
    Key("duplicates", COUNT, "Records dropped as repeats."),
    Key("unmatched", COUNT, "Records that no rule wanted."),
)
EXPECT_ALSO = ("exactly", "contains", "dead_letters", "late")
