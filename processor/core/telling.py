"""The derived events of a rule: its windows in words, and what detectors say of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from processor.core import events
from processor.core.alarms.alarm import Alarm, Collapsed, Pending
from processor.core.alarms.storm import Telling
from processor.core.beginnings import Starts
from processor.core.keys import KeyTable
from processor.core.windows import Panes, Sample
from processor.model import DerivedEvent, Rows, RuleSpec

# So many panes at a time are made plain values: of 100,000 at once they would take 40 MB.
CHUNK = 1_024


class Output(Struct, frozen=True):
    """One derived event."""

    rule: str
    end_ms: int
    event: DerivedEvent
    alarm: Alarm | Collapsed | None = None


class Tell:
    """Makes the events of one rule."""

    def __init__(
        self,
        spec: RuleSpec,
        identity: events.Identity,
        keys: KeyTable,
        starts: Starts,
        empty_values: Mapping[str, Any],
    ):
        self._spec = spec
        self.identity = identity
        self.keys = keys
        self._starts = starts
        self._empty_values = empty_values

    def outputs(
        self,
        start_ms: int,
        end_ms: int,
        panes: Panes,
        pending: Sequence[Pending],
        storms: Sequence[Telling] = (),
        *,
        is_evicted: bool = False,
    ) -> Iterator[Output]:
        """In order of key: its window, then what the detectors say of it, in their order;
        at last what is told of many at once.

        `start_ms`: of a window in which a key had no records. `is_evicted`: the windows are told as
        they stand, since their keys go. Made as they are taken.
        """
        spec = self._spec
        by_key: dict[int, list[Pending]] = {}
        if spec.emit_anomalies is not None:
            for each in pending:
                by_key.setdefault(each.row, []).append(each)
        told = panes.keys if spec.emit_windows is not None else panes.keys[:0]
        if by_key:
            told = np.union1d(told, np.array(list(by_key), dtype=np.intp))
        for key, columns, place in _in_chunks(self._in_order(told), panes):
            window = self._window(key, start_ms, end_ms, columns, place)
            if spec.emit_windows is not None and place is not None:
                result = self._result(window, key)
                if is_evicted:  # what its pane is called depends on all keys from the beginning
                    result = replace(result, origin=self._starts.origin(key))
                event = events.window_event(self.identity, result, sink=spec.emit_windows)
                yield Output(spec.name, end_ms, event)
            for each in by_key.get(key, ()):
                assert spec.emit_anomalies is not None
                alarm = each.make()
                named = replace(window, origin=self._starts.origin(key))
                event = events.anomaly_event(self.identity, named, alarm, sink=spec.emit_anomalies)
                each.note(event.id)
                yield Output(spec.name, end_ms, event, alarm)
        for storm in storms:
            if spec.emit_anomalies is not None:
                yield self._storm(start_ms, end_ms, panes, storm, spec.emit_anomalies)

    def _storm(self, start_ms: int, end_ms: int, panes: Panes, storm: Telling, sink: str) -> Output:
        """It is of this shard only, and says so; it counts the records of all of its keys."""
        count = int(panes.counts[np.isin(panes.keys, storm.rows)].sum())
        origins = sorted({self._starts.origin(row) for row in storm.rows.tolist()})
        window = replace(
            events.Window(start_ms, end_ms, storm.key, {}, count, part=self.keys.shard_id),
            origin=",".join(origins),
        )
        event = events.storm_event(self.identity, self.as_of_all(window), storm.what, sink=sink)
        if storm.note is not None:
            storm.note(event.id)
        return Output(self._spec.name, end_ms, event, storm.what)

    def _in_order(self, rows: Rows) -> Rows:
        """Keys in order of their text."""
        texts = np.empty(len(rows), dtype=object)
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            texts[part] = list(map(self.keys.text, rows[part].tolist()))
        return rows[texts.argsort()]

    def _result(self, window: events.Window, key: int) -> events.Window:
        """The window as it is told."""
        starts, start_ms = self._starts, window.start_ms
        is_partial = starts.is_partial(key, start_ms)
        origin = starts.window_origin(key, start_ms, is_other=self.keys.is_other(key))
        if not is_partial and not origin:
            return window
        return replace(window, is_partial=is_partial, origin=origin)

    def _window(
        self, key: int, start_ms: int, end_ms: int, columns: _Columns, place: int | None
    ) -> events.Window:
        """A key's window, by its place among the panes; one without records where it is None."""
        group = self.keys.group(key)
        if place is None:
            values, part = self._empty_values, group.part
            window = events.Window(start_ms, end_ms, group.key, values, 0, part=part)
            return self.as_told(window, key)
        correlation_id, traceparent = columns.samples[place]
        window = events.Window(
            start_ms=columns.starts[place],
            end_ms=end_ms,
            key=group.key,
            values=columns.values(place),
            count=columns.counts[place],
            part=group.part,
            correlation_ids=() if correlation_id is None else (correlation_id,),
            traceparent=traceparent,
            pane=columns.names[place],
            is_final=columns.finals[place],
        )
        return self.as_told(window, key)

    def as_of_all(self, window: events.Window) -> events.Window:
        """Likewise of what is told of many keys at once."""
        return window

    def as_told(self, window: events.Window, key: int) -> events.Window:
        """What else is to be said of it; for those who tell more."""
        return window


class _Columns:
    """Some panes as plain values: one conversion for all of them."""

    def __init__(self, panes: Panes, at: Rows):
        places = at.tolist()
        self.starts: list[int] = panes.starts[at].tolist()
        self.counts: list[int] = panes.counts[at].tolist()
        self.samples: Sequence[Sample] = [panes.samples[place] for place in places]
        self.names = [panes.names[place] for place in places]
        self.finals = [panes.finals[place] for place in places]
        self._values = {name: column[at].tolist() for name, column in panes.values.items()}

    def values(self, place: int) -> dict[str, Any]:
        return {name: column[place] for name, column in self._values.items()}


def _in_chunks(keys: Rows, panes: Panes) -> Iterator[tuple[int, _Columns, int | None]]:
    """Each key, the columns that have its pane, and its place in them; None where it has none."""
    for start in range(0, len(keys), CHUNK):
        chunk = keys[start : start + CHUNK]
        at = np.searchsorted(panes.keys, chunk)
        has_pane = np.zeros(len(chunk), dtype=np.bool_)
        inside = np.flatnonzero(at < len(panes))
        has_pane[inside] = panes.keys[at[inside]] == chunk[inside]
        columns = _Columns(panes, at[has_pane])
        places = (np.cumsum(has_pane) - 1).tolist()
        for key, has, place in zip(chunk.tolist(), has_pane.tolist(), places, strict=True):
            yield key, columns, place if has else None
