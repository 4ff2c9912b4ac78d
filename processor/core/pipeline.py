"""What a shard yields: a pure function of its record sequence and its marks.

    steps(page or mark) → Step…, finish() → Step…        snapshot() / restore() / inherit()

However a sequence is cut into pages, the events are the same, to the bit: the watermark runs per
record, a record is late or a duplicate by its position, and accumulation shows no order. Where a
window is told once, a page is counted whole and then closed whole, which is the same as record by
record: a record that would come after its window's closing is late by the watermark before it, and
is not counted. Other rules count up to each record that fires something (`windows.careful`).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np

from processor.codecs.base import Decoded, Fault
from processor.core import (
    beginnings,
    floors,
    instructions,
    intake,
    judging,
    letters,
    sections,
    snapshots,
    splitting,
    versions,
)
from processor.core.admission import Tally
from processor.core.dedupe import Dedupe
from processor.core.floors import Floor
from processor.core.gathering import Gathered
from processor.core.homes import range_of, shard_of
from processor.core.instructions import Instructed, Instruction
from processor.core.judging import NO_WATERMARK
from processor.core.plan import Plan
from processor.core.records import Records
from processor.core.rules import Firing, Heritage, Learnt, Rule, RulePlan, Saved
from processor.core.shipping import Saved as Shipped
from processor.core.shipping import Shipper
from processor.core.snapshots import SNAPSHOT_VERSION, Snapshot, Totals
from processor.core.stored import stream
from processor.core.telling import Output
from processor.core.turns import EVENT_WORK, Piece, Told, joined, step, turns
from processor.errors import StateUnreadable
from processor.model import (
    Counts,
    DerivedEvent,
    Ints,
    Mark,
    Page,
    Partial,
    Position,
    Shard,
    Step,
)


class Moved(NamedTuple):
    """Where the watermark goes, and with which of n records of a page."""

    to_ms: int
    after: Ints  # int64[n]; n is 0 where a mark moves it
    arrivals_ms: Ints  # int64[n]


S = TypeVar("S", Saved, Shipped, contravariant=True)


class AnyRule(Protocol[S]):
    """What goes on from a section of a saved state, of this rule's kind."""

    plan: RulePlan

    def begin(self, newest_ms: int | None, origin: str) -> None: ...

    def restoring(self, saved: S) -> Iterator[None]: ...

    def converting(self, saved: S, newest_ms: int | None, origin: str) -> Iterator[None]: ...


def generation(plan: Plan) -> str:
    """What tells this pipeline from others that an application ran: its rules, as far as state or
    results depend on them, and how its release writes state."""
    return versions.generation([rule.version for rule in plan.rules], SNAPSHOT_VERSION)


