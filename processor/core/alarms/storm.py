"""Storm control: where many alarms of a rule open in one window, people get one event.

    calm   more than `over` open in one window ────────→ on     told as one, "collapsed"
    on     more of them open ──────────────────────────→ on     they join it, and are not told
    on     a tenth of its series is still open, or less → calm  told as one, "resolved"

A storm is of one value of the field `by`, or of the whole rule. Its alarms are open and untold, as
`hush` has it, and so they resolve silently. Those that are left at its end (never more than `over`)
are told with the next window. A series is what one detector sees of one key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from processor.core.alarms import hush
from processor.core.alarms.alarm import Collapsed, Pending
from processor.core.alarms.collapsed import Left, Seen, ended, started
from processor.core.alarms.ruling import Ruling
from processor.core.columns import Columns
from processor.core.instructions import brief
from processor.core.keys import KeyTable
from processor.model import CollapseSpec, DetectSpec, Floats, Rows

LEFT_PART = 10  # a storm is over once one series in so many is still open

Key = tuple[tuple[str, str | int], ...]  # (field, value) of `by`; () of a whole rule
Tables = Mapping[str, Columns]  # alarms, by what a detector's columns are called


class Storm(Struct):
    """One that is on. `event`: its event's `instructions.brief`, which its alarms carry too."""

    key: Key
    event: int
    opened_ms: int  # start of the window that it began with
    severity: int  # the highest of its alarms


class Telling(NamedTuple):
    """What is to be told; `note` is told the id of its event."""

    key: Key
    rows: Rows  # of its keys, each once
    what: Collapsed
    note: partial[None] | None = None


