"""One rule on one shard: which records it wants, its windows, its detectors, its events.

Windows close in order of their end. Where detectors watch, every known key is judged in every
window from its first on, also when nothing came: a wave a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import replace

from processor.core import beginnings, events, figures, lifetimes, versions
from processor.core.admission import Tally, admit
from processor.core.beginnings import Beginnings, Starts
from processor.core.columns import Columns
from processor.core.figures import FieldUse
from processor.core.keys import KeyTable, SavedKeys
from processor.core.lifetimes import Lifetimes
from processor.core.patterns import Pattern
from processor.core.records import Records
from processor.core.scoring import Alarm, Pending, Scorer
from processor.core.windows import NO_SAMPLE, Closed, Sample, WindowTable
from processor.core.windows import Saved as SavedWindows
from processor.model import (
    Bools,
    Column,
    DerivedEvent,
    Floats,
    Ints,
    Partial,
    Rows,
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
    uses: tuple[FieldUse, ...] = ()  # what its figures read
    filters: Mapping[str, Pattern] = {}  # of its figures, by `versions.filter_id`
    buckets: int = 0  # of its groups, where all shards together make its figures; else 0

    @property
    def is_global(self) -> bool:
        """Whether its groups have records on several shards, which meet in the merge stream."""
        return self.buckets > 0

    @property
    def numeric_fields(self) -> list[str]:
        """Fields whose numbers its figures read, each once."""
        return list(dict.fromkeys(use.field for use in self.uses if use.reads == "numbers"))

    @property
    def key_fields(self) -> list[str]:
        """Fields whose texts or integers its figures read, each once."""
        return list(dict.fromkeys(use.field for use in self.uses if use.reads == "keys"))


class Output(Struct, frozen=True):
    """One derived event."""

    rule: str
    end_ms: int
    event: DerivedEvent
    alarm: Alarm | None = None


class Firing(NamedTuple):
    """One window end that the watermark passed: at which record of the page, and what is told.

    The outputs are made as they are taken; to be taken to the end before the rule's next firing.
    """

    record: int  # its place in the page; the page's length where a mark fired it
    end_ms: int
    closed: int  # windows
    cost: int  # in units of `turns.TURN_WORK`, besides that of its outputs
    outputs: Iterator[Output | Partial]


class Saved(Struct, frozen=True):
    """A rule's section of a snapshot; its version is the section's name."""

    rule: str
    state_version: str
    beginnings: Beginnings
    keys: SavedKeys
    windows: SavedWindows
    first_ends: bytes
    lifetimes: lifetimes.Saved
    waves: tuple[Annotated[int, Meta(ge=-_NEVER_MS, lt=_NEVER_MS)] | None, int]
    scorer: dict[str, bytes]


class Heritage(Struct, frozen=True):
    """What a parent leaves a rule: a section, or only from where on the rule counts its keys."""

    beginnings: Beginnings
    saved: Saved | None = None
    is_former: bool = False  # of another version of the rule, whose state is as this one's


class Rule:
    """The state of one rule on one shard."""

    def __init__(self, plan: RulePlan, app: str, incarnation: str, shard: Shard):
        spec = plan.spec
        self.plan = plan
        self.windows = WindowTable(spec.window, spec.aggregates)
        self.keys = KeyTable(spec.group_by, plan.home_field, shard, spec.max_groups, spec.overflow)
        empties = figures.empties(spec.aggregates)
        self._identity = events.Identity(app, incarnation, spec.name, plan.version)
        series = versions.detect_ids(spec.detect, versions.aggregate_ids(spec.aggregates))
        self._scorer = Scorer(spec.detect, empties, series)
        self._shard = shard
        self._starts = Starts(shard)
        self._lifetimes = Lifetimes(spec)
        self.tally = Tally()
        self._by_key = Columns((Column("first_end_ms", "<i8", _NEVER_MS),))
        self._empty_values = figures.nothing(spec.aggregates)
        self._watched = {detect.aggregate for detect in spec.detect}
        self._last_wave_ms: int | None = None
        self._empty_waves = 0

    def __repr__(self) -> str:
        return f"<Rule {self.plan.spec.name} {self.keys!r} {self.windows!r}>"

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        """Which records' window has fired for good, by the watermark before each."""
        ends: Ints = self.windows.start_ms(1) + self.windows.ordinals(times) * self._size_ms
        return watermarks >= ends

    def take(
        self, records: Records | None, watermarks: Ints, watermark_ms: int
    ) -> Iterator[Firing]:
        """Count records, and close what the watermark passes, in order of (record, end).

        `watermarks`: int64[page], after each record of the page; nothing where a mark moves it to
        `watermark_ms`. Works as it is iterated; to be taken to the end.
        """
        start = 0
        for stop, to_ms in self._lifetimes.pieces(watermarks, watermark_ms):
            part = None if records is None else records.between(start, stop)
            yield from self._take(part, watermarks, to_ms)
            self._forget_silent(to_ms)
            start = stop

    def _take(
        self, records: Records | None, watermarks: Ints, watermark_ms: int
    ) -> Iterator[Firing]:
        """`take`, up to where keys may be forgotten."""
        while records is not None:
            chunk = records.part(slice(0, self._lifetimes.chunk))
            n = self._add(chunk)
            if n < len(chunk.at):  # no room for the next one's key
                record = int(chunk.at[n])
                if record:
                    yield from self._pass(watermarks, int(watermarks[record - 1]))
                yield from self._evict(record)
            records = records.part(slice(n, None)) if n < len(records.at) else None
        yield from self._pass(watermarks, watermark_ms)

    def _pass(self, watermarks: Ints, watermark_ms: int) -> Iterator[Firing]:
        """Close what ends up to that watermark."""
        for end_ms in self.due_ends(watermark_ms):
            record = int(np.searchsorted(watermarks, end_ms))
            open_before = len(self.windows)
            outputs = self._close(end_ms)
            closed = open_before - len(self.windows)
            yield Firing(record, end_ms, closed, self.keys.rows, outputs)

    def _add(self, records: Records) -> int:
        """Count them, up to the first that needs room: of how many that is the answer."""
        n, records, rows = admit(self.keys, records, self.tally)
        self._ensure()
        ends = self.windows.start_ms(1) + self.windows.ordinals(records.times) * self._size_ms
        np.minimum.at(self._by_key.arrays["first_end_ms"], rows, ends)
        self._lifetimes.note(rows, records.times)
        self.windows.add(rows, records.readings, records.sample_of)
        return n

    # ---- keys that go -----------------------------------------------------------------------

    def _evict(self, record: int) -> Iterator[Firing]:
        """Make room: the oldest keys go, and their open windows are told as they stand."""
        rows = self._lifetimes.oldest(self.keys.live)
        self._lifetimes.evictions += 1
        pane = f"evicted:{self._lifetimes.evictions}"
        only = self._mask(rows)
        for end_ms in self.windows.ends_ms():
            closed = self.windows.close(end_ms, only)
            n = len(closed.keys)
            if n:
                yield Firing(record, end_ms, n, n, self._outputs(end_ms, closed, [], pane))
        self._forget(rows)
        self.tally.evicted += len(rows)

    def _forget_silent(self, watermark_ms: int) -> None:
        """Keys that have been silent for long go, unless something of theirs is open."""
        silent = self._lifetimes.silent(self.keys.live, watermark_ms)
        if not len(silent):
            return
        silent = silent[~self._scorer.is_open(silent)]
        if self.plan.spec.window.kind == "running":  # it is open for as long as its key is known
            for end_ms in self.windows.ends_ms():
                self.windows.close(end_ms, self._mask(silent))
        else:
            silent = silent[~self._mask(self.windows.open_keys())[silent]]
        self._forget(silent)
        self.tally.forgotten += len(silent)

    def _forget(self, rows: Rows) -> None:
        """Keys without open windows are as if they had never been, and their rows free."""
        self.keys.forget(rows)
        self._by_key.reset(rows)
        self._lifetimes.forget(rows)
        self._scorer.reset(rows)

    def _mask(self, rows: Rows) -> Bools:
        mask = np.zeros(self.keys.rows, dtype=np.bool_)
        mask[rows] = True
        return mask

    def is_due(self, watermark_ms: int) -> bool:
        """Whether that watermark closes a window or gives a detector one to judge."""
        return bool(self.due_ends(watermark_ms))

    def _close(self, end_ms: int) -> Iterator[Output]:
        """Close the window that ends there, one of `due_ends` in their order.

        The state moves on at once; the outputs, in order of key, are made as they are taken.
        """
        closed = self.windows.close(end_ms)
        pending = self._judge(end_ms, closed) if self._is_judged(end_ms) else []
        return self._outputs(end_ms, closed, pending)

    def finish(self) -> Iterator[Output]:
        """The shard is at its end: windows of keys without a home close, unjudged, as its part.

        No child will ever have those keys. What has a home stays open for the child that has it.
        """
        homeless = self.keys.homeless
        for end_ms in self.windows.ends_ms():
            yield from self._outputs(end_ms, self.windows.close(end_ms, homeless), [])

    def snapshot(self) -> Saved:
        n = self.keys.rows
        return Saved(
            self.plan.spec.name,
            self.plan.state_version,
            self._starts.beginnings,
            self.keys.snapshot(),
            self.windows.snapshot(),
            self._by_key.snapshot(n)["first_end_ms"],
            self._lifetimes.snapshot(n),
            (self._last_wave_ms, self._empty_waves),
            self._scorer.snapshot(n),
        )

    def begin(self, newest_ms: int | None, origin: str) -> None:
        """Start anew on a shard whose records up to now had times up to `newest_ms`."""
        self._starts.begin(beginnings.anew(self._shard, newest_ms, origin))

    def converting(self, saved: Saved, newest_ms: int | None, origin: str) -> Iterator[None]:
        """Go on from another version's section, whose state is as this one's; as `begin`, and in
        turns as `restoring`."""
        named = beginnings.renamed(saved.beginnings, self._shard, newest_ms, origin)
        yield from self.restoring(replace(saved, beginnings=named))
        self._scorer.forget_volatile(np.arange(self.keys.rows))

    def restoring(self, saved: Saved) -> Iterator[None]:
        """The inverse of `snapshot`, in turns; to be taken to the end. Raises ValueError."""
        n = len(saved.keys)
        self._starts.begin(saved.beginnings)
        self.keys.restore(saved.keys)
        self._know()
        yield
        self.windows.restore(saved.windows, n)
        self._by_key.restore({"first_end_ms": saved.first_ends}, n)
        self._lifetimes.restore(saved.lifetimes, n)
        self._last_wave_ms, self._empty_waves = saved.waves
        yield
        yield from self._scorer.restoring(saved.scorer, n)

    def adopt(self, heritages: Sequence[Heritage]) -> None:
        """Go on where the parents ended with the keys that are at home here; into a fresh rule.

        Keys come in the order of the parents, then in each one's own. Raises ValueError.
        """
        told = (heritage.beginnings for heritage in heritages)
        self._starts.begin(beginnings.inherited(told, self._shard))
        self._join_waves(
            [
                each.saved.waves
                for each in heritages
                if each.saved is not None and self._adopt(each.saved, is_former=each.is_former)
            ]
        )

    def _adopt(self, saved: Saved, *, is_former: bool) -> bool:
        """Whether the parent had anything for us."""
        heirs = self.keys.adopt(saved.keys)
        chosen = heirs >= 0
        rows = heirs[chosen]
        self._ensure()
        self.windows.adopt(saved.windows, heirs)
        self._by_key.put(rows, {"first_end_ms": saved.first_ends}, chosen)
        self._lifetimes.adopt(rows, saved.lifetimes, chosen)
        self._scorer.put(rows, saved.scorer, chosen)
        if is_former:
            self._scorer.forget_volatile(rows)
        last_ms, _ = saved.waves
        if last_ms is not None:  # where another parent's waves go on before that, these are past it
            first_ends = self._by_key.arrays["first_end_ms"]
            first_ends[rows] = np.maximum(first_ends[rows], last_ms + self._size_ms)
        return bool(len(rows))

    def _join_waves(self, waves: Sequence[tuple[int | None, int]]) -> None:
        """Go on with the parent that is least far, so that none of its keys misses a window; but
        don't go back for one whose empty windows are used up. Those of the others, whose keys are
        judged later on, are not used up by its own."""
        begun = [(last_ms, empty) for last_ms, empty in waves if last_ms is not None]
        running = [wave for wave in begun if wave[1] < ABSENCE_HORIZON]
        if running:
            first_ms, _ = min(running)
            left = (empty - (last - first_ms) // self._size_ms for last, empty in running)
            self._last_wave_ms, self._empty_waves = first_ms, max(0, min(left))
        elif begun:
            self._last_wave_ms, self._empty_waves = max(begun)

    def _know(self) -> None:
        """Look up the beginnings of keys that have new rows."""
        rows = self.keys.take_new()
        self._starts.know(rows, self.keys.places(rows), self.keys.homeless[rows])

    def _ensure(self) -> None:
        self._know()
        self._by_key.ensure(self.keys.rows)
        self._lifetimes.ensure(self.keys.rows)
        self._scorer.ensure(self.keys.rows)

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

    def _judge(self, end_ms: int, closed: Closed) -> list[Pending]:
        """Run one window of all known keys past the detectors."""
        self._empty_waves = 0 if len(closed.keys) else self._empty_waves + 1
        self._last_wave_ms = end_ms
        n = self.keys.rows
        counts = np.zeros(n, dtype=np.int64)
        counts[closed.keys] = closed.counts
        values = {name: _spread(n, closed.keys, closed.values[name]) for name in self._watched}
        is_known = self._by_key.arrays["first_end_ms"][:n] <= end_ms
        is_partial = self._starts.partial(np.arange(n), end_ms - self._size_ms)
        known = np.flatnonzero(is_known & ~is_partial)
        return self._scorer.judge(
            end_ms - self._size_ms,
            end_ms,
            known,
            counts[known],
            {name: column[known] for name, column in values.items()},
        )

    def _outputs(
        self, end_ms: int, closed: Closed, pending: Sequence[Pending], evicted: str | None = None
    ) -> Iterator[Output]:
        """In order of key: its window, then what the detectors say of it, in their order.

        `evicted`: the pane of windows that are told as they stand, since their keys go.
        """
        spec = self.plan.spec
        places = dict(zip(closed.keys.tolist(), range(len(closed.keys)), strict=True))
        by_key: dict[int, list[Pending]] = {}
        if spec.emit_anomalies is not None:
            for each in pending:
                by_key.setdefault(each.row, []).append(each)
        told = by_key.keys() if spec.emit_windows is None else places.keys() | by_key.keys()
        partial = self._starts.partial(closed.keys, end_ms - self._size_ms).tolist()
        window_of = self._windows(end_ms, closed)
        for key in sorted(told, key=self.keys.text):
            place = places.get(key)
            window = window_of(key, place)
            if spec.emit_windows is not None and place is not None:
                result = self._result(window, key, is_partial=partial[place])
                if evicted is not None:  # what it is called depends on all keys from the beginning
                    origin = self._starts.origin(key)
                    result = replace(result, pane=evicted, is_final=False, origin=origin)
                event = events.window_event(self._identity, result, sink=spec.emit_windows)
                yield Output(spec.name, end_ms, event)
            for each in by_key.get(key, ()):
                assert spec.emit_anomalies is not None
                alarm = each.make()
                named = replace(window, origin=self._starts.origin(key))
                event = events.anomaly_event(self._identity, named, alarm, sink=spec.emit_anomalies)
                yield Output(spec.name, end_ms, event, alarm)

    def _result(self, window: events.Window, key: int, *, is_partial: bool) -> events.Window:
        """The window as it is told."""
        is_other = self.keys.is_other(key)
        origin = self._starts.window_origin(key, window.start_ms, is_other=is_other)
        if not is_partial and not origin:
            return window
        return replace(window, is_partial=is_partial, origin=origin)

    def _windows(self, end_ms: int, closed: Closed) -> Callable[[int, int | None], events.Window]:
        """Makes the window of a key, by its place among the closed ones, or an empty one."""
        columns = {name: column.tolist() for name, column in closed.values.items()}
        counts = closed.counts.tolist()

        def window_of(key: int, place: int | None) -> events.Window:
            if place is None:
                return self._window(end_ms, key, self._empty_values, 0, NO_SAMPLE)
            values = {name: column[place] for name, column in columns.items()}
            return self._window(end_ms, key, values, counts[place], closed.samples[place])

        return window_of

    def _window(
        self, end_ms: int, key: int, values: Mapping[str, Any], count: int, sample: Sample
    ) -> events.Window:
        group = self.keys.group(key)
        correlation_id, traceparent = sample
        return events.Window(
            start_ms=end_ms - self._size_ms,
            end_ms=end_ms,
            key=group.key,
            values=values,
            count=count,
            part=group.part,
            correlation_ids=() if correlation_id is None else (correlation_id,),
            traceparent=traceparent,
        )


def _spread(n: int, keys: Any, column: Any) -> Floats:
    """A column of the keys that had records, over all n keys; NaN for the others."""
    spread = np.full(n, np.nan)
    spread[keys] = column
    return spread
