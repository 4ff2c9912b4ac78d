"""What the shell needs from the outside world, as protocols.

Adapters live in sources, stores and sinks. Each translates foreign errors once, at its edge, into
`errors`: `Outage` and `Throttled` may be retried, `Unavailable` may not. Cancelling any of these
calls is safe unless a docstring says otherwise; a cancelled write may or may not have happened.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from msgspec import Struct

from processor.core.instructions import Instruction
from processor.core.leases.rows import AppRow, ShardRow, StreamKey, WorkerRow
from processor.errors import RetentionGap
from processor.model import (
    DeadLetter,
    DerivedEvent,
    Page,
    Partial,
    Position,
    Shard,
    Step,
    StreamInfo,
)


class Clock(Protocol):
    """The clocks. The simulator has one of its own."""

    def monotonic(self) -> float:
        """Seconds, never back, counting while the machine is suspended."""

    def cpu_s(self) -> float:
        """CPU seconds of this thread: what its own work costs, whatever else runs beside it."""

    def wall_ms(self) -> int:
        """Milliseconds UTC; only ever data, never a reason to decide."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""


class ShardReader(Protocol):
    """One shard's records in order, from one position on."""

    async def read(self) -> Page:
        """The next page, as soon as pacing allows; empty pages are returned too.

        Waits out throttling and outages itself, reporting them to its observer; a stream or a
        permission that went away while running is an outage too, until somebody brings it back. A
        shard past retention ends: its last page is empty and names what follows it by a listing.
        Raises StreamReplaced once the stream is another one of the same name.
        """

    async def close(self) -> None:
        """Stop reading ahead; drops what was read and not taken."""


class ReadObserver(Protocol):
    """What happens inside `ShardReader.read`, for metrics. Called on the loop; must not block."""

    def on_read(
        self, shard_id: str, seconds: float, records: int, payload_bytes: int, millis_behind: int
    ) -> None:
        """A request was answered after `seconds`."""

    def on_throttled(self, shard_id: str) -> None:
        """The service asked us to slow down."""

    def on_error(self, shard_id: str, kind: str, detail: str) -> None:
        """A request failed and will be repeated; `kind` is one of a short list, fit for a label."""


class Unobserved:
    """The ReadObserver that looks away."""

    def on_read(
        self, shard_id: str, seconds: float, records: int, payload_bytes: int, millis_behind: int
    ) -> None:
        pass

    def on_throttled(self, shard_id: str) -> None:
        pass

    def on_error(self, shard_id: str, kind: str, detail: str) -> None:
        pass


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


class PartialSink(Protocol):
    """Where shards send what they counted for global rules: the merge stream."""

    async def put(self, partials: Sequence[Partial], generation: int) -> None:
        """All of them, those of a bucket in order, under the number of our pipeline file.

        Waits (bounded steps, full jitter) while the stream is out or throttles. Cancelling is
        safe: some may have been taken, and a repeat is harmless.
        """


class ObjectStore(Protocol):
    """Blobs by key, for state that is too large for an item."""

    async def put(self, key: str, body: bytes) -> None: ...

    async def get(self, key: str) -> bytes | None:
        """None if there is no such object."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Absent ones are no error."""

    async def list(self, prefix: str) -> list[str]: ...


class Written(Struct, frozen=True):
    """The answer to a conditional write: whether it was applied, and the row as it now stands."""

    applied: bool
    row: ShardRow | None


class Placed(NamedTuple):
    """An instruction, and in which of the table's INSTRUCTIONS_MAX places it is."""

    place: int
    instruction: Instruction


OnStrange = Callable[[str, Exception], None]  # id of an instruction, and what is wrong with it


class Instructions(Protocol):
    """What people asked of an application's alarms, and which shards took it.

    Like the lease table, which it is part of. What has expired may be there still, or not.
    """

    async def read(
        self, app: str, *, consistent: bool = False, on_strange: OnStrange | None = None
    ) -> list[Placed]:
        """In order of places; may lag a second behind, unless asked to be `consistent`.

        `on_strange` is told of what a newer release may have written: it is left out.
        """

    async def put(self, app: str, placed: Placed, now_ms: int) -> bool:
        """Unless something that has not expired is in that place; False then."""

    async def remove(self, app: str, placed: Placed) -> bool:
        """With the word of who took it; False if something else is in that place, or nothing."""

    async def acknowledge(self, app: str, instruction: Instruction, shard: str) -> None:
        """Say that a shard took it, STREAM/SHARD; a repeat is harmless."""

    async def taken(self, app: str, instruction: Instruction) -> list[str]:
        """The shards that took it, in order."""


