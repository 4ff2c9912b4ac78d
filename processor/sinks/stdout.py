"""JSON lines: derived events to a stream of bytes, one a line, shaped as EventBridge shows them.

A write to a pipe takes as long as its reader likes. So one thread of the sink's own writes, and the
event loop goes on; nobody joins that thread, for a reader that stands still would keep us from
exiting. It has one write in hand at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress
from queue import SimpleQueue
from select import select
from typing import BinaryIO, NamedTuple

import orjson

from processor.errors import Unavailable
from processor.model import DerivedEvent
from processor.ports import Refusal


class StdoutSink:
    """Standard output, or any other stream of bytes that is handed in.

    Hand it in unbuffered: Python aborts at exit if a thread is still in the midst of a buffer.
    """

    def __init__(self, name: str, out: BinaryIO):
        self.name = name
        self._out = out
        self._writes: SimpleQueue[_Write | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._turn = asyncio.Lock()
        self._last: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"<StdoutSink {self.name}>"

    async def check(self) -> None:
        """Raises `Unavailable` if the stream is closed or can't be written to."""
        if self._out.closed or not self._out.writable():
            raise self._gone("it is closed or not writable")

    async def put(self, events: Sequence[DerivedEvent]) -> list[Refusal]:
        """All of them, in order; a reader that is slow holds us up, one that is gone ends the put
        with `Unavailable`. Cancelling is safe: what is being written goes out before the next."""
        data = b"".join(line(event) for event in events)
        async with self._turn:
            if self._last is not None:
                await asyncio.wait([self._last])  # of a put that was cancelled
            self._last = self._write(data)
            try:
                await asyncio.shield(self._last)
            except (OSError, ValueError) as error:  # ValueError: the stream was closed
                raise self._gone(str(error)) from error
        return []

    async def close(self) -> None:
        """The stream belongs to who made it."""
        self._writes.put(None)

    def _write(self, data: bytes) -> asyncio.Future[None]:
        if self._writer is None:
            arguments = (self._out, self._writes)
            self._writer = threading.Thread(
                target=_write_all, args=arguments, name=f"sink {self.name}", daemon=True
            )
            self._writer.start()
        loop = asyncio.get_running_loop()
        write = _Write(data, loop, loop.create_future())
        self._writes.put(write)
        return write.done

    def _gone(self, cause: str) -> Unavailable:
        return Unavailable(f"sink {self.name}", "write", f"{cause}: keep its reader alive")


class _Write(NamedTuple):
    """Bytes for the thread, and where its answer goes."""

    data: bytes
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[None]

    def answer(self, error: Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(self._settle, error)

    def _settle(self, error: Exception | None) -> None:
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)


def _write_all(out: BinaryIO, writes: SimpleQueue[_Write | None]) -> None:
    """The thread: one write after the other, until there is None."""
    while (write := writes.get()) is not None:
        try:
            _write(out, write.data)
        except Exception as error:  # whatever it is, it belongs to who waits for the answer
            write.answer(error)
        else:
            write.answer(None)


def _write(out: BinaryIO, data: bytes) -> None:
    """An unbuffered stream takes what it has room for; one that does not block may take None."""
    rest = memoryview(data)
    while rest:
        taken: int | None = out.write(rest)
        if taken is None:
            select([], [out], [])
        else:
            rest = rest[taken:]


def line(event: DerivedEvent) -> bytes:
    """One event as a line; `detail` is byte for byte what EventBridge would get."""
    envelope = {
        "id": event.id,
        "source": event.source,
        "detail-type": event.detail_type,
        "time_ms": event.time_ms,
        "detail": orjson.Fragment(event.detail),
    }
    return orjson.dumps(envelope, option=orjson.OPT_APPEND_NEWLINE)
