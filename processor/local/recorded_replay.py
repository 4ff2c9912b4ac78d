"""Puts recorded series into a stream, in order of event time, and waits for what comes of them.

A put in flight a shard; what was throttled is put again before anything later, so a shard's order
is that of event time and nothing is late. At the end a record that no rule counts closes each
shard's last windows.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from processor.errors import ProcessorError
from processor.local.collector import Collector
from processor.local.recorded import Recorded
from processor.local.recorded_pipeline import size_text
from processor.local.stage import Stage
from processor.local.traffic import SHARDS
from processor.local.view import View
from processor.local.workers import Fleet

BATCH_MAX = 500  # PutRecords' own limit
THROTTLED_WAIT_S = 0.1  # a tenth of the rate's second: a hundred records more fit then
READY_S, STALL_S = 60.0, 60.0  # all shards owned takes seconds; a stall is a fault
QUIET_S, GIVE_UP_S = 2.0, 20.0  # the bus delivers within milliseconds
LOOK_S, SAY_S = 0.25, 5.0
RECEIVERS = 2  # anomalies are few

Entry = tuple[str, bytes]  # partition key, payload


class Stuck(ProcessorError):
    """The service did not come to where it should be."""


class Replay:
    """One replay against a running stage; afterwards `bodies` are what the bus delivered."""

    def __init__(
        self, series: Sequence[Recorded], stage: Stage, fleet: Fleet, view: View, now_ms: int
    ) -> None:
        self._series, self._now_ms = series, now_ms
        self._fleet, self._view = fleet, view
        self._kinesis, self._stream = stage.kinesis, stage.names.stream
        queues = stage.queue_urls
        self._events = Collector(queues[stage.names.events_queue], stage.aws)
        self._letters = Collector(queues[stage.names.letters_queue], stage.aws)
        self._last_numbers: dict[str, int] = {}  # by shard id
        self._sent = 0

    @property
    def bodies(self) -> list[bytes]:
        return self._events.bodies

    @property
    def letters(self) -> list[bytes]:
        return self._letters.bodies

    async def perform(self) -> None:
        """All of it. Raises Stuck, WorkerDied, Outage; cancelling it leaves records unsent."""
        asides: list[Coroutine[Any, Any, None]] = [
            self._fleet.watch(),
            self._events.run(RECEIVERS),
            self._letters.run(1),
            self._tell(),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(aside) for aside in asides]
                await self._get_ready()
                await self._send()
                await self._drain()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as errors:
            error: BaseException = errors
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]  # the others were cancelled for it
            raise error from errors

    async def _get_ready(self) -> None:
        begun_at = _now()
        while len(self._fleet.shards()) < SHARDS:
            if _now() - begun_at > READY_S:
                raise Stuck(f"after {READY_S:.0f} s workers own {len(self._fleet.shards())} shards")
            await asyncio.sleep(LOOK_S)
        self._view.say(f"workers own {SHARDS} shards")

    async def _send(self) -> None:
        request = {"StreamName": self._stream, "ShardFilter": {"Type": "AT_LATEST"}}
        shards = (await self._kinesis("kinesis", "ListShards", request))["Shards"]
        homes = [int(one["HashKeyRange"]["EndingHashKey"]) for one in shards]
        lanes: list[list[Entry]] = [[] for _ in shards]
        for entry in entries(self._series):
            lanes[np.searchsorted(np.array(homes, dtype=object), _hash(entry[0]))].append(entry)
        async with asyncio.TaskGroup() as group:
            for shard, lane in zip(shards, lanes, strict=True):
                last_ms = closing_ms(self._series, self._now_ms)
                group.create_task(
                    self._feed(lane, shard["HashKeyRange"]["StartingHashKey"], last_ms)
                )
        self._view.say(f"all {self._sent:,} records are sent")

    async def _feed(self, lane: Sequence[Entry], hash_key: str, last_ms: int) -> None:
        taken = 0
        while taken < len(lane):
            taken += await self._put(lane[taken : taken + BATCH_MAX])
        self._sent += taken
        closing = orjson.dumps({"series": "", "window": "", "at": last_ms, "value": 0.0})
        while not await self._put([("closing", closing)], hash_key):
            pass  # throttled; `_put` has waited

    async def _put(self, batch: Sequence[Entry], hash_key: str | None = None) -> int:
        """How many of the batch were taken; the rest, its end, was throttled."""
        at = {} if hash_key is None else {"ExplicitHashKey": hash_key}
        records = [
            {"PartitionKey": key, "Data": base64.b64encode(data).decode(), **at}
            for key, data in batch
        ]
        request = {"StreamName": self._stream, "Records": records}
        results = (await self._kinesis("kinesis", "PutRecords", request))["Records"]
        taken = next((i for i, one in enumerate(results) if "ErrorCode" in one), len(results))
        if any("ErrorCode" not in one for one in results[taken:]):
            raise Stuck("PutRecords took a record after it had refused an earlier one")
        for one in results[:taken]:
            self._last_numbers[one["ShardId"]] = int(one["SequenceNumber"])
        if taken < len(batch):
            await asyncio.sleep(THROTTLED_WAIT_S)
        return taken

    async def _drain(self) -> None:
        """Until every record is taken and every event received."""
        seen, moved_at = self._figures(), _now()
        while not (self._is_processed() and self._is_received()):
            if self._figures() != seen:
                seen, moved_at = self._figures(), _now()
            if _now() - moved_at > STALL_S:
                raise Stuck(f"no progress for {STALL_S:.0f} s: {self._progress()}")
            await asyncio.sleep(LOOK_S)

    def _figures(self) -> tuple[int, int, int]:
        return self._fleet.total("records"), len(self.bodies), len(self.letters)

    def _is_processed(self) -> bool:
        shards = self._fleet.shards()
        return all(
            shard_id in shards and shards[shard_id].last_number >= number
            for shard_id, number in self._last_numbers.items()
        )

    def _is_received(self) -> bool:
        """All that should come has come and it is quiet; or it is quiet for long."""
        quiet_s = min(self._events.quiet_s(), self._letters.quiet_s())
        is_all = len(self.bodies) >= self._fleet.published()
        return quiet_s > (QUIET_S if is_all else GIVE_UP_S)

    async def _tell(self) -> None:
        while True:
            await asyncio.sleep(SAY_S)
            self._view.say(self._progress())

    def _progress(self) -> str:
        records, events, letters = self._figures()
        return f"processed {records:,} records, {events} events received, {letters} dead letters"


def entries(series: Sequence[Recorded]) -> Iterator[Entry]:
    """All records in order of event time, of equal times in order of the files."""
    times_ms = np.concatenate([one.times_ms for one in series])
    owners = np.repeat(np.arange(len(series)), [len(one.times_ms) for one in series])
    values = np.concatenate([one.values for one in series])
    order = np.argsort(times_ms, kind="stable")
    sizes = [size_text(one.size_ms) for one in series]
    columns = (times_ms[order].tolist(), owners[order].tolist(), values[order].tolist())
    for at, i, value in zip(*columns, strict=True):
        name = series[i].name
        payload = {"series": name, "window": sizes[i], "at": at, "value": value}
        yield name, orjson.dumps(payload)


def closing_ms(series: Sequence[Recorded], now_ms: int) -> int:
    """When all windows are over; those that are not over by now stay open."""
    ends = (int(one.times_ms[-1]) // one.size_ms * one.size_ms + one.size_ms for one in series)
    return min(max(ends), now_ms)


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.md5(key.encode(), usedforsecurity=False).digest(), "big")


def _now() -> float:
    return asyncio.get_running_loop().time()
