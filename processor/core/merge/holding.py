"""Closings in their order, each once: what is repeated is skipped, what comes too early is held.

Whoever puts closings keeps the order of a bucket, and a crash repeats them from an earlier number
on; so a number is missing only while a request is on its way again, or for good, where this stage
began in the midst of things (a rollback, a stream past its retention).

    known life, a number is missing      held, up to HELD_MAX closings or HELD_BYTES_MAX; then the
                                         missing ones are given up
    the next one, some splits missing    held, up to NEXT_BYTES_MAX; then given up likewise
    new life that begins past number 0   held until JOIN_AFTER_MS later, by the arrival of whatever
                                         comes next; then it joins with the first one held

What was given up is told of (`is_after_gap`): windows that may lack something are partial.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec import Struct

from processor.core.merge.partials import Closing, Teller

HELD_MAX = 64
HELD_BYTES_MAX = 8 * 2**20
# Of the closing that is next, as its splits come: 100,000 groups of one bucket with a sketch or
# two each. Its shard held as much.
NEXT_BYTES_MAX = 512 * 2**20
JOIN_AFTER_MS = 60_000


class Whole(NamedTuple):
    """A closing with all its splits, in order."""

    splits: list[Closing]
    is_after_gap: bool


class Held(Struct):
    """Splits of one closing that have come, in order."""

    splits: list[Closing] = []
    bytes: int = 0

    @property
    def is_whole(self) -> bool:
        return bool(self.splits) and len(self.splits) == self.splits[0].splits

    def add(self, split: Closing, size: int) -> None:
        if self.splits and self.splits[0].splits != split.splits:
            self.splits, self.bytes = [], 0  # another release cuts them otherwise
        self.splits = sorted([*self.splits, split], key=lambda one: one.split)
        self.bytes += size

    def has(self, split: Closing) -> bool:
        return any((one.split, one.splits) == (split.split, split.splits) for one in self.splits)


class Queue(Struct):
    """The closings of one life of a shard that are to come, and those that are held."""

    life: tuple[str, str]
    next: int = 0
    has_begun: bool = False
    waits_since_ms: int = 0  # arrival of the first one held, while it has not begun
    held: dict[int, Held] = {}
    is_after_gap: bool = False  # what comes next follows on closings that were given up

    @property
    def is_over(self) -> bool:
        next_bytes = self.held[self.next].bytes if self.next in self.held else 0
        held_bytes = sum(each.bytes for each in self.held.values()) - next_bytes
        is_much = held_bytes > HELD_BYTES_MAX or next_bytes > NEXT_BYTES_MAX
        return len(self.held) > HELD_MAX or is_much


class Holding:
    """The queues of all shards that told of one rule's bucket."""

    def __init__(self) -> None:
        self._queues: dict[str, Queue] = {}

    def __repr__(self) -> str:
        held = sum(len(queue.held) for queue in self._queues.values())
        return f"<Holding {held} closings of {len(self._queues)} shards>"

    def put(self, closing: Closing, size: int, arrival_ms: int) -> list[Whole] | None:
        """Take a split of `size` bytes: gives the closings to apply now, in order; None where it
        was a repeat."""
        queue = self._queue(closing.teller)
        held = queue.held.get(closing.number)
        if closing.number < queue.next or (held is not None and held.has(closing)):
            return None
        if not queue.held:
            queue.waits_since_ms = arrival_ms
        queue.held.setdefault(closing.number, Held()).add(closing, size)
        ready = _ready(queue)
        while queue.is_over:
            ready += _skip(queue)
        return ready

    def join(self, arrival_ms: int) -> list[Whole]:
        """Closings to apply now that so much time has passed, shard by shard."""
        ready: list[Whole] = []
        for shard_id in sorted(self._queues):
            queue = self._queues[shard_id]
            waits = bool(queue.held) and not queue.has_begun
            if waits and arrival_ms - queue.waits_since_ms >= JOIN_AFTER_MS:
                ready += _skip(queue)
        return ready

    def keep(self, shard_ids: frozenset[str]) -> None:
        """Forget the queues of shards that are gone, but for what is held of lives to come."""
        self._queues = {
            shard_id: queue
            for shard_id, queue in self._queues.items()
            if shard_id in shard_ids or (queue.held and not queue.has_begun)
        }

    def _queue(self, teller: Teller) -> Queue:
        queue = self._queues.get(teller.shard_id)
        if queue is None or queue.life != teller.life:
            queue = self._queues[teller.shard_id] = Queue(teller.life)
        return queue

    def snapshot(self) -> dict[str, Queue]:
        return {shard_id: self._queues[shard_id] for shard_id in sorted(self._queues)}

    def restore(self, saved: dict[str, Queue]) -> None:
        self._queues = dict(saved)


def _ready(queue: Queue) -> list[Whole]:
    """Those that are whole from the next number on."""
    ready = []
    while (held := queue.held.get(queue.next)) is not None and held.is_whole:
        del queue.held[queue.next]
        ready.append(Whole(held.splits, queue.is_after_gap))
        queue.next, queue.has_begun, queue.is_after_gap = queue.next + 1, True, False
    return ready


def _skip(queue: Queue) -> list[Whole]:
    """Give up what is missing before the first one held that is whole, and all before it."""
    queue.is_after_gap = True
    whole = [number for number, held in queue.held.items() if held.is_whole]
    if not whole:  # parts of many closings: nothing that could be applied
        queue.next = max(queue.held) + 1
        queue.held.clear()
        return []
    queue.next = min(whole)
    queue.held = {number: held for number, held in queue.held.items() if number >= queue.next}
    return _ready(queue)
