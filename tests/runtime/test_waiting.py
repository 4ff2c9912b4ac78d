"""Work that a stop may end."""

from __future__ import annotations

import asyncio

import pytest

from processor.runtime.waiting import unless


async def test_work_that_is_given_up_is_cancelled_whole() -> None:
    stopping, ended = asyncio.Event(), asyncio.Event()

    async def start() -> str:
        try:
            await asyncio.Event().wait()
            return "started"
        finally:
            ended.set()

    asyncio.get_running_loop().call_soon(stopping.set)
    assert await unless(stopping, start()) is None
    assert ended.is_set()


async def test_work_that_fails_says_so_even_when_told_to_stop() -> None:
    async def start() -> str:
        raise ValueError("no")

    stopping = asyncio.Event()
    stopping.set()
    with pytest.raises(ValueError, match="no"):
        await unless(stopping, start())
