"""What it means that the service does not find a shard which somebody reads.

    the stream is gone           an outage: somebody may make it again
    it was made again            StreamReplaced: another stream under the same name
    the shard is listed          a mishap of the service
    two listings omit it         it is past retention: what follows it by the listing goes on

All readers of a process share one look at the stream, for the service answers few descriptions.
"""

from __future__ import annotations

import asyncio
from math import inf
from typing import NamedTuple, Protocol

from processor.errors import ProcessorError, StreamReplaced
from processor.model import Shard, StreamInfo
from processor.ports import Clock

LOOK_S = 5.0  # between looks, so 20 workers ask 4 times a second; an account may ask 20 times
OMISSIONS = 2  # looks in a row: a listing may be cut by a mishap


class Stream(Protocol):
    """The calls that a look takes."""

    async def describe(self) -> StreamInfo: ...

    async def list_shards(self) -> list[Shard]: ...


class Look(NamedTuple):
    """The stream as it was found, and when: monotonic seconds."""

    info: StreamInfo
    listing: list[Shard]
    at: float


class Looks:
    """The last look at a stream, or how it failed: readers of a stream that is away ask no more
    often than others, for all of an account share what the service answers."""

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = asyncio.Lock()
        self._last: Look | ProcessorError | None = None
        self._looked_at = -inf

    async def look(self) -> Look:
        """The last one, if it is fresh. Raises what describing and listing raise."""
        async with self._lock:
            now = self._clock.monotonic()
            if now - self._looked_at >= LOOK_S:
                self._last = await self._new(now)
                self._looked_at = now
            if isinstance(self._last, ProcessorError):
                raise self._last.with_traceback(None)
            assert self._last is not None
            return self._last

    async def _new(self, now: float) -> Look | ProcessorError:
        try:
            info = await self._stream.describe()
            return Look(info, await self._stream.list_shards(), now)
        except ProcessorError as error:
            return error


class Absence:
    """One shard that was not found: how many looks in a row have confirmed it."""

    def __init__(self, shard_id: str, created_ms: int | None) -> None:
        self._shard_id = shard_id
        self._created_ms = created_ms
        self._omissions = 0
        self._looked_at: float | None = None

    def on_look(self, look: Look) -> bool:
        """Whether the shard is gone for good. StreamReplaced if its stream is."""
        info = look.info
        if self._created_ms is not None and info.created_ms > self._created_ms:
            raise StreamReplaced(info.name, self._created_ms, info.created_ms)
        if any(shard.id == self._shard_id for shard in look.listing):
            self._omissions = 0
        elif look.at != self._looked_at:
            self._omissions += 1
        self._looked_at = look.at
        return self._omissions >= OMISSIONS
