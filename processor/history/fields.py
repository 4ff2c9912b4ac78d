"""The partition key and the time of an event, as whoever made the stream's records knows them."""

from __future__ import annotations

import datetime
from typing import Any

from processor.model import EventSpec, Unit

ABSENT = object()
FAR = 2.0**63  # beyond, a number is no time in any unit
# How many of a unit make a millisecond.
_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS = datetime.timedelta(milliseconds=1)


def find(event: Any, field: str | None) -> Any:
    """A field by its dotted path, or by its whole name where that is a key; else ABSENT."""
    if field is None or not isinstance(event, dict):
        return ABSENT
    if field in event:
        return event[field]
    for part in field.split("."):
        if not isinstance(event, dict) or part not in event:
            return ABSENT
        event = event[part]
    return event


def partition_key(event: Any, spec: EventSpec) -> str:
    """Its records' PartitionKey; "" where the event has none."""
    value = find(event, spec.partition_key)
    is_key = isinstance(value, str | int) and not isinstance(value, bool)
    return str(value) if is_key else ""


def time_ms(event: Any, spec: EventSpec) -> int | None:
    """When it happened; None where it does not say."""
    return None if spec.time is None else of_field(find(event, spec.time), spec.unit)


def of_field(value: object, unit: Unit) -> int | None:
    """Milliseconds UTC of a field's value; None where it is no such time."""
    if unit == "iso8601":
        return of_iso(value) if isinstance(value, str) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not abs(value) < FAR:
        return None
    return int(value * 1000 // 1) if unit == "s" else int(value // _PER_MS[unit])


def of_iso(text: str) -> int | None:
    """None where it is no time with its zone."""
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if time.tzinfo is None else (time - _EPOCH) // _MS
