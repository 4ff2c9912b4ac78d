"""One shard's lease as its task holds it: load, checkpoint, mark, end.

Every write is conditional on our epoch and on the commit number before it. A write whose answer
got lost is settled by a consistent read: it was applied if and only if the row carries our
`write_id`; the lease is lost if and only if the epoch is another (or an operator released it).
Calls take effect in the order in which they are made, one at a time.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar

from msgspec.structs import replace

from processor.core.leases.rows import (
    Pair,
    ShardRow,
    committed,
    ended,
    is_ahead,
    marked,
    noted,
    of_generation,
    unreferenced,
)
from processor.core.leases.seeking import inherits
from processor.core.stored.stream import Part, whole
from processor.errors import LeaseLost, Outage, StateUnreadable, Throttled
from processor.model import Mark, Position, Shard
from processor.ports import Clock, LeaseTable, Written
from processor.runtime.lease_observer import LeaseObserver
from processor.runtime.meter import Meter
from processor.runtime.shards import LISTING_TIMEOUT_S
from processor.runtime.state_store import Captured, StateStore, Stored

SHARD_CALL_TIMEOUT_S = 5.0  # nobody but the shard itself waits for its calls
STATE_BYTES_PER_S = 1_000_000  # a state's call may take as much longer as it has bytes
BACKOFF_MIN_S = 0.1
BACKOFF_MAX_S = 5.0

T = TypeVar("T")


class Restored(NamedTuple):
    """Where to go on: restore `state` (None: a fresh shard), read after `position`, apply `marks`
    at their positions again."""

    position: Position
    state: bytes | None
    marks: tuple[Mark, ...]
    inherited: tuple[bytes, ...] = ()  # the last states of the parents, for a fresh shard
    caught_up_at_ms: int | None = None  # what arrived before has been read; None: nobody knows


class Keeper(Protocol):
    """What a lease needs of the loop that upholds it."""

    table: LeaseTable
    states: StateStore
    clock: Clock
    rng: random.Random
    observer: LeaseObserver

    @property
    def generation(self) -> int:
        """Of our pipeline."""

    def slowest_ms(self) -> int | None:
        """The smallest watermark of all shards that catch up, of all workers."""

    def valid_for_s(self) -> float:
        """Seconds in which effects may start."""

    async def await_valid(self) -> None:
        """Until effects may start again."""

    async def child_rows(self, row: ShardRow, children: tuple[Shard, ...]) -> list[ShardRow]: ...

    @property
    def retention_ms(self) -> int:
        """How long the stream keeps a record, as last described."""

    def on_committed(self, row: ShardRow) -> None: ...

    def on_ended(self, row: ShardRow, children: list[ShardRow]) -> None: ...

    def in_background(self, operation: str, work: Callable[[], Awaitable[object]]) -> None:
        """Best effort: carried out when there is room, failures reported to the observer."""


class Lease:
    """The right to work on one shard, under one epoch."""

    def __init__(self, row: ShardRow, keeper: Keeper, margin_s: float) -> None:
        self.shard = row.shard
        self.epoch = row.epoch
        self.incarnation = row.incarnation
        self.stopping = asyncio.Event()  # set: commit and return
        self.row = row  # as last known
        self.has_ended = False
        self._claimed_at = keeper.clock.monotonic()
        self.meter = Meter(self._claimed_at)  # of what the task costs
        self._keeper = keeper
        self._margin_s = margin_s
        self._base = row.pairs[-1]  # the pair that we started from, or committed last
        self._stored: Stored | None = None  # its state, for the next to go on from
        self._is_certain = True  # no write of ours may still be under way unseen
        self._is_open = True
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        state = "open" if self._is_open else "closed"
        return f"<Lease {self.shard.id} epoch {self.epoch} at {self.row.position} {state}>"

    @property
    def retention_ms(self) -> int:
        """How long the stream keeps a record, as last described."""
        return self._keeper.retention_ms

    @property
    def generation(self) -> int:
        """Our pipeline's number among those that the application ran."""
        return self._keeper.generation

    def slowest_ms(self) -> int | None:
        """The smallest watermark of all shards that catch up, of all workers."""
        return self._keeper.slowest_ms()

    # ---- validity

    def valid_for_s(self) -> float:
        """Seconds in which effects may still start; 0 and less: none may."""
        return self._keeper.valid_for_s() if self._is_open else 0.0

    def check_valid(self) -> bool:
        """Whether an effect may start now; LeaseLost if none ever may again."""
        if not self._is_open:
            raise LeaseLost(self.shard.id, self.epoch)
        return self._keeper.valid_for_s() > 0

    async def fence(self) -> None:
        """Before every effect: waits while our validity is in doubt; LeaseLost once it is gone.

        Cancelling is safe.
        """
        while not self.check_valid():
            await self._keeper.await_valid()

    def close(self) -> None:
        """The lease is over, for whatever reason: every later call raises LeaseLost."""
        self._is_open = False

    # ---- what a shard's task does

    async def load(self, *, older: bool = False) -> Restored:
        """The newest pair whose state can be read; the pair before it otherwise.

        `older`: leave the newest out, for its state could be read but not restored.
        StateUnreadable if none is left. Waits while a store is out. Cancelling is safe.
        """
        reason = "the only pair can't be restored"
        for pair in reversed(self.row.pairs[:-1] if older else self.row.pairs):
            try:
                loaded = await self._state_of(pair)
            except StateUnreadable as error:
                reason = error.reason
                self._keeper.observer.on_fallback(self.shard.id, reason)
                continue
            state, self._stored = loaded or (None, None)
            self._base = pair
            marks = tuple(entry.mark for entry in self.row.marks if is_ahead(entry, pair))
            is_fresh = state is None and inherits(pair)
            parents = await self._parents() if is_fresh else []
            inherited = await self._inherited(parents)
            self._keeper.states.prefetched.drop(self.shard.id)
            load_s = self._keeper.clock.monotonic() - self._claimed_at
            self._keeper.observer.on_handoff(self.shard.id, "load", load_s)
            caught_up = self.row.caught_up_at_ms or _opened_after_ms(parents)
            return Restored(pair.position, state, marks, inherited, caught_up)
        raise StateUnreadable(self.shard.id, reason)

    async def pack(self, message: Iterable[Part]) -> Captured:
        """What of a state is new since the last commit; for the next call of `checkpoint` or `end`.

        Not while one is under way. The state must not change until this returns; it gives others
        their turn. Raises Unavailable if the state is too large. Cancelling is safe.
        """
        assert not self._lock.locked(), f"{self!r}: packed on what may not be committed"
        keeper = self._keeper
        return await keeper.states.pack(self.shard.id, message, self._stored, keeper.clock.cpu_s)

    async def checkpoint(
        self, position: Position, state: bytes | Captured, *, caught_up_at_ms: int | None = None
    ) -> None:
        """Commit position and state together; `bytes` are captured first.

        Waits out outages as long as the lease may still be ours. Raises LeaseLost, and Unavailable
        when a permission or a store is missing. Cancelling leaves open whether it was committed;
        the next call finds out.
        """
        captured = await self.pack(whole(state)) if isinstance(state, bytes) else state
        stored = None

        async def change(before: ShardRow, write_id: str) -> ShardRow:
            nonlocal stored
            stored = await self._store(before, write_id, captured)
            pair = Pair(position, before.commit + 1, stored.ref)
            row = committed(before, self._base, pair, write_id)
            after = of_generation(row, self._keeper.generation)
            return _caught_up(after, caught_up_at_ms)

        async with self._lock:
            before, after = await self._observed(self._settle(change, self._keeper.table.write))
            self._stored = stored
            self._took_effect(before, after)

    async def mark(self, mark: Mark) -> None:
        """Commit a mark; apply it only after this returned. Raises and waits like `checkpoint`."""

        async def change(before: ShardRow, write_id: str) -> ShardRow:
            return marked(before, mark, write_id)

        async with self._lock:
            await self._settle(change, self._keeper.table.write)

    async def note(self, caught_up_at_ms: int) -> None:
        """Commit only that nothing older is unread. Raises and waits like `checkpoint`."""

        async def change(before: ShardRow, write_id: str) -> ShardRow:
            return noted(before, caught_up_at_ms, write_id)

        async with self._lock:
            await self._settle(change, self._keeper.table.write)

    async def end(
        self,
        position: Position,
        state: bytes | Captured,
        children: tuple[Shard, ...],
        *,
        caught_up_at_ms: int | None = None,
    ) -> None:
        """Commit the shard's last pair, at END, and create its children, in one transaction.

        Then there is nothing more to do: return. Raises and waits like `checkpoint`.
        """
        captured = await self.pack(whole(state)) if isinstance(state, bytes) else state
        async with self._lock:
            find = functools.partial(self._keeper.child_rows, self.row, children)
            rows = await self._retry("find children", find, LISTING_TIMEOUT_S)

            async def change(before: ShardRow, write_id: str) -> ShardRow:
                stored = await self._store(before, write_id, captured)
                pair = Pair(position, before.commit + 1, stored.ref)
                row = ended(before, self._base, pair, write_id)
                after = of_generation(row, self._keeper.generation)
                return _caught_up(after, caught_up_at_ms)

            async def write(before: ShardRow, after: ShardRow) -> Written:
                return await self._keeper.table.end(before, after, rows)

            before, after = await self._observed(self._settle(change, write))
            self.has_ended = True
            self._took_effect(before, after)
            self._keeper.on_ended(after, rows)

    # ---- how it is done

    async def _settle(
        self,
        change: Callable[[ShardRow, str], Awaitable[ShardRow]],
        write: Callable[[ShardRow, ShardRow], Awaitable[Written]],
    ) -> tuple[ShardRow, ShardRow]:
        """Write until it is known to be applied; the rows before and after it. LeaseLost if not."""
        write_id = f"{self._keeper.rng.getrandbits(64):016x}"
        before, after, attempt = self.row, None, 0
        while True:
            current = await self._current(write_id)
            if after is not None and current.write_id == write_id:
                self.row = after
                return before, after
            if after is None or not current.same_version(before):
                before = current
                after = await change(before, write_id)
            self._is_certain = False
            await self._write_once(write, before, after, attempt)
            attempt += 1

    async def _write_once(
        self,
        write: Callable[[ShardRow, ShardRow], Awaitable[Written]],
        before: ShardRow,
        after: ShardRow,
        attempt: int,
    ) -> None:
        try:
            written = await self._effect(lambda: write(before, after))
        except (Outage, TimeoutError) as error:
            await self._pause("commit", error, attempt)
            return
        if written.row is not None:
            self.row, self._is_certain = written.row, True

    async def _current(self, write_id: str) -> ShardRow:
        """The row as it stands; LeaseLost if it is not ours any more."""
        if not self._is_certain:
            row = await self._retry("read the shard's row", self._read)
            if row is None:
                raise LeaseLost(self.shard.id, self.epoch)
            self.row, self._is_certain = row, True
        is_ours = self.row.epoch == self.epoch
        if not is_ours or (self.row.owner is None and self.row.write_id != write_id):
            raise LeaseLost(self.shard.id, self.epoch)
        return self.row

    async def _read(self) -> ShardRow | None:
        return await self._keeper.table.read_shard(self.row.stream, self.shard.id)

    async def _parents(self) -> list[ShardRow]:
        """Rows of the parents that ended; one that was gone at the application's start has none."""
        rows = []
        for parent in self.shard.parents:
            read = functools.partial(self._keeper.table.read_shard, self.row.stream, parent)
            rows.append(await self._retry("read a parent's row", read))
        return [row for row in rows if row is not None and row.ended]

    async def _inherited(self, parents: list[ShardRow]) -> tuple[bytes, ...]:
        """What the parents ended with."""
        loaded = [await self._state_of(row.pairs[-1]) for row in parents]
        return tuple(one[0] for one in loaded if one is not None)

    async def _state_of(self, pair: Pair) -> tuple[bytes, Stored] | None:
        ref = pair.state
        if ref is None:
            return None
        get = functools.partial(self._keeper.states.get, self.shard.id, ref)
        return await self._retry("get state", get, _timeout_s(ref.total_bytes))

    async def _store(self, before: ShardRow, write_id: str, captured: Captured) -> Stored:
        put = functools.partial(
            self._keeper.states.put, before, before.commit + 1, write_id, captured.packed
        )
        return await self._retry("put state", put, _timeout_s(captured.packed.body.size))

    def _took_effect(self, before: ShardRow, after: ShardRow) -> None:
        self._base = after.pairs[-1]
        self._keeper.on_committed(after)
        stale = unreferenced(before, after)
        if stale:
            remove = functools.partial(self._keeper.states.remove, stale)
            self._keeper.in_background("remove states", remove)

    async def _observed(
        self, settling: Awaitable[tuple[ShardRow, ShardRow]]
    ) -> tuple[ShardRow, ShardRow]:
        """Tells the observer how long it took and how it came out."""
        clock, observer = self._keeper.clock, self._keeper.observer
        started_at = clock.monotonic()
        try:
            before, after = await settling
        except LeaseLost:
            observer.on_checkpoint(self.shard.id, "lost", 0, clock.monotonic() - started_at)
            raise
        except Exception:
            observer.on_checkpoint(self.shard.id, "failed", 0, clock.monotonic() - started_at)
            raise
        ref = after.pairs[-1].state
        size = ref.stored_bytes if ref else 0
        observer.on_checkpoint(self.shard.id, "committed", size, clock.monotonic() - started_at)
        return before, after

    async def _retry(
        self,
        operation: str,
        call: Callable[[], Awaitable[T]],
        timeout_s: float = SHARD_CALL_TIMEOUT_S,
    ) -> T:
        """Repeat what has no effect by itself, through outages, while the lease may be ours."""
        attempt = 0
        while True:
            await self.fence()
            try:
                async with asyncio.timeout(timeout_s):
                    return await call()
            except (Outage, TimeoutError) as error:
                await self._pause(operation, error, attempt)
                attempt += 1

    async def _effect(self, call: Callable[[], Awaitable[T]]) -> T:
        """Start only while valid, and take no longer than validity lasts."""
        await self.fence()
        rest_s = self.valid_for_s() + self._margin_s
        async with asyncio.timeout(min(SHARD_CALL_TIMEOUT_S, rest_s)):
            return await call()

    async def _pause(self, operation: str, error: Exception, attempt: int) -> None:
        """Full jitter, from a tenth of a second to five; longer at once if we ask too often."""
        self._keeper.observer.on_error(operation, error)
        first_s = 10 * BACKOFF_MIN_S if isinstance(error, Throttled) else BACKOFF_MIN_S
        ceiling_s = min(BACKOFF_MAX_S, first_s * 2 ** min(attempt, 10))
        await self._keeper.clock.sleep(self._keeper.rng.uniform(0, ceiling_s))


def _timeout_s(size: int) -> float:
    """For a state of that size; nothing refers to it while it is put, so validity may pass."""
    return SHARD_CALL_TIMEOUT_S + size / STATE_BYTES_PER_S


def _caught_up(row: ShardRow, at_ms: int | None) -> ShardRow:
    return row if at_ms is None else replace(row, caught_up_at_ms=at_ms)


def _opened_after_ms(parents: list[ShardRow]) -> int | None:
    """A moment at which the parents were still open: nothing of their child is older."""
    moments = [row.caught_up_at_ms for row in parents if row.caught_up_at_ms is not None]
    return max(moments, default=None)
