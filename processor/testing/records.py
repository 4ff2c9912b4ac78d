"""Reads the records of a step: events as mappings, or texts that are sent as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from processor.config.document import plain
from processor.config.section import Faults, read_section
from processor.config.values import Wrong
from processor.history import fields
from processor.history.fields import ABSENT, find
from processor.model import EventSpec
from processor.testing import shape, times
from processor.testing.suite import Sent
from processor.wording import describe

EXPECTED = "an event as a mapping, or a record's text"


class Producer:
    """Makes records as a producer of this pipeline's stream would."""

    def __init__(self, event: EventSpec, start_ms: int, faults: Faults) -> None:
        self._event = event
        self._start_ms = start_ms
        self._faults = faults

    def read(self, step: dict[str, Any], given: Mapping[str, Any], path: str) -> tuple[Sent, ...]:
        tree = plain(step["records"])
        if not isinstance(tree, list) or not tree:
            expected = "a list of records: each an event as a mapping, or a text"
            self._faults.add(f"{path}.records", describe(tree), expected)
            return ()
        count, every_ms = self._repeat(step, len(tree), path)
        key = given.get("partition_key")
        return tuple(
            self._sent(record, f"{path}.records[{i}]", key, k, k * every_ms)
            for k in range(count)
            for i, record in enumerate(tree)
        )

    def _repeat(self, step: dict[str, Any], records: int, path: str) -> tuple[int, int]:
        if step.get("repeat") is None:
            return 1, 0
        place = f"{path}.repeat"
        given = read_section(step["repeat"], place, shape.REPEAT, self._faults)
        count = given.get("times", 1)
        if count * records > shape.REPEATS_MAX:
            found = f"{count} times {records} records"
            self._faults.add(place, found, f"at most {shape.REPEATS_MAX} records in a step")
            return 1, 0
        return count, given.get("every", 0)

    def _sent(self, record: Any, path: str, key: str | None, nth: int, later_ms: int) -> Sent:
        if isinstance(record, dict):
            event = self._event_of(record, path, nth, later_ms)
            payload = json.dumps(event, ensure_ascii=False).encode()
        elif isinstance(record, str):
            payload, event = record.encode(), _decoded(record)
        else:
            self._faults.add(path, describe(record), EXPECTED)
            return Sent(b"", "", None)
        if key is None:
            key = fields.partition_key(event, self._event)
        return Sent(payload, key, fields.time_ms(event, self._event))

    def _event_of(self, record: dict[str, Any], path: str, nth: int, later_ms: int) -> Any:
        """Its time in the stream's own unit; of repeats each has its own id."""
        event = deepcopy(record)
        at = find(event, self._event.time)
        at_ms = self._instant(at, path)
        is_as_sent = not later_ms and times.of_field(at, self._event.unit) is not None
        if at_ms is not None and not is_as_sent:
            _set(event, self._event.time, times.in_unit(at_ms + later_ms, self._event.unit))
        id_ = find(event, self._event.id)
        if nth and id_ is not ABSENT:
            _set(event, self._event.id, f"{id_}-{nth}")
        return event

    def _instant(self, at: Any, path: str) -> int | None:
        """None for what is no time: that is the pipeline's own business."""
        if not isinstance(at, str):
            return times.of_field(at, self._event.unit)
        try:
            return times.parse(at, self._start_ms)
        except Wrong as wrong:
            if times.is_distance(at):
                self._faults.add(f"{path}.{self._event.time}", describe(at), wrong.expected)
            return None


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _set(event: dict[str, Any], field: str | None, value: Any) -> None:
    assert field is not None, "it was found"
    *outer, last = [field] if field in event else field.split(".")
    for part in outer:
        event = event[part]
    event[last] = value
