"""How cases write times: ISO 8601 with its zone, or a distance such as `+10m` from the start."""

from __future__ import annotations

import datetime
import math

from processor.config.values import UNITS_MS, Wrong, parse_duration
from processor.history.fields import of_field as of_field
from processor.history.fields import of_iso as of_iso
from processor.model import Unit
from processor.wording import describe

EXPECTED = "a time with its zone, such as 2026-01-31T12:00:00Z, or +10m from the file's start"
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MS = datetime.timedelta(milliseconds=1)
# How many of a unit make a millisecond, or how many milliseconds make one.
_PER_MS = {"ms": 1, "us": 1_000, "ns": 1_000_000}


def is_distance(text: str) -> bool:
    return text[:1] in ("+", "-") and text[1:2].isdigit()


def parse(text: str, start_ms: int | None) -> int:
    """Milliseconds UTC; raises Wrong. Without a start only whole times will do."""
    if start_ms is not None and is_distance(text):
        ms = parse_duration(text[1:])
        return start_ms + (ms if text[0] == "+" else -ms)
    ms_ = of_iso(text)
    if ms_ is None:
        raise Wrong(EXPECTED, describe(text))
    return ms_


def to_iso(ms: int) -> str:
    time = _EPOCH + ms * _MS
    return time.isoformat(timespec="milliseconds" if ms % 1000 else "seconds")[:-6] + "Z"


def show(ms: int, start_ms: int) -> str:
    """As a distance from the start."""
    sign = "-" if ms < start_ms else "+"
    left, text = abs(ms - start_ms), ""
    for unit, size in reversed(UNITS_MS.items()):
        whole, left = divmod(left, size)
        text += f"{whole}{unit}" if whole else ""
    return f"{sign}{text or '0s'}"


def in_unit(ms: int, unit: Unit) -> int | float | str:
    """As an event's field has it."""
    if unit == "iso8601":
        return to_iso(ms)
    if unit == "s":
        return ms // 1000 if ms % 1000 == 0 else _seconds(ms)
    return ms * _PER_MS[unit]


def _seconds(ms: int) -> float:
    """1.001 s times 1000 is a hair less than 1001 ms, and the reader rounds down."""
    seconds = ms / 1000
    return seconds if seconds * 1000 >= ms else math.nextafter(seconds, math.inf)
