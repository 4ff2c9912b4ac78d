"""A stream in memory: a Source that needs no socket, for tests and simulations.

It passes the contract tests of the real one. Arrival times, retention and `Date` follow its clock;
a reader that is caught up waits on that clock, so a virtual one makes idle hours pass at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np
from msgspec.structs import replace

from processor.errors import Missing, StreamReplaced
from processor.model import Page, Position, Shard, StreamInfo
from processor.ports import Clock

CAUGHT_UP_S = 0.25
PAGE_RECORDS_MAX = 1_000
RETENTION_MS = 86_400_000


class _Log:
    """One shard and its records, in columns; those before `first` are past retention."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.closed_ms: int | None = None
        self.children: tuple[Shard, ...] = ()
        self.payloads: list[bytes] = []
        self.numbers: list[int] = []
        self.partition_keys: list[str] = []
        self.arrivals_ms: list[int] = []
        self.first = 0

    def index_at(self, position: Position) -> int:
        match position.kind:
            case "trim_horizon":
                return self.first
            case "at_time":
                return bisect_left(self.arrivals_ms, int(position.value))
            case "after":
                return bisect_left(self.numbers, int(position.value) + 1)
            case "at":
                return bisect_left(self.numbers, int(position.value))
            case "end":
                raise AssertionError(f"nothing is read from the end of {self.shard.id}")

    def trim(self, horizon_ms: int) -> bool:
        """Forget what arrived before; False if nothing of the shard is left to be known."""
        self.first = bisect_left(self.arrivals_ms, horizon_ms, self.first)
        return self.closed_ms is None or self.closed_ms >= horizon_ms


