"""Makes the next link of a chain: what of a message is new since the last link was stored."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

import msgspec
import xxhash
from msgspec import Struct

from processor.core.stored.chain import (
    BLOCK_BYTES,
    FORMAT_VERSION,
    KEPT_BYTES_MAX,
    LENGTH_BYTES,
    LINKS_MAX,
    MAGIC,
    MANIFEST_BYTES_MAX,
    PART_BYTES_MIN,
    SEGMENT_BYTES,
    SLACK_BYTES,
    STATE_BYTES_MAX,
    Block,
    BlockId,
    Body,
    Chain,
    Layer,
    Manifest,
    StoredBlock,
    StoredPart,
    xor,
)
from processor.core.stored.stream import Part

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# Level 1 takes 1.2 GB/s of columns, where zlib's takes 50 MB/s to the same size; 3 gains nothing.
LEVEL = 1


class Packed(Struct, frozen=True):
    """A link that is to be stored, and the state's blocks when it is."""

    body: Body
    blocks: Mapping[BlockId, Block]
    older: Mapping[str, int]  # the older links that it needs, with their bytes

    def __repr__(self) -> str:
        return f"<Packed {self.body!r} of {len(self.blocks)} blocks, and {dict(self.older)}>"

    def chain(self, name: str) -> Chain:
        """The chain once the link is stored under that name."""
        blocks = {id_: _named(block, name) for id_, block in self.blocks.items()}
        return Chain(blocks, {**self.older, name: self.body.size})


class Packing:
    """Makes a link of a message; a turn is at most a block's work."""

    def __init__(self, chain: Chain | None = None):
        self._chain = chain or Chain({}, {})
        self._left = _to_leave(self._chain)
        self._head = bytearray()
        self._parts: list[tuple[str, int, int]] = []  # path, place in the head, number of blocks
        self._blocks: dict[BlockId, Block] = {}
        self._segments: list[bytes] = []
        self._open = bytearray(MAGIC + bytes([FORMAT_VERSION]))
        self._kept_bytes = 0
        self.size = 0  # of the message

    def add(self, part: Part) -> Iterator[None]:
        """Take the message's next part; to be iterated to the end before anything else."""
        self.size += len(part.data)
        if len(part.data) < PART_BYTES_MIN:
            self._head += part.data
            return
        count = -(-len(part.data) // BLOCK_BYTES)
        assert (part.path, 0) not in self._blocks, f"two parts under {part.path}"
        self._parts.append((part.path, len(self._head), count))
        view = memoryview(part.data)
        for i in range(count):
            id_, data = (part.path, i), view[i * BLOCK_BYTES : (i + 1) * BLOCK_BYTES]
            block = self._block(self._chain.blocks.get(id_), data)
            self._kept_bytes += len(block.kept or b"")
            self._blocks[id_] = block
            yield

    def finish(self) -> Packed:
        """The link, all parts being added; ValueError if nobody would read so large a state."""
        used = {layer.link for block in self._blocks.values() for layer in block.layers} - {""}
        older = {name: size for name, size in self._chain.links.items() if name in used}
        encoded = msgspec.msgpack.encode(self._manifest(list(older)))
        if self.size > STATE_BYTES_MAX or len(encoded) > MANIFEST_BYTES_MAX:
            raise ValueError(f"{self.size} bytes, {len(encoded)} of them in small parts")
        manifest = zstd.compress(encoded, LEVEL)
        self._put(manifest)
        self._put(len(manifest).to_bytes(LENGTH_BYTES, "big"))
        self._segments.append(bytes(self._open))
        return Packed(Body(self._segments), self._blocks, older)

    def _manifest(self, older: list[str]) -> Manifest:
        index = {"": 0} | {name: i for i, name in enumerate(older, 1)}

        def stored(block: Block) -> StoredBlock:
            layers = [(index[layer.link], layer.at, layer.size) for layer in block.layers]
            return StoredBlock(block.size, block.digest, layers)

        parts = [
            StoredPart(path, at, [stored(self._blocks[path, i]) for i in range(count)])
            for path, at, count in self._parts
        ]
        return Manifest(older, bytes(self._head), parts)

    def _block(self, before: Block | None, data: memoryview) -> Block:
        digest = xxhash.xxh3_128_digest(data)
        if before is not None and not self._left.isdisjoint(n for n, _, _ in before.layers):
            is_left = before.layers[0].link in self._left
            before = None if is_left else before._replace(digest=b"")
        if before is not None and (before.digest, before.size) == (digest, len(data)):
            return before
        if before is not None and before.kept is not None:
            difference = zstd.compress(xor(data, before.kept), LEVEL)
            if len(difference) <= before.layers[0].size // 2:
                layers = (before.layers[0], self._put(difference))
                return Block(len(data), digest, layers, before.kept)
        kept = bytes(data) if self._kept_bytes < KEPT_BYTES_MAX else None
        return Block(len(data), digest, (self._put(zstd.compress(data, LEVEL)),), kept)

    def _put(self, data: bytes) -> Layer:
        layer = Layer("", len(self._segments) * SEGMENT_BYTES + len(self._open), len(data))
        self._open += data
        while len(self._open) > SEGMENT_BYTES:  # a manifest may be several
            self._segments.append(bytes(self._open[:SEGMENT_BYTES]))
            del self._open[:SEGMENT_BYTES]
        return layer


def _to_leave(chain: Chain) -> set[str]:
    """The links that the next one should not need any more."""
    needed = dict.fromkeys(chain.links, 0)
    for block in chain.blocks.values():
        for layer in block.layers:
            needed[layer.link] += layer.size
    kept = {name for name, size in needed.items() if size}
    while len(kept) >= LINKS_MAX:
        kept.remove(min(sorted(kept), key=lambda name: needed[name]))
    while sum(chain.links[n] for n in kept) > SLACK_BYTES + 2 * sum(needed[n] for n in kept):
        kept.remove(max(sorted(kept), key=lambda name: chain.links[name] - needed[name]))
    return chain.links.keys() - kept


def _named(block: Block, name: str) -> Block:
    if all(layer.link for layer in block.layers):
        return block
    layers = tuple(layer if layer.link else layer._replace(link=name) for layer in block.layers)
    return block._replace(layers=layers)
