"""What happens to the stream itself: records are put, shards are cut, and stragglers come."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from processor.core.leases.rows import ShardRow
from processor.local.kinesis_model import NewRecord
from processor.local.kinesis_shards import Shard
from tests.sim.history import (
    HASHES,
    OUT_OF_ORDERNESS_MS,
    RECORDS_UNTIL_S,
    SHARD_RULES,
    Put,
    Reshard,
    record,
)
from tests.sim.loop import SimLoop
from tests.sim.services import STREAM, Services
from tests.sim.truth import Family, Taken

SIZES_MS = {rule.type: rule.size_ms for rule in SHARD_RULES}
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
        """Retention passes: the streams forget their closed shards, which all were read."""
        self._forgotten = list(map(_family, self._services.model.streams[STREAM].shards.values()))
        for name, stream in self._services.model.streams.items():
            closed = [shard.shard_id for shard in stream.shards.values() if not shard.is_open]
            for shard_id in closed:
                del stream.shards[shard_id]
            self._note(f"the stream {name} forgets {len(closed)} closed shards")

    def on_mark(self, row: ShardRow) -> None:
        """An idle shard's time is about to go on, or it is let be: now and then, a record comes
        that is too old; for its shard, or only for others, who went on without it."""
        if row.stream.name != STREAM or self._loop.now > RECORDS_UNTIL_S:
            return
        if self._rng.random() < 0.5:
            return
        mark = row.marks[-1].mark
        if mark.fact == "quiet":
            self._follow_quiet(row, mark.watermark_ms)
        else:
            self._follow_idle(row, mark.watermark_ms)

    def _follow_idle(self, row: ShardRow, closing_ms: int) -> None:
        """Too late for its shard."""
        for (key, type_), at_ms in sorted(self._latest.items()):
            size_ms = SIZES_MS.get(type_)
            is_here = row.shard.first_hash <= HASHES[key] <= row.shard.last_hash
            if size_ms and is_here and at_ms // size_ms * size_ms + size_ms <= closing_ms:
                delay_s = self._rng.uniform(0.01, STRAGGLER_S_MAX)
                self._loop.in_the_world(delay_s, self._put_straggler, key, type_, at_ms)
                return

    def _follow_quiet(self, row: ShardRow, watermark_ms: int) -> None:
        """In time by its shard's own watermark."""
        keys = [k for k in HASHES if row.shard.first_hash <= HASHES[k] <= row.shard.last_hash]
        if keys and watermark_ms > 0:
            delay_s = self._rng.uniform(0.01, STRAGGLER_S_MAX)
            key, type_ = self._rng.choice(keys), self._rng.choice(tuple(SIZES_MS))
            at_ms = watermark_ms + OUT_OF_ORDERNESS_MS
            self._loop.in_the_world(delay_s, self._put_straggler, key, type_, at_ms)

    def _put_straggler(self, key: str, type_: str, at_ms: int) -> None:
        self._stragglers += 1
        self._note(f"a straggler of {key}: {type_} at {at_ms}")
        self.put([record(self._loop.now, key, f"s{self._stragglers}", type_, at_ms, 1)])

    def reshard(self, name: str, reshard: Reshard) -> None:
        """Cut a stream's shards anew."""
        stream = self._services.model.streams[name]
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
                self._note(f"splits {shard.shard_id[-2:]} of {name}")
            case "merge" if len(open_) > 2:
                one, other = open_[max(0, at - 1)], open_[max(1, at)]
                stream.merge(one.shard_id, other.shard_id, now_ms)
                self._note(f"merges {one.shard_id[-2:]} and {other.shard_id[-2:]} of {name}")
            case _:
                grows = reshard.draw < 0.5 or len(open_) < 4
                stream.scale(len(open_) + (1 if grows else -1), now_ms)
                self._note(f"scales {name} from {len(open_)} shards to {len(stream.open_shards)}")


def _family(shard: Shard) -> Family:
    hashes = shard.hash_range
    return Family(shard.shard_id, hashes.first, hashes.last, shard.parent_ids)
