"""Windows that are the same for all keys: which ones hold a time, and of what they are made.

    Periodic   tumbling and hopping: `size` long, one begins every `every`
    Calendar   days and longer of a time zone, by a table of their starts

A window is named by its end. What is counted lies in units, each a part of one or several windows:
a tumbling window is one unit; windows that overlap are made of units of the greatest common divisor
of size and every, so that a record is counted once and a window is merged when it closes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd
from typing import Protocol

import numpy as np

from processor.core import zone
from processor.core.zone import Zone
from processor.model import Bools, Ints, Rows, WindowSpec

_HOUR_MS = 3_600_000


class Grid(Protocol):
    """All times in ms; arrays are int64[n]."""

    windows_max: int  # that hold one time

    def first_ends(self, times: Ints) -> Ints:
        """The end of the first window that holds each time."""

    def last_ends(self, times: Ints) -> Ints:
        """The end of the last one."""

    def ends(self, times: Ints) -> tuple[Rows, Ints]:
        """All of them: which time, ascending, and a window's end, ascending for each time."""

    def ends_within(self, times: Ints, above_ms: int, to_ms: int) -> list[int]:
        """The ends in (above, to] of windows that hold one of these times, ascending."""

    def numbers(self, ends: Ints) -> Ints:
        """A small number ≥ 0 for each window, by its end."""

    def are_ends(self, times: Ints) -> Bools:
        """At which times a window ends: bool[n]."""

    def start_of(self, end_ms: int) -> int:
        """Where the window that ends there starts."""

    def starts_of(self, ends: Ints) -> Ints:
        """The same of many."""

    def next_end(self, end_ms: int) -> int:
        """The end of the window after the one that ends there."""

    def between(self, end_ms: int, later_ms: int) -> int:
        """How many windows later the one is that ends at `later_ms`."""

    def units(self, times: Ints) -> Ints:
        """The unit of each time, an ordinal from -1 on."""

    def unit_times(self, units: Ints) -> Ints:
        """The first time of each unit."""

    def unit_ends(self, units: Ints) -> Ints:
        """Where each unit ends."""

    def units_of(self, end_ms: int) -> Sequence[int]:
        """The units of the window that ends there, ascending."""


