"""The lease table's rows, and the only ways in which a shard's row may change.

Every change of a shard's row is `write(before, after)`: one conditional write that holds only while
owner, epoch and commit number still are what `before` says. The functions here make `after`:

    claimed    owner, epoch + 1            released   no owner, a successor named
    committed  commit + 1, a new pair      ended      commit + 1, at END for good
    marked     commit + 1, one more mark   noted      commit + 1, idle: nothing but the time

So what a stale epoch writes is refused whatever it is, and a late repeat of a write that happened
is refused too. A row never holds state, only references: it is read and billed whole.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from processor.core.pages import place
from processor.model import END, Mark, Position, Shard, StreamInfo

SEQUENCE_DIGITS = 64  # the longest sequence number; DynamoDB's own numbers hold 38 digits
Place = Literal["item", "object"]
MARKS_MAX = 256  # of about 150 bytes each: a row stays far below DynamoDB's 400 KB


class StreamKey(Struct, frozen=True):
    """Which stream a shard's row belongs to; made again under its name, it is another stream."""

    name: str
    created_ms: int

    @classmethod
    def of(cls, info: StreamInfo) -> StreamKey:
        return cls(info.name, info.created_ms)

    def __str__(self) -> str:
        return f"{self.name}@{self.created_ms}"


class Generation(Struct, frozen=True):
    """A pipeline that an application ran; the numbers count up, and leave out none."""

    number: int
    pipeline: str  # `pipeline.generation`: a hash of what matters to state


class AppRow(Struct, frozen=True):
    """Which application follows a stream by this table, and where its first shards start; fixed
    once, for the stream's shards have one lease each, and one state. `generations` are the
    pipelines that it ran, oldest first. `buckets`: of a merge stream; fixed, too."""

    app: str
    stream: StreamKey
    start: Position
    generations: tuple[Generation, ...] = ()
    buckets: int | None = None


class Held(Struct, frozen=True):
    """One lease in a worker's row. `rests`: moved lately; `to`: being handed to that worker;
    `rate`: what it costs its worker, in hundredths of a core."""

    shard_id: str
    epoch: int
    rests: bool = False
    to: str | None = None
    rate: int = 0


class Ready(Struct, frozen=True):
    """What the taker of a lease says: what can be fetched before the giver lets go, is fetched.

    `epoch` is the giver's, so that an old word is not taken for a new one.
    """

    shard_id: str
    epoch: int


class WorkerRow(Struct, frozen=True):
    """A worker as the others see it: alive while `counter` changes, gone for good once `buried`."""

    id: str
    counter: int = 0
    draining: bool = False
    buried: bool = False
    held: tuple[Held, ...] = ()
    ready: tuple[Ready, ...] = ()
    generation: int = 0  # of its pipeline
    behind_ms: int | None = None  # the smallest watermark of those of its shards that catch up


class LinkRef(NamedTuple):
    """What is stored under a key that was never used before and is not again."""

    where: Place
    key: str
    stored_bytes: int


class Link(Struct, frozen=True, array_like=True):
    """A link of a chain of stored blocks: the last part of its key, and its size."""

    name: str
    stored_bytes: int


class StateRef(Struct, frozen=True, omit_defaults=True):
    """A stored state: its newest link, `key` in the table's items or in the object store, with its
    checksum; and the older links that it needs, below the same prefix of the same store."""

    where: Place
    key: str
    digest: str
    stored_bytes: int
    older: tuple[Link, ...] = ()

    @property
    def links(self) -> list[LinkRef]:
        """All of them, the newest last."""
        prefix = self.key[: self.key.rfind("/") + 1]
        older = [LinkRef(self.where, prefix + e.name, e.stored_bytes) for e in self.older]
        return [*older, LinkRef(self.where, self.key, self.stored_bytes)]

    @property
    def total_bytes(self) -> int:
        return sum(link.stored_bytes for link in self.links)


class Pair(Struct, frozen=True):
    """A position and the state that belongs to it; no state: a shard's very beginning."""

    position: Position
    commit: int = 0
    state: StateRef | None = None


class CommittedMark(Struct, frozen=True):
    """A mark and its commit number: it comes after every pair with a lower one."""

    commit: int
    mark: Mark


class ShardRow(Struct, frozen=True):
    """A shard's lease: who owns it, how far it is, and what leads back there.

    `shard.parents` are only those that must end first. `successor`: who may claim it before anybody
    else; `moved`: released to balance, so its next owner lets it rest. `pairs` are the last two,
    oldest first, and never none. `caught_up_at_ms`: what arrived before it has been read.
    """

    stream: StreamKey
    shard: Shard
    pairs: tuple[Pair, ...]
    owner: str | None = None
    epoch: int = 0
    commit: int = 0
    write_id: str = ""
    seeks: int = 0
    ended: bool = False
    successor: str | None = None
    moved: bool = False
    marks: tuple[CommittedMark, ...] = ()
    caught_up_at_ms: int | None = None
    generation: int = 0  # of the worker that committed last; 0: nobody did

    @property
    def id(self) -> str:
        return self.shard.id

    @property
    def position(self) -> Position:
        return self.pairs[-1].position

    @property
    def incarnation(self) -> str:
        """What makes ids of derived events new after a seek or in a stream made again."""
        return f"{self.stream.created_ms}.{self.seeks}"

    def same_version(self, other: ShardRow) -> bool:
        """Whether a conditional write that expects `other` holds on this row."""
        mine = (self.owner, self.epoch, self.commit)
        return mine == (other.owner, other.epoch, other.commit)


