"""An encoder of the KPL's aggregates, from the published format, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

MAGIC = bytes.fromhex("f3899ac2")


def varint(number: int) -> bytes:
    """https://protobuf.dev/programming-guides/encoding/#varints"""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def text(field: int, value: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(value)) + value


def sealed(message: bytes) -> bytes:
    """What is sent: the magic, the message, its MD5."""
    return MAGIC + message + hashlib.md5(message).digest()


def record(data: bytes, key_at: int, explicit_at: int | None = None) -> bytes:
    explicit = b"" if explicit_at is None else number(2, explicit_at)
    return number(1, key_at) + explicit + text(3, data)


def aggregate(events: Iterable[tuple[str, bytes] | tuple[str, bytes, int | None]]) -> bytes:
    """Of (partition key, data) or (partition key, data, explicit hash key); keys in tables."""
    keys: list[str] = []
    explicit: list[str] = []
    records = b""
    for key, data, *hash_key in events:
        if key not in keys:
            keys.append(key)
        at = None
        if hash_key and hash_key[0] is not None:
            if str(hash_key[0]) not in explicit:
                explicit.append(str(hash_key[0]))
            at = explicit.index(str(hash_key[0]))
        records += text(3, record(data, keys.index(key), at))
    tables = b"".join(text(1, key.encode()) for key in keys)
    tables += b"".join(text(2, key.encode()) for key in explicit)
    return sealed(tables + records)
