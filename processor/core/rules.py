"""One rule on one shard: which records it wants, its windows, its detectors, its events.

Windows close in order of their end. Where detectors watch, every known key is judged in every
window from its first on, also when nothing came: a wave a window.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from msgspec import Meta, Struct
from msgspec.structs import replace

from processor.core import beginnings, events, figures, lifetimes, versions, windows
from processor.core.admission import Tally, admit
from processor.core.alarms import rarity
from processor.core.alarms.alarm import Pending
from processor.core.alarms.maintenance import Calendar
from processor.core.alarms.ruling import Ruling, of_series
from processor.core.alarms.scorer import Scorer
from processor.core.alarms.storm import Storm, Storms, Telling
from processor.core.beginnings import Beginnings, Starts
from processor.core.columns import Columns
from processor.core.figures import FieldUse
from processor.core.instructions import Instructed, Instruction, brief
from processor.core.keys import KeyTable, SavedKeys
from processor.core.lifetimes import Lifetimes
from processor.core.patterns import Pattern
from processor.core.records import Records
from processor.core.telling import Output, Tell
from processor.core.waves import Waves
from processor.core.windows import (
    Batch,
    Grid,
    Predicate,
    SavedCareful,
    SavedPlain,
    Told,
)
from processor.core.zone import UTC, Zone
from processor.model import (
    Bools,
    Column,
    Floats,
    Ints,
    Partial,
    Rows,
    RuleSpec,
    Shard,
)

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
    grid: Grid | None = None  # of its windows, where they are the same for all keys
    zone: Zone = UTC  # its detectors take the hour of day from it
    when: Predicate | None = None  # which results make an early pane

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
    windows: SavedPlain | SavedCareful
    first_ends: bytes
    lifetimes: lifetimes.Saved
    waves: tuple[Annotated[int, Meta(ge=-_NEVER_MS, lt=_NEVER_MS)] | None, int]
    scorer: dict[str, bytes]
    rarities: dict[str, rarity.Saved] = {}
    storms: tuple[Storm, ...] = ()


class Learnt(NamedTuple):
    """How much a rule's detectors know: keys, and from the first window judged to the last."""

    keys: int
    judged_ms: int

    def with_(self, other: Learnt) -> Learnt:
        """Both together: of two shards, or two buckets."""
        return Learnt(self.keys + other.keys, max(self.judged_ms, other.judged_ms))


