"""Opens a stored chain: checks everything that it says, and gives the message back in pieces."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from itertools import pairwise

import msgspec
import xxhash

from processor.core.stored.chain import (
    BLOCK_BYTES,
    FORMAT_VERSION,
    KEPT_BYTES_MAX,
    LENGTH_BYTES,
    MAGIC,
    MANIFEST_BYTES_MAX,
    STATE_BYTES_MAX,
    Block,
    BlockId,
    Body,
    Chain,
    Layer,
    Manifest,
    StoredBlock,
    xor,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPENING = len(MAGIC) + 1


class Opening:
    """A state's newest link, opened; all of it raises ValueError where it is none.

    First fetch `links`, then read `message` to its end; then there is `chain`.
    """

    def __init__(self, name: str, body: Body):
        """The body's digest must have been checked."""
        _check_version(body)
        size = int.from_bytes(body.slice(body.size - LENGTH_BYTES, LENGTH_BYTES), "big")
        packed = body.slice(body.size - LENGTH_BYTES - size, size)
        manifest = _decompressed(packed, MANIFEST_BYTES_MAX)
        try:
            self._manifest = msgspec.msgpack.decode(manifest, type=Manifest)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError(f"no list of blocks: {error}") from error
        self._names = [name, *self._manifest.links]
        self._own = body
        self._blocks: dict[BlockId, Block] = {}
        self._check()

    @property
    def links(self) -> list[str]:
        """The names of the older links that are needed."""
        return self._names[1:]

    def message(self, older: Mapping[str, Body]) -> Iterator[bytes]:
        """The message's pieces in order, each at most a block's work; `older` by name."""
        bodies = {**older, self._names[0]: self._own}
        head, begun = self._manifest.head, 0
        kept_bytes = 0
        for part in self._manifest.parts:
            yield head[begun : part.at]
            begun = part.at
            for i, stored in enumerate(part.blocks):
                data, block = self._read(stored, bodies, f"block {i} of {part.path}")
                kept_bytes += len(block.kept or b"")
                self._blocks[part.path, i] = (
                    block if kept_bytes < KEPT_BYTES_MAX else block._replace(kept=None)
                )
                yield data
        yield head[begun:]
        self.chain = Chain(self._blocks, {name: bodies[name].size for name in self._order()})

    def _order(self) -> list[str]:
        return [*self._names[1:], self._names[0]]

    def _read(
        self, stored: StoredBlock, bodies: Mapping[str, Body], what: str
    ) -> tuple[bytes, Block]:
        layers = tuple(Layer(self._names[link], at, size) for link, at, size in stored.layers)
        try:
            first, *more = (
                _decompressed(bodies[layer.link].slice(layer.at, layer.size), BLOCK_BYTES)
                for layer in layers
            )
        except ValueError as error:
            raise ValueError(f"{what} in {layers[-1].link}: {error}") from error
        data = xor(more[0], first) if more else first
        if len(data) != stored.size or xxhash.xxh3_128_digest(data) != stored.digest:
            places = " and ".join(layer.link for layer in layers)
            raise ValueError(f"{what} in {places} has another digest")
        return data, Block(stored.size, stored.digest, layers, first)

    def _check(self) -> None:
        """What the manifest's types don't tell."""
        manifest = self._manifest
        places = [0, *(part.at for part in manifest.parts), len(manifest.head)]
        blocks = [block for part in manifest.parts for block in part.blocks]
        size = len(manifest.head) + sum(block.size for block in blocks)
        if size > STATE_BYTES_MAX:
            raise ValueError(f"{size} bytes, more than any state's {STATE_BYTES_MAX}")
        if any(a > b for a, b in pairwise(places)):
            raise ValueError("parts out of order")
        if any(layer[0] >= len(self._names) for block in blocks for layer in block.layers):
            raise ValueError("a block in a link that is not named")


def _check_version(body: Body) -> None:
    if body.size < _OPENING + LENGTH_BYTES:
        raise ValueError(f"{body.size} bytes are no state")
    opening = bytes(body.slice(0, _OPENING))
    if opening[:-1] != MAGIC:
        raise ValueError(f"begins with {opening!r}, expected {MAGIC!r}: no state of this program")
    if opening[-1] != FORMAT_VERSION:
        raise ValueError(
            f"format version {opening[-1]}, this release reads {FORMAT_VERSION}: "
            "deploy the release that wrote it"
        )


def _decompressed(data: bytes | memoryview, size_max: int) -> bytes:
    """One whole frame of at most so many bytes; no more than that is ever made of it."""
    opener = zstd.ZstdDecompressor()
    try:
        result = opener.decompress(data, size_max + 1)
    except zstd.ZstdError as error:
        raise ValueError(f"damaged: {error}") from error
    if len(result) > size_max:
        raise ValueError(f"more than {size_max} bytes")
    if not opener.eof or opener.unused_data:
        raise ValueError("cut off" if not opener.eof else "bytes after the end")
    return result
