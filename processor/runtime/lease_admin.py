"""Leases by hand: reading them, and changing them without ever cutting in on a live worker.

A worker is alive while its row's counter changes; only watching tells, so we wait for as long as
another worker would before it takes over, and bury it as that one would, before we write. Every
write is conditional on the row as we saw it: a worker that claims in between wins, and is named.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from processor.core.leases.commands import Timing
from processor.core.leases.lineage import undiscovered
from processor.core.leases.liveness import Liveness
from processor.core.leases.rows import ShardRow, StreamKey, WorkerRow, released
from processor.core.leases.seeking import Change, known
from processor.errors import Outage, Refused, Unavailable, UsageError
from processor.model import TRIM_HORIZON, Position, Shard, StreamInfo
from processor.ports import Clock, Instructions, LeaseTable, Written
from processor.runtime.shards import Follower, Shards, require_app

ATTEMPTS = 4  # then the service is down for longer than a person at a terminal should be kept
PAUSE_S = 1.0
CALL_TIMEOUT_S = 20.0

T = TypeVar("T")
Say = Callable[[str], None]


class Stream(Protocol):
    """What this needs of a source."""

    async def describe(self) -> StreamInfo: ...

    async def list_shards(self) -> list[Shard]: ...

    async def probe(self, shard_id: str, position: Position) -> None:
        """Raises Unavailable where the service refuses to read from there."""


class AdminPorts(Struct, frozen=True):
    """The outside world of a command; `say` tells a person what it waits for."""

    table: LeaseTable
    stream: Stream
    clock: Clock
    say: Say


class Leases(Struct, frozen=True):
    """What the table holds of one stream, at a moment."""

    stream: StreamKey
    service_date_ms: int
    shards: dict[str, ShardRow]
    workers: dict[str, WorkerRow]


class LeaseAdmin:
    """The leases of one application on one stream."""

    def __init__(self, ports: AdminPorts, follower: Follower, timing: Timing | None = None):
        self._table, self._stream = ports.table, ports.stream
        self.clock, self.say = ports.clock, ports.say
        self._timing = timing or Timing()
        self.app = follower.app
        self._shards = Shards(ports.table, ports.stream, follower)

    @property
    def instructions(self) -> Instructions:
        """What people asked for, in the same table."""
        return self._table.instructions

    # ---- reading

    async def read(self) -> Leases:
        """Changes nothing, not even for a stream that nobody has read yet.

        Unavailable if the table is another application's: its leases are none of ours.
        """
        info = await self.repeated(self._stream.describe)
        stream = StreamKey.of(info)
        standing = await self.repeated(lambda: self._table.read_app(stream))
        if standing is not None:
            require_app(standing, self.app)
        rows = await self.repeated(lambda: self._table.read_shards(stream))
        workers = await self.repeated(lambda: self._table.read_workers(stream))
        return Leases(
            stream,
            info.service_date_ms,
            {row.id: row for row in sorted(rows, key=lambda row: row.id)},
            {row.id: row for row in workers},
        )

    async def foreseen(self) -> Leases:
        """What `discover` will find, without writing anything: to check a command against.

        A shard that has no row yet is shown with one at its beginning, wherever it will start.
        """
        listing = await self.listed()
        leases = await self.read()
        fresh = undiscovered(leases.stream, list(listing.values()), leases.shards, TRIM_HORIZON)
        return replace(leases, shards=leases.shards | {row.id: row for row in fresh})

    async def discover(self) -> Leases:
        """The same once every shard that the stream has is in the table, as a worker makes it."""
        await self.repeated(self._shards.open)
        await self.repeated(lambda: self._shards.discover(self.clock.monotonic()))
        return await self.read()

    async def describe(self) -> StreamInfo:
        """Which stream it is, by now."""
        return await self.repeated(self._stream.describe)

    async def register(self, pipeline: str) -> int:
        """A pipeline's number among those that the application ran, as a worker registers it; once
        the stream was discovered."""
        await self.repeated(lambda: self._shards.register(pipeline, is_rollback=False))
        return self._shards.generation

    async def listed(self) -> dict[str, Shard]:
        """The stream's shards."""
        shards = await self.repeated(self._stream.list_shards)
        return {shard.id: shard for shard in shards}

    async def probe(self, places: Mapping[str, Position]) -> None:
        """UsageError where the service won't read a shard from its sequence number."""
        for shard_id, position in places.items():
            if position.kind not in ("at", "after"):
                continue
            try:
                await self.repeated(partial(self._stream.probe, shard_id, position))
            except Unavailable as error:
                raise UsageError(
                    f"{shard_id} can't be read from {position}; nothing was changed. Is it a"
                    f" sequence number of this stream and shard? ({error})"
                ) from error

    # ---- who is alive

    async def bury(self, stream: StreamKey, workers: Collection[str]) -> None:
        """Until each worker is surely dead, and barred from coming back; Refused if one lives.

        One without a row counts like one that stands still: its last heartbeat may be as young.
        """
        waiting = set(workers)
        if not waiting:
            return
        timing = self._timing
        liveness = Liveness(timing.dead_after_s, timing.gap_max_s)
        first: dict[str, int | None] = {}
        is_told = False
        while waiting:
            rows = await self._workers(stream, liveness)
            now = self.clock.monotonic()
            liveness.on_read(rows.values(), now, owners=waiting)
            for worker_id in sorted(waiting):
                row = rows.get(worker_id)
                _require_still(worker_id, row, first)
                if (row is not None and row.buried) or liveness.is_dead(worker_id, now):
                    await self._bury(stream, row)
                    waiting.discard(worker_id)
            if waiting:
                if not is_told:
                    self._tell(waiting)
                    is_told = True
                await self.clock.sleep(timing.read_s)

    async def bury_all(self) -> None:
        """`bury` for every worker that follows the stream, and every owner of a shard."""
        leases = await self.read()
        owners = owners_of(leases.shards, leases.shards.keys())
        await self.bury(leases.stream, owners | leases.workers.keys())

    def _tell(self, waiting: Collection[str]) -> None:
        self.say(
            f"watching {_some(waiting)} for {self._timing.dead_after_s:g} s:"
            " a worker is dead when its heartbeats have stopped for that long"
        )

    async def _workers(self, stream: StreamKey, liveness: Liveness) -> dict[str, WorkerRow]:
        """A read that failed says nothing of anybody's life."""

        async def read() -> list[WorkerRow]:
            try:
                return await self._table.read_workers(stream)
            except Outage:
                liveness.restart()
                raise

        return {row.id: row for row in await self.repeated(read)}

    async def _bury(self, stream: StreamKey, row: WorkerRow | None) -> None:
        if row is None or row.buried:
            return
        if not await self.repeated(lambda: self._table.bury(stream, row.id, row.counter)):
            rows = await self.repeated(lambda: self._table.read_workers(stream))
            if not any(one.id == row.id and one.buried for one in rows):
                raise Refused(_alive(row.id, "it came back at the last moment"))

    # ---- changing

    async def release(self, leases: Leases, shard_id: str) -> ShardRow | None:
        """Give up a dead owner's lease; None if nobody owns it. Refused if the owner lives."""
        row = known(leases.shards, shard_id)
        if row.owner is None:
            return None
        await self.bury(leases.stream, [row.owner])
        await self.write([Change(row, released(row, None, moved=False))])
        return row

    async def write(self, changes: Sequence[Change]) -> None:
        """One after the other; Refused where a row is not what it was, with what was done."""
        for done, change in enumerate(changes):
            try:
                await self._write(change)
            except (Refused, Unavailable) as error:
                if done == 0:
                    raise
                changed = ", ".join(one.before.id for one in changes[:done])
                raise Refused(f"{error}\nchanged before that: {changed}. Run it again") from error

    async def _write(self, change: Change) -> None:
        before, after = change.before, change.after
        written = await self.repeated(lambda: self._settled(before, after))
        if not written.applied:
            row = written.row
            what = "its row is gone" if row is None else f"now {_owner(row)}, epoch {row.epoch}"
            raise Refused(
                f"{before.id} changed while we looked ({what}); we left it alone."
                " Stop the workers, and try again"
            )

    async def _settled(self, before: ShardRow, after: ShardRow) -> Written:
        """What a write did, also where an earlier attempt's answer got lost."""
        written = await self._table.write(before, after)
        row = written.row
        is_ours = row is not None and row.same_version(after) and row.write_id == after.write_id
        return Written(True, after) if is_ours else written

    # ---- outages

    async def repeated(
        self, call: Callable[[], Awaitable[T]], timeout_s: float = CALL_TIMEOUT_S
    ) -> T:
        """Through short outages; Unavailable if it lasts."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with asyncio.timeout(timeout_s):
                    return await call()
            except (Outage, TimeoutError) as error:
                what = str(error) or f"no answer within {timeout_s:g} s"
                if attempt == ATTEMPTS:
                    raise Unavailable("a service", "this", f"try again later ({what})") from error
                self.say(f"trying again: {what}")
                await self.clock.sleep(PAUSE_S * attempt)
        raise AssertionError("the last attempt returns or raises")


def owners_of(rows: Mapping[str, ShardRow], ids: Collection[str]) -> set[str]:
    return {owner for shard_id in ids if (owner := rows[shard_id].owner) is not None}


def _require_still(worker_id: str, row: WorkerRow | None, first: dict[str, int | None]) -> None:
    counter = None if row is None else row.counter
    seen = first.setdefault(worker_id, counter)
    if counter is not None and counter != seen:
        raise Refused(_alive(worker_id, f"its counter went from {seen} to {counter}"))


def _alive(worker_id: str, proof: str) -> str:
    return (
        f"worker {worker_id} is alive ({proof}); nothing was changed."
        " Stop it first: SIGTERM makes it commit and give up its leases"
    )


def _owner(row: ShardRow) -> str:
    return "nobody's" if row.owner is None else f"worker {row.owner}'s"


def _some(ids: Collection[str]) -> str:
    return f"worker {next(iter(ids))}" if len(ids) == 1 else f"{len(ids)} workers"