class MemorySource:
    """One stream. `put`, `close`, `delete`, `make_again` and `read` may interleave in any way."""

    def __init__(
        self,
        name: str,
        shards: Iterable[Shard],
        clock: Clock,
        *,
        page_records_max: int = PAGE_RECORDS_MAX,
        caught_up_s: float = CAUGHT_UP_S,
        retention_ms: int = RETENTION_MS,
    ) -> None:
        self._info = StreamInfo(name, f"memory:{name}", clock.wall_ms(), 0, retention_ms)
        self._caught_up_s = caught_up_s
        self._logs = {shard.id: _Log(shard) for shard in shards}
        self._clock = clock
        self._page_records_max = page_records_max
        self._last_number = 0
        self._is_deleted = False

    def __repr__(self) -> str:
        sizes = ", ".join(f"{id_}: {len(log.payloads)}" for id_, log in self._logs.items())
        return f"<MemorySource {self._info.name} {sizes}>"

    async def describe(self) -> StreamInfo:
        self._check()
        return replace(self._info, service_date_ms=self.date_ms())

    async def list_shards(self) -> list[Shard]:
        self._check()
        return self._listing()

    async def probe(self, shard_id: str, position: Position) -> None:
        """Any position will do."""

    def open(self, shard_id: str, position: Position) -> MemoryReader:
        self._trim()
        log = self._logs.get(shard_id)
        index = 0 if log is None else log.index_at(position)
        return MemoryReader(self, shard_id, index)

    def put(self, shard_id: str, payloads: Iterable[bytes], partition_key: str = "") -> list[str]:
        """Append records that arrive now; their sequence numbers."""
        log, first = self._logs[shard_id], self._last_number + 1
        assert not log.shard.is_closed, f"{shard_id} is closed"
        for payload in payloads:
            self._last_number += 1
            log.payloads.append(payload)
            log.numbers.append(self._last_number)
            log.partition_keys.append(partition_key)
            log.arrivals_ms.append(self._clock.wall_ms())
        return [str(number) for number in range(first, self._last_number + 1)]

    def put_at(self, hash_key: int, payload: bytes, partition_key: str) -> str:
        """Append a record to the open shard that holds `hash_key`; its sequence number."""
        open_ids = [
            id_
            for id_, log in self._logs.items()
            if not log.shard.is_closed and log.shard.first_hash <= hash_key <= log.shard.last_hash
        ]
        [shard_id] = open_ids
        return self.put(shard_id, [payload], partition_key)[0]

    def close(self, *parent_ids: str, children: Iterable[Shard]) -> None:
        """Split one shard or merge two: the parents drain, then name `children`."""
        opened = {child.id: _Log(child) for child in children}
        for id_ in parent_ids:
            log = self._logs[id_]
            log.shard = replace(log.shard, is_closed=True)
            log.closed_ms = self._clock.wall_ms()
            log.children = tuple(child.shard for child in opened.values())
        self._logs.update(opened)

    def delete(self) -> None:
        """All its records and shards are gone, and nobody finds it."""
        self._logs, self._is_deleted = {}, True

    def make_again(self, shards: Iterable[Shard]) -> None:
        """Delete the stream, if it stands, and make another of its name."""
        self._is_deleted = False
        self._info = replace(self._info, created_ms=self._clock.wall_ms())
        self._logs = {shard.id: _Log(shard) for shard in shards}

    # ---- for readers

    def date_ms(self) -> int:
        """The time as a Date header has it: whole seconds."""
        return self._clock.wall_ms() // 1000 * 1000

    def created_ms(self) -> int:
        return self._info.created_ms

    async def wait(self, shard_id: str, index: int, created_ms: int) -> _Log | None:
        """Until there may be something at `index`; None if the shard is past retention."""
        log = self._logs.get(shard_id)
        is_caught_up = log is not None and index >= len(log.payloads) and not log.shard.is_closed
        await self._clock.sleep(self._caught_up_s if is_caught_up else 0)
        while self._is_deleted:  # an outage, until somebody makes it again
            await self._clock.sleep(CAUGHT_UP_S)
        self._trim()
        if self._info.created_ms != created_ms:
            raise StreamReplaced(self._info.name, created_ms, self._info.created_ms)
        return self._logs.get(shard_id)

    def page(self, log: _Log | None, shard_id: str, first: int) -> Page:
        """From index `first`, or the trim horizon; the last one if the shard is gone."""
        if log is None:
            listing = self._listing()
            children = tuple(one for one in listing if shard_id in one.parents)
            return self._page(_Log(Shard(shard_id)), 0, 0, children)
        stop = first + self._page_records_max
        is_last = log.shard.is_closed and stop >= len(log.payloads)
        return self._page(log, first, stop, log.children if is_last else None)

    def _page(self, log: _Log, first: int, stop: int, children: tuple[Shard, ...] | None) -> Page:
        next_arrival_ms = log.arrivals_ms[stop] if stop < len(log.arrivals_ms) else None
        behind_ms = 0
        if next_arrival_ms is not None:
            behind_ms = max(1, self._clock.wall_ms() - next_arrival_ms)
        return Page(
            payloads=log.payloads[first:stop],
            sequence_numbers=[str(number) for number in log.numbers[first:stop]],
            partition_keys=log.partition_keys[first:stop],
            arrivals_ms=np.array(log.arrivals_ms[first:stop], np.int64),
            millis_behind=behind_ms,
            date_ms=self.date_ms(),
            children=children,
        )

    def _check(self) -> None:
        if self._is_deleted:
            raise Missing(f"stream {self._info.name}", "reading", "make it")

    def _listing(self) -> list[Shard]:
        self._trim()
        return [log.shard for log in self._logs.values()]

    def _trim(self) -> None:
        horizon_ms = self._clock.wall_ms() - self._info.retention_ms
        self._logs = {id_: log for id_, log in self._logs.items() if log.trim(horizon_ms)}


class MemoryReader:
    """One shard from one index on."""

    def __init__(self, source: MemorySource, shard_id: str, index: int) -> None:
        self._source = source
        self._shard_id = shard_id
        self._index = index
        self._created_ms = source.created_ms()
        self._is_over = False

    def __repr__(self) -> str:
        return f"<MemoryReader {self._shard_id} at {self._index}>"

    async def read(self) -> Page:
        """The next page. Cancelling is safe. None after the page that names children."""
        assert not self._is_over, f"{self._shard_id} has no more to read"
        log = await self._source.wait(self._shard_id, self._index, self._created_ms)
        if log is not None:
            self._index = max(self._index, log.first)
        page = self._source.page(log, self._shard_id, self._index)
        self._index += len(page)
        self._is_over = page.children is not None
        return page

    async def close(self) -> None:
        self._is_over = True
