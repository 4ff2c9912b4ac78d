"""The wire between the two stages: what a shard tells of one bucket of a global rule's groups.

Whenever a shard's watermark passes an end of a window, each of its global rules makes a *closing*:
for every bucket a record (empty: just the watermark), or several, none over SPLIT_BYTES_MAX. They
are numbered one after the other per shard, life of the rule there, and rule version; a crash
repeats them under the same numbers, with the same bytes. Deltas are what was counted since the
last closing: whoever applies each number once, has counted each record once.

    envelope   what the shell adds: the generation of the pipeline that tells it
    head       readable by every release: what is not understood is kept for one that understands
    closing    who tells it, its number, its watermark, and the deltas

Anybody may put a record into a stream: what can't be read is a value (`Fault`), never a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import msgspec
import orjson
import xxhash
from msgspec import Meta, Struct

from processor.codecs.base import Fault
from processor.core import windows
from processor.core.homes import HashRange, range_of
from processor.model import Partial, Shard

FORMAT = 1
# A record of a stream may have 1 MiB, PartitionKey and envelope included.
SPLIT_BYTES_MAX = 900_000
BUCKETS_MAX = 4_096
_HASH_SPACE = 2**128
_NAME_MAX = 1_024
_TIME = Meta(ge=-(2**62), lt=2**62)
_NUMBER = Meta(ge=0, lt=2**53)

Name = Annotated[str, Meta(max_length=_NAME_MAX)]
Time = Annotated[int, _TIME]
Number = Annotated[int, _NUMBER]
Place = Annotated[bytes, Meta(min_length=16, max_length=16)]
T = TypeVar("T")


class Envelope(Struct, frozen=True, array_like=True):
    """What the shell puts into the stream."""

    generation: Number
    body: bytes


class Head(Struct, frozen=True, array_like=True):
    """What every format begins with, for good."""

    format: Number
    rule_version: Name
    bucket: Number
    buckets: Annotated[int, Meta(ge=1, le=BUCKETS_MAX)]


class Teller(Struct, frozen=True, array_like=True):
    """A shard and the life of the rule there.

    `first` and `last` are its hash keys, 16 bytes each, both included. `incarnation` is the
    stream's creation time and the number of seeks. Windows that start before `since_ms` lack
    records of this shard (None: none does); `origin` names that beginning.
    """

    shard_id: Name
    parents: Annotated[tuple[Name, ...], Meta(max_length=16)]
    first: Place
    last: Place
    incarnation: Annotated[str, Meta(pattern=r"^[0-9]{1,18}(\.[0-9]{1,18})?$")]
    since_ms: Time | None
    origin: Name

    @property
    def range(self) -> HashRange:
        return HashRange(self.first, self.last)

    @property
    def life(self) -> tuple[str, str]:
        """What numbers count up in."""
        return self.incarnation, self.origin

    @property
    def age(self) -> tuple[int, ...]:
        """Orders incarnations: streams made anew, then seeks."""
        return tuple(map(int, self.incarnation.split(".")))


class Deltas(Struct, frozen=True, array_like=True):
    """Windows of some keys: each key's values, and a window table's slots of those keys by their
    place among `keys`."""

    keys: list[list[str | int]]
    windows: windows.Saved


class Closing(Struct, frozen=True, array_like=True):
    """Split `split` of `splits` of one bucket's part of a closing; the first four are its Head."""

    format: Number
    rule_version: Name
    bucket: Number
    buckets: Annotated[int, Meta(ge=1, le=BUCKETS_MAX)]
    teller: Teller
    number: Number
    split: Number
    splits: Annotated[int, Meta(ge=1, lt=2**20)]
    watermark_ms: Time | None
    is_idle: bool
    is_ended: bool
    deltas: Deltas | None = None

    @property
    def head(self) -> Head:
        return Head(self.format, self.rule_version, self.bucket, self.buckets)


def teller(shard: Shard, incarnation: str, since_ms: int | None, origin: str) -> Teller:
    held = range_of(shard)
    return Teller(
        shard.id, shard.parents, held.first, held.last, incarnation, since_ms, origin[:_NAME_MAX]
    )


# ---- buckets ----------------------------------------------------------------------------------


def bucket_of(values: Sequence[str | int], buckets: int) -> int:
    """The bucket of the group with these values, in the order of the rule's `group_by`."""
    return xxhash.xxh3_64_intdigest(orjson.dumps(list(values))) % buckets


def hash_key_of(bucket: int, buckets: int) -> int:
    """The hash key of a bucket's records: the middle of its part of the space, which a split of a
    shard in equal halves does not cut."""
    return (2 * bucket + 1) * _HASH_SPACE // (2 * buckets)


def place(bucket: int, buckets: int) -> bytes:
    """The same as 16 bytes."""
    return hash_key_of(bucket, buckets).to_bytes(16, "big")


# ---- writing ----------------------------------------------------------------------------------

_encode = msgspec.msgpack.Encoder().encode


def partial(closing: Closing) -> Partial:
    return Partial(
        closing.teller.shard_id,
        closing.bucket,
        hash_key_of(closing.bucket, closing.buckets),
        _encode(closing),
    )


def enveloped(body: bytes, generation: int) -> bytes:
    """The record to put, of a worker whose pipeline has that number among the application's."""
    return _encode(Envelope(generation, body))


# ---- reading ----------------------------------------------------------------------------------


def envelope(payload: bytes) -> Envelope | Fault:
    return _read(payload, Envelope)


def head(body: bytes) -> Head | Fault:
    """What is told of, in whatever format."""
    return _read(body, Head)


def closing(body: bytes) -> Closing | Fault:
    """A whole one, in our format; whether its deltas fit the rule shows when they are merged."""
    found = _read(body, Closing)
    if isinstance(found, Fault):
        return found
    if found.format != FORMAT:
        return _fault(f"format {found.format}, where this release reads {FORMAT}")
    if found.bucket >= found.buckets or found.split >= found.splits:
        return _fault(
            f"bucket {found.bucket} of {found.buckets}, split {found.split} of {found.splits}"
        )
    if found.teller.first > found.teller.last:
        return _fault(f"shard {found.teller.shard_id} ends before it begins")
    return found


def _read(data: bytes, type_: type[T]) -> T | Fault:
    try:
        return msgspec.msgpack.decode(data, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        return _fault(str(error))


def _fault(detail: Any) -> Fault:
    return Fault("no_partial", f"no partial of a global rule: {detail!s:.200}")
