"""Processes on one loop: each has its own time; a frozen one stands still while others go on."""

from __future__ import annotations

import asyncio

import pytest

from tests.sim.loop import CURRENT, Host, SimLoop, on_host, run


def test_a_fast_clock_wakes_its_process_early() -> None:
    async def main(loop: SimLoop) -> None:
        host = Host(loop, rate=1.25)
        await on_host(host, asyncio.sleep(10))
        assert loop.now == pytest.approx(8)
        assert host.monotonic() == pytest.approx(10)

    run(main)


def test_a_process_never_wakes_before_its_own_moment() -> None:
    async def wait(host: Host, until: float) -> None:
        await asyncio.sleep(until - host.monotonic())
        assert host.monotonic() >= until

    async def main(loop: SimLoop) -> None:
        for i in range(200):
            host = Host(loop, rate=1 + i / 10_000, zero_at=-1234.5678 * i)
            await on_host(host, wait(host, host.monotonic() + 0.1))

    run(main)


def test_what_falls_due_in_a_frozen_process_runs_when_it_thaws() -> None:
    async def main(loop: SimLoop) -> None:
        host, woke = Host(loop), []

        async def sleeper() -> None:
            await asyncio.sleep(1)
            woke.append(loop.now)

        task = on_host(host, sleeper())
        await asyncio.sleep(0)  # it begins
        loop.freeze(host)
        await asyncio.sleep(20)
        assert not woke
        loop.thaw(host)
        await task
        assert woke == [20]

    run(main)


def test_what_the_world_does_is_nobodys_doing_whoever_caused_it() -> None:
    async def main(loop: SimLoop) -> None:
        host, seen = Host(loop), []

        async def cause() -> None:
            loop.in_the_world(1, lambda: seen.append((loop.now, CURRENT.get())))

        await on_host(host, cause())
        loop.freeze(host)
        await asyncio.sleep(2)
        assert seen == [(1, None)]

    run(main)
