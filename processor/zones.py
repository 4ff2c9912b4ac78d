"""Time zones of the IANA database, as the tables that the ring reckons with.

The database is the machine's, or the `tzdata` package's where the machine has none; workers of one
application are to have the same, or they would tell the same window with two different ends.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping
from zoneinfo import ZoneInfo, available_timezones

import numpy as np

from processor.core.zone import FIRST_YEAR, LAST_YEAR, Zone
from processor.model import Pipeline

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_DAY = datetime.timedelta(days=1)
_SECOND = datetime.timedelta(seconds=1)
_MS = datetime.timedelta(milliseconds=1)


@functools.cache
def names() -> frozenset[str]:
    """All zones that there are."""
    return frozenset(available_timezones())


def tables(pipeline: Pipeline) -> Mapping[str, Zone]:
    """Those that the rules' windows name."""
    named = {rule.window.zone for rule in pipeline.rules if rule.window.zone is not None}
    return {name: table(name) for name in sorted(named)}


@functools.cache
def table(name: str) -> Zone:
    """One zone; raises KeyError where it is unknown (ZoneInfoNotFoundError)."""
    zone = ZoneInfo(name)
    at = datetime.datetime(FIRST_YEAR, 1, 1, tzinfo=datetime.UTC)
    end = datetime.datetime(LAST_YEAR + 1, 1, 8, tzinfo=datetime.UTC)
    changes, shifts = [at], [_shift(zone, at)]
    while at < end:  # no zone changed twice within a day
        if _shift(zone, at + _DAY) != shifts[-1]:
            changes.append(_change(zone, at))
            shifts.append(_shift(zone, changes[-1]))
        at += _DAY
    return Zone(
        name,
        np.array([(change - _EPOCH) // _MS for change in changes], dtype=np.int64),
        np.array([shift // _MS for shift in shifts], dtype=np.int64),
    )


def _shift(zone: ZoneInfo, at: datetime.datetime) -> datetime.timedelta:
    shift = at.astimezone(zone).utcoffset()
    assert shift is not None, "a ZoneInfo always has one"
    return shift


def _change(zone: ZoneInfo, at: datetime.datetime) -> datetime.datetime:
    """The first second of a new shift, within the day after `at`."""
    before = _shift(zone, at)
    low, high = 0, _DAY // _SECOND
    while high - low > 1:
        middle = (low + high) // 2
        if _shift(zone, at + middle * _SECOND) == before:
            low = middle
        else:
            high = middle
    return at + high * _SECOND
