"""What of a shard survives a takeover, and how it is read: its version first, in case of doubt."""

from __future__ import annotations

from typing import Annotated, Protocol, TypeVar

import msgspec
from msgspec import Meta, Struct

from processor.core import instructions
from processor.core.floors import Floor
from processor.core.homes import HashRange
from processor.core.judging import NO_WATERMARK
from processor.core.rules import Saved
from processor.core.shipping import Saved as Shipped
from processor.errors import StateUnreadable
from processor.model import Counts

SNAPSHOT_VERSION = 7


class Totals(Struct):
    """What became of a shard's records since its beginning; part of its state."""

    records: int = 0
    counted: int = 0
    duplicates: int = 0
    late: int = 0
    unmatched: int = 0
    rejects: int = 0
    windows_closed: int = 0

    def add(self, counts: Counts) -> None:
        self.records += counts.records
        self.counted += counts.counted
        self.duplicates += counts.duplicates
        self.late += counts.late
        self.unmatched += counts.unmatched
        self.rejects += sum(counts.rejects.values())
        self.windows_closed += counts.windows_closed


class Snapshot(Struct, frozen=True):
    """All that must survive a takeover but the position, which the checkpoint holds beside it."""

    version: int
    shard_id: str
    range: HashRange
    watermark_ms: Annotated[int, Meta(ge=NO_WATERMARK, lt=2**62)]
    newest_ms: Annotated[int, Meta(ge=NO_WATERMARK, lt=2**62)]
    arrived_ms: Annotated[int, Meta(ge=NO_WATERMARK, lt=2**62)]
    reading: str  # `Plan.reading`: what times and ids are
    floors: tuple[Floor, ...]
    totals: Totals
    seen: tuple[bytes, bytes]
    rules: dict[str, Saved]  # by rule version; see `sections`
    shipped: dict[str, Shipped] = {}  # of the global rules, likewise
    begins_amid: bool = False  # at the first record to come, others came before it
    instructed: instructions.Saved = instructions.Saved()


class Versioned(Protocol):
    @property
    def version(self) -> int: ...


V = TypeVar("V", bound=Versioned)


def decode(state: bytes, kind: type[V], version: int, shard_id: str) -> V:
    """A snapshot of that kind and version; StateUnreadable for any other, or none at all."""
    try:
        saved = msgspec.msgpack.decode(state, type=kind)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        _check(_version_of(state, version), version, shard_id)  # another one has another shape
        raise StateUnreadable(shard_id, str(error)) from error
    _check(saved.version, version, shard_id)
    return saved


def _check(found: int, version: int, shard_id: str) -> None:
    if found != version:
        newer = "a newer" if found > version else "an older"
        reason = (
            f"{newer} release wrote it, in version {found} where this one reads"
            f" {version}: run that release again"
        )
        raise StateUnreadable(shard_id, reason)


class _AnyVersion(Struct, frozen=True):
    """What a snapshot of any version has; what else it has is not looked at."""

    version: int


def _version_of(state: bytes, version: int) -> int:
    """`version`, where the bytes don't say."""
    try:
        return msgspec.msgpack.decode(state, type=_AnyVersion).version
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return version