class ShardPipeline:
    """The pipeline on one shard."""

    def __init__(self, plan: Plan, shard: Shard, incarnation: str):
        pipeline = plan.pipeline
        self.plan = plan
        self.shard = shard
        self.totals = Totals()
        self.position: Position | None = None  # of the last record taken
        self._watermark_ms = NO_WATERMARK
        self._newest_ms = NO_WATERMARK  # of all times so far, those of rejected records included
        self._arrived_ms = NO_WATERMARK  # the newest arrival
        self._floors: tuple[Floor, ...] = ()
        self._seen = Dedupe(pipeline.event.dedupe_horizon_ms)
        self._begins_amid = False
        self._gathered = Gathered()
        self._letters_from = letters.Source(pipeline.source.stream, shard.id)
        self._instructed = Instructed()
        self._rules = [_rule(rule, pipeline.app, incarnation, shard) for rule in plan.rules]
        for rule in self._own_rules:
            rule.obey(self._instructed)

    def __repr__(self) -> str:
        return f"<ShardPipeline {self.shard.id} at {self.position} {self._rules!r}>"

    @property
    def watermark_ms(self) -> int | None:
        """Its own; where that has not begun, that of the parent which came least far."""
        if self._watermark_ms != NO_WATERMARK:
            return self._watermark_ms
        return min((floor.watermark_ms for floor in self._floors), default=None)

    @property
    def furthest_ms(self) -> int | None:
        """The latest watermark that it knows, its own or a parent's: idleness goes on from there.

        As where several inputs are idle together, the furthest tells the time. A child one of whose
        parents was quiet for a day must not hold back for a day what the other one left open.
        """
        own = self.watermark_ms
        return max((floor.watermark_ms for floor in self._floors), default=own)

    @property
    def windows_open(self) -> int:
        return sum(len(rule.windows) for rule in self._rules)

    @property
    def groups(self) -> Mapping[str, int]:
        """Keys by rule."""
        return {rule.plan.spec.name: len(rule.keys) for rule in self._rules}

    # ---- the three inputs -------------------------------------------------------------------

    def feed(self, page: Page) -> Step:
        """Take a page of records, in one step."""
        return joined(self.steps(page))

    def mark(self, mark: Mark) -> Step:
        """Apply a committed mark, in one step."""
        return joined(self.steps(mark))

    def steps(self, item: Page | Mark, *, may_wait: bool = False) -> Iterator[Step]:
        """The same in steps of bounded work, so that others get their turn in between.

        To be taken to the end: only then is the state whole again, and `position` moved. A small
        page that `may_wait` may stay uncounted, and `position` before it, until the next one, a
        mark, the end of the shard, or `settle`.
        """
        if isinstance(item, Page):
            return self._take(item, may_wait=may_wait)
        return chain(self.settle(), self._apply(item))

    def settle(self) -> Iterator[Step]:
        """Count what waits, in steps; none where nothing does."""
        if len(self._gathered):
            page, decoded = self._gathered.taken()
            yield from self._count(page, decoded, _counts_of(page), page.sequence_numbers[-1])

    def _apply(self, item: Mark) -> Iterator[Step]:
        if item.fact == "quiet":
            yield from self._quieten()
            return
        if item.fact == "instructed":
            yield from self._instruct(instructions.decoded(item.payload))
            return
        nothing = np.zeros(0, dtype=np.int64)
        watermark_ms = max(self._watermark_ms, item.watermark_ms)
        nobody = [None] * len(self._rules)
        yield from self._advance(nobody, Moved(watermark_ms, nothing, nothing), None, Counts())

    def _quieten(self) -> Iterator[Step]:
        firings = (f for rule in self._global_rules for f in rule.quieten(self._watermark_ms))
        rest = yield from turns(
            (EVENT_WORK, [_told(output)]) for firing in firings for output in firing.outputs
        )
        yield step(rest, [], Counts())

    def _instruct(self, instruction: Instruction) -> Iterator[Step]:
        self._instructed.take(instruction)
        for rule in self._own_rules:
            rule.on_instruction(instruction)
        yield step([], [], Counts())

    def _take(self, page: Page, *, may_wait: bool) -> Iterator[Step]:
        if not len(page):
            yield from self.settle() if len(self._gathered) else [Step([], [], Counts())]
        elif self.plan.splitter is not None or (self.position and self.position.skip):
            yield from self._take_apart(page)
        else:
            decoded = intake.decode(page, self.plan.codec)
            if may_wait and self._can_wait(page, decoded):
                self._gathered.add(page, decoded)
                yield Step([], [], Counts())
                return
            page, decoded = self._gathered.with_(page, decoded)
            yield from self._count(page, decoded, _counts_of(page), page.sequence_numbers[-1])

    def _can_wait(self, page: Page, decoded: Decoded) -> bool:
        """Whether it would only be counted: nothing is bad, and no window can end with it."""
        if decoded.faults or not self._gathered.has_room(page) or self._begins_amid:
            return False
        event = self.plan.pipeline.event
        newest_ms = intake.newest_ms(page, decoded, self.plan.fields, event)
        return self._watermark_ms != NO_WATERMARK and all(
            rule.is_still(self._watermark_ms, newest_ms - event.out_of_orderness_ms)
            for rule in self._rules
        )

    def _take_apart(self, page: Page) -> Iterator[Step]:
        """Count the events in a page's records."""
        assert not len(self._gathered), "pages of records that hold several events never wait"
        counts, last = _counts_of(page), page.sequence_numbers[-1]
        page, faults = self._events_of(page, counts)
        counts.records = len(page)
        if not len(page):
            self.position = Position("after", last)
            yield Step([], [], counts)
            return
        yield from self._count(page, intake.decode(page, self.plan.codec, faults), counts, last)

    def _count(self, page: Page, decoded: Decoded, counts: Counts, last: str) -> Iterator[Step]:
        """Count events, the last of them from the record of that number."""
        event = self.plan.pipeline.event
        batch = intake.Batch(page, self.plan.fields, decoded)
        times = intake.times_ms(batch, event)
        newest_ms = int(times[batch.valid].max(initial=self._newest_ms))
        arrived_ms = int(batch.arrivals_ms.max(initial=self._arrived_ms))
        ids = intake.id_hashes(batch, event)
        wanted = [judging.wanted(rule.plan, batch) for rule in self._rules]
        if self._begins_amid:
            self._resume(times[batch.valid])
        before, after = judging.watermarks(batch, times, event, self._watermark_ms)
        judged = floors.raised(self._floors, before, batch.partition_keys)
        timed = judging.Timed(batch, times, ids, before, judged)
        records = judging.judge(timed, self._rules, wanted, self._seen, event, counts)
        watermark_ms = int(after[-1]) if len(after) else self._watermark_ms
        moved = Moved(watermark_ms, after, batch.arrivals_ms)
        yield from self._advance(records, moved, batch, counts)
        self._newest_ms, self._arrived_ms = newest_ms, arrived_ms
        self.position = Position("after", last)

    def begin_amid(self) -> None:
        """The first record to come is not the first that there was: windows that hold it, and
        earlier ones, are partial."""
        self._begins_amid = True

    def _resume(self, times: Ints) -> None:
        """At that first record."""
        if len(times):
            self._begins_amid = False
            for rule in self._rules:
                rule.resume(int(times[0]), f"{self.shard.id} amid {times[0]}")

    def _events_of(self, page: Page, counts: Counts) -> tuple[Page, Mapping[int, Fault]]:
        """The page's records taken apart, without those events that were done before we came."""
        skip = self.position if self.position and self.position.skip else None
        if self.plan.splitter is None and skip is None:
            return page, {}
        drops = self.plan.pipeline.source.outside_range == "drop"
        split = splitting.split(page, self.plan.splitter, self.shard, skip, drops_outside=drops)
        counts.outside_range = split.outside_range
        return split.page, split.faults

    def end(self) -> Step:
        """The shard is at its end, in one step."""
        return joined(self.finish())

    def finish(self) -> Iterator[Step]:
        """The shard is at its end: what no child can have closes as its part, in bounded steps.

        Everything else stays open in the last snapshot, for the children to adopt; but a global
        rule tells all that it has.
        """
        yield from self.settle()
        counts, open_before = Counts(), self.windows_open
        outputs = (output for rule in self._rules for output in rule.finish())
        rest = yield from turns((EVENT_WORK, [_told(output)]) for output in outputs)
        counts.windows_closed = open_before - self.windows_open
        self.totals.add(counts)
        yield step(rest, [], counts)

    def is_due(self, watermark_ms: int) -> bool:
        """Whether a mark that moves the watermark there would have an effect."""
        return watermark_ms > self._watermark_ms and any(
            rule.is_due(watermark_ms) for rule in self._rules
        )

    @property
    def is_quiet_due(self) -> bool:
        """Whether a `quiet` mark would have an effect: once the shard is idle for certain, the
        global rules that have nothing open need not wait for it."""
        return any(rule.is_quiet_due for rule in self._global_rules)

    def has_taken(self, instruction: Instruction) -> bool:
        """Whether it was taken here, or by a parent."""
        return self._instructed.has_taken(instruction)

    def is_asked(self, instruction: Instruction) -> bool:
        """Whether it concerns this shard, and was not taken yet."""
        return not self._instructed.has_taken(instruction) and any(
            rule.is_asked(instruction) for rule in self._own_rules
        )

    @property
    def behind(self) -> None:
        """Nobody: one shard waits for no other."""

    @property
    def _own_rules(self) -> list[Rule]:
        """Those whose alarms are made here."""
        return [rule for rule in self._rules if isinstance(rule, Rule)]

    @property
    def _global_rules(self) -> list[Shipper]:
        return [rule for rule in self._rules if isinstance(rule, Shipper)]

    # ---- snapshot and restore ---------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The state; the same state gives the same bytes."""
        return stream.joined(self.parts())

    def learnt(self) -> Iterator[stream.Part]:
        """The state to begin the shard's stream with, after this history: what detectors learnt,
        and nothing of windows, alarms, ids and time. As `parts`; it is fed no further."""
        rules = ((r.plan.version, r.learnt()) for r in self._rules if isinstance(r, Rule))
        saved = Snapshot(
            SNAPSHOT_VERSION,
            self.shard.id,
            range_of(self.shard),
            NO_WATERMARK,
            NO_WATERMARK,
            NO_WATERMARK,
            self.plan.reading,
            (),
            Totals(),
            (b"", b""),
            {version: one for version, one in rules if one is not None},
            begins_amid=True,
        )
        yield from stream.parts(saved)

    def shut_alarms(self) -> None:
        """None that is open was told: none is to be told of as over."""
        for rule in self._rules:
            if isinstance(rule, Rule):
                rule.shut_alarms()

    @property
    def learnt_of(self) -> Mapping[str, Learnt]:
        """What the detectors know, by rule that has some."""
        each = {r.plan.spec.name: r for r in self._rules if isinstance(r, Rule)}
        return {name: rule.learnt_of() for name, rule in each.items() if rule.plan.spec.detect}

    def parts(self) -> Iterator[stream.Part]:
        """The same in parts, some of them views of live memory: take them before feeding on."""
        saved = Snapshot(
            SNAPSHOT_VERSION,
            self.shard.id,
            range_of(self.shard),
            self._watermark_ms,
            self._newest_ms,
            self._arrived_ms,
            self.plan.reading,
            self._floors,
            self.totals,
            self._seen.snapshot(self._watermark_ms),
            {r.plan.version: r.snapshot() for r in self._rules if isinstance(r, Rule)},
            {rule.plan.version: rule.snapshot() for rule in self._global_rules},
            self._begins_amid,
            self._instructed.snapshot(),
        )
        yield from stream.parts(saved)

    def restore(self, state: bytes, position: Position) -> None:
        """Into a fresh pipeline; raises StateUnreadable."""
        for _ in self.restoring(state, position):
            pass

    def restoring(self, state: bytes, position: Position) -> Iterator[None]:
        """`restore` in turns, as many keys take a second or two; to be taken to the end."""
        saved = self._decode(state)
        yield
        self.position = position
        self.totals = saved.totals
        self._watermark_ms = saved.watermark_ms
        self._newest_ms, self._arrived_ms = self._newest_of(saved), saved.arrived_ms
        self._floors = saved.floors
        self._begins_amid = saved.begins_amid
        self._instructed.adopt(saved.instructed)
        try:
            if saved.reading == self.plan.reading:
                self._seen.restore(saved.seen)
            for rule in self._rules:
                if isinstance(rule, Rule):
                    yield from self._restoring_rule(rule, saved.rules)
                else:
                    yield from self._restoring_rule(rule, saved.shipped)
        except ValueError as error:  # bytes that don't fit their columns
            raise StateUnreadable(self.shard.id, str(error)) from error

    def _restoring_rule(self, rule: AnyRule[S], saved: Mapping[str, S]) -> Iterator[None]:
        """From its own section, from that of a former version, or anew from here on."""
        section = sections.serving(rule.plan, saved)
        here = f"{self.shard.id} {self.position} {self._watermark_ms}"
        newest_ms = None if self._newest_ms == NO_WATERMARK else self._newest_ms
        if section is None:
            rule.begin(newest_ms, here)
        elif sections.is_own(rule.plan, saved):
            yield from rule.restoring(section)
        else:
            yield from rule.converting(section, newest_ms, here)

    def inherit(self, states: Sequence[bytes]) -> None:
        """Begin where the parents ended, by their last states, in any order; none: from nothing.

        The keys that are at home here are adopted whole, and so are all event ids. The watermark
        begins at the lowest of the parents', the others' are floors. Into a fresh pipeline; raises
        StateUnreadable.
        """
        parents = sorted(map(self._decode, states), key=lambda saved: saved.shard_id)
        if not parents:
            return
        self._watermark_ms = min(saved.watermark_ms for saved in parents)
        self._newest_ms = max(map(self._newest_of, parents))
        self._arrived_ms = max(saved.arrived_ms for saved in parents)
        own = ((Floor(saved.range, saved.watermark_ms), saved.floors) for saved in parents)
        inherited = floors.inherited(own, range_of(self.shard))
        self._floors = floors.standing(inherited, self._watermark_ms)
        self._begins_amid = all(saved.begins_amid for saved in parents)
        try:
            for saved in parents:
                self._instructed.adopt(saved.instructed)
                if saved.reading == self.plan.reading:
                    self._seen.merge(saved.seen)
            for rule in self._rules:
                rule.adopt([self._heritage(rule.plan, saved) for saved in parents])
        except ValueError as error:  # bytes that don't fit their columns
            raise StateUnreadable(self.shard.id, str(error)) from error

    def _heritage(self, plan: RulePlan, saved: Snapshot) -> Heritage:
        here = f"{self.shard.id} {saved.shard_id} {saved.watermark_ms}"
        known_ms = self._newest_of(saved)
        newest_ms = None if known_ms == NO_WATERMARK else known_ms
        parent = shard_of(saved.shard_id, saved.range)
        if plan.is_global:
            return sections.beginning(plan, saved.shipped, parent, newest_ms, here)
        heritage = sections.heritage(plan, saved.rules, parent, newest_ms, here)
        if (
            saved.begins_amid and not self._begins_amid
        ):  # it begins with its siblings' newest record
            begun = beginnings.anew(parent, self._newest_ms, here)
            heritage = msgspec.structs.replace(heritage, beginnings=begun)
        return heritage

    def _newest_of(self, saved: Snapshot) -> int:
        """The newest time so far. Where times were read otherwise, nobody knows but that a record
        can't be further ahead of its arrival than the bound; known ids are of no use either then.
        """
        if saved.reading == self.plan.reading or saved.arrived_ms == NO_WATERMARK:
            return saved.newest_ms
        return saved.arrived_ms + intake.FUTURE_MAX_MS

    def _decode(self, state: bytes) -> Snapshot:
        return snapshots.decode(state, Snapshot, SNAPSHOT_VERSION, self.shard.id)

    # ---- one page, step by step -------------------------------------------------------------

    def _tally(self, counts: Counts) -> None:
        """What became of the rules' keys, and the next page begins anew."""
        for rule in self._rules:
            name, tally = rule.plan.spec.name, rule.tally
            rule.tally = Tally()
            counts.late_by_rule[name] = counts.late_by_rule.get(name, 0) + tally.late
            for n, by_rule in (
                (tally.evicted, counts.evicted),
                (tally.forgotten, counts.forgotten),
                (tally.overflowed, counts.overflowed),
            ):
                if n:
                    by_rule[name] = n
        for own in self._own_rules:
            for why, n in own.take_untold().items():
                counts.untold[own.plan.spec.name, why] = n

    def _advance(
        self,
        records: Sequence[Records | None],
        moved: Moved,
        batch: intake.Batch | None,
        counts: Counts,
    ) -> Iterator[Step]:
        """Count, move the watermark, and tell what it passes."""
        # Of a page of which nothing can be read no rule hears: it is no mark that moves time.
        is_heard = batch is None or len(batch) > 0
        rest = yield from turns(self._fire(records, moved, counts) if is_heard else iter(()))
        self._watermark_ms = moved.to_ms
        self._floors = floors.standing(self._floors, moved.to_ms)
        self._seen.sweep(moved.to_ms)
        bad = []
        if batch is not None:
            bad = letters.of_page(batch, self._rules, self._letters_from, counts)
        judging.move_late(self._rules, records, counts)
        self._tally(counts)
        self.totals.add(counts)
        yield step(rest, bad, counts)

    def _fire(
        self, records: Sequence[Records | None], moved: Moved, counts: Counts
    ) -> Iterator[Piece]:
        """What the rules tell, in order of (record, rule, end, key)."""
        each = [
            _ordered(i, rule.take(wanted, moved.after, moved.to_ms))
            for i, (rule, wanted) in enumerate(zip(self._rules, records, strict=True))
        ]
        for _, firing in heapq.merge(*each, key=_by_order):
            counts.windows_closed += firing.closed
            yield firing.cost, []
            for output in firing.outputs:
                if isinstance(output, Partial):
                    yield EVENT_WORK, [output]
                    continue
                _count_alarm(counts, output)
                yield EVENT_WORK, [_arrived(output.event, firing.record, moved.arrivals_ms)]


