"""Local time as a table: when a zone's shift against UTC changed, and what days that makes.

The tables are made outside the ring (`processor.zones`); from them all here is arithmetic. A day
begins at the first instant that bears its date: where clocks skip midnight at the skip, where they
show it twice the first time.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from processor.model import Ints

DAY_MS = 86_400_000
# What a table covers; beyond it the first and the last shift go on.
FIRST_YEAR, LAST_YEAR = 1969, 2100

Period = Literal["day", "week", "month", "year"]


class Zone(NamedTuple):
    """A time zone: from `changes_ms[i]` on (ascending, int64[n]) local time is UTC plus
    `shifts_ms[i]`. The first change stands for ever before."""

    name: str
    changes_ms: Ints
    shifts_ms: Ints

    def shift_ms(self, time_ms: int) -> int:
        """What is to be added to UTC at that time."""
        at = int(np.searchsorted(self.changes_ms, time_ms, side="right")) - 1
        return int(self.shifts_ms[max(at, 0)])

    def instants(self, local_ms: Ints) -> Ints:
        """When clocks first show these local times or later ones, in ms UTC; int64[n] each."""
        # Between two changes local time runs on: in which stretch is it first reached?
        ends = np.append(self.changes_ms[1:], np.iinfo(np.int64).max // 2)
        reached = np.maximum.accumulate(ends + self.shifts_ms)
        at = np.searchsorted(reached, local_ms, side="right")
        instants: Ints = np.maximum(local_ms - self.shifts_ms[at], self.changes_ms[at])
        return instants


UTC = Zone("UTC", np.array([-(2**62)]), np.zeros(1, dtype=np.int64))


def starts_ms(zone: Zone, period: Period, offset_ms: int = 0) -> Ints:
    """When each period of the table's years begins, `offset_ms` of local time after its midnight.

    Weeks begin on Mondays. A day that a zone left out (it moved over the date line) is none.
    Ascending int64[n].
    """
    midnights = np.array([day * DAY_MS for day in _days(period)], dtype=np.int64)
    return np.unique(zone.instants(midnights + offset_ms))


def _days(period: Period) -> Iterator[int]:
    """First days of periods, counted from 1970-01-01."""
    first = np.datetime64(f"{FIRST_YEAR}-01-01", "D")
    last = np.datetime64(f"{LAST_YEAR + 1}-01-01", "D")
    if period in ("month", "year"):
        unit = "M" if period == "month" else "Y"
        found = np.arange(first.astype(f"M8[{unit}]"), last.astype(f"M8[{unit}]") + 1)
    elif period == "week":
        # 1968-12-30 was a Monday.
        found = np.arange(np.datetime64("1968-12-30", "D"), last + 7, 7)
    else:
        found = np.arange(first, last + 1)
    yield from found.astype("M8[D]").astype(np.int64).tolist()
