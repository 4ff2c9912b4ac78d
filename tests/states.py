"""Stored states for tests: links made of messages, outside of any store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from processor.core.stored.chain import Body, Chain
from processor.core.stored.chain_reader import Opening
from processor.core.stored.chain_writer import Packed, Packing
from processor.core.stored.stream import Part, whole


def packed(message: bytes | Iterable[Part], chain: Chain | None = None) -> Packed:
    packing = Packing(chain)
    for part in whole(message) if isinstance(message, bytes) else message:
        for _ in packing.add(part):
            pass
    return packing.finish()


def opened(name: str, bodies: Mapping[str, Body]) -> tuple[bytes, Chain]:
    """The message under a name, and its chain; ValueError if it can't be read."""
    older = dict(bodies)
    opening = Opening(name, older.pop(name))
    message = b"".join(opening.message(older))
    return message, opening.chain


def flipped(body: bytes, bit: int) -> bytes:
    changed = bytearray(body)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
