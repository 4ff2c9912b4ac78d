"""`kpl`: records that the Kinesis Producer Library packed into one, taken apart again.

An aggregate is four magic bytes, a protobuf message, and the message's MD5:

    message AggregatedRecord {                    message Record {
      repeated string partition_key_table = 1;      required uint64 partition_key_index = 1;
      repeated string explicit_hash_key_table = 2;  optional uint64 explicit_hash_key_index = 2;
      repeated Record records = 3;                  required bytes data = 3;
    }                                               repeated Tag tags = 4;  // skipped

(github.com/awslabs/amazon-kinesis-producer, aggregation-format.md.) A record without the magic or
with another MD5 is passed as it is, as KCL does. One with the right MD5 that can't be read is a
fault, whole: KCL logs it and drops what it holds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from processor.codecs.base import Events, Fault

MAGIC = b"\xf3\x89\x9a\xc2"
_MD5_BYTES = 16
# The KPL's records are 50 KB by default, and 1 MiB at most. 10 MiB of empty events would be 1.7
# million Python objects; so many are some 30 MB.
EVENTS_MAX = 200_000
_HASH_KEY_MAX = 2**128 - 1

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_BYTES = {_FIXED64: 8, _FIXED32: 4}
_VARINT_BYTES_MAX = 10
# Wire types of the fields of either message.
_AGGREGATE = {1: _BYTES, 2: _BYTES, 3: _BYTES}
_RECORD = {1: _VARINT, 2: _VARINT, 3: _BYTES}


class Malformed(ValueError):
    """The message is not what it claims to be."""


class Kpl:
    kind: ClassVar[str] = "kpl"

    def split(self, payloads: Sequence[bytes], partition_keys: Sequence[str]) -> Events:
        events = Events([], [], [], [], [], {})
        hashes: dict[str, int] = {}  # of partition keys, which repeat
        for i, payload in enumerate(payloads):
            if not is_aggregate(payload):
                events.extend(i, [payload], [partition_keys[i]], [None])
                continue
            try:
                events.extend(i, *_contents(payload, hashes))
            except (Malformed, UnicodeDecodeError) as error:
                events.faults[len(events.payloads)] = Fault("bad_aggregate", str(error))
                events.extend(i, [payload], [partition_keys[i]], [None])
        return events


def is_aggregate(payload: bytes) -> bool:
    """Whether it carries the mark and the digest of one."""
    if not payload.startswith(MAGIC) or len(payload) <= len(MAGIC) + _MD5_BYTES:
        return False
    message = memoryview(payload)[len(MAGIC) : -_MD5_BYTES]
    return hashlib.md5(message, usedforsecurity=False).digest() == payload[-_MD5_BYTES:]


def hash_of(partition_key: str) -> int:
    """Where the service routes a partition key."""
    digest = hashlib.md5(partition_key.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest, "big")


# ---- the message ------------------------------------------------------------------------------


def _contents(payload: bytes, hashes: dict[str, int]) -> tuple[list[bytes], list[str], list[int]]:
    """Data, partition keys, and the hash keys by which they were routed, of all records in order.

    `hashes`: known ones of partition keys; takes up more.
    """
    keys: list[str] = []
    explicit: list[int] = []
    spans: list[tuple[int, int]] = []
    for field, start, stop in _fields(payload, len(MAGIC), len(payload) - _MD5_BYTES, _AGGREGATE):
        if field == 3:
            spans.append((start, stop))
            if len(spans) > EVENTS_MAX:
                raise Malformed(f"more than {EVENTS_MAX} events in one record")
        elif field == 1:
            keys.append(payload[start:stop].decode())
        elif field == 2:
            explicit.append(_hash_key(payload[start:stop]))
    hashes.update((key, hash_of(key)) for key in keys if key not in hashes)
    records = [_record(payload, start, stop) for start, stop in spans]
    _need(max((at for at, _, _ in records), default=-1), keys, "partition_key_index")
    _need(max((at for _, at, _ in records), default=-1), explicit, "explicit_hash_key_index")
    names = [keys[at] for at, _, _ in records]
    routed = [
        hashes[name] if at < 0 else explicit[at]
        for name, (_, at, _) in zip(names, records, strict=True)
    ]
    return [data for _, _, data in records], names, routed


def _need(largest: int, table: Sequence[object], name: str) -> None:
    if largest >= len(table):
        raise Malformed(f"{name} {largest} of a table of {len(table)}")


def _record(payload: bytes, start: int, stop: int) -> tuple[int, int, bytes]:
    """Indexes of its partition key and its explicit hash key (-1: none), and its data."""
    tags = payload[start : min(start + 3, stop) : 2]
    if tags == b"\x08\x1a" and payload[start + 1] < 0x80:
        # What the KPL writes: an index below 128, then the data, and nothing more.
        size, at = _varint(payload, start + 3, stop)
        if at + size == stop:
            return payload[start + 1], -1, payload[at:stop]
    key_at, explicit_at, data = -1, -1, None
    for field, at, end in _fields(payload, start, stop, _RECORD):
        if field == 1:
            key_at = _varint(payload, at, end)[0]
        elif field == 2:
            explicit_at = _varint(payload, at, end)[0]
        elif field == 3:
            data = payload[at:end]
    if key_at < 0 or data is None:
        missing = "data" if data is None else "partition_key_index"
        raise Malformed(f"a record without {missing} at byte {start}")
    return key_at, explicit_at, data


def _fields(
    payload: bytes, at: int, end: int, kinds: Mapping[int, int]
) -> Iterator[tuple[int, int, int]]:
    """(number, first byte, byte after the last) of each field of a message from `at` to `end`.

    `kinds`: the wire types of the fields that we know; others are skipped by theirs.
    """
    while at < end:
        tag, at = _varint(payload, at, end)
        kind = tag & 7
        if kind == _BYTES:
            size, at = _varint(payload, at, end)
        elif kind == _VARINT:
            size = _varint(payload, at, end)[1] - at
        elif kind in _FIXED_BYTES:
            size = _FIXED_BYTES[kind]
        else:
            raise Malformed(f"wire type {kind} at byte {at}")
        if size > end - at:
            raise Malformed(f"a field of {size} bytes at byte {at}, where {end - at} are left")
        if kinds.get(tag >> 3, kind) != kind:
            raise Malformed(f"field {tag >> 3} has wire type {kind} at byte {at}")
        yield tag >> 3, at, at + size
        at += size


def _varint(payload: bytes, at: int, end: int) -> tuple[int, int]:
    """The number, and the byte after it."""
    if at < end and payload[at] < 0x80:
        return payload[at], at + 1
    value = 0
    for i, byte in enumerate(payload[at : min(end, at + _VARINT_BYTES_MAX)]):
        value |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return value, at + i + 1
    raise Malformed(f"a number without end at byte {at}")


def _hash_key(text: bytes) -> int:
    if not text.isdigit() or len(text) > 39 or int(text) > _HASH_KEY_MAX:
        raise Malformed(f"explicit hash key {text[:60]!r}, expected up to 2^128 - 1")
    return int(text)
