"""Stored states as chains: a link holds what changed, and names the older links that hold the rest.

A message's large parts are cut into blocks of 256 KB, found again by (path, number) in the next
message; everything else is the head, and is stored each time. A block is stored

    not at all      where its digest is as it was
    as a difference (XOR, compressed) to what an older link holds whole, if that halves it: of a
                    detector's memory one window changes some bytes in every row, so every block
    whole           otherwise

so it is at most two layers deep. A link, in the order of its bytes:

    "KSPS"  version  layers …  manifest, compressed  the manifest's length (4 bytes)

The manifest lists all blocks of the state with digest and layers. What it says is only believed if
the link's digest is what the lease's row says, and each block if it has the digest that the
manifest says; so an older link needs no digest of its own.

Links stay few: once there are eight, what is still needed of the one with the least of it is stored
anew, and so is that of the emptiest ones while less than half of all stored bytes are needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

import numpy as np
import xxhash
from msgspec import Meta, Struct

FORMAT_VERSION = 2  # 1 was one zlib stream, with nothing that said so
SEGMENT_BYTES = 16 * 1024 * 1024  # a request to a store: 0.2 s of what S3 gives a connection
BLOCK_BYTES = 256 * 1024  # hashed in 10 µs, compressed in 250
PART_BYTES_MIN = 64 * 1024  # a smaller part stays in the head: a block's entry costs 40 bytes
LINKS_MAX = 8
SLACK_BYTES = 1024 * 1024  # stored and not needed; below that nothing is stored anew
# What no pipeline needs: a reader that is told so is not being told the truth.
STATE_BYTES_MAX = 4 * 1024**3
MANIFEST_BYTES_MAX = 64 * 1024**2
# What blocks hold whole is kept to tell differences; past that they are stored whole when changed.
KEPT_BYTES_MAX = 1024**3

MAGIC = b"KSPS"
LENGTH_BYTES = 4

Count = Annotated[int, Meta(ge=0, le=STATE_BYTES_MAX)]


class Layer(NamedTuple):
    """Where some of a block's bytes are: in which link (empty: this one), from where, how many."""

    link: str
    at: int
    size: int


class Block(NamedTuple):
    """A block as last stored; `kept` is what its first layer holds, None if that was too much."""

    size: int
    digest: bytes
    layers: tuple[Layer, ...]
    kept: bytes | None

    def __repr__(self) -> str:
        return f"<Block of {self.size} bytes in {' + '.join(n.link for n in self.layers)}>"


BlockId = tuple[str, int]


class Chain(Struct, frozen=True):
    """What is stored of a state: its blocks, and the links that hold them, with their bytes."""

    blocks: Mapping[BlockId, Block]
    links: Mapping[str, int]

    def __repr__(self) -> str:
        return f"<Chain of {len(self.blocks)} blocks in {dict(self.links)}>"


class StoredBlock(Struct, frozen=True, array_like=True):
    """A block in a manifest; layers are (index of the link, at, size), 0 being the link itself."""

    size: Annotated[int, Meta(ge=0, le=BLOCK_BYTES)]
    digest: bytes
    layers: Annotated[list[tuple[Count, Count, Count]], Meta(min_length=1, max_length=2)]


class StoredPart(Struct, frozen=True, array_like=True):
    """A part that was cut; its place is before the head's byte `at`."""

    path: str
    at: Count
    blocks: list[StoredBlock]


class Manifest(Struct, frozen=True, array_like=True):
    links: Annotated[list[str], Meta(max_length=LINKS_MAX)]  # older ones
    head: bytes
    parts: list[StoredPart]


class Body:
    """A link's bytes as they are stored, in segments of `SEGMENT_BYTES` but for the last."""

    def __init__(self, segments: Sequence[bytes]):
        self.segments = segments
        self.size = sum(map(len, segments))

    def __repr__(self) -> str:
        return f"<Body of {self.size} bytes>"

    @property
    def digest(self) -> str:
        hasher = xxhash.xxh3_128()
        for segment in self.segments:
            hasher.update(segment)
        return hasher.hexdigest()

    def slice(self, at: int, size: int) -> bytes | memoryview:
        """Raises ValueError where there are no such bytes."""
        if at < 0 or size < 0 or at + size > self.size:
            raise ValueError(f"bytes {at} to {at + size} of {self.size}")
        i, start = divmod(at, SEGMENT_BYTES)
        if start + size <= SEGMENT_BYTES:
            return memoryview(self.segments[i])[start : start + size] if size else b""
        first = self.segments[i][start:]
        return first + bytes(self.slice(at + len(first), size - len(first)))


def xor(data: bytes | memoryview, other: bytes) -> bytes:
    """Of the length of `data`; beyond the end of `other` as it is."""
    result = np.array(np.frombuffer(data, np.uint8))
    n = min(len(result), len(other))
    result[:n] ^= np.frombuffer(other, np.uint8)[:n]
    return result.tobytes()