class Periodic:
    """Tumbling windows, and hopping ones."""

    def __init__(self, size_ms: int, every_ms: int, offset_ms: int):
        self._size, self._every = size_ms, every_ms
        self._offset = offset_ms % every_ms
        self._unit = gcd(size_ms, every_ms)
        self._unit_offset = offset_ms % self._unit
        self.windows_max = -(-size_ms // every_ms)

    def first_ends(self, times: Ints) -> Ints:
        first = self._offset + self._size
        found: Ints = first + ((times - first) // self._every + 1) * self._every
        return found

    def last_ends(self, times: Ints) -> Ints:
        found: Ints = times - (times - self._offset) % self._every + self._size
        return found

    def ends(self, times: Ints) -> tuple[Rows, Ints]:
        if self.windows_max == 1:
            return np.arange(len(times)), self.last_ends(times)
        first = self.first_ends(times)
        counts = (self.last_ends(times) - first) // self._every + 1
        which = np.repeat(np.arange(len(times)), counts)
        nth = np.arange(len(which)) - np.repeat(np.cumsum(counts) - counts, counts)
        return which, first[which] + nth * self._every

    def ends_within(self, times: Ints, above_ms: int, to_ms: int) -> list[int]:
        if not len(times):
            return []
        first, last = self.first_ends(times), self.last_ends(times)
        above = self.first_ends(np.array([max(above_ms, int(first.min()) - 1)]))[0]
        first = np.maximum(first, above)
        last = np.minimum(last, to_ms)
        counts = np.maximum((last - first) // self._every + 1, 0)
        nth = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        found: list[int] = np.unique(np.repeat(first, counts) + nth * self._every).tolist()
        return found

    def numbers(self, ends: Ints) -> Ints:
        return ends // self._every

    def are_ends(self, times: Ints) -> Bools:
        found: Bools = (times - self._offset - self._size) % self._every == 0
        return found

    def start_of(self, end_ms: int) -> int:
        return end_ms - self._size

    def starts_of(self, ends: Ints) -> Ints:
        return ends - self._size

    def next_end(self, end_ms: int) -> int:
        return end_ms + self._every

    def between(self, end_ms: int, later_ms: int) -> int:
        return (later_ms - end_ms) // self._every

    def units(self, times: Ints) -> Ints:
        return (times - self._unit_offset) // self._unit

    def unit_times(self, units: Ints) -> Ints:
        return units * self._unit + self._unit_offset

    def unit_ends(self, units: Ints) -> Ints:
        return self.unit_times(units + 1)

    def units_of(self, end_ms: int) -> Sequence[int]:
        last = (end_ms - self._unit_offset) // self._unit
        return range(last - self._size // self._unit, last)


class Calendar:
    """Days, weeks, months or years; what comes after the table's end counts in its last window."""

    windows_max = 1

    def __init__(self, starts_ms: Ints):
        """`starts_ms`: ascending int64[n]; the last one only ends a window."""
        self._starts = starts_ms

    def first_ends(self, times: Ints) -> Ints:
        return self._starts[self._nth(times) + 1]

    last_ends = first_ends

    def ends(self, times: Ints) -> tuple[Rows, Ints]:
        return np.arange(len(times)), self.first_ends(times)

    def ends_within(self, times: Ints, above_ms: int, to_ms: int) -> list[int]:
        ends = np.unique(self.first_ends(times))
        found: list[int] = ends[(ends > above_ms) & (ends <= to_ms)].tolist()
        return found

    def numbers(self, ends: Ints) -> Ints:
        return ends // _HOUR_MS

    def are_ends(self, times: Ints) -> Bools:
        return np.isin(times, self._starts[1:])

    def start_of(self, end_ms: int) -> int:
        return int(self._starts[self._at(end_ms) - 1])

    def starts_of(self, ends: Ints) -> Ints:
        return self._starts[np.searchsorted(self._starts, ends) - 1]

    def next_end(self, end_ms: int) -> int:
        at = self._at(end_ms) + 1
        if at < len(self._starts):
            return int(self._starts[at])
        return end_ms + int(self._starts[-1] - self._starts[-2])  # never judged: nothing is there

    def between(self, end_ms: int, later_ms: int) -> int:
        return self._at(later_ms) - self._at(end_ms)

    def units(self, times: Ints) -> Ints:
        # Hours since 1970 name a day by when it starts, also with another table: none is shorter.
        return self._starts[self._nth(times)] // _HOUR_MS

    def unit_times(self, units: Ints) -> Ints:
        return self._starts[np.searchsorted(self._starts, units * _HOUR_MS)]

    def unit_ends(self, units: Ints) -> Ints:
        return self.first_ends(self.unit_times(units))

    def units_of(self, end_ms: int) -> Sequence[int]:
        return (self.start_of(end_ms) // _HOUR_MS,)

    def _nth(self, times: Ints) -> Rows:
        nth = np.searchsorted(self._starts, times, side="right") - 1
        return np.clip(nth, 0, len(self._starts) - 2)

    def _at(self, end_ms: int) -> int:
        return int(np.searchsorted(self._starts, end_ms))


def of(window: WindowSpec, zones: Mapping[str, Zone]) -> Grid:
    """The grid of a window that is tumbling, hopping or of the calendar."""
    if window.kind == "calendar":
        assert window.calendar is not None, "a calendar window has its period"
        local = zone.UTC if window.zone is None else zones[window.zone]
        return Calendar(zone.starts_ms(local, window.calendar, window.offset_ms))
    every_ms = window.every_ms if window.kind == "hopping" else window.size_ms
    return Periodic(window.size_ms, every_ms, window.offset_ms)
