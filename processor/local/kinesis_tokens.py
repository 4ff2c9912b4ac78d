"""The opaque tokens of our Kinesis: self-contained, so the server remembers none of them.

The stream's creation time is part of each: a token never reads a later stream of the same name.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Literal, TypeVar

import msgspec

FilterType = Literal[
    "AFTER_SHARD_ID",
    "AT_TRIM_HORIZON",
    "FROM_TRIM_HORIZON",
    "AT_LATEST",
    "AT_TIMESTAMP",
    "FROM_TIMESTAMP",
]


class Position(msgspec.Struct, frozen=True, array_like=True, tag="i"):
    """A shard iterator: the next record's index in a shard, and when the iterator was issued."""

    stream: str
    created_ms: int
    shard_id: str
    index: int
    issued_at_ms: int


class Listing(msgspec.Struct, frozen=True, array_like=True, tag="l"):
    """Where a ListShards goes on, and the filter that it goes on with."""

    stream: str
    created_ms: int
    after_shard_id: str
    issued_at_ms: int
    filter_type: FilterType
    at_ms: int


_Token = TypeVar("_Token", Position, Listing)
_positions = msgspec.json.Decoder(Position)
_listings = msgspec.json.Decoder(Listing)


def seal(token: Position | Listing) -> str:
    return urlsafe_b64encode(msgspec.json.encode(token)).decode()


def open_position(text: str) -> Position | None:
    """The iterator in `text`, or None if it never was one of ours."""
    return _unseal(text, _positions)


def open_listing(text: str) -> Listing | None:
    """The listing in `text`, or None if it never was one of ours."""
    return _unseal(text, _listings)


def _unseal(text: str, decoder: msgspec.json.Decoder[_Token]) -> _Token | None:
    try:
        return decoder.decode(urlsafe_b64decode(text))
    except (ValueError, msgspec.MsgspecError):
        return None
