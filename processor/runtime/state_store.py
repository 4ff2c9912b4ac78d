"""States beside their rows: compressed, checked by digest; small as items, others as objects."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterable
from typing import Literal

import xxhash

from processor.core.rows import (
    ShardRow,
    StateRef,
    state_epoch,
    state_key,
    state_prefix,
)
from processor.errors import StateUnreadable, Unavailable
from processor.ports import ObjectStore
from processor.runtime.prefetch import Prefetched

Place = Literal["item", "object"]

ITEM_BYTES_MAX = 8 * 1024  # an item is billed by the KB on every write; an object by the request
ITEM_BYTES_LIMIT = 350_000  # where there is no object store; DynamoDB refuses items of 400 KB
PIECE_BYTES = 256 * 1024  # compressed in about 5 ms: heartbeats get their turn in between
SWEPT_MAX = 100  # a claim; what is left stays for the next one


class StateStore:
    """Puts and gets the states that rows refer to. Errors of the stores below pass through."""

    def __init__(self, items: ObjectStore, objects: ObjectStore | None) -> None:
        self._stores: dict[Place, ObjectStore] = {"item": items}
        if objects is not None:
            self._stores["object"] = objects
        self.prefetched = Prefetched()

    async def put(self, row: ShardRow, commit: int, write_id: str, state: bytes) -> StateRef:
        """Store what commit `commit` of `row` will refer to; before that, nothing refers to it."""
        body = await _compress(state)
        where = self._place(row, len(body))
        key = state_key(row, commit, write_id)
        await self._stores[where].put(key, body)
        return StateRef(where, key, xxhash.xxh3_128_hexdigest(body), len(body))

    async def get(self, shard_id: str, ref: StateRef) -> bytes:
        """The state; StateUnreadable if it is missing or not what was put."""
        if ref.where not in self._stores:
            raise StateUnreadable(shard_id, f"{ref.key} is an object, and state.objects is not set")
        body = self.prefetched.find(shard_id, ref)
        if body is None:
            body = await self._stores[ref.where].get(ref.key)
        if body is None:
            raise StateUnreadable(shard_id, f"{ref.where} {ref.key} is missing")
        if xxhash.xxh3_128_hexdigest(body) != ref.digest:
            raise StateUnreadable(shard_id, f"{ref.where} {ref.key} has another digest")
        return await _decompress(body)

    async def prefetch(self, shard_id: str, refs: Iterable[StateRef]) -> None:
        """Have at hand what `get` will be asked for, as far as there is room; what is missing or
        damaged shows there. Kept until `prefetched.drop`. Cancelling is safe."""
        for ref in refs:
            if ref.where in self._stores and self.prefetched.reserve(shard_id, ref):
                body: bytes | None = None
                try:
                    body = await self._stores[ref.where].get(ref.key)
                finally:
                    self.prefetched.keep(shard_id, ref, body)

    async def remove(self, refs: Iterable[StateRef]) -> None:
        for where, store in self._stores.items():
            keys = [ref.key for ref in refs if ref.where == where]
            if keys:
                await store.delete(keys)

    async def remove_all(self, row: ShardRow) -> None:
        """Every state of a shard whose row is about to go."""
        for store in self._stores.values():
            keys = await store.list(state_prefix(row.stream, row.id))
            if keys:
                await store.delete(keys)

    async def sweep(self, row: ShardRow) -> int:
        """Delete states of older epochs that `row`, just claimed, doesn't refer to; how many."""
        kept = {pair.state.key for pair in row.pairs if pair.state}
        swept = 0
        for store in self._stores.values():
            keys = await store.list(state_prefix(row.stream, row.id))
            stale = [key for key in keys if key not in kept and state_epoch(key) < row.epoch]
            if stale:
                await store.delete(stale[:SWEPT_MAX])
            swept += len(stale[:SWEPT_MAX])
        return swept

    def _place(self, row: ShardRow, size: int) -> Place:
        if size <= ITEM_BYTES_MAX:
            return "item"
        if "object" in self._stores:
            return "object"
        if size <= ITEM_BYTES_LIMIT:
            return "item"
        raise Unavailable(
            f"object store for the state of {row.id}",
            f"storing {size} bytes",
            "name a bucket or a folder in state.objects",
        )


async def _compress(state: bytes) -> bytes:
    packer = zlib.compressobj(level=1)  # about 80 MB/s; higher levels gain little on columns
    pieces = []
    for start in range(0, len(state), PIECE_BYTES):
        pieces.append(packer.compress(state[start : start + PIECE_BYTES]))
        await asyncio.sleep(0)
    return b"".join([*pieces, packer.flush()])


async def _decompress(body: bytes) -> bytes:
    opener = zlib.decompressobj()
    pieces = []
    for start in range(0, len(body), PIECE_BYTES):
        pieces.append(opener.decompress(body[start : start + PIECE_BYTES]))
        await asyncio.sleep(0)
    return b"".join([*pieces, opener.flush()])
