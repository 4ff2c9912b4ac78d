"""What the shell needs from the outside world, as protocols.

Adapters live in sources, stores and sinks. Each translates foreign errors once, at its edge, into
`errors`: `Outage` and `Throttled` may be retried, `Unavailable` may not. Cancelling any of these
calls is safe unless a docstring says otherwise; a cancelled write may or may not have happened.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from processor.model import DeadLetter, DerivedEvent, Page, Position, Shard, StreamInfo


class Clock(Protocol):
    """The two clocks. The simulator has one of its own."""

    def monotonic(self) -> float:
        """Seconds, never back, counting while the machine is suspended."""

    def wall_ms(self) -> int:
        """Milliseconds UTC; only ever data, never a reason to decide."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class ShardReader(Protocol):
    """One shard's records in order, from one position on."""

    async def read(self) -> Page:
        """The next page, as soon as pacing allows; empty pages are returned too.

        Raises `Unavailable` when the stream or the permission is gone; waits out throttling and
        outages itself, reporting them to its metrics.
        """

    async def close(self) -> None:
        """Stop reading ahead; drops what was read and not taken."""


class Source(Protocol):
    """A stream."""

    async def describe(self) -> StreamInfo: ...

    async def list_shards(self) -> list[Shard]:
        """All shards that still hold records, closed ones included."""

    def open(self, shard_id: str, position: Position) -> ShardReader: ...


class Refusal(Struct, frozen=True):
    """An event that the target will never take."""

    index: int
    code: str
    message: str


class Sink(Protocol):
    """A target of derived events."""

    async def check(self) -> None:
        """Raises `Unavailable` if the target is missing or not allowed."""

    async def put(self, events: Sequence[DerivedEvent]) -> list[Refusal]:
        """Deliver all, in order per group; returns what was refused for good.

        Waits (bounded steps, full jitter) while the target is down or throttles. Cancelling is
        safe: some events may have been delivered, and a repeat is harmless.
        """

    async def close(self) -> None: ...


class DeadLetters(Protocol):
    """Where bad records and refused events go; repeats are recognised by id."""

    async def check(self) -> None: ...

    async def put(self, letters: Sequence[DeadLetter]) -> None:
        """All of them; waits while the target is down."""

    async def close(self) -> None: ...


class ObjectStore(Protocol):
    """Blobs by key, for state that is too large for an item."""

    async def put(self, key: str, body: bytes) -> None: ...

    async def get(self, key: str) -> bytes | None:
        """None if there is no such object."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Absent ones are no error."""

    async def list(self, prefix: str) -> list[str]: ...
