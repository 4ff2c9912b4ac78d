"""The shards of one stream: rows for what ListShards names, from where the application starts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from msgspec import Struct
from msgspec.structs import replace

from processor.core.leases.discovery import Discovery, Found
from processor.core.leases.generations import registered
from processor.core.leases.lineage import children_of, heirs, is_older, undiscovered
from processor.core.leases.rows import AppRow, ShardRow, StreamKey
from processor.core.progress import start_position
from processor.errors import ConfigError, Outage, StreamReplaced, Unavailable
from processor.model import TRIM_HORIZON, Shard, StreamInfo
from processor.ports import LeaseTable
from processor.runtime.state_store import StateStore

LISTING_TIMEOUT_S = 20.0  # ListShards of thousands of shards is many pages
REMOVED_MAX = 100  # a discovery; what is left stays for the next one
ENDED_WITH_MAX = 99  # DynamoDB's transactions take 100 items, and the parent is one


class Listing(Protocol):
    """What leases need of a source: which stream it is and which shards it has."""

    async def describe(self) -> StreamInfo: ...

    async def list_shards(self) -> list[Shard]: ...


def require_app(standing: AppRow, app: str) -> None:
    """Unavailable if another application follows the stream by this table."""
    if standing.app != app:
        raise Unavailable(
            "lease table",
            f"following stream {standing.stream.name} as app {app!r}",
            f"app {standing.app!r} follows it by the same table:"
            " name a table of its own in state.table, or the same app",
        )


def require_buckets(standing: AppRow, buckets: int | None) -> None:
    """ConfigError if the groups of a merge stream were shared out otherwise."""
    if standing.buckets != buckets:
        raise ConfigError(
            "merge.buckets",
            str(buckets),
            f"{standing.buckets}, as when the application began with stream"
            f" {standing.stream.name}; for another number name a new stream in merge.stream",
        )


class Follower(Struct, frozen=True):
    """Who follows a stream, and from where; `app` and `start` as in the pipeline file.

    `pipeline`: what tells it from others (`pipeline.generation`); None: it is the only one.
    `is_rollback`: it is to be the newest, though another one has come after it. `buckets`: in
    which the groups of a merge stream are shared out; None: it is no merge stream.
    """

    app: str
    start: str = "trim_horizon"
    pipeline: str | None = None
    is_rollback: bool = False
    buckets: int | None = None


class Shards:
    """Shard rows of the stream that `source` reads."""

    def __init__(self, table: LeaseTable, source: Listing, follower: Follower) -> None:
        self.generation = 0  # of the pipeline that this worker runs; known once it is registered
        self._table = table
        self._source = source
        self._follower = follower
        self._app = AppRow(follower.app, StreamKey("", 0), TRIM_HORIZON)
        self._discovery = Discovery(self._app.stream, self._app.start)
        self._retention_ms = 0

    @property
    def stream(self) -> StreamKey:
        """Which stream it is; known once it is open."""
        return self._app.stream

    @property
    def retention_ms(self) -> int:
        """How long the stream keeps a record, as last described."""
        return self._retention_ms

    async def open(self, *, is_made_again: bool = False) -> None:
        """Ask which stream it is, and pin application and start, once a stream and table.

        A stream that was made again while somebody followed it starts at its beginning, whatever
        the pipeline file says: nothing in it is older than what was followed. Raises Unavailable
        if another application follows the stream by this table, and ConfigError where its groups
        were shared out otherwise.
        """
        info = await self._source.describe()
        self._retention_ms = info.retention_ms
        pinned = "trim_horizon" if is_made_again else self._follower.start
        start = start_position(pinned, info.service_date_ms)
        buckets = self._follower.buckets
        wanted = AppRow(self._follower.app, StreamKey.of(info), start, buckets=buckets)
        standing = await self._table.pin(wanted)
        require_app(standing, wanted.app)
        require_buckets(standing, buckets)
        self._app = standing
        self._discovery = Discovery(standing.stream, standing.start)

    async def register(self, pipeline: str, *, is_rollback: bool) -> bool:
        """Note which pipeline we run; False if the application has since run a newer one."""
        while True:
            mine = registered(self._app.generations, pipeline, is_rollback=is_rollback)
            wanted = replace(self._app, generations=mine.known)
            if wanted != self._app:
                self._app = await self._table.remember(self._app, wanted)
            if wanted == self._app:
                self.generation = mine.number
                return mine.number == mine.newest

    async def read(self) -> list[ShardRow]:
        return await self._table.read_shards(self._app.stream)

    async def read_one(self, shard_id: str) -> ShardRow | None:
        return await self._table.read_shard(self._app.stream, shard_id)

    async def discover(self, now: float) -> tuple[list[ShardRow], Found]:
        """List the shards, then read the rows, and create those that are missing.

        Returns all rows, and what else the two ask for. StreamReplaced if it is another stream.
        """
        await self._recognise()
        listing = await self._source.list_shards()
        rows = await self.read()
        found = self._discovery.on_listing(listing, {row.id: row for row in rows}, now)
        if found.create:
            await self._table.create_shards(found.create)
            rows = await self.read()  # others may have been faster, and gone further
        return rows, found

    async def _recognise(self) -> None:
        """A description that is older than ours comes from a host of the service that lags."""
        info, known = await self._source.describe(), self._app.stream
        if info.created_ms > known.created_ms:
            raise StreamReplaced(info.name, known.created_ms, info.created_ms)
        self._retention_ms = info.retention_ms

    async def remove(self, rows: Sequence[ShardRow], states: StateStore) -> None:
        """Rows and states of ended shards; states first, so that none is left without a row."""
        for row in rows[:REMOVED_MAX]:
            await states.remove_all(row)
            await self._table.remove_shard(row)

    async def child_rows(
        self,
        row: ShardRow,
        children: tuple[Shard, ...],
        known: Collection[str],
        successor: str,
    ) -> list[ShardRow]:
        """Rows of a shard's children; where a parent is not `known`, after another discovery.
        Outage where the stream's listing is older than they are.

        A shard past retention may be named by none: then those follow it that have its hash keys.
        What is too much for one transaction is created before it, and waits for its parent's end.
        """
        if not children:
            children = heirs(row.shard, await self._source.list_shards())
        parents = {parent for child in children for parent in child.parents}
        if not parents <= set(known):
            listing = await self._source.list_shards()
            if is_older(listing, children):  # a parent that it lacks would count as ended
                raise Outage(
                    "Kinesis", "ListShards", f"it does not know of {row.id}'s children yet"
                )
            rows = {one.id: one for one in await self.read()}
            fresh = undiscovered(self._app.stream, listing, rows, self._app.start)
            await self._table.create_shards(fresh)
            known = {*rows, *(one.id for one in fresh)}
        fresh = children_of(row, children, known, self._app.start, successor)
        await self._table.create_shards(fresh[ENDED_WITH_MAX:])
        return fresh[:ENDED_WITH_MAX]
