"""A stream in memory: a Source that needs no socket, for tests and simulations.

It passes the contract tests of the real one. Arrival times and `Date` follow its clock; a reader
that is caught up waits on that clock, so a virtual one makes idle hours pass at once.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

import numpy as np

from processor.model import Page, Position, Shard, StreamInfo
from processor.ports import Clock

CAUGHT_UP_S = 0.25
PAGE_RECORDS_MAX = 1_000


class _Log:
    """One shard and its records, in columns."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.children: tuple[Shard, ...] = ()
        self.payloads: list[bytes] = []
        self.numbers: list[int] = []
        self.partition_keys: list[str] = []
        self.arrivals_ms: list[int] = []

    def index_at(self, position: Position) -> int:
        match position.kind:
            case "trim_horizon":
                return 0
            case "at_time":
                return bisect_left(self.arrivals_ms, int(position.value))
            case "after":
                return bisect_left(self.numbers, int(position.value) + 1)
            case "at":
                return bisect_left(self.numbers, int(position.value))
            case "end":
                raise AssertionError(f"nothing is read from the end of {self.shard.id}")


class MemorySource:
    """One stream. `put`, `close` and `read` may interleave in any way."""

    def __init__(
        self,
        name: str,
        shards: Iterable[Shard],
        clock: Clock,
        *,
        page_records_max: int = PAGE_RECORDS_MAX,
    ) -> None:
        self._info = StreamInfo(name, f"memory:{name}", clock.wall_ms(), 0)
        self._logs = {shard.id: _Log(shard) for shard in shards}
        self._clock = clock
        self._page_records_max = page_records_max
        self._last_number = 0

    def __repr__(self) -> str:
        sizes = ", ".join(f"{id_}: {len(log.payloads)}" for id_, log in self._logs.items())
        return f"<MemorySource {self._info.name} {sizes}>"

    async def describe(self) -> StreamInfo:
        info = self._info
        return StreamInfo(info.name, info.arn, info.created_ms, _date_ms(self._clock))

    async def list_shards(self) -> list[Shard]:
        return [log.shard for log in self._logs.values()]

    async def probe(self, shard_id: str, position: Position) -> None:
        """Any position will do."""

    def open(self, shard_id: str, position: Position) -> MemoryReader:
        log = self._logs[shard_id]
        return MemoryReader(log, log.index_at(position), self._page_records_max, self._clock)

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

    def close(self, *parent_ids: str, children: Iterable[Shard]) -> None:
        """Split one shard or merge two: the parents drain, then name `children`."""
        opened = {child.id: _Log(child) for child in children}
        for id_ in parent_ids:
            log = self._logs[id_]
            old = log.shard
            log.shard = Shard(id_, old.first_hash, old.last_hash, old.parents, is_closed=True)
            log.children = tuple(child.shard for child in opened.values())
        self._logs.update(opened)


class MemoryReader:
    """One shard from one index on."""

    def __init__(self, log: _Log, index: int, records_max: int, clock: Clock) -> None:
        self._log = log
        self._index = index
        self._records_max = records_max
        self._clock = clock
        self._is_over = False

    def __repr__(self) -> str:
        return f"<MemoryReader {self._log.shard.id} at {self._index} of {len(self._log.payloads)}>"

    async def read(self) -> Page:
        """The next page. Cancelling is safe. None after the page that names children."""
        assert not self._is_over, f"{self._log.shard.id} has no more to read"
        is_caught_up = self._index >= len(self._log.payloads) and not self._log.shard.is_closed
        await self._clock.sleep(CAUGHT_UP_S if is_caught_up else 0)
        page = self._page(self._index, self._index + self._records_max)
        self._index += len(page)
        self._is_over = page.children is not None
        return page

    async def close(self) -> None:
        self._is_over = True

    def _page(self, first: int, stop: int) -> Page:
        log = self._log
        next_arrival_ms = log.arrivals_ms[stop] if stop < len(log.arrivals_ms) else None
        is_last = log.shard.is_closed and next_arrival_ms is None
        return Page(
            payloads=log.payloads[first:stop],
            sequence_numbers=[str(number) for number in log.numbers[first:stop]],
            partition_keys=log.partition_keys[first:stop],
            arrivals_ms=np.array(log.arrivals_ms[first:stop], np.int64),
            millis_behind=_behind_ms(next_arrival_ms, self._clock),
            date_ms=_date_ms(self._clock),
            children=log.children if is_last else None,
        )


def _behind_ms(next_arrival_ms: int | None, clock: Clock) -> int:
    return 0 if next_arrival_ms is None else max(1, clock.wall_ms() - next_arrival_ms)


def _date_ms(clock: Clock) -> int:
    """The time as a Date header has it: whole seconds."""
    return clock.wall_ms() // 1000 * 1000