def fresh_row(stream: StreamKey, shard: Shard, start: Position) -> ShardRow:
    """A shard that nobody has read yet."""
    return ShardRow(stream, shard, (Pair(start),))


def claimed(row: ShardRow, worker_id: str, seeks: int) -> ShardRow:
    """Owned by `worker_id` under the next epoch; `moved` stays, to tell the claimer to let it rest.

    `seeks`: the highest of the shard's own and its parents'.
    """
    assert not row.ended, f"{row.id} has ended: there is nothing to own"
    moved = row.moved and row.owner is None
    return replace(
        row,
        owner=worker_id,
        epoch=row.epoch + 1,
        seeks=max(seeks, row.seeks),
        successor=None,
        moved=moved,
    )


def released(row: ShardRow, successor: str | None, *, moved: bool) -> ShardRow:
    """Owned by nobody; position, state and marks stay as they were committed."""
    return replace(row, owner=None, successor=successor, moved=moved)


def committed(row: ShardRow, base: Pair, new: Pair, write_id: str) -> ShardRow:
    """`new` after `base`, the pair that this owner started from or committed last.

    A pair that could not be read is thus dropped at its successor's first commit. Marks stay until
    the older pair is past them.
    """
    assert new.commit == row.commit + 1, f"commit {new.commit} after {row.commit}"
    marks = tuple(entry for entry in row.marks if is_ahead(entry, base))
    return replace(row, commit=new.commit, write_id=write_id, pairs=(base, new), marks=marks)


def is_ahead(entry: CommittedMark, pair: Pair) -> bool:
    """Whether a replay from `pair` meets the mark.

    Not by the numbers alone: an owner who replays may commit on its way to a mark made before. At
    the pair's own position they decide, for a mark is applied there before anything is committed.
    """
    at, start = place(entry.mark.position), place(pair.position)
    return at > start or (at == start and entry.commit > pair.commit)


def marked(row: ShardRow, mark: Mark, write_id: str) -> ShardRow:
    """One more mark; they can't pile up because every commit drops those before the older pair."""
    assert len(row.marks) < MARKS_MAX, f"{row.id}: {MARKS_MAX} marks without a checkpoint"
    entry = CommittedMark(row.commit + 1, mark)
    return replace(row, commit=entry.commit, write_id=write_id, marks=(*row.marks, entry))


def noted(row: ShardRow, caught_up_at_ms: int, write_id: str) -> ShardRow:
    """An idle shard's position stands still; that it was asked for records shows here."""
    return replace(row, commit=row.commit + 1, write_id=write_id, caught_up_at_ms=caught_up_at_ms)


def ended(row: ShardRow, base: Pair, new: Pair, write_id: str) -> ShardRow:
    """At END, owned by nobody for good; its last state waits there for the children."""
    assert new.position == END, f"{row.id} ends at {new.position}"
    row = committed(row, base, new, write_id)
    return replace(row, owner=None, ended=True, successor=None)


def of_generation(row: ShardRow, generation: int) -> ShardRow:
    """Its newest pair was committed by that generation of the pipeline."""
    return replace(row, generation=max(row.generation, generation))


def links_of(row: ShardRow) -> dict[str, LinkRef]:
    """All that the row's pairs need, by key."""
    return {link.key: link for pair in row.pairs if pair.state for link in pair.state.links}


def unreferenced(before: ShardRow, after: ShardRow) -> list[LinkRef]:
    """Links that only `before` named: what the commit from it to `after` made superfluous."""
    kept = links_of(after)
    return [link for key, link in links_of(before).items() if key not in kept]


# ---- keys and positions as text -------------------------------------------------------------


def state_prefix(stream: StreamKey, shard_id: str) -> str:
    return f"{stream}/{shard_id}/"


def state_key(row: ShardRow, commit: int, write_id: str) -> str:
    """Unique to one attempt to commit, so that a late one never exchanges another's state."""
    return f"{state_prefix(row.stream, row.id)}{row.epoch:010d}-{commit:012d}-{write_id}"


def state_epoch(key: str) -> int:
    """The epoch that wrote a state."""
    return int(key.rsplit("/", 1)[-1].split("-", 1)[0])


def position_text(position: Position) -> str:
    """As it is stored: sequence numbers padded, so that text sorts as the integers do."""
    if position.kind in ("after", "at"):
        padded = f"{int(position.value):0{SEQUENCE_DIGITS}d}"
        return str(replace(position, value=padded))
    return str(position)


def position_of(text: str) -> Position:
    """The inverse of `position_text`; ValueError if it is none."""
    kind, _, value = text.partition(":")
    match kind:
        case "after":
            return Position("after", str(int(value)))
        case "at":
            number, _, skip = value.partition("+")
            return Position("at", str(int(number)), int(skip or "0"))
        case "at_time":
            return Position("at_time", str(int(value)))
        case "trim_horizon" | "end":
            return Position(kind)
    raise ValueError(f"position {text!r}: expected after, at, at_time, trim_horizon or end")
