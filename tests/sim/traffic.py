"""What happens to the stream itself: records are put, shards are cut, and stragglers come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from processor.core.leases.rows import ShardRow
from processor.local.kinesis_model import NewRecord
from processor.local.kinesis_shards import Shard
from tests.sim.history import HASHES, RECORDS_UNTIL_S, SIZES_MS, Put, Reshard, record
from tests.sim.loop import SimLoop
from tests.sim.services import STREAM, Services
from tests.sim.truth import Family, Taken

STRAGGLER_S_MAX = 25.0  # after the mark that makes it late; an idle shard is judged after 30 s


class Traffic:
    """Puts and reshards; `taken` are all records as the stream took them."""

    def __init__(self, loop: SimLoop, services: Services, seed: int, note: Callable[[str], None]):
        self.taken: list[Taken] = []
        self._loop, self._services, self._note = loop, services, note
        self._rng = random.Random(f"traffic/{seed}")
        self._latest: dict[tuple[str, str], int] = {}  # (key, type) → event time
        self._stragglers = 0
        self._forgotten: list[Family] = []

    def put(self, batch: list[Put]) -> None:
        now_ms = self._services.now_ms()
        records = [NewRecord(one.payload, one.key) for one in batch]
        placed = self._services.model.put(STREAM, records, now_ms)
        for one, where in zip(batch, placed, strict=True):
            number = where.sequence_number
            assert number is not None, "the stream's limits are above what is put"
            self._latest[one.key, one.type] = one.at_ms
            self.taken.append(Taken(where.shard_id, number, one.payload))

    def families(self) -> Iterator[Family]:
        """All shards that there ever were, parents first."""
        yield from self._forgotten
        for shard in self._services.model.streams[STREAM].shards.values():
            if shard.shard_id not in {family.shard_id for family in self._forgotten}:
                yield _family(shard)

    def forget_closed(self) -> None:
        """Retention passes: the stream forgets its closed shards, which all were read."""
        shards = self._services.model.streams[STREAM].shards
        self._forgotten = [_family(shard) for shard in shards.values()]
        for shard in [shard for shard in shards.values() if not shard.is_open]:
            del shards[shard.shard_id]
        self._note(f"the stream forgets {len(self._forgotten) - len(shards)} closed shards")

    def on_mark(self, row: ShardRow) -> None:
        """An idle shard's time is about to go on: now and then, a record comes that is too old."""
        if self._loop.now > RECORDS_UNTIL_S or self._rng.random() < 0.5:
            return
        closing_ms = row.marks[-1].mark.watermark_ms
        for (key, type_), at_ms in sorted(self._latest.items()):
            size_ms = SIZES_MS.get(type_)
            is_here = row.shard.first_hash <= HASHES[key] <= row.shard.last_hash
            if size_ms and is_here and at_ms // size_ms * size_ms + size_ms <= closing_ms:
                delay_s = self._rng.uniform(0.01, STRAGGLER_S_MAX)
                self._loop.in_the_world(delay_s, self._put_straggler, key, type_, at_ms)
                return

    def _put_straggler(self, key: str, type_: str, at_ms: int) -> None:
        self._stragglers += 1
        self._note(f"a straggler of {key}: {type_} at {at_ms}")
        self.put([record(self._loop.now, key, f"s{self._stragglers}", type_, at_ms, 1)])

    def reshard(self, reshard: Reshard) -> None:
        stream = self._services.model.streams[STREAM]
        now_ms = self._services.now_ms()
        open_ = stream.open_shards
        at = int(reshard.draw * len(open_))
        match reshard.kind:
            case "split":
                shard, hashes = open_[at], open_[at].hash_range
                share = 0.2 + 0.6 * (reshard.draw * 1_000 % 1)
                stream.split(
                    shard.shard_id, hashes.first + int((hashes.last - hashes.first) * share), now_ms
                )
                self._note(f"splits {shard.shard_id[-2:]}")
            case "merge" if len(open_) > 2:
                one, other = open_[max(0, at - 1)], open_[max(1, at)]
                stream.merge(one.shard_id, other.shard_id, now_ms)
                self._note(f"merges {one.shard_id[-2:]} and {other.shard_id[-2:]}")
            case _:
                grows = reshard.draw < 0.5 or len(open_) < 4
                stream.scale(len(open_) + (1 if grows else -1), now_ms)
                self._note(f"scales from {len(open_)} shards to {len(stream.open_shards)}")


def _family(shard: Shard) -> Family:
    hashes = shard.hash_range
    return Family(shard.shard_id, hashes.first, hashes.last, shard.parent_ids)