class LeaseTable(Protocol):
    """The lease table. Reads are consistent; each write is one conditional operation.

    Streams don't see each other's rows, for shards and those who work on them: their shards are
    called alike.

    `Outage` and `Throttled` leave open whether a write was applied: read, or repeat it (a repeat of
    what was applied is refused and shows it). `Unavailable`: the table or a permission is missing.
    """

    @property
    def items(self) -> ObjectStore:
        """Small blobs in the same table, apart from the rows."""

    @property
    def instructions(self) -> Instructions:
        """What people asked for, in the same table."""

    async def pin(self, row: AppRow) -> AppRow:
        """Store the stream's row of its application unless there is one; returns what stands."""

    async def read_app(self, stream: StreamKey) -> AppRow | None:
        """The row that was pinned; None if nobody follows the stream by this table yet."""

    async def remember(self, before: AppRow, after: AppRow) -> AppRow:
        """Store the generations of `after` if those of `before` stand; returns what stands."""

    async def join(self, stream: StreamKey, row: WorkerRow) -> None:
        """Create a worker's row unless there is one."""

    async def heartbeat(self, stream: StreamKey, row: WorkerRow) -> bool:
        """Store counter, draining, held and ready; False if the row is gone or buried."""

    async def read_workers(
        self, stream: StreamKey, first: str | None = None, count: int = 0
    ) -> list[WorkerRow]:
        """All; or, in order of ids, the `count` from id `first` on, which need not exist. After the
        last comes the first again, so fewer than `count` are all that there are."""

    async def bury(self, stream: StreamKey, worker_id: str, counter: int) -> bool:
        """Set `buried` if the counter is still that; False if not, or if the row is gone."""

    async def delete_worker(self, stream: StreamKey, worker_id: str) -> None:
        """An absent one is no error."""

    async def read_shards(self, stream: StreamKey) -> list[ShardRow]: ...

    async def read_shard(self, stream: StreamKey, shard_id: str) -> ShardRow | None: ...

    async def create_shards(self, rows: Sequence[ShardRow]) -> None:
        """Create each, in this order, that does not exist."""

    async def write(self, before: ShardRow, after: ShardRow) -> Written:
        """Replace what may change of `before` by `after`, if `before` is the version that stands.

        The version is owner, epoch and commit number (`ShardRow.same_version`).
        """

    async def end(self, before: ShardRow, after: ShardRow, children: Sequence[ShardRow]) -> Written:
        """`write`, and in the same transaction create the children; those that exist take over
        `successor` only."""

    async def remove_shard(self, row: ShardRow) -> bool:
        """Delete an ended shard's row, if that version stands; False if not, or if it is gone."""


class SinkObserver(Protocol):
    """What a sink or the dead letters tell as they work, for metrics and logs.

    `sink` is the sink's name; `kind` an event's detail type or a dead letter's reason; `reason`
    and `code` are the service's own error codes, or the name of a transport error: short lists.
    """

    def on_request(self, sink: str, seconds: float) -> None:
        """A request was answered, or failed, after so long."""

    def on_published(self, sink: str, kind: str, n: int) -> None:
        """The target took n entries."""

    def on_retry(self, sink: str, reason: str, n: int) -> None:
        """n entries were not taken and go again: a throttle, an outage, a lost permission."""

    def on_failed(self, sink: str, code: str) -> None:
        """The target refused an event for good."""


class PartialObserver(Protocol):
    """What happens inside `PartialSink.put`, for metrics and logs."""

    def on_request(self, seconds: float) -> None:
        """A request was answered, or failed, after so long."""

    def on_taken(self, records: int, payload_bytes: int) -> None:
        """The merge stream took so many records."""

    def on_retry(self, reason: str, n: int) -> None:
        """n records were not taken and go again."""


class StepObserver(Protocol):
    """What the shards' loops tell, for metrics and logs. Must not block."""

    def on_step(self, shard_id: str, step: Step, seconds: float) -> None:
        """A step's effects are done, `seconds` after its page was taken."""

    def on_gap(self, shard_id: str, error: RetentionGap) -> None:
        """Records were past retention before they were read: the shard stops, or goes on."""

    def on_left_behind(self, shard_id: str, source_shard_id: str) -> None:
        """A shard of the merge stream goes on without one of the source, which stands still; "":
        without those that never told anything."""

    def on_state_refused(self, shard_id: str, error: Exception) -> None:
        """A state that was read can't be restored; the pair before it is tried."""
