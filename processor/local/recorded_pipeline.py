"""The pipeline file of a replay: a rule for each size of windows that the series have.

Records come in order of event time on each shard, so nothing is waited for. Each says how long its
series' windows are; a series is in one rule only.
"""

from __future__ import annotations

from collections.abc import Iterable

from processor.local.recorded import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS
from processor.local.stage import Names

REPLAY = Names(
    app="replay",
    stream="recorded",
    table="processor-replay",
    bus="replay-events",
    merge_stream=None,
)
LEVELS = ("lite", "standard", "full")
SENSITIVITIES = ("high", "medium", "low")

_HEAD = """\
app: {app}
source: {{stream: {stream}, start: trim_horizon, decode: [json]}}
event:
  time: at
  unit: ms
  partition_key: series  # one key a file, so all of a series are on one shard, in order
  out_of_orderness: 0s
sinks: {{bus: {{eventbridge: {bus}}}}}
state: {{table: {table}, objects: "${{DEMO_FOLDER}}/state", checkpoint: 5s}}
dead_letters: {{sqs: {letters}}}
http: {{host: 127.0.0.1, port: 0}}
rules:
"""
_RULE = """\
  every_{size}:
    where: {{window: ["{size}"]}}
    group_by: [series]
    window: {{tumbling: {size}}}
    aggregates: {{value: {{mean: value}}}}
    detect: [{{novelty: value, {options}}}]
    emit: {{anomalies: bus}}
"""


def pipeline_text(sizes_ms: Iterable[int], level: str, sensitivity: str) -> str:
    """YAML for series with windows of these sizes."""
    given = options(level, sensitivity)
    told = ", ".join(f"{name}: {value}" for name, value in given.items())
    rules = (
        _RULE.format(size=size_text(size_ms), options=told) for size_ms in sorted(set(sizes_ms))
    )
    head = _HEAD.format(
        app=REPLAY.app,
        stream=REPLAY.stream,
        bus=REPLAY.bus,
        table=REPLAY.table,
        letters=REPLAY.letters_queue,
    )
    return head + "".join(rules)


def options(level: str, sensitivity: str) -> dict[str, str]:
    """What the detector is given."""
    return {"level": level, "sensitivity": sensitivity}


def size_text(size_ms: int) -> str:
    """As the pipeline file has a duration, in the largest unit that needs no fraction.

    >>> size_text(300_000), size_text(86_400_000), size_text(90_000)
    ('5m', '1d', '90s')
    """
    for unit, length in (("d", DAY_MS), ("h", HOUR_MS), ("m", MINUTE_MS)):
        if size_ms % length == 0:
            return f"{size_ms // length}{unit}"
    return f"{size_ms // SECOND_MS}s"
