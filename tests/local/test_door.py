"""A door in front of a real server: it lets pass, refuses, hangs, delays and cuts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from processor.local.door import Door


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    """Before a server that says everything back."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1_000):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            pass  # cut, as the test wants it
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        door = Door(f"http://{host}:{port}")
        await door.open()
        yield door
        await door.refuse()


Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(door: Door) -> AsyncIterator[Ends]:
    host, port = door.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def said_back(ends: Ends, text: bytes) -> bytes:
    reader, writer = ends
    writer.write(text)
    return await reader.read(1_000)


async def test_an_open_door_lets_both_ways_pass(door: Door) -> None:
    async with connected(door) as ends:
        assert await said_back(ends, b"hello") == b"hello"


async def test_a_shut_door_cuts_and_refuses_and_opens_again_at_the_same_address(door: Door) -> None:
    url = door.url
    async with connected(door) as ends:
        await said_back(ends, b"hello")
        await door.refuse()
        assert await is_cut(ends)
    with pytest.raises(ConnectionError):
        async with connected(door):
            pass
    await door.open()
    assert door.url == url
    async with connected(door) as ends:
        assert await said_back(ends, b"again") == b"again"


async def test_a_cut_ends_connections_and_takes_new_ones(door: Door) -> None:
    async with connected(door) as ends:
        await said_back(ends, b"hello")
        await door.cut()
        assert await is_cut(ends)
    async with connected(door) as ends:
        assert await said_back(ends, b"again") == b"again"


async def is_cut(ends: Ends) -> bool:
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await ends[0].readexactly(1)
    return True


async def test_what_hung_passes_when_the_door_opens(door: Door) -> None:
    async with connected(door) as ends:
        door.hang()
        answer = asyncio.create_task(said_back(ends, b"hello"))
        await asyncio.wait([answer], timeout=0.05)
        assert not answer.done()
        await door.open()
        assert await answer == b"hello"


async def test_a_delay_holds_up_what_goes_in(door: Door) -> None:
    async with connected(door) as ends:
        door.delay_s = 3_600
        answer = asyncio.create_task(said_back(ends, b"hello"))
        await asyncio.wait([answer], timeout=0.05)
        assert not answer.done()
    await asyncio.wait([answer])
