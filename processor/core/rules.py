"""One rule on one shard: which records it wants, its windows, its detectors, its events.

Windows close in order of their end. Where detectors watch, every known key is judged in every
window from its first on, also when nothing came: a wave a window.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from processor import aggregators
from processor.core import beginnings, events, versions
from processor.core.beginnings import Beginnings, Starts
from processor.core.columns import Columns
from processor.core.keys import KeyTable
from processor.core.patterns import Pattern
from processor.core.scoring import Alarm, Scorer
from processor.core.windows import NO_SAMPLE, Closed, Sample, SampleOf, WindowTable
from processor.core.windows import Saved as SavedWindows
from processor.model import (
    Bools,
    Column,
    DerivedEvent,
    Floats,
    Ints,
    RuleSpec,
    Shard,
)

# Empty windows that are run past the detectors after the last one with records. Enough for absence
# on a key that has something in one window of ten; more would stall the shard after a long gap.
ABSENCE_HORIZON = 100
_NEVER_MS = 2**62


class RulePlan(Struct, frozen=True):
    """A rule, compiled."""

    spec: RuleSpec
    version: str
    state_version: str
    pattern: Pattern
    home_field: str | None

    @property
    def numeric_fields(self) -> list[str]:
        """Fields that its aggregates read, each once."""
        return list(dict.fromkeys(a.field for a in self.spec.aggregates if a.field is not None))


class Output(Struct, frozen=True):
    """One derived event and its place among those of a step."""

    rule: str
    end_ms: int
    text: str  # the key's
    event: DerivedEvent
    alarm: Alarm | None = None


class Saved(Struct, frozen=True):
    """A rule's section of a snapshot; its version is the section's name."""

    rule: str
    state_version: str
    beginnings: Beginnings
    groups: list[tuple[list[str | int], str | None]]
    windows: SavedWindows
    first_ends: bytes
    waves: tuple[int | None, int]
    scorer: dict[str, bytes]


class Rule:
    """The state of one rule on one shard."""

    def __init__(self, plan: RulePlan, app: str, incarnation: str, shard: Shard):
        spec = plan.spec
        self.plan = plan
        self.windows = WindowTable(spec.window, spec.aggregates)
        self.keys = KeyTable(spec.group_by, plan.home_field, shard, spec.max_groups)
        empties = {a.name: aggregators.get(a.kind).empty for a in spec.aggregates}
        self._identity = events.Identity(app, incarnation, spec.name, plan.version)
        series = versions.detect_ids(spec.detect, versions.aggregate_ids(spec.aggregates))
        self._scorer = Scorer(spec.detect, empties, series)
        self._shard = shard
        self._starts = Starts(shard, plan.home_field)
        self._by_key = Columns((Column("first_end_ms", "<i8", _NEVER_MS),))
        self._empty_values = {name: None if np.isnan(v) else int(v) for name, v in empties.items()}
        self._last_wave_ms: int | None = None
        self._empty_waves = 0

    def __repr__(self) -> str:
        return f"<Rule {self.plan.spec.name} {self.keys!r} {self.windows!r}>"

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        """Which records' window has fired for good, by the watermark before each."""
        ends: Ints = self.windows.start_ms(1) + self.windows.ordinals(times) * self._size_ms
        return watermarks >= ends

    def add(
        self,
        keys: Sequence[Sequence[Any]],
        partition_keys: Sequence[str],
        times: Ints,
        values: Mapping[str, Floats],
        sample_of: SampleOf | None,
    ) -> None:
        """Count records that are wanted and on time; columns as `KeyTable` and `WindowTable`."""
        rows = self.keys.indices(keys, partition_keys)
        self._starts.know(self.keys.groups)
        self._by_key.ensure(len(self.keys))
        self._scorer.ensure(len(self.keys))
        ends = self.windows.start_ms(1) + self.windows.ordinals(times) * self._size_ms
        np.minimum.at(self._by_key.arrays["first_end_ms"], rows, ends)
        self.windows.add(rows, times, values, sample_of)

    def is_due(self, watermark_ms: int) -> bool:
        """Whether that watermark closes a window or gives a detector one to judge."""
        return bool(self.due_ends(watermark_ms))

    def close(self, end_ms: int) -> list[Output]:
        """Close the window that ends there, one of `due_ends` in their order; in order of key."""
        closed = self.windows.close(end_ms)
        outputs = self._window_outputs(end_ms, closed, None)
        if self._is_judged(end_ms):
            outputs += self._judge(end_ms, closed)
        return sorted(outputs, key=lambda output: output.text)

    def finish(self, shard_id: str) -> list[Output]:
        """The shard is at its end: what is open closes as this shard's part of its window.

        Records of the same window that a child gets count there, under the id without `part`. A
        key without a home has its shard as its part anyway, and no child will ever have it.
        """
        outputs: list[Output] = []
        for end_ms in self.windows.ends_ms():
            closed = self.windows.close(end_ms)
            outputs += sorted(
                self._window_outputs(end_ms, closed, f"{shard_id}/end"), key=lambda o: o.text
            )
        return outputs

    def snapshot(self) -> Saved:
        n = len(self.keys)
        return Saved(
            self.plan.spec.name,
            self.plan.state_version,
            self._starts.beginnings,
            self.keys.names(),
            self.windows.snapshot(),
            self._by_key.snapshot(n)["first_end_ms"],
            (self._last_wave_ms, self._empty_waves),
            self._scorer.snapshot(n),
        )

    def begin(self, newest_ms: int | None, origin: str) -> None:
        """Start anew on a shard whose records up to now had times up to `newest_ms`."""
        self._starts.begin(beginnings.anew(self._shard, newest_ms, origin))

    def convert(self, saved: Saved, newest_ms: int | None, origin: str) -> None:
        """Go on from another version's section, whose state is as this one's; as `begin`."""
        named = beginnings.renamed(saved.beginnings, self._shard, newest_ms, origin)
        self.restore(replace(saved, beginnings=named))
        self._scorer.forget_volatile()

    def restore(self, saved: Saved) -> None:
        n = len(saved.groups)
        self._starts.begin(saved.beginnings)
        self.keys.restore(saved.groups)
        self._starts.know(self.keys.groups)
        self.windows.restore(saved.windows, n)
        self._by_key.restore({"first_end_ms": saved.first_ends}, n)
        self._last_wave_ms, self._empty_waves = saved.waves
        self._scorer.restore(saved.scorer, n)

    @property
    def _size_ms(self) -> int:
        return self.windows.window.size_ms

    def due_ends(self, watermark_ms: int) -> list[int]:
        """Ends at or before the watermark: of open windows, and of empty ones to be judged."""
        due = [end for end in self.windows.ends_ms() if end <= watermark_ms]
        if not self.plan.spec.detect:
            return due
        ends: list[int] = []
        last, empty = self._last_wave_ms, self._empty_waves
        for end in [*due, None]:
            stop = watermark_ms + 1 if end is None else end
            if last is not None:
                more = range(last + self._size_ms, stop, self._size_ms)
                ends += more[: max(0, ABSENCE_HORIZON - empty)]
            if end is not None:
                ends.append(end)
                if self._is_judged(end):
                    last, empty = end, 0
        return ends

    def _is_judged(self, end_ms: int) -> bool:
        """Whether detectors see the window that ends there: not where it is partial for all."""
        is_watched = bool(self.plan.spec.detect)
        return is_watched and self._starts.may_be_whole(end_ms - self._size_ms)

    def _judge(self, end_ms: int, closed: Closed) -> list[Output]:
        """Run one window of all known keys past the detectors."""
        self._empty_waves = 0 if len(closed.keys) else self._empty_waves + 1
        self._last_wave_ms = end_ms
        n = len(self.keys)
        counts = np.zeros(n, dtype=np.int64)
        counts[closed.keys] = closed.counts
        values = {name: _spread(n, closed.keys, column) for name, column in closed.values.items()}
        is_known = self._by_key.arrays["first_end_ms"][:n] <= end_ms
        is_partial = self._starts.partial(np.arange(n), end_ms - self._size_ms)
        known = np.flatnonzero(is_known & ~is_partial)
        alarms = self._scorer.observe(
            end_ms - self._size_ms,
            end_ms,
            known,
            counts[known],
            {name: column[known] for name, column in values.items()},
        )
        if not alarms:
            return []
        place = {key: i for i, key in enumerate(closed.keys.tolist())}
        outputs = (self._anomaly_output(end_ms, closed, place, alarm) for alarm in alarms)
        return [output for output in outputs if output is not None]

    def _window_outputs(self, end_ms: int, closed: Closed, part: str | None) -> list[Output]:
        sink = self.plan.spec.emit_windows
        if sink is None:
            return []
        columns = {name: column.tolist() for name, column in closed.values.items()}
        partial = self._starts.partial(closed.keys, end_ms - self._size_ms).tolist()
        outputs = []
        for i, (key, count) in enumerate(
            zip(closed.keys.tolist(), closed.counts.tolist(), strict=True)
        ):
            values = {name: column[i] for name, column in columns.items()}
            window = self._window(end_ms, key, values, count, closed.samples[i], part)
            origin = self._starts.window_origin(self.keys.groups[key], key, end_ms - self._size_ms)
            window = replace(window, is_partial=partial[i], origin=origin)
            event = events.window_event(self._identity, window, sink=sink)
            outputs.append(self._output(end_ms, key, event, None))
        return outputs

    def _anomaly_output(
        self, end_ms: int, closed: Closed, place: Mapping[int, int], alarm: Alarm
    ) -> Output | None:
        sink = self.plan.spec.emit_anomalies
        if sink is None:
            return None
        i = place.get(alarm.row)
        if i is None:
            window = self._window(end_ms, alarm.row, self._empty_values, 0, NO_SAMPLE, None)
        else:
            values = {name: column[i].item() for name, column in closed.values.items()}
            count = int(closed.counts[i])
            window = self._window(end_ms, alarm.row, values, count, closed.samples[i], None)
        window = replace(window, origin=self._starts.origin(alarm.row))
        event = events.anomaly_event(self._identity, window, alarm, sink=sink)
        return self._output(end_ms, alarm.row, event, alarm)

    def _output(self, end_ms: int, key: int, event: DerivedEvent, alarm: Alarm | None) -> Output:
        return Output(self.plan.spec.name, end_ms, self.keys.groups[key].text, event, alarm)

    def _window(
        self,
        end_ms: int,
        key: int,
        values: Mapping[str, Any],
        count: int,
        sample: Sample,
        part: str | None,
    ) -> events.Window:
        group = self.keys.groups[key]
        correlation_id, traceparent = sample
        return events.Window(
            start_ms=end_ms - self._size_ms,
            end_ms=end_ms,
            key=group.key,
            values=values,
            count=count,
            part=group.part or part,
            correlation_ids=() if correlation_id is None else (correlation_id,),
            traceparent=traceparent,
        )


def _spread(n: int, keys: Any, column: Any) -> Floats:
    """A column of the keys that had records, over all n keys; NaN for the others."""
    spread = np.full(n, np.nan)
    spread[keys] = column
    return spread