class Storms:
    """Of one rule on one shard, or in one bucket."""

    def __init__(
        self,
        rule: str,
        spec: CollapseSpec | None,
        detects: Mapping[str, DetectSpec],
        ruling: Ruling,
    ):
        self._rule, self._spec, self._detects, self._ruling = rule, spec, detects, ruling
        self._on: list[Storm] = []

    def __repr__(self) -> str:
        return f"<Storms of {self._rule}, {len(self._on)} on>"

    def on_wave(
        self,
        tables: Tables,
        keys: KeyTable,
        pending: list[Pending],
        span_ms: tuple[int, int],
    ) -> tuple[list[Pending], list[Telling]]:
        """What of a wave's alarms is still told one by one, and what is told of storms.

        `span_ms`: start and end of the window. To be asked once a wave, after all detectors; what
        is told is to be made an event, and noted, before the next one.
        """
        known = list(self._on)
        found: list[Telling] = []
        taken: set[int] = set()
        for key, openings in self._openings(keys, pending):
            storm = next((one for one in known if one.key == key and self._fits(one)), None)
            if storm is None:
                if self._spec is None or len(openings) <= self._spec.over:
                    continue
                storm = Storm(key, 0, span_ms[0], 0)
                self._on.append(storm)
                found.append(self._beginning(storm, tables, keys, openings))
            self._join(storm, tables, openings, span_ms[0])
            taken |= {id(each) for each in openings}
        found += self._endings(known, tables, keys, span_ms[1])
        return [each for each in pending if id(each) not in taken], found

    def _beginning(
        self, storm: Storm, tables: Tables, keys: KeyTable, openings: Sequence[Pending]
    ) -> Telling:
        seen = self._seen(tables, keys, openings)
        rows = np.unique(np.array([each.row for each in openings], dtype=np.intp))
        note = partial(_note, storm, tables, _by_series(openings))
        return Telling(storm.key, rows, started(self._rule, storm.key, seen, storm.opened_ms), note)

    def _fits(self, storm: Storm) -> bool:
        """Whether the rule as it is now could have this storm; a deploy may have changed that."""
        if self._spec is None:
            return False
        fields = [field for field, _ in storm.key]
        return fields == ([] if self._spec.by is None else [self._spec.by])

    def _openings(
        self, keys: KeyTable, pending: Sequence[Pending]
    ) -> list[tuple[Key, list[Pending]]]:
        """Alarms that would be told as opened, by what they would be collapsed by."""
        opened = [each for each in pending if each.state == "opened"]
        if self._spec is None or not (self._on or len(opened) > self._spec.over):
            return []
        found: dict[Key, list[Pending]] = {}
        by = self._spec.by
        for each in opened:
            key: Key = () if by is None else ((by, keys.value(each.row, by)),)
            found.setdefault(key, []).append(each)
        return sorted(found.items(), key=lambda item: _text(item[0]))

    def _join(
        self, storm: Storm, tables: Tables, openings: Sequence[Pending], start_ms: int
    ) -> None:
        for series, rows in _by_series(openings).items():
            alarms = tables[series].arrays
            alarms["hushed"][rows] = hush.COLLAPSED
            alarms["storm"][rows] = storm.event
            storm.severity = max(storm.severity, int(alarms["severity"][rows].max()))
            fresh = rows[alarms["opened_ms"][rows] == start_ms]  # others were counted before
            self._ruling.merge_openings(series, _scores(alarms["worst_score"][fresh]))
        self._ruling.on_untold("collapsed", len(openings))

    # ---- ends -----------------------------------------------------------------------------------

    def _endings(
        self, storms: Sequence[Storm], tables: Tables, keys: KeyTable, end_ms: int
    ) -> Iterator[Telling]:
        """Of storms that were on before this wave."""
        if not storms:
            return
        ever, still = Counter[int](), Counter[int]()
        for table in tables.values():
            rows = np.flatnonzero(table.arrays["storm"])
            _count(ever, table, rows)
            _count(still, table, rows[_is_in(table, rows)])
        for storm in storms:
            left = still[storm.event]
            most = min(ever[storm.event] // LEFT_PART, 0 if self._spec is None else self._spec.over)
            if left <= most or not self._fits(storm):
                self._on.remove(storm)
                yield self._ending(storm, tables, keys, end_ms)

    def _ending(self, storm: Storm, tables: Tables, keys: KeyTable, end_ms: int) -> Telling:
        by_detector: list[tuple[DetectSpec, int]] = []
        left: list[Left] = []
        all_rows: list[Rows] = []
        for series, table in tables.items():
            detect, rows = self._detects[series], _ever(table, storm.event)
            still = rows[_is_in(table, rows)]
            table.arrays["hushed"][still] = hush.LEFT
            left += [Left(keys.text(row), keys.group(row).key, detect) for row in still.tolist()]
            all_rows.append(rows)
            if len(rows):
                by_detector.append((detect, len(rows)))
        since, of = (storm.opened_ms, end_ms), (storm.event, storm.severity)
        what = ended(self._rule, storm.key, by_detector, left, since, of)
        return Telling(storm.key, np.unique(np.concatenate(all_rows)), what)

    def _seen(self, tables: Tables, keys: KeyTable, openings: Sequence[Pending]) -> Seen:
        """What a storm's first event says of its alarms."""
        severities, scores = np.zeros(len(openings), dtype=np.int64), np.zeros(len(openings))
        by_detector: dict[str, int] = {}
        for i, each in enumerate(openings):
            alarms = tables[each.series].arrays
            severities[i] = alarms["severity"][each.row]
            scores[i] = alarms["worst_score"][each.row]
            by_detector[each.series] = by_detector.get(each.series, 0) + 1
        counted = [(self._detects[s], by_detector[s]) for s in self._detects if s in by_detector]
        return Seen(openings, severities, scores, counted, keys)

    # ---- state ----------------------------------------------------------------------------------

    def forget(self) -> None:
        """Nobody was told of those that are on."""
        self._on = []

    def snapshot(self) -> tuple[Storm, ...]:
        return tuple(Storm(s.key, s.event, s.opened_ms, s.severity) for s in self._on)

    def restore(self, saved: Sequence[Storm]) -> None:
        self._on = [Storm(s.key, s.event, s.opened_ms, s.severity) for s in saved]

    def adopt(self, saved: Sequence[Storm], tables: Tables) -> None:
        """Go on with a parent's that have an alarm here, each once; after its alarms came."""
        known = {storm.event for storm in self._on}
        for storm in saved:
            rows = ((table, _ever(table, storm.event)) for table in tables.values())
            if storm.event not in known and any(_is_in(*pair).any() for pair in rows):
                self._on.append(Storm(storm.key, storm.event, storm.opened_ms, storm.severity))


def _note(storm: Storm, tables: Tables, rows: Mapping[str, Rows], event_id: str) -> None:
    storm.event = brief(event_id)
    for series, chosen in rows.items():
        tables[series].arrays["storm"][chosen] = storm.event


def _ever(table: Columns, event: int) -> Rows:
    """Of which rows the newest alarm was told with that event."""
    return np.flatnonzero(table.arrays["storm"] == np.uint64(event))


def _count(into: Counter[int], table: Columns, rows: Rows) -> None:
    """How many of these rows belong to each storm, by its event."""
    events, many = np.unique(table.arrays["storm"][rows], return_counts=True)
    into.update(dict(zip(events.tolist(), many.tolist(), strict=True)))


def _is_in(table: Columns, rows: Rows) -> Rows:
    """Which of these rows' alarms are open and untold, bool[n]."""
    alarms = table.arrays
    found: Rows = alarms["is_open"][rows] & (alarms["hushed"][rows] == hush.COLLAPSED)
    return found


def _by_series(openings: Iterable[Pending]) -> dict[str, Rows]:
    found: dict[str, list[int]] = {}
    for each in openings:
        found.setdefault(each.series, []).append(each.row)
    return {series: np.array(rows, dtype=np.intp) for series, rows in found.items()}


def _scores(scores: Floats) -> Floats:
    return np.where(np.isneginf(scores), np.nan, scores)


def _text(key: Key) -> list[tuple[str, str, str]]:
    return [(field, str(value), type(value).__name__) for field, value in key]
