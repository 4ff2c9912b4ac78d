"""A lease table and an object store in memory: for tests and the simulator, with real conditions.

Several handles may look at one content, each through a gate of its own that can delay an operation,
refuse it, or lose its answer; that is how tests bring failure in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from msgspec.structs import replace

from processor.core.instructions import Instruction
from processor.core.leases.rows import AppRow, ShardRow, StreamKey, WorkerRow
from processor.ports import OnStrange, Placed, Written

Gate = Callable[[str, Literal["before", "after"]], Awaitable[None]]


async def open_gate(operation: str, side: Literal["before", "after"]) -> None:
    """Lets everything pass, but lets others run in between, as any network does."""
    await asyncio.sleep(0)


class MemoryObjects:
    """Blobs in a dict."""

    def __init__(self, blobs: dict[str, bytes] | None = None, gate: Gate = open_gate) -> None:
        self.blobs = {} if blobs is None else blobs
        self._gate = gate

    async def put(self, key: str, body: bytes) -> None:
        await self._gate("put", "before")
        self.blobs[key] = body
        await self._gate("put", "after")

    async def get(self, key: str) -> bytes | None:
        await self._gate("get", "before")
        return self.blobs.get(key)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._gate("delete", "before")
        for key in keys:
            self.blobs.pop(key, None)

    async def list(self, prefix: str) -> list[str]:
        await self._gate("list", "before")
        return sorted(key for key in self.blobs if key.startswith(prefix))


class MemoryInstructions:
    """What people asked for, in dicts; `processor.ports.Instructions`."""

    def __init__(self, content: MemoryContent, gate: Gate = open_gate) -> None:
        self._content, self._gate = content, gate

    async def read(
        self, app: str, *, consistent: bool = False, on_strange: OnStrange | None = None
    ) -> list[Placed]:
        await self._gate("read_instructions", "before")
        found = self._content.instructions.items()
        return sorted(Placed(place, one) for (of, place), one in found if of == app)

    async def put(self, app: str, placed: Placed, now_ms: int) -> bool:
        await self._gate("put_instruction", "before")
        standing = self._content.instructions.get((app, placed.place))
        if standing is not None and standing.expires_ms >= now_ms:
            return False
        self._content.instructions[app, placed.place] = placed.instruction
        await self._gate("put_instruction", "after")
        return True

    async def remove(self, app: str, placed: Placed) -> bool:
        await self._gate("remove_instruction", "before")
        standing = self._content.instructions.get((app, placed.place))
        if standing is None or standing.id != placed.instruction.id:
            return False
        del self._content.instructions[app, placed.place]
        self._content.taken.pop((app, standing.id), None)
        await self._gate("remove_instruction", "after")
        return True

    async def acknowledge(self, app: str, instruction: Instruction, shard: str) -> None:
        await self._gate("acknowledge", "before")
        self._content.taken.setdefault((app, instruction.id), set()).add(shard)
        await self._gate("acknowledge", "after")

    async def taken(self, app: str, instruction: Instruction) -> list[str]:
        await self._gate("read_taken", "before")
        return sorted(self._content.taken.get((app, instruction.id), ()))


@dataclass
class MemoryContent:
    """What a table holds."""

    apps: dict[StreamKey, AppRow] = field(default_factory=dict)
    workers: dict[tuple[StreamKey, str], WorkerRow] = field(default_factory=dict)
    shards: dict[tuple[StreamKey, str], ShardRow] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    instructions: dict[tuple[str, int], Instruction] = field(default_factory=dict)
    taken: dict[tuple[str, str], set[str]] = field(default_factory=dict)


class MemoryTable:
    """A `LeaseTable` over shared content."""

    def __init__(self, content: MemoryContent | None = None, gate: Gate = open_gate) -> None:
        self.content = content or MemoryContent()
        self._gate = gate
        self._items = MemoryObjects(self.content.blobs, gate)
        self._instructions = MemoryInstructions(self.content, gate)

    @property
    def items(self) -> MemoryObjects:
        return self._items

    @property
    def instructions(self) -> MemoryInstructions:
        return self._instructions

    async def pin(self, row: AppRow) -> AppRow:
        await self._gate("pin", "before")
        return self.content.apps.setdefault(row.stream, row)

    async def read_app(self, stream: StreamKey) -> AppRow | None:
        await self._gate("read_app", "before")
        return self.content.apps.get(stream)

    async def remember(self, before: AppRow, after: AppRow) -> AppRow:
        await self._gate("remember", "before")
        if self.content.apps.get(before.stream) == before:
            self.content.apps[before.stream] = after
        return self.content.apps[before.stream]

    async def join(self, stream: StreamKey, row: WorkerRow) -> None:
        await self._gate("join", "before")
        self.content.workers.setdefault((stream, row.id), row)
        await self._gate("join", "after")

    async def heartbeat(self, stream: StreamKey, row: WorkerRow) -> bool:
        await self._gate("heartbeat", "before")
        known = self.content.workers.get((stream, row.id))
        if known is None or known.buried:
            return False
        self.content.workers[stream, row.id] = row
        await self._gate("heartbeat", "after")
        return True

    async def read_workers(
        self, stream: StreamKey, first: str | None = None, count: int = 0
    ) -> list[WorkerRow]:
        await self._gate("read_workers", "before")
        rows = [row for (of, _), row in self.content.workers.items() if of == stream]
        if first is not None:
            rows = sorted(rows, key=lambda row: (row.id < first, row.id))[:count]
        await self._gate("read_workers", "after")
        return rows

    async def bury(self, stream: StreamKey, worker_id: str, counter: int) -> bool:
        await self._gate("bury", "before")
        known = self.content.workers.get((stream, worker_id))
        if known is None or known.buried or known.counter != counter:
            return False
        self.content.workers[stream, worker_id] = replace(known, buried=True)
        await self._gate("bury", "after")
        return True

    async def delete_worker(self, stream: StreamKey, worker_id: str) -> None:
        await self._gate("delete_worker", "before")
        self.content.workers.pop((stream, worker_id), None)

    async def read_shards(self, stream: StreamKey) -> list[ShardRow]:
        await self._gate("read_shards", "before")
        rows = [row for (of, _), row in self.content.shards.items() if of == stream]
        await self._gate("read_shards", "after")
        return rows

    async def read_shard(self, stream: StreamKey, shard_id: str) -> ShardRow | None:
        await self._gate("read_shard", "before")
        row = self.content.shards.get((stream, shard_id))
        await self._gate("read_shard", "after")
        return row

    async def create_shards(self, rows: Sequence[ShardRow]) -> None:
        for row in rows:
            await self._gate("create_shard", "before")
            self.content.shards.setdefault((row.stream, row.id), row)

    async def write(self, before: ShardRow, after: ShardRow) -> Written:
        await self._gate("write", "before")
        written = self._write(before, after)
        await self._gate("write", "after")
        return written

    async def end(self, before: ShardRow, after: ShardRow, children: Sequence[ShardRow]) -> Written:
        await self._gate("end", "before")
        written = self._write(before, after)
        if written.applied:
            for child in children:
                known = self.content.shards.get((child.stream, child.id), child)
                self.content.shards[child.stream, child.id] = replace(
                    known, successor=child.successor
                )
        await self._gate("end", "after")
        return written

    async def remove_shard(self, row: ShardRow) -> bool:
        await self._gate("remove_shard", "before")
        known = self.content.shards.get((row.stream, row.id))
        if known is None or not known.ended or not known.same_version(row):
            return False
        del self.content.shards[row.stream, row.id]
        await self._gate("remove_shard", "after")
        return True

    def _write(self, before: ShardRow, after: ShardRow) -> Written:
        key = (before.stream, before.id)
        known = self.content.shards.get(key)
        if known is None or not known.same_version(before):
            return Written(False, known)
        self.content.shards[key] = after
        return Written(True, after)
