"""States beside their rows, as chains of links: small ones as items, others as objects.

A link larger than a segment is several objects, so that no request is long, and a large state comes
over several connections. Packing and opening are done a few milliseconds at a time, on the loop:
who works on the state waits meanwhile, all others get their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

from processor.core.leases.rows import (
    Link,
    LinkRef,
    Place,
    ShardRow,
    StateRef,
    links_of,
    state_epoch,
    state_key,
    state_prefix,
)
from processor.core.stored.chain import SEGMENT_BYTES, Body, Chain
from processor.core.stored.chain_reader import Opening
from processor.core.stored.chain_writer import Packed, Packing
from processor.core.stored.stream import Part
from processor.errors import StateUnreadable, Unavailable
from processor.ports import ObjectStore
from processor.runtime.prefetch import Prefetched

ITEM_BYTES_MAX = 8 * 1024  # an item is billed by the KB on every write; an object by the request
ITEM_BYTES_LIMIT = 350_000  # where there is no object store; DynamoDB refuses items of 400 KB
TURN_BLOCKS = 32  # 8 MB: about 10 ms; then heartbeats and other shards get their turn
REQUESTS_MAX = 4  # at once, for one state: S3 gives a connection some 80 MB/s
SWEPT_MAX = 100  # a claim; what is left stays for the next one

T = TypeVar("T")


class Stored(NamedTuple):
    """A stored state: what a row says of it, and its blocks, which the next link goes on from."""

    ref: StateRef
    chain: Chain


class Captured(NamedTuple):
    """What is to be stored of a state, and the CPU seconds that it took to find out."""

    packed: Packed
    cpu_s: float


class StateStore:
    """Puts and gets the states that rows refer to. Errors of the stores below pass through."""

    def __init__(self, items: ObjectStore, objects: ObjectStore | None) -> None:
        self._stores: dict[Place, ObjectStore] = {"item": items}
        if objects is not None:
            self._stores["object"] = objects
        self.prefetched = Prefetched()

    # ---- putting

    async def pack(
        self,
        shard_id: str,
        message: Iterable[Part],
        before: Stored | None,
        cpu_s: Callable[[], float],
    ) -> Captured:
        """What of a message is new since `before`; the message must not change meanwhile.

        `cpu_s`: the thread's CPU seconds. Raises Unavailable if the message is larger than any
        reader would believe.
        """
        large: Place = "object" if "object" in self._stores else "item"
        chain = before.chain if before is not None and before.ref.where == large else None
        packing, blocks = Packing(chain), 0
        began_s, spent_s = cpu_s(), 0.0
        for part in message:
            for _ in packing.add(part):
                blocks += 1
                if blocks % TURN_BLOCKS == 0:
                    spent_s += cpu_s() - began_s
                    await asyncio.sleep(0)
                    began_s = cpu_s()
        try:
            packed = packing.finish()
        except ValueError as error:
            remedy = "lower max_groups, or split the shard"
            raise Unavailable(f"state of {shard_id}", f"storing {error}", remedy) from error
        return Captured(packed, spent_s + cpu_s() - began_s)

    async def put(self, row: ShardRow, commit: int, write_id: str, packed: Packed) -> Stored:
        """Store what commit `commit` of `row` will refer to; before that, nothing refers to it."""
        body = packed.body
        where = self._place(row, packed)
        key = state_key(row, commit, write_id)
        store = self._stores[where]
        segments = zip(_segment_keys(key, body.size), body.segments, strict=True)
        await _each([partial(store.put, name, segment) for name, segment in segments])
        older = tuple(Link(name, size) for name, size in packed.older.items())
        ref = StateRef(where, key, body.digest, body.size, older)
        return Stored(ref, packed.chain(_name(key)))

    def _place(self, row: ShardRow, packed: Packed) -> Place:
        size = packed.body.size
        if size <= ITEM_BYTES_MAX and not packed.older:
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

    # ---- getting

    async def get(self, shard_id: str, ref: StateRef) -> tuple[bytes, Stored]:
        """The state; StateUnreadable if any of it is missing or not what was put."""
        found = await _each([partial(self._link, shard_id, link) for link in ref.links])
        *older, newest = found
        bodies = {link.name: body for link, body in zip(ref.older, older, strict=True)}
        if newest.digest != ref.digest:
            raise StateUnreadable(shard_id, f"{ref.where} {ref.key} has another digest")
        try:
            opening = Opening(_name(ref.key), newest)
            missing = set(opening.links) - bodies.keys()
            if missing:
                raise ValueError(f"needs {sorted(missing)}, which the row does not name")
            pieces = []
            for piece in opening.message(bodies):
                pieces.append(piece)
                if len(pieces) % TURN_BLOCKS == 0:
                    await asyncio.sleep(0)
        except ValueError as error:
            raise StateUnreadable(shard_id, f"{ref.where} {ref.key}: {error}") from error
        return b"".join(pieces), Stored(ref, opening.chain)

    async def prefetch(self, shard_id: str, refs: Iterable[StateRef]) -> None:
        """Have at hand what `get` will be asked for, as far as there is room; what is missing or
        damaged shows there. Kept, also for chains that grew on it, until `prefetched.drop`.
        Cancelling is safe."""
        for link in [link for ref in refs for link in ref.links]:
            if link.where in self._stores and self.prefetched.reserve(shard_id, link):
                body: Body | None = None
                try:
                    body = await self._body(shard_id, link)
                except StateUnreadable:
                    pass  # it is for `get` to say so
                finally:
                    self.prefetched.keep(shard_id, link, body)

    async def _link(self, shard_id: str, link: LinkRef) -> Body:
        body = self.prefetched.find(shard_id, link)
        return body if body is not None else await self._body(shard_id, link)

    async def _body(self, shard_id: str, link: LinkRef) -> Body:
        store = self._stores.get(link.where)
        what = f"{link.where} {link.key}"
        if store is None:
            raise StateUnreadable(shard_id, f"{what}: state.objects is not set")
        keys = _segment_keys(link.key, link.stored_bytes)
        found = await _each([partial(store.get, key) for key in keys])
        segments = [segment for segment in found if segment is not None]
        if len(segments) < len(keys):
            raise StateUnreadable(shard_id, f"{what} is missing")
        body = Body(segments)
        if body.size != link.stored_bytes or any(len(s) != SEGMENT_BYTES for s in segments[:-1]):
            reason = f"{what} has another length: {body.size} bytes instead of {link.stored_bytes}"
            raise StateUnreadable(shard_id, reason)
        return body

    # ---- removing

    async def remove(self, links: Iterable[LinkRef]) -> None:
        links = list(links)
        for where, store in self._stores.items():
            mine = [link for link in links if link.where == where]
            keys = [key for link in mine for key in _segment_keys(link.key, link.stored_bytes)]
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
        kept = links_of(row)
        swept = 0
        for store in self._stores.values():
            keys = await store.list(state_prefix(row.stream, row.id))
            stale = [k for k in keys if _link_key(k) not in kept and state_epoch(k) < row.epoch]
            if stale:
                await store.delete(stale[:SWEPT_MAX])
            swept += len(stale[:SWEPT_MAX])
        return swept


def _segment_keys(key: str, size: int) -> list[str]:
    """Where a link's segments are; most have one, under the link's own key."""
    count = -(-size // SEGMENT_BYTES)
    return [key, *(f"{key}.{i:03d}" for i in range(1, count))]


def _link_key(key: str) -> str:
    """The inverse: the link that a segment belongs to."""
    prefix, _, name = key.rpartition("/")
    return f"{prefix}/{name.partition('.')[0]}"


def _name(key: str) -> str:
    return key.rpartition("/")[2]


async def _each(calls: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """All results in order, a few calls at a time; at the first failure the others end too."""
    if len(calls) == 1:
        return [await calls[0]()]
    room = asyncio.Semaphore(REQUESTS_MAX)

    async def one(call: Callable[[], Awaitable[T]]) -> T:
        async with room:
            return await call()

    tasks = [asyncio.ensure_future(one(call)) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)  # nothing goes on when this has returned
