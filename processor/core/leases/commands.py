"""What the lease machine may ask of its shell, and the figures it goes by.

Commands are frozen and carry what must hold for them to be carried out: rows as they were seen.
"""

from __future__ import annotations

from msgspec import Struct

from processor.core.leases.rows import ShardRow, WorkerRow


class Timing(Struct, frozen=True):
    """Seconds. What a lease is worth follows from three of them: validity < TTL < burial."""

    heartbeat_s: float = 3.0
    read_s: float = 1.0
    all_max: int = 32  # workers; of more than that, each second only the next ones are read
    near: int = 8  # the next ones: so many would have to die within a second to go unnoticed
    all_s: float = 30.0  # and all of them so often
    uneven_s: float = 3.0  # or so often, while we hold less than others and may be given a lease
    validity_s: float = 8.0  # after the send of the last good heartbeat
    margin_s: float = 2.0  # no effect starts with less validity left
    ttl_s: float = 10.0
    burial_s: float = 2.0  # after the TTL: clocks of two machines never agree to the last bit
    gap_max_s: float = 3.0  # between two reads of worker rows for the time between to count
    poll_s: float = 0.25  # reads of a row that is about to be released to us
    successor_s: float = 3.0  # a successor's precedence
    ready_s: float = 5.0  # a giver waits no longer for its taker to have fetched the state
    rest_s: float = 300.0  # a lease that was moved to balance is not moved again
    drain_s: float = 20.0
    # A reader gets an answer or an error each half minute; a task that is silent for twice as long
    # (and waits for nothing that has a name) is tried by another worker.
    stalled_s: float = 60.0
    cancel_s: float = 5.0  # what is cancelled and does not end is released all the same
    shun_s: float = 60.0  # a shard whose task stalled here is left to others for so long
    discovery_s: float = 30.0  # for eight workers; fewer share the same reads among them
    reshard_s: float = 5.0  # between discoveries while a reshard is under way, or one failed
    retry_s: float = 0.5  # after a failed call
    backoff_s: float = 1.0  # after a shard task that ended by an error; doubles
    doublings_max: int = 6  # so up to about a minute: what came back is not left alone for longer
    failures_max: int = 5  # in a row, then the shard is parked

    def __post_init__(self) -> None:
        if not 0 < self.margin_s < self.validity_s < self.ttl_s:
            raise ValueError(
                f"margin_s {self.margin_s} < validity_s {self.validity_s} < ttl_s {self.ttl_s}"
                " must hold: else a worker still acts when another takes over"
            )

    @property
    def dead_after_s(self) -> float:
        return self.ttl_s + self.burial_s


class Join(Struct, frozen=True):
    row: WorkerRow


class Heartbeat(Struct, frozen=True):
    row: WorkerRow


class Leave(Struct, frozen=True):
    """Delete our own row: nothing is ours any more."""

    worker_id: str


class Forget(Struct, frozen=True):
    """Delete a buried worker's row: no shard is in its name any more."""

    worker_id: str


class ReadWorkers(Struct, frozen=True):
    """All worker rows; or, in the ring of ids, the first `count` from `first` on."""

    first: str | None = None
    count: int = 0


class ReadShards(Struct, frozen=True):
    """All shard rows; with `discover`, ListShards before, and rows for what is new."""

    discover: bool


class ReadShard(Struct, frozen=True):
    shard_id: str


class ReadFamily(Struct, frozen=True):
    """The rows of a child and of its other parents, after we ended one of its parents."""

    child_id: str
    shard_ids: tuple[str, ...]


class Bury(Struct, frozen=True):
    worker_id: str
    counter: int


class Claim(Struct, frozen=True):
    before: ShardRow
    after: ShardRow


class Release(Struct, frozen=True):
    before: ShardRow
    after: ShardRow


class Prefetch(Struct, frozen=True):
    """Fetch the state of a shard that is about to be released to us; its owner has this epoch."""

    shard_id: str
    epoch: int


class Forgo(Struct, frozen=True):
    """Drop what was fetched: the shard won't come to us."""

    shard_id: str


class Run(Struct, frozen=True):
    """Start the shard's task under this row's epoch."""

    row: ShardRow


class Stop(Struct, frozen=True):
    """Ask the shard's task to commit and return; a taker was waited for so long (None: nobody)."""

    shard_id: str
    waited_s: float | None = None


class Cancel(Struct, frozen=True):
    """End the shard's task now: its lease is lost, or it did not stop in time."""

    shard_id: str


Command = (
    Join
    | Heartbeat
    | Leave
    | Forget
    | ReadWorkers
    | ReadShards
    | ReadShard
    | ReadFamily
    | Bury
    | Claim
    | Release
    | Prefetch
    | Forgo
    | Run
    | Stop
    | Cancel
)


def key_of(command: Command) -> str:
    """One command of a key is under way at a time; heartbeats and reads never wait for a shard."""
    match command:
        case Join() | Heartbeat() | Leave():
            return "heartbeat"
        case Bury(worker_id=worker_id) | Forget(worker_id=worker_id):
            return f"worker {worker_id}"
        case Claim(before=row) | Release(before=row):
            return f"shard {row.id}"
        case ReadShard(shard_id=shard_id):
            return f"shard {shard_id}"
        case ReadWorkers(first=first):
            return f"workers {first}"
        case Prefetch(shard_id=shard_id):
            return f"prefetch {shard_id}"
        case ReadFamily(child_id=child_id):
            return f"family {child_id}"
        case Run(row=row):
            return f"task {row.id}"
        case Stop(shard_id=shard_id) | Cancel(shard_id=shard_id):
            return f"task {shard_id}"
    return type(command).__name__
