"""Rows as DynamoDB items, and where in the table they stand.

    pk                       sk                          what
    app                      STREAM@CREATED              which application follows the stream
    worker#STREAM@CREATED    WORKER ID                   worker rows: one Query
    shard#0 … shard#15       STREAM@CREATED#SHARD ID     shard rows, by hash of the shard id
    state#STREAM@CREATED/ID  EPOCH-COMMIT-WRITE ID       a shard's small states
    instructions#APP         000 … 255                   what people asked: one Query
    taken#APP                INSTRUCTION ID#SHARD        which shards took it

Sixteen buckets because one partition takes 1,000 writes a second, and so do not even 10,000 shards
on one bucket's neighbours. Positions are text that sorts as they do; what a worker holds is packed,
so that the row of fifty leases stays within one write unit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from processor.core.instructions import Instruction, decoded, encoded
from processor.core.leases.rows import (
    AppRow,
    CommittedMark,
    Generation,
    Held,
    Pair,
    Ready,
    ShardRow,
    StateRef,
    StreamKey,
    WorkerRow,
    position_of,
    position_text,
)
from processor.model import Mark, Shard
from processor.ports import Placed

Item = dict[str, Any]

BUCKETS = 16
APPS = "app"
GENERATIONS = "generations"  # of an application's row: only there once one is known
BEHIND = "behind_ms"  # of a worker's row: only there while a shard of it catches up
READY = "ready"  # of a worker's row: only there while it waits for a lease
# What changes in a shard's row; the rest stays as it was created.
CHANGING = (
    "owner",
    "epoch",
    "commit",
    "write_id",
    "seeks",
    "ended",
    "successor",
    "moved",
    "position",
    "pairs",
    "marks",
    "caught_up_at_ms",
    "generation",
)


class _StoredPair(Struct, array_like=True):
    position: str
    commit: int
    state: StateRef | None


class _StoredMark(Struct, array_like=True):
    commit: int
    position: str
    fact: str
    watermark_ms: int
    shard_id: str = ""
    payload: str = ""


# ---- keys -----------------------------------------------------------------------------------


def key(pk: str, sk: str) -> Item:
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def app_key(stream: StreamKey) -> Item:
    return key(APPS, str(stream))


def workers_pk(stream: StreamKey) -> str:
    return f"worker#{stream}"


def worker_key(stream: StreamKey, worker_id: str) -> Item:
    return key(workers_pk(stream), worker_id)


def bucket_pk(bucket: int) -> str:
    return f"shard#{bucket}"


def shards_prefix(stream: StreamKey) -> str:
    return f"{stream}#"


def shard_key(stream: StreamKey, shard_id: str) -> Item:
    bucket = zlib.crc32(shard_id.encode()) % BUCKETS
    return key(bucket_pk(bucket), shards_prefix(stream) + shard_id)


def state_place(name: str) -> tuple[str, str]:
    """pk and sk of a stored state by its key, or of a prefix of keys."""
    folder, _, file = name.rpartition("/")
    return f"state#{folder}", file


def instructions_pk(app: str) -> str:
    return f"instructions#{app}"


def instruction_key(app: str, place: int) -> Item:
    return key(instructions_pk(app), f"{place:03d}")


def taken_pk(app: str) -> str:
    return f"taken#{app}"


def taken_sk(instruction_id: str, shard: str) -> str:
    return f"{instruction_id}#{shard}"


def taken_key(app: str, instruction_id: str, shard: str) -> Item:
    return key(taken_pk(app), taken_sk(instruction_id, shard))


# ---- what people asked ----------------------------------------------------------------------


def expiry(instruction: Instruction) -> Item:
    """In seconds, as DynamoDB's own time to live wants it, where a table has that for this name."""
    return {"expires_at": {"N": str(-(-instruction.expires_ms // 1_000))}}


def instruction_item(app: str, placed: Placed) -> Item:
    body = {"id": {"S": placed.instruction.id}, "body": {"S": encoded(placed.instruction)}}
    return instruction_key(app, placed.place) | body | expiry(placed.instruction)


def placed(item: Mapping[str, Any]) -> Placed:
    return Placed(int(item["sk"]["S"]), decoded(item["body"]["S"]))


# ---- rows -----------------------------------------------------------------------------------


def app_item(row: AppRow) -> Item:
    fixed: Item = {"app": {"S": row.app}, "start": {"S": position_text(row.start)}}
    if row.buckets is not None:
        fixed["buckets"] = {"N": str(row.buckets)}
    return app_key(row.stream) | fixed | generation_values(row)


def generation_values(row: AppRow) -> Item:
    """What changes of an application's row; nothing while it has no generation."""
    text = msgspec.json.encode([(one.number, one.pipeline) for one in row.generations]).decode()
    return {GENERATIONS: {"S": text}} if row.generations else {}


def app_row(item: Mapping[str, Any], stream: StreamKey) -> AppRow:
    known = msgspec.json.decode(item.get(GENERATIONS, {"S": "[]"})["S"])
    generations = tuple(Generation(*one) for one in known)
    start = position_of(item["start"]["S"])
    buckets = int(item["buckets"]["N"]) if "buckets" in item else None
    return AppRow(item["app"]["S"], stream, start, generations, buckets)


def worker_values(row: WorkerRow) -> Item:
    """What a heartbeat says."""
    values: Item = {
        "counter": {"N": str(row.counter)},
        "draining": {"BOOL": row.draining},
        "held": {"B": _packed(row.held)},
        "generation": {"N": str(row.generation)},
    }
    if row.ready:
        values[READY] = {"B": _packed(row.ready)}
    if row.behind_ms is not None:
        values[BEHIND] = {"N": str(row.behind_ms)}
    return values


def _packed(values: Iterable[Struct]) -> bytes:
    return zlib.compress(msgspec.json.encode([msgspec.structs.astuple(one) for one in values]))


def _unpacked(item: Mapping[str, Any], name: str) -> list[list[Any]]:
    """Nothing, if the item has no such value."""
    packed = item.get(name)
    values: list[list[Any]] = msgspec.json.decode(zlib.decompress(packed["B"])) if packed else []
    return values


def worker_row(item: Mapping[str, Any]) -> WorkerRow:
    return WorkerRow(
        item["sk"]["S"],
        int(item["counter"]["N"]),
        draining=item["draining"]["BOOL"],
        buried="buried" in item,
        held=tuple(Held(*one) for one in _unpacked(item, "held")),
        ready=tuple(Ready(*one) for one in _unpacked(item, READY)),
        generation=int(item.get("generation", {"N": "0"})["N"]),
        behind_ms=int(item[BEHIND]["N"]) if BEHIND in item else None,
    )


def shard_item(row: ShardRow) -> Item:
    """A new row, whole."""
    fixed: Item = {
        "parents": {"S": msgspec.json.encode(row.shard.parents).decode()},
        "first_hash": {"S": str(row.shard.first_hash)},  # 128 bits: too long for a number
        "last_hash": {"S": str(row.shard.last_hash)},
    }
    return shard_key(row.stream, row.id) | fixed | shard_values(row)


def shard_values(row: ShardRow) -> Item:
    """What changes; absent: None."""
    pairs = [_StoredPair(position_text(p.position), p.commit, p.state) for p in row.pairs]
    marks = [
        _StoredMark(
            m.commit,
            position_text(m.mark.position),
            m.mark.fact,
            m.mark.watermark_ms,
            m.mark.shard_id,
            m.mark.payload,
        )
        for m in row.marks
    ]
    values: Item = {
        "epoch": {"N": str(row.epoch)},
        "commit": {"N": str(row.commit)},
        "write_id": {"S": row.write_id},
        "seeks": {"N": str(row.seeks)},
        "ended": {"BOOL": row.ended},
        "moved": {"BOOL": row.moved},
        "generation": {"N": str(row.generation)},
        "position": {"S": position_text(row.position)},  # for people; `pairs` is what counts
        "pairs": {"S": msgspec.json.encode(pairs).decode()},
        "marks": {"S": msgspec.json.encode(marks).decode()},
    }
    if row.owner is not None:
        values["owner"] = {"S": row.owner}
    if row.successor is not None:
        values["successor"] = {"S": row.successor}
    if row.caught_up_at_ms is not None:
        values["caught_up_at_ms"] = {"N": str(row.caught_up_at_ms)}
    return values


def shard_row(item: Mapping[str, Any], stream: StreamKey) -> ShardRow:
    caught_up = item.get("caught_up_at_ms")
    return ShardRow(
        stream,
        _shard(item, stream),
        _pairs(item),
        owner=item.get("owner", {}).get("S"),
        epoch=int(item["epoch"]["N"]),
        commit=int(item["commit"]["N"]),
        write_id=item["write_id"]["S"],
        seeks=int(item["seeks"]["N"]),
        ended=item["ended"]["BOOL"],
        successor=item.get("successor", {}).get("S"),
        moved=item["moved"]["BOOL"],
        marks=_marks(item),
        caught_up_at_ms=None if caught_up is None else int(caught_up["N"]),
        generation=int(item.get("generation", {"N": "0"})["N"]),
    )


def _shard(item: Mapping[str, Any], stream: StreamKey) -> Shard:
    return Shard(
        item["sk"]["S"].removeprefix(shards_prefix(stream)),
        int(item["first_hash"]["S"]),
        int(item["last_hash"]["S"]),
        msgspec.json.decode(item["parents"]["S"], type=tuple[str, ...]),
    )


def _pairs(item: Mapping[str, Any]) -> tuple[Pair, ...]:
    stored = msgspec.json.decode(item["pairs"]["S"], type=list[_StoredPair])
    return tuple(Pair(position_of(one.position), one.commit, one.state) for one in stored)


def _marks(item: Mapping[str, Any]) -> tuple[CommittedMark, ...]:
    stored = msgspec.json.decode(item["marks"]["S"], type=list[_StoredMark])
    return tuple(CommittedMark(one.commit, _mark(one)) for one in stored)


def _mark(one: _StoredMark) -> Mark:
    values = {
        "position": position_of(one.position),
        "fact": one.fact,
        "watermark_ms": one.watermark_ms,
        "shard_id": one.shard_id,
        "payload": one.payload,
    }
    return msgspec.convert(values, Mark)
