"""Recordings in S3: all objects below a prefix, in order of their keys.

An object is fetched in ranges, each a request of its own that may be repeated, and only while it is
the version that was listed. The event loop is our own: iterating a recording is plain.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack, ExitStack
from typing import Any, BinaryIO, TypeVar, cast

from processor.errors import Outage, Unavailable, UsageError
from processor.history.sources import Piece
from processor.runtime.aws import open_aws
from processor.stores.s3 import Listed, S3Objects

RANGE_BYTES = 8 * 2**20  # S3 gives a connection some 80 MB/s: a tenth of a second each
ATTEMPTS, PAUSE_S = 5, 1.0  # beyond the SDK's own
CONNECTIONS = 4

T = TypeVar("T")


def objects(location: str, region: str | None) -> list[Piece]:
    """Those of `s3://bucket/prefix`; empty ones are left out.

    Raises UsageError where there is none, and Unavailable where the bucket or a permission is
    missing, or S3 stays out.
    """
    name, _, prefix = location.removeprefix("s3://").partition("/")
    if not name:
        raise UsageError(f"--from {location}: no bucket; expected s3://bucket/prefix")
    bucket = _Bucket(name, region)
    with ExitStack() as stack:
        found = bucket.call(stack, lambda store: store.list_sizes(prefix))
    pieces = [
        Piece(f"s3://{name}/{each.key}", each.size, _opener(bucket, each))
        for each in found
        if each.size
    ]
    if not pieces:
        raise UsageError(f"--from {location}: no object with that prefix")
    return pieces


class _Bucket:
    """A bucket; connected from the first call on until the stack that it was made with closes."""

    def __init__(self, name: str, region: str | None) -> None:
        self._name, self._region = name, region
        self._runner: asyncio.Runner | None = None
        self._store: S3Objects | None = None

    def call(self, stack: ExitStack, call: Callable[[S3Objects], Awaitable[T]]) -> T:
        if self._runner is None:
            self._connect(stack)
        assert self._runner is not None
        return self._runner.run(self._through_outages(call))

    def _connect(self, stack: ExitStack) -> None:
        stack.callback(self._forget)
        runner = self._runner = stack.enter_context(asyncio.Runner())
        clients = AsyncExitStack()
        stack.callback(lambda: runner.run(_closing(clients)))
        runner.run(self._open(clients))

    async def _open(self, clients: AsyncExitStack) -> None:
        opening = open_aws(self._region, connections_max=CONNECTIONS)
        aws = await clients.enter_async_context(opening)
        self._store = S3Objects(await aws.client("s3"), f"s3://{self._name}")

    def _forget(self) -> None:
        self._runner = self._store = None

    async def _through_outages(self, call: Callable[[S3Objects], Awaitable[T]]) -> T:
        assert self._store is not None
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await call(self._store)
            except Outage as error:
                if attempt == ATTEMPTS:
                    remedy = f"try again later ({error})"
                    raise Unavailable(f"bucket {self._name}", "reading it", remedy) from error
                await asyncio.sleep(PAUSE_S * attempt)
        raise AssertionError("the last attempt returns or raises")


def _closing(clients: AsyncExitStack) -> Coroutine[Any, Any, None]:
    return clients.aclose()


def _opener(bucket: _Bucket, listed: Listed) -> Callable[[ExitStack], BinaryIO]:
    def opened(stack: ExitStack) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_Raw(bucket, listed, stack), RANGE_BYTES))

    return opened


class _Raw(io.RawIOBase):
    """An object as a file, from its beginning to its end."""

    def __init__(self, bucket: _Bucket, listed: Listed, stack: ExitStack) -> None:
        self._bucket, self._listed, self._stack = bucket, listed, stack
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._listed.size - self._at)
        if size <= 0:
            return 0
        start, listed = self._at, self._listed
        body = self._bucket.call(self._stack, lambda s: s.get_range(listed, start, size))
        buffer[: len(body)] = body
        self._at += len(body)
        return len(body)
