"""Reads a stream from a time up to now without telling anything: its state then, whole.

All shards at once, each after its parents, as workers would; what global rules share goes straight
into the merge stage, a machine for each of its shards. At the end every open shard stands after the
last record that was read, and goes on from there as if a worker had come that far.

    an open shard      its state, and the position after its last record (or the time itself)
    one that ended     END; its children have inherited what it knew
    the merge stage    its state, at the position where its stream begins: nothing is in it yet
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
from msgspec import Struct

from processor.core import pages
from processor.core.homes import range_of
from processor.core.leases.rows import ShardRow
from processor.core.merge.partials import enveloped
from processor.core.merge.pipeline import MergePipeline
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.core.progress import IDLE_AFTER_MS, Unread
from processor.core.rules import Learnt, together
from processor.errors import Refused
from processor.model import END, TRIM_HORIZON, Mark, Page, Partial, Position, Step
from processor.ports import ShardReader, Source
from processor.runtime.first_states import First

SLICE = 1_000  # records: the cheapest a record; others get their turn in between
_KEY_BYTES = 16


class Relived(Struct):
    """What became of the records so far."""

    records: int = 0
    rejected: int = 0
    late: int = 0
    duplicates: int = 0
    overflowed: dict[str, int] = {}
    first_ms: int | None = None  # the earliest arrival
    last_ms: int | None = None  # the latest


class Reliving:
    """One run over the shards of `rows`; `merged`: those of the merge stream, none without one."""

    def __init__(
        self,
        plan: Plan,
        rows: Mapping[str, ShardRow],
        merged: Sequence[ShardRow],
        generation: int,
        on_page: Callable[[Relived], None],
    ) -> None:
        """`on_page` is called with what there is after each page, to show how far it is."""
        self.told = Relived()
        self._plan, self._generation, self._on_page = plan, generation, on_page
        self._rows = {id_: row for id_, row in rows.items() if not row.ended}
        self._machines: dict[str, ShardPipeline] = {}
        self._ends: dict[str, bytes] = {}  # last states of those that ended
        self._firsts: dict[str, First] = {}
        self._merged = [(row, _merge_machine(plan, row, generation)) for row in merged]
        self._numbers = 0

    def __repr__(self) -> str:
        return f"<Reliving {len(self._firsts)} of {len(self._rows)} shards, {self.told.records}>"

    async def run(self, source: Source, from_ms: int, until_ms: int) -> None:
        """Until each shard is read up to its tip, or past `until_ms`.

        Refused where the stream is resharded meanwhile. Cancelling is safe: nothing was written.
        """
        tasks: dict[str, asyncio.Task[None]] = {}
        start = Position("at_time", str(from_ms))
        for row in self._rows.values():
            parents = [id_ for id_ in row.shard.parents if id_ in self._rows]
            tasks[row.id] = asyncio.create_task(
                self._follow(
                    source,
                    row,
                    [partial(tasks.__getitem__, id_) for id_ in parents],
                    start,
                    until_ms,
                )
            )
        try:
            await asyncio.gather(*tasks.values())
        finally:
            for task in tasks.values():
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)

    async def _follow(
        self,
        source: Source,
        row: ShardRow,
        parents: Sequence[Callable[[], asyncio.Task[None]]],
        start: Position,
        until_ms: int,
    ) -> None:
        for parent in parents:
            await asyncio.shield(parent())
        machine = self._begun(row)
        reader = source.open(row.id, start)
        try:
            await self._read(row, machine, reader, start, until_ms)
        finally:
            await reader.close()

    def _begun(self, row: ShardRow) -> ShardPipeline:
        machine = ShardPipeline(self._plan, row.shard, row.incarnation)
        left = [self._ends[id_] for id_ in row.shard.parents if id_ in self._ends]
        if left:
            machine.inherit(left)
        else:
            machine.begin_amid()
        self._machines[row.id] = machine
        return machine

    async def _read(
        self,
        row: ShardRow,
        machine: ShardPipeline,
        reader: ShardReader,
        start: Position,
        until_ms: int,
    ) -> None:
        unread, last_ms = Unread(None), None
        while True:
            page = await reader.read()
            for first in range(0, len(page), SLICE):
                self._count(machine.steps(pages.part(page, first, first + SLICE)))
                await asyncio.sleep(0)
            self._note(page)
            unread.on_taken(page)
            last_ms = int(page.arrivals_ms[-1]) if len(page) else last_ms
            if page.children is not None:
                self._end(row, machine, page)
                return
            if page.millis_behind == 0 or (len(page) and page.arrivals_ms[-1] >= until_ms):
                break
        if page.millis_behind == 0:
            self._pass_time(machine, page.date_ms, last_ms)
        machine.shut_alarms()
        position = machine.position or start
        self._firsts[row.id] = First(row, machine.parts, position, unread.until_ms)

    def _pass_time(self, machine: ShardPipeline, date_ms: int, last_ms: int | None) -> None:
        """Of a shard without news for long: time has gone on as where a worker waits for some."""
        out_of_orderness_ms = self._plan.pipeline.event.out_of_orderness_ms
        to_ms = idle_until_ms(machine.furthest_ms, last_ms, date_ms, out_of_orderness_ms)
        position = machine.position or TRIM_HORIZON
        if to_ms is not None and machine.is_due(to_ms):
            self._count(machine.steps(Mark(position, "idle", to_ms)))
        is_idle = last_ms is None or date_ms - last_ms >= IDLE_AFTER_MS
        if is_idle and machine.is_quiet_due:
            mark = Mark(position, "quiet", machine.furthest_ms or 0)
            self._count(machine.steps(mark))

    def _end(self, row: ShardRow, machine: ShardPipeline, page: Page) -> None:
        assert page.children is not None
        unknown = [child.id for child in page.children if child.id not in self._rows]
        if unknown:
            raise Refused(
                f"{row.id} was resharded while we read it (into {', '.join(unknown)}); nothing was"
                " changed. Run it again"
            )
        self._count(machine.finish())
        machine.shut_alarms()
        self._ends[row.id] = machine.snapshot()
        self._firsts[row.id] = First(row, None, END)

    def _note(self, page: Page) -> None:
        told = self.told
        if len(page):
            told.records += len(page)
            first_ms, last_ms = int(page.arrivals_ms.min()), int(page.arrivals_ms.max())
            told.first_ms = first_ms if told.first_ms is None else min(told.first_ms, first_ms)
            told.last_ms = last_ms if told.last_ms is None else max(told.last_ms, last_ms)
        self._on_page(told)

    # ---- what they tell

    def _count(self, steps: Iterator[Step]) -> None:
        partials: list[Partial] = []
        for step in steps:
            self._tally(step)
            self.told.duplicates += step.counts.duplicates
            partials += step.partials
        for row, machine in self._merged:
            held = range_of(row.shard)
            own = [one for one in partials if _place(one) in held]
            if own:
                for step in machine.steps(self._merge_page(own)):
                    self._tally(step)

    def _tally(self, step: Step) -> None:
        told, counts = self.told, step.counts
        told.rejected += sum(counts.rejects.values())
        told.late += sum(counts.late_by_rule.values())
        for rule, n in counts.overflowed.items():
            told.overflowed[rule] = told.overflowed.get(rule, 0) + n

    def _merge_page(self, partials: Sequence[Partial]) -> Page:
        first, self._numbers = self._numbers, self._numbers + len(partials)
        at_ms = self.told.last_ms or 0
        return Page(
            [enveloped(one.body, self._generation) for one in partials],
            [str(number) for number in range(first, self._numbers)],
            [one.shard_id for one in partials],
            np.full(len(partials), at_ms, dtype=np.int64),
            millis_behind=0,
            date_ms=at_ms,
        )

    # ---- what there is at the end

    def firsts(self) -> list[First]:
        """Of the source's shards: children before the parents that ended, which would else be read
        for them again."""
        return sorted(self._firsts.values(), key=lambda first: first.position == END)

    def merged(self) -> list[First]:
        """Of the merge stream's shards, each where its stream begins."""
        for _, machine in self._merged:
            machine.shut_alarms()
        return [First(row, machine.parts) for row, machine in self._merged]

    @property
    def learnt(self) -> Mapping[str, Learnt]:
        """How much the detectors know, by rule that has some."""
        open_ = [m for id_, m in self._machines.items() if id_ not in self._ends]
        merged = (machine.learnt_of for _, machine in self._merged)
        return together([*(machine.learnt_of for machine in open_), *merged])


def idle_until_ms(
    watermark_ms: int | None, last_ms: int | None, date_ms: int, out_of_orderness_ms: int
) -> int | None:
    """Where idleness has moved a watermark by `date_ms`, since the last record arrived; None where
    it has not. As `progress.Idle`, which is asked all the while."""
    if watermark_ms is None or last_ms is None or date_ms - last_ms < IDLE_AFTER_MS:
        return None
    behind_ms = out_of_orderness_ms + IDLE_AFTER_MS
    return min(watermark_ms + date_ms - last_ms, date_ms - behind_ms)


def _merge_machine(plan: Plan, row: ShardRow, generation: int) -> MergePipeline:
    return MergePipeline(plan, row.shard, row.incarnation, generation)


def _place(one: Partial) -> bytes:
    return one.hash_key.to_bytes(_KEY_BYTES, "big")
