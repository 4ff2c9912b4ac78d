"""The road of a shard's records: read, feed, put, checkpoint; one loop, backpressure is `await`.

    read      waits for a page; stops waiting when the lease asks the shard to finish
    feed      pure: the page becomes derived events and dead letters
    put       what global rules share, events, dead letters, in this order; only while the lease is
              valid; waits while a target is down
    capture   the state at a position, when due, and only after what it stands for was put; its
              commit, position and state together, is made while the shard goes on

A crash anywhere repeats from the last checkpoint, with the same ids and bytes. A decision that a
clock forces (an idle shard's watermark) is committed as a mark before it is applied.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

from processor.core import instructions, pages
from processor.core.events import dead_letter_id
from processor.core.instructions import Instruction
from processor.core.leases.rows import MARKS_MAX
from processor.core.merge.stalls import Stall
from processor.core.progress import Idle, Unread, is_note_due
from processor.errors import RetentionGap, StateUnreadable
from processor.model import (
    END,
    DeadLetter,
    DerivedEvent,
    Fact,
    Mark,
    Page,
    Position,
    Shard,
    Step,
)
from processor.ports import ShardReader
from processor.runtime.checkpoints import Checkpoints
from processor.runtime.inbox import Inbox
from processor.runtime.lease_loop import Lease, Restored
from processor.runtime.road import Machine
from processor.runtime.road import Road as Road
from processor.runtime.road import ShardView as ShardView
from processor.runtime.waiting import unless

# What a shard's loop is busy with. It may wait in three of them for as long as a target, the table
# or the store of states is down: lag shows it, and a restart would not help.
# In a fourth one it waits for other shards (`merge.max_drift`).
Doing = Literal["restoring", "reading", "counting", "publishing", "checkpointing", "drifting"]
_WAITS = ("restoring", "publishing", "checkpointing", "drifting")
# What waits for so long is no measure for others: they would wait for a target that is down.
PAUSED_S = 10.0
DRIFT_S = 1.0  # between looks at how far the slowest shard has come, which is told every 3 s

# A page is counted in slices, so that heartbeats and other shards get their turn in between: where
# a record closes a hundred windows of many keys, a page could take longer than a lease is valid.
# Slices can't show in results. 1,000 records take some 2 ms, and are the cheapest a record.
SLICE_MAX = 1_000
TURN_S = 0.05


class ShardLoop:
    """One leased shard, from its last checkpoint to the end of the lease or of the shard."""

    def __init__(self, road: Road, lease: Lease, inbox: Inbox | None = None):
        """`inbox`: what people ask of its alarms; None: nobody asks."""
        self._road = road
        self._lease = lease
        self._inbox = inbox
        self._said: set[str] = set()  # ids of instructions that are known to be taken
        self._pipeline = self._fresh()
        self._idle = Idle(road.plan.pipeline.event.out_of_orderness_ms)
        self._stall = Stall(road.on_stall_ms)
        self._position: Position | None = None
        self._marks: list[Mark] = []  # committed by an earlier owner, not met again yet
        self._slice = SLICE_MAX
        self._is_dirty = False
        interval_s = road.plan.pipeline.state.checkpoint_ms / 1_000
        self._checkpoints = Checkpoints(lease, road.clock, interval_s, road.captures)
        self._unread = Unread(None)
        self._noted_ms = 0
        self._lag_ms: int | None = None
        self.read_up_at = -math.inf  # monotonic: what was put before it was read, and handed out
        self.has_ended = False  # the shard, and its end is committed
        self._do("restoring")

    def __repr__(self) -> str:
        return f"<ShardLoop {self._lease!r} {self._pipeline!r}>"

    @property
    def is_waiting(self) -> bool:
        return self.doing in _WAITS

    @property
    def behind_ms(self) -> int | None:
        """Its watermark while it catches up; None else, and while it stands still."""
        is_paused = self.is_waiting and self._road.clock.monotonic() - self.since > PAUSED_S
        return self._pipeline.watermark_ms if self._lag_ms and not is_paused else None

    def _do(self, doing: Doing) -> None:
        self.doing: Doing = doing
        self.since = self._road.clock.monotonic()

    def view(self) -> ShardView:
        return ShardView(
            totals=self._pipeline.totals,
            position=str(self._position),
            epoch=self._lease.epoch,
            watermark_ms=self._pipeline.watermark_ms,
            lag_ms=self._lag_ms,
            windows_open=self._pipeline.windows_open,
            groups=self._pipeline.groups,
        )

    async def run(self) -> None:
        """Until asked to finish, or the shard's end. Cancelling is safe: what was not checkpointed
        is repeated by the next owner, with the same ids and bytes."""
        await self._restore()
        assert self._position is not None
        reader = self._road.source.open(self._lease.shard.id, self._position)
        try:
            try:
                children = await self._follow(reader)
            finally:
                await reader.close()
            if children is None:
                await self._checkpoint()
            else:
                await self._end(children)
        finally:
            await self._checkpoints.close()

    async def _restore(self) -> None:
        restored = await self._lease.load()
        try:
            await self._begin(restored)
        except StateUnreadable as error:
            self._road.observer.on_state_refused(self._lease.shard.id, error)
            self._pipeline = self._fresh()
            await self._begin(await self._load_older(error))
        while self._is_at_a_mark():
            await self._work(self._marks.pop(0), self._road.clock.monotonic())

    async def _load_older(self, refused: StateUnreadable) -> Restored:
        """The pair before the one that was refused; StateUnreadable with both reasons if there is
        none that can be read: what parks a shard is all that some will see."""
        try:
            return await self._lease.load(older=True)
        except StateUnreadable as error:
            both = f"{refused.reason}; {error.reason}"
            raise StateUnreadable(self._lease.shard.id, both) from error

    def _is_at_a_mark(self) -> bool:
        """Whether the next thing to do is to apply a mark."""
        return bool(self._marks) and self._marks[0].position == self._position

    async def _begin(self, restored: Restored) -> None:
        self._position = self._pipeline.position = restored.position
        self._unread = Unread(restored.caught_up_at_ms)
        self._marks = pages.pending(restored.marks, restored.position)
        if restored.state is not None:
            for _ in self._pipeline.restoring(restored.state, restored.position):
                await self._road.clock.sleep(0)
        else:
            self._pipeline.inherit(restored.inherited)
            # To be committed soon, also without a record: till then the parents' states must stay.
            self._is_dirty = bool(restored.inherited)

    def _fresh(self) -> Machine:
        return self._road.fresh(self._road.plan, self._lease.shard, self._lease.incarnation)

    async def _follow(self, reader: ShardReader) -> tuple[Shard, ...] | None:
        """The shard's children at its end; None when asked to finish before."""
        while not self._lease.stopping.is_set():
            await self._await_slower()
            self._do("reading")
            asked_at, was_behind = self.since, bool(self._lag_ms)
            page = await unless(self._lease.stopping, reader.read())
            if page is None:
                return None
            await self._mind_gap(page)
            if not await self._take(page):
                return None
            if not (page.millis_behind or was_behind):  # who was behind read ahead, so before that
                self.read_up_at = asked_at
            if page.children is not None:
                return page.children
            await self._mark_if_idle()
            await self._mark_if_stalled(page)
            await self._mark_instructed()
            await self._checkpoint_if_due()
            await self._note_if_due()
        return None

    async def _await_slower(self) -> None:
        """While it catches up: until the slowest shard that does, too, is near enough. Reading on
        would only fill the merge stage with windows that wait for that one."""
        if not self._is_far_ahead():
            return
        self._do("drifting")
        self._idle.on_pause()
        while self._is_far_ahead() and not self._lease.stopping.is_set():
            await unless(self._lease.stopping, self._road.clock.sleep(DRIFT_S))

    def _is_far_ahead(self) -> bool:
        limit_ms, own_ms = self._road.max_drift_ms, self._pipeline.watermark_ms
        if limit_ms is None or own_ms is None or not self._lag_ms:
            return False
        slowest_ms = self._lease.slowest_ms()
        return slowest_ms is not None and own_ms - slowest_ms > limit_ms

    async def _mind_gap(self, page: Page) -> None:
        """Tell of records that retention took before they were read; RetentionGap if that is to
        stop the shard."""
        gap = self._unread.gap(page, self._lease.retention_ms)
        if gap is None:
            return
        error = RetentionGap(self._lease.shard.id, gap.first_ms, gap.last_ms)
        self._road.observer.on_gap(self._lease.shard.id, error)
        if self._road.on_gap == "stop":
            raise error
        self._do("publishing")
        await self._lease.fence()
        letter = _gap_letter(error, self._road.stream, self._position)
        await self._road.dead_letters.put([letter])

    async def _note_if_due(self) -> None:
        """So that a shard which is idle for days is not taken for one that nobody read."""
        noted_ms = self._lease.row.caught_up_at_ms or self._noted_ms
        if is_note_due(self._unread.until_ms, noted_ms, self._lease.shard.id):
            assert self._unread.until_ms is not None
            self._do("checkpointing")
            await self._lease.note(self._unread.until_ms)

    async def _take(self, page: Page) -> bool:
        """Count a page and hand out what it yields; False if asked to finish before its end."""
        taken_at = self._road.clock.monotonic()
        for item in pages.cut(page, self._marks):
            if isinstance(item, Mark):
                await self._work(item, taken_at)
                continue
            at = 0
            while at < len(item):
                if at and self._lease.stopping.is_set():
                    return False
                part = pages.part(item, at, at + self._slice)
                at += len(part)
                await self._work(part, taken_at)
                if not self._is_at_a_mark():  # a commit there would say that it is applied
                    await self._checkpoint_if_due()
        if not len(page):  # nothing more came, for now
            await self._settle()
        self._note(page)
        return True

    async def _work(self, item: Page | Mark, taken_at: float) -> None:
        """Feed a slice or a mark, and hand out each step before the next is worked out."""
        # Not where marks are to come: which record is the last before one, shows in `position`.
        steps = self._pipeline.steps(item, may_wait=not self._marks)
        await self._put_each(steps, taken_at)
        if isinstance(item, Mark) and item.fact == "instructed" and self._inbox is not None:
            self._say_taken(instructions.decoded(item.payload))
        self._position = self._pipeline.position or self._position
        self._is_dirty = True

    async def _settle(self) -> None:
        """Count what waits: before a mark, or position and state would be before it."""
        await self._put_each(self._pipeline.settle(), self._road.clock.monotonic())
        self._position = self._pipeline.position or self._position

    def _say_taken(self, instruction: Instruction) -> None:
        assert self._inbox is not None
        asked = {one.id for one in self._inbox.asked}
        self._said = (self._said & asked) | {instruction.id}
        shard = f"{self._lease.row.stream.name}/{self._lease.shard.id}"
        self._inbox.say_taken(instruction, shard)

    async def _put_each(self, steps: Iterator[Step], taken_at: float) -> None:
        while (step := self._next(steps)) is not None:
            await self._put(step, taken_at)
            await self._road.clock.sleep(0)  # others' turn, also where there was nothing to put

    def _next(self, steps: Iterator[Step]) -> Step | None:
        """The next slice is smaller or larger by how long this one takes."""
        self._do("counting")
        step = next(steps, None)
        took_s = self._road.clock.monotonic() - self.since
        self._lease.meter.add(took_s, step.counts.payload_bytes if step is not None else 0)
        if took_s > TURN_S:
            self._slice = max(1, self._slice // 2)
        elif took_s < TURN_S / 4:
            self._slice = min(SLICE_MAX, self._slice * 2)
        return step

    def _note(self, page: Page) -> None:
        """What a whole page tells of the shard's time."""
        self._lag_ms = page.millis_behind
        self._unread.on_taken(page)
        self._noted_ms = self._noted_ms or page.date_ms
        if page.errors:
            self._idle.on_error()
        self._idle.on_answer(len(page), page.millis_behind, page.date_ms)

    async def _mark_if_idle(self) -> None:
        """Let an idle shard's time go on, where that has an effect; and where nothing of global
        rules is open, tell them that they need not wait for it."""
        furthest_ms = self._pipeline.furthest_ms
        watermark_ms = self._idle.candidate_ms(furthest_ms)
        if watermark_ms is not None and self._pipeline.is_due(watermark_ms):
            await self._decide("idle", watermark_ms)
        elif self._idle.is_certain and self._pipeline.is_quiet_due:
            await self._decide("quiet", furthest_ms or 0)

    async def _mark_if_stalled(self, page: Page) -> None:
        """Let global rules go on without a shard of the source that stands still."""
        self._stall.on_answer(self._pipeline.behind, page.millis_behind, page.date_ms)
        behind = self._stall.candidate()
        if behind is not None:
            await self._decide("stalled", behind.watermark_ms, behind.shard_id)
            self._road.observer.on_left_behind(self._lease.shard.id, behind.shard_id)

    async def _mark_instructed(self) -> None:
        """Do what people asked, once each. Not while marks of an earlier owner are still to come:
        a mark that is committed after them would be applied after them at the next replay."""
        if self._inbox is None or self._marks:
            return
        for instruction in self._inbox.asked:
            if self._pipeline.is_asked(instruction):
                await self._decide("instructed", 0, payload=instructions.encoded(instruction))
            elif instruction.id not in self._said and self._pipeline.has_taken(instruction):
                self._say_taken(instruction)  # by a parent, or an owner that died

    async def _decide(
        self, fact: Fact, watermark_ms: int, shard_id: str = "", payload: str = ""
    ) -> None:
        """A decision that a clock forced: it is committed before it takes effect."""
        await self._settle()
        assert self._position is not None
        if len(self._lease.row.marks) >= MARKS_MAX // 2:
            await self._checkpoint()  # before it is due, or the row would be full by then
        mark = Mark(self._position, fact, watermark_ms, shard_id, payload)
        self._do("checkpointing")
        await self._checkpoints.settle()  # or the pair would seem to be past the mark
        await self._lease.mark(mark)
        await self._work(mark, self._road.clock.monotonic())

    async def _put(self, step: Step, taken_at: float) -> None:
        """Hand out what a step yields. A put begins only while the lease is valid; one that waits
        for its target may outlive it, with bytes that equal the heir's."""
        self._do("publishing")
        shard_id = self._lease.shard.id
        letters = list(step.dead_letters)
        await self._lease.fence()  # also of nothing: who may be cut off need not read on
        if step.partials:
            assert self._road.partials is not None, "a global rule without a merge stream"
            await self._road.partials.put(step.partials, self._lease.generation)
        for name, events in _by_sink(step.events).items():
            await self._lease.fence()
            refusals = await self._road.sinks[name].put(events)
            letters += (_refused(events[r.index], r.code, r.message, shard_id) for r in refusals)
        if letters:
            await self._lease.fence()
            await self._road.dead_letters.put(letters)
        accepted_at = self._road.clock.monotonic()
        self._road.observer.on_step(shard_id, step, accepted_at - taken_at)

    async def _checkpoint_if_due(self) -> None:
        self._do("checkpointing")  # it waits for one that takes too long
        await self._checkpoints.poll()
        if self._is_dirty and self._checkpoints.is_due:
            await self._begin_checkpoint()

    async def _begin_checkpoint(self) -> None:
        await self._settle()
        assert self._position is not None
        self._do("checkpointing")
        parts = self._pipeline.parts()
        await self._checkpoints.begin(self._position, parts, self._unread.until_ms)
        self._is_dirty = False

    async def _checkpoint(self) -> None:
        """Leave nothing uncommitted."""
        self._do("checkpointing")
        if self._is_dirty:
            await self._begin_checkpoint()
        await self._checkpoints.settle()

    async def _end(self, children: tuple[Shard, ...]) -> None:
        await self._put_each(self._pipeline.finish(), self._road.clock.monotonic())
        self._do("checkpointing")
        await self._checkpoints.settle()
        state = await self._lease.pack(self._pipeline.parts())
        await self._lease.end(END, state, children, caught_up_at_ms=self._unread.until_ms)
        self._position = END
        self.has_ended = True


def _by_sink(events: list[DerivedEvent]) -> dict[str, list[DerivedEvent]]:
    parts: dict[str, list[DerivedEvent]] = {}
    for event in events:
        parts.setdefault(event.sink, []).append(event)
    return parts


def _refused(event: DerivedEvent, code: str, message: str, shard_id: str) -> DeadLetter:
    return DeadLetter(
        id=event.id,
        reason="refused",
        detail=f"{event.sink} refused it: {code}: {message}",
        payload=event.detail,
        shard_id=shard_id,
        arrival_ms=event.arrival_ms,
    )


def _gap_letter(error: RetentionGap, stream: str, position: Position | None) -> DeadLetter:
    """Where the lost records would have come; the same again if this is repeated."""
    return DeadLetter(
        id=dead_letter_id(stream, error.shard_id, f"gap {position}", 0),
        reason="retention_gap",
        detail=str(error),
        payload=b"",
        shard_id=error.shard_id,
        sequence_number=position.value if position else "",
        arrival_ms=error.first_ms,
    )