def together(each: Iterable[Mapping[str, Learnt]]) -> dict[str, Learnt]:
    """By rule, of several shards."""
    found: dict[str, Learnt] = {}
    for one in each:
        for name, own in one.items():
            found[name] = found[name].with_(own) if name in found else own
    return found


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
        self._shard = shard
        self.windows = windows.open_for(spec, plan.grid, plan.when)
        self.keys = KeyTable(spec.group_by, plan.home_field, shard, spec.max_groups, spec.overflow)
        empties = figures.empties(spec.aggregates)
        series = versions.detect_ids(spec.detect, versions.aggregate_ids(spec.aggregates))
        self._maintenance = Calendar(spec.maintenance, plan.zone)
        detects = of_series(series, spec.detect)
        self._ruling = Ruling(spec.name, detects, self.keys, spec.alarm_budget, self._share())
        collapse = None if spec.emit_anomalies is None else spec.collapse
        self._storms = Storms(spec.name, collapse, detects, self._ruling)
        self._scorer = Scorer(spec.detect, empties, series, self._ruling)
        self._starts = Starts(shard)
        self._lifetimes = Lifetimes(spec)
        self.tally = Tally()
        self._by_key = Columns((Column("first_end_ms", "<i8", _NEVER_MS),))
        self._waves = Waves(plan.grid)
        empty_values = figures.nothing(spec.aggregates)
        identity = events.Identity(app, incarnation, spec.name, plan.version)
        self._tell = Tell(spec, identity, self.keys, self._starts, empty_values)

    def __repr__(self) -> str:
        return f"<Rule {self.plan.spec.name} {self.keys!r} {self.windows!r}>"

    def _share(self) -> float:
        """Of all keys, those at home here, if they are spread evenly."""
        return (self._shard.last_hash - self._shard.first_hash + 1) / 2**128

    def take_untold(self) -> dict[str, int]:
        """Alarms that opened without an event since it was last asked, by why."""
        return self._ruling.take_untold()

    # ---- what people ask --------------------------------------------------------------------

    def obey(self, instructed: Instructed) -> None:
        """What is muted stands there; it is one for all rules of the shard."""
        self._ruling.instructed = instructed

    def is_asked(self, instruction: Instruction) -> bool:
        """Whether an instruction is about this rule, or about an event of it."""
        if instruction.act in ("mute", "unmute"):
            return instruction.rule == self.plan.spec.name
        return self._scorer.knows(brief(instruction.of))

    def on_instruction(self, instruction: Instruction) -> None:
        """Apply it; a mute only has to be remembered, which `Instructed` does."""
        if instruction.act == "expect":
            self._scorer.expect(brief(instruction.of))
        elif instruction.act == "unexpect":
            self._scorer.forget_expected(brief(instruction.of))

    # ---- records ------------------------------------------------------------------------------

    def late(self, times: Ints, watermarks: Ints) -> Bools:
        """Which records no window can hold any more, by the watermark before each.

        Whether one that may still be held comes after its window was told for good only `take`
        can say: see `Tally.late`.
        """
        return self.windows.late(times, watermarks)

    def is_still(self, watermark_ms: int, later_ms: int) -> bool:
        """Whether records that move the watermark from here no further than there end no window,
        and let no key go."""
        if not isinstance(self.windows, windows.Plain) or not self._lifetimes.are_endless:
            return False
        first_ends = self.windows.grid.first_ends(np.array([watermark_ms]))
        return int(first_ends[0]) > later_ms

    def take(
        self, records: Records | None, watermarks: Ints, watermark_ms: int
    ) -> Iterator[Firing]:
        """Count records, and tell what they and the watermark make due, in order of record.

        `watermarks`: int64[page], after each record of the page; nothing where a mark moves it to
        `watermark_ms`. Works as it is iterated; to be taken to the end.
        """
        start = 0
        for stop, to_ms in self._lifetimes.pieces(watermarks, watermark_ms):
            part = None if records is None else records.between(start, stop)
            yield from self._take(part, watermarks, to_ms)
            self._forget_silent(to_ms)
            start = stop
        self.tally.late += self.windows.dropped
        self.tally.late_at += self.windows.late_at
        self.windows.dropped, self.windows.late_at = 0, []

    def _take(
        self, records: Records | None, watermarks: Ints, watermark_ms: int
    ) -> Iterator[Firing]:
        """`take`, up to where keys may be forgotten."""
        batch: Batch | None = None
        while records is not None:
            chunk = records.part(slice(0, self._lifetimes.chunk))
            n, batch = self._admit(chunk)
            rest = records.part(slice(n, None)) if n < len(records.at) else None
            if rest is not None:  # the watermark before the next one
                record = int(rest.at[0])
                to_ms = int(watermarks[record - 1]) if record else -_NEVER_MS
                yield from self._run(batch, watermarks, to_ms)
                batch = None
                if n < len(chunk.at):  # there is no room for its key
                    yield from self._evict(record)
            records = rest
        yield from self._run(batch, watermarks, watermark_ms)

    def _run(self, batch: Batch | None, watermarks: Ints, watermark_ms: int) -> Iterator[Firing]:
        """Count, and tell what is due up to that watermark."""
        for told in self.windows.take(batch, watermarks, watermark_ms):
            yield from self._empty_waves(told.record, told.end_ms, watermarks, watermark_ms)
            yield self._firing(told)
        yield from self._empty_waves(len(watermarks), _NEVER_MS, watermarks, watermark_ms)

    def _admit(self, records: Records) -> tuple[int, Batch]:
        """Look up the keys, up to the first that needs room: of how many records that is."""
        n, records, rows = admit(self.keys, records, self.tally)
        self._ensure()
        if self.plan.spec.detect:
            # Not of windows that ended before it came: those were judged without it.
            ends = self.windows.first_ends(np.maximum(records.times, records.judged))
            np.minimum.at(self._by_key.arrays["first_end_ms"], rows, ends)
        self._lifetimes.note(rows, records.times)
        return n, Batch(rows, records.readings, records.at, records.judged, records.sample_of)

    # ---- keys that go -----------------------------------------------------------------------

    def _evict(self, record: int) -> Iterator[Firing]:
        """Make room: the oldest keys go, and their open windows are told as they stand."""
        rows = self._lifetimes.oldest(self.keys.live)
        self._lifetimes.evictions += 1
        pane = f"evicted:{self._lifetimes.evictions}"
        for told in self.windows.finish(self._mask(rows)):
            n = len(told.panes)
            panes = replace(told.panes, names=[pane] * n, finals=[False] * n)
            outputs = self._tell.outputs(0, told.end_ms, panes, [], is_evicted=True)
            yield Firing(record, told.end_ms, n, n, outputs)
        self._forget(rows)
        self.tally.evicted += len(rows)

    def _forget_silent(self, watermark_ms: int) -> None:
        """Keys that have been silent for long go, unless something of theirs is open."""
        silent = self._lifetimes.silent(self.keys.live, watermark_ms)
        if not len(silent):
            return
        silent = silent[~self._scorer.is_open(silent)]
        silent = silent[~self.windows.holds(self.keys.rows)[silent]]
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

    # ---- what is told -----------------------------------------------------------------------

    def _empty_waves(
        self, record: int, end_ms: int, watermarks: Ints, watermark_ms: int
    ) -> Iterator[Firing]:
        """Judge the windows without records that come before (record, end)."""
        for wave_ms in self._waves.empty_until(watermark_ms + 1):
            at = int(np.searchsorted(watermarks, wave_ms))
            if (at, wave_ms) >= (record, end_ms):
                return
            assert self.plan.grid is not None, "windows without a grid are never judged"
            if not self._starts.may_be_whole(self.plan.grid.start_of(wave_ms)):
                self._waves.on_judged(wave_ms, is_empty=True)  # partial for all: it is passed over
                continue
            nobody = windows.no_panes(self.plan.spec.aggregates)
            yield self._firing(Told(at, wave_ms, True, nobody))

    def _firing(self, told: Told) -> Firing:
        """The state moves on at once; the outputs, in order of key, are made as they are taken."""
        pending: list[Pending] = []
        storms: list[Telling] = []
        cost = len(told.panes)
        start_ms = 0
        if told.is_on_time and self.plan.spec.detect:
            assert self.plan.grid is not None, "windows without a grid are never judged"
            start_ms = self.plan.grid.start_of(told.end_ms)
            if self._starts.may_be_whole(start_ms):
                pending, storms = self._judge(start_ms, told)
                cost = self.keys.rows
        outputs = self._tell.outputs(start_ms, told.end_ms, told.panes, pending, storms)
        return Firing(told.record, told.end_ms, sum(told.panes.finals), cost, outputs)

    def is_due(self, watermark_ms: int) -> bool:
        """Whether that watermark makes a window tell something, or a detector judge one."""
        next_ms = self._waves.next_ms
        is_wave_due = next_ms is not None and next_ms <= watermark_ms
        return is_wave_due or self.windows.is_due(watermark_ms)

    def finish(self) -> Iterator[Output]:
        """The shard is at its end: windows of keys without a home close, unjudged, as its part.

        No child will ever have those keys. What has a home stays open for the child that has it.
        """
        for told in self.windows.finish(self.keys.homeless):
            yield from self._tell.outputs(0, told.end_ms, told.panes, [])

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
            self._waves.last,
            self._scorer.snapshot(n),
            self._ruling.snapshot(),
            self._storms.snapshot(),
        )

    def learnt(self) -> Saved | None:
        """What to go on from elsewhere in time: what detectors learnt of its keys, without windows,
        alarms and time. None where there are no detectors. The rule itself goes no further."""
        if not self.plan.spec.detect:
            return None
        self._shut(is_gap=True)
        nothing = windows.open_for(self.plan.spec, self.plan.grid, self.plan.when)
        return replace(
            self.snapshot(),
            beginnings=(),
            windows=nothing.snapshot(),
            lifetimes=self._lifetimes.learnt(self.keys.rows),
            waves=(None, 0),
        )

    def shut_alarms(self) -> None:
        """None that is open was told: none is to be told of as over."""
        self._shut(is_gap=False)

    def _shut(self, *, is_gap: bool) -> None:
        self._scorer.shut(np.arange(self.keys.rows), is_gap=is_gap)
        self._storms.forget()

    def learnt_of(self) -> Learnt:
        """What there is to know of what was learnt."""
        last_ms, _ = self._waves.last
        firsts = self._by_key.arrays["first_end_ms"][: self.keys.rows][self.keys.live]
        first_ms = int(firsts.min(initial=_NEVER_MS))
        judged_ms = 0 if last_ms is None else max(0, last_ms - first_ms)
        return Learnt(len(self.keys), judged_ms)

    def resume(self, first_ms: int, origin: str) -> None:
        """The first record of the stream, at that time, came after what was learnt from history:
        windows that hold it, and earlier ones, are partial."""
        self._starts.begin_again(self.keys.rows, first_ms, origin)

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
        self._waves.last = saved.waves
        self._ruling.adopt(saved.rarities)
        self._storms.restore(saved.storms)
        yield
        yield from self._scorer.restoring(saved.scorer, n)

    def adopt(self, heritages: Sequence[Heritage]) -> None:
        """Go on where the parents ended with the keys that are at home here; into a fresh rule.

        Keys come in the order of the parents, then in each one's own. Raises ValueError.
        """
        told = (heritage.beginnings for heritage in heritages)
        self._starts.begin(beginnings.inherited(told, self._shard))
        self._waves.join(
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
        self._ruling.adopt(saved.rarities, len(rows) / max(1, len(chosen)))
        self._storms.adopt(saved.storms, self._scorer.alarms)
        if is_former:
            self._scorer.forget_volatile(rows)
        last_ms, _ = saved.waves
        # Where another parent's waves go on before that, these keys are past it. A parent that is
        # not there yet has its waves from one of its own parents, and judged none of its keys: what
        # was judged before, their first ends say already.
        if last_ms is not None and last_ms <= saved.windows.passed_ms:
            assert self.plan.grid is not None, "windows without a grid are never judged"
            first_ends = self._by_key.arrays["first_end_ms"]
            first_ends[rows] = np.maximum(first_ends[rows], self.plan.grid.next_end(last_ms))
        return bool(len(rows))

    def _know(self) -> None:
        """Look up the beginnings of keys that have new rows."""
        rows = self.keys.take_new()
        self._starts.know(rows, self.keys.places(rows), self.keys.homeless[rows])

    def _ensure(self) -> None:
        self._know()
        self._by_key.ensure(self.keys.rows)
        self._lifetimes.ensure(self.keys.rows)
        self._scorer.ensure(self.keys.rows)

    def _judge(self, start_ms: int, told: Told) -> tuple[list[Pending], list[Telling]]:
        """Run one window of all known keys past the detectors."""
        panes, n = told.panes, self.keys.rows
        is_known = self._by_key.arrays["first_end_ms"][:n] <= told.end_ms
        if self._maintenance.overlaps(start_ms, told.end_ms):
            self._waves.on_passed(told.end_ms, is_empty=not len(panes))
            self._scorer.pass_over(np.flatnonzero(is_known))
            return [], []
        self._waves.on_judged(told.end_ms, is_empty=not len(panes))
        counts = np.zeros(n, dtype=np.int64)
        counts[panes.keys] = panes.counts
        detects = self.plan.spec.detect
        watched = {name for each in detects for name in (each.aggregate, *each.others)}
        values = {name: _spread(n, panes.keys, panes.values[name]) for name in watched}
        is_partial = self._starts.partial(np.arange(n), start_ms)
        known = np.flatnonzero(is_known & ~is_partial)
        pending = self._scorer.judge(
            start_ms,
            told.end_ms,
            known,
            counts[known],
            {name: column[known] for name, column in values.items()},
            self.plan.zone.shift_ms(start_ms),
        )
        span_ms = (start_ms, told.end_ms)
        return self._storms.on_wave(self._scorer.alarms, self.keys, pending, span_ms)


def _spread(n: int, keys: Any, column: Any) -> Floats:
    """A column of the keys that had records, over all n keys; NaN for the others."""
    spread = np.full(n, np.nan)
    spread[keys] = column
    return spread
