"""JSON lines: what a line looks like, and what a reader that is gone does."""

from __future__ import annotations

import io
import json
import os

import pytest

from processor.errors import Unavailable
from processor.model import DerivedEvent
from processor.sinks.stdout import StdoutSink

EVENT = DerivedEvent(
    "a", "lines", "processor.shop", "Window Result", 5, b'{"id":"a","mean":1.50}', "g", 0
)


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


async def test_a_reader_that_is_gone_ends_us_with_the_reason():
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
