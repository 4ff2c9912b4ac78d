"""JSON lines: derived events to a stream of bytes, one a line, shaped as EventBridge shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import BinaryIO

import orjson

from processor.errors import Unavailable
from processor.model import DerivedEvent
from processor.ports import Refusal


class StdoutSink:
    """Standard output, or any other stream of bytes that is handed in."""

    def __init__(self, name: str, out: BinaryIO):
        self.name = name
        self._out = out

    def __repr__(self) -> str:
        return f"<StdoutSink {self.name}>"

    async def check(self) -> None:
        """Raises `Unavailable` if the stream is closed or can't be written to."""
        if self._out.closed or not self._out.writable():
            raise self._gone("it is closed or not writable")

    async def put(self, events: Sequence[DerivedEvent]) -> list[Refusal]:
        """All of them, in order; a reader that is slow holds us up, one that is gone ends us."""
        try:
            self._out.write(b"".join(line(event) for event in events))
            self._out.flush()
        except (OSError, ValueError) as error:  # ValueError: the stream was closed
            raise self._gone(str(error)) from error
        return []

    async def close(self) -> None:
        """The stream belongs to who made it."""

    def _gone(self, cause: str) -> Unavailable:
        return Unavailable(f"sink {self.name}", "write", f"{cause}: keep its reader alive")


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
