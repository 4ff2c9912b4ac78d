"""A way to a server that can fail: shut, hung, slowed, or cut under everybody's feet.

door = Door("http://127.0.0.1:4566")
await door.open()                     clients use door.url, which stays the same
await door.refuse()                   as if the service were away; `open` brings it back
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

CHUNK_BYTES = 65_536


class Door:
    """Passes bytes on between clients and one server, as long as it is told to."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.removeprefix("http://").rpartition(":")
        self.delay_s = 0.0  # of what goes in, each time: about one a request
        self._upstream = (host, int(port))
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._pipes: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    def __repr__(self) -> str:
        state = "hung" if not self._open.is_set() else "open" if self._server else "shut"
        return f"<Door {self.url} {state}, {len(self._pipes)} pipes>"

    @property
    def url(self) -> str:
        """For clients, once it was opened."""
        return f"http://127.0.0.1:{self._port}"

    async def open(self) -> None:
        """Let everything through, what hung included; always on the same port."""
        self._open.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    def hang(self) -> None:
        """Take connections and bytes, and pass nothing on in either direction."""
        self._open.clear()

    async def cut(self) -> None:
        """End all connections in the midst of what they do; new ones are welcome."""
        for writer in self._writers:
            writer.transport.abort()
        for pipe in self._pipes:
            pipe.cancel()
        if self._pipes:
            await asyncio.wait(self._pipes)

    async def refuse(self) -> None:
        """Cut all connections and take no new ones. May be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        await self.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        self._writers.update((writer, far_writer))
        self._start(self._pipe(reader, far_writer, is_inward=True))
        self._start(self._pipe(far_reader, writer, is_inward=False))

    def _start(self, piping: Coroutine[Any, Any, None]) -> None:
        pipe = asyncio.create_task(piping)
        self._pipes.add(pipe)
        pipe.add_done_callback(self._pipes.discard)

    async def _pipe(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_inward: bool
    ) -> None:
        try:
            while data := await source.read(CHUNK_BYTES):
                await self._open.wait()
                if is_inward and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                target.write(data)
                await target.drain()
        except OSError:
            pass  # cut by one of the ends, or by `cut`
        finally:
            self._writers.discard(target)
            target.transport.abort() if target.transport.is_closing() else target.close()
