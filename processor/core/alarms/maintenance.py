"""Maintenance: periods in which a rule's detectors neither score nor learn.

A window is left out where it overlaps a period, by however little. Periods are written in local
time: where clocks skip the time at which one begins, it begins at the skip; where they show it
twice, the first time. One that comes every day or week lasts as long as it says in real time, also
in the night of a change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from processor.core.zone import DAY_MS, Zone
from processor.model import MaintenanceSpec

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK_MS = 7 * DAY_MS
_FIRST_DAY = 3  # 1970-01-01 was a Thursday


def period_ms(spec: MaintenanceSpec) -> int:
    """How far apart it comes; 0 for one that comes once."""
    if spec.every is None:
        return 0
    return DAY_MS if spec.every.startswith("day") else WEEK_MS


class Calendar:
    """The periods of one rule, in its zone."""

    def __init__(self, specs: Sequence[MaintenanceSpec], zone: Zone):
        self._zone = zone
        self._once = [
            tuple(zone.instants(np.array([s.from_ms, s.to_ms], dtype=np.int64)).tolist())
            for s in specs
            if s.every is None
        ]
        self._recurring = [s for s in specs if s.every is not None]

    def overlaps(self, start_ms: int, end_ms: int) -> bool:
        """Whether the window `[start, end)` overlaps a period; times in ms UTC."""
        if any(start_ms < until and end_ms > begin for begin, until in self._once):
            return True
        return any(self._recurs(spec, start_ms, end_ms) for spec in self._recurring)

    def _recurs(self, spec: MaintenanceSpec, start_ms: int, end_ms: int) -> bool:
        assert spec.every is not None
        name, _, clock = spec.every.partition(" ")
        hours, minutes = map(int, clock.split(":"))
        shift_ms = self._zone.shift_ms(start_ms)
        # A day more at both ends than the period lasts: no zone is ever shifted by more.
        first = (start_ms + shift_ms - spec.for_ms) // DAY_MS - 1
        days = np.arange(first, (end_ms + shift_ms) // DAY_MS + 2)
        if name != "day":
            days = days[(days + _FIRST_DAY) % 7 == DAYS.index(name)]
        begins = self._zone.instants(days * DAY_MS + (hours * 60 + minutes) * 60_000)
        return bool(((begins < end_ms) & (begins + spec.for_ms > start_ms)).any())