def _rule(plan: RulePlan, app: str, incarnation: str, shard: Shard) -> Rule | Shipper:
    if plan.is_global:
        return Shipper(plan, incarnation, shard)
    return Rule(plan, app, incarnation, shard)


def _counts_of(page: Page) -> Counts:
    return Counts(records=len(page), payload_bytes=sum(map(len, page.payloads)))


def _ordered(rule: int, firings: Iterator[Firing]) -> Iterator[tuple[int, Firing]]:
    return ((rule, firing) for firing in firings)


def _by_order(one: tuple[int, Firing]) -> tuple[int, int, int]:
    rule, firing = one
    return firing.record, rule, firing.end_ms


def _told(output: Output | Partial) -> Told:
    return output if isinstance(output, Partial) else output.event


def _arrived(event: DerivedEvent, record: int, arrivals_ms: Ints) -> DerivedEvent:
    """With the arrival of the record that closed its window; 0 where a mark closed it."""
    if record >= len(arrivals_ms):
        return event
    return msgspec.structs.replace(event, arrival_ms=int(arrivals_ms[record]))


def _count_alarm(counts: Counts, output: Output) -> None:
    if output.alarm is not None:
        key = (output.rule, output.alarm.detect.name, output.alarm.state)
        counts.anomalies[key] = counts.anomalies.get(key, 0) + 1
