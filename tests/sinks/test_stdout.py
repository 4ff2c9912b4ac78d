"""JSON lines: what a line looks like, and what a reader that is gone does."""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import BinaryIO

import pytest

from processor.errors import Unavailable
from processor.model import DerivedEvent
from processor.sinks.stdout import StdoutSink, line

EVENT = DerivedEvent(
    "a", "lines", "processor.shop", "Window Result", 5, b'{"id":"a","mean":1.50}', "g", 0
)
MANY = [EVENT] * 5_000  # half a megabyte; a pipe holds 64 KiB


@pytest.fixture
def pipe() -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Its reading and its writing end."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "wb", buffering=0) as writer:
        yield reader, writer


async def read(reader: BinaryIO, n: int) -> bytes:
    return await asyncio.to_thread(reader.read, n * len(line(EVENT)))


async def turns_of_the_loop() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


async def test_a_line_has_the_fields_of_an_event_and_the_details_own_bytes():
    out = io.BytesIO()
    await StdoutSink("lines", out).put([EVENT, EVENT])
    first, second, rest = out.getvalue().split(b"\n")
    assert first == second
    assert first == (
        b'{"id":"a","source":"processor.shop","detail-type":"Window Result","time_ms":5,'
        b'"detail":{"id":"a","mean":1.50}}'
    )
    assert json.loads(first)["detail"]["id"] == "a"
    assert rest == b""


async def test_a_reader_that_is_gone_ends_the_put_with_the_reason():
    reading, writing = os.pipe()
    os.close(reading)
    out = os.fdopen(writing, "wb", buffering=0)  # nothing is left to flush when it is closed
    with out, pytest.raises(Unavailable, match=r"sink lines: write failed; .*Broken pipe"):
        await StdoutSink("lines", out).put([EVENT])


async def test_a_closed_stream_is_found_at_start_and_when_running():
    out = io.BytesIO()
    out.close()
    sink = StdoutSink("lines", out)
    with pytest.raises(Unavailable, match="closed"):
        await sink.check()
    with pytest.raises(Unavailable, match="closed"):
        await sink.put([EVENT])


@pytest.mark.parametrize("is_blocking", [True, False])
async def test_a_reader_that_stands_still_holds_up_the_put_and_nothing_else(pipe, is_blocking):
    reader, writer = pipe
    os.set_blocking(writer.fileno(), is_blocking)
    sink = StdoutSink("lines", writer)
    putting = asyncio.create_task(sink.put(MANY))
    await turns_of_the_loop()
    assert not putting.done()
    assert await read(reader, len(MANY)) == line(EVENT) * len(MANY)
    assert await putting == []
    await sink.close()


async def test_a_cancelled_puts_lines_come_whole_and_before_the_next(pipe):
    reader, writer = pipe
    sink = StdoutSink("lines", writer)
    first = asyncio.create_task(sink.put(MANY))
    await turns_of_the_loop()
    first.cancel()
    second = asyncio.create_task(sink.put([EVENT]))
    await turns_of_the_loop()
    assert first.cancelled()
    assert not second.done()
    assert await read(reader, len(MANY) + 1) == line(EVENT) * (len(MANY) + 1)
    assert await second == []
    await sink.close()


async def test_puts_at_the_same_time_do_not_mix_their_lines(pipe):
    reader, writer = pipe
    sink = StdoutSink("lines", writer)
    puts = asyncio.gather(*(sink.put(MANY[:1_000]) for _ in range(5)))
    assert await read(reader, len(MANY)) == line(EVENT) * len(MANY)
    await puts
    await sink.close()


STUCK = """
import asyncio, sys
from processor.sinks.stdout import StdoutSink
from tests.sinks.test_stdout import MANY

async def main():
    out = open(sys.stdout.fileno(), "wb", buffering=0, closefd=False)
    putting = asyncio.create_task(StdoutSink("lines", out).put(MANY))
    await asyncio.sleep(0)
    putting.cancel()

asyncio.run(main())
"""


def test_a_reader_that_stands_still_does_not_keep_the_process_from_ending(pipe):
    _, writer = pipe
    done = subprocess.run([sys.executable, "-c", STUCK], stdout=writer, stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
