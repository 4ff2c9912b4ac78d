"""A pipeline over a recording, as fast as it goes: what it would have told."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from msgspec.structs import replace

from processor import zones
from processor.core import plan
from processor.history.lines import Recorded
from processor.history.stages import Stages, Told, even_shards
from processor.model import DerivedEvent, Pipeline

PAGE = 1_000  # records: the cheapest a record, and cuts show in nothing
UNNAMED = "alarms"  # the sink of anomalies that the pipeline file sends nowhere


def run(
    pipeline: Pipeline, recorded: Iterable[Recorded], *, windows: bool = False
) -> Iterator[DerivedEvent]:
    """The derived events of all rules over these records, in order: opened and resolved alarms,
    also of rules that send them nowhere; with `windows`, the results of windows that are sent
    somewhere, too.

    One shard holds all keys, so the figures are those of any number of them, but for `max_groups`.
    Windows that had ended by the time of the last record are told at the end. Raises ConfigError
    where the pipeline is wrong.
    """
    for told in steps(telling(pipeline, windows=windows), recorded):
        yield from told.step.events


def steps(pipeline: Pipeline, recorded: Iterable[Recorded]) -> Iterator[Told]:
    """All steps of both stages, as the pipeline stands."""
    stages = Stages(plan.compile(pipeline, zones.tables(pipeline)), even_shards(1))
    rest, date_ms = iter(recorded), 0
    while page := list(islice(rest, PAGE)):
        date_ms = max(date_ms, max(record.arrival_ms for record in page))
        yield from stages.feed(0, page, date_ms)
    watermark_ms = stages.shards[0].watermark_ms
    if watermark_ms is not None:
        to_ms = watermark_ms + pipeline.event.out_of_orderness_ms
        yield from stages.advance(0, to_ms, date_ms)


def telling(pipeline: Pipeline, *, windows: bool = False) -> Pipeline:
    """The same, but that all anomalies are told, and windows only if wanted: where results go
    changes neither them nor what they are called."""
    rules = (
        replace(
            rule,
            emit_windows=rule.emit_windows if windows else None,
            emit_anomalies=rule.emit_anomalies or UNNAMED,
        )
        for rule in pipeline.rules
    )
    return replace(pipeline, rules=tuple(rules))
