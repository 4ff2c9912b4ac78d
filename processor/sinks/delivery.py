"""Delivery: the shell around `core.packing` that all sinks with batches share.

A sink brings one coroutine that sends a request and says what came of it, as a value; this file
keeps the allowed number of them in flight, tells the machine, and waits when it says so.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from msgspec import Struct

from processor.core.packing import Packing, Request, Result
from processor.ports import Clock


class Answered(Struct, frozen=True):
    """The target spoke of each entry, in the request's order."""

    results: tuple[Result, ...]


class Failed(Struct, frozen=True):
    """No usable answer, or one that says nothing against the entries: the request goes again."""

    reason: str


class Rejected(Struct, frozen=True):
    """The target calls the request malformed."""

    code: str
    message: str


Outcome = Answered | Failed | Rejected
Send = Callable[[Request], Awaitable[Outcome]]


async def deliver(packing: Packing, send: Send, clock: Clock, rng: random.Random) -> None:
    """Send until every entry is settled; waits as long as the target is down.

    Cancelling is safe: requests in flight are cancelled, and may or may not have been taken.
    """
    flying: dict[asyncio.Future[Outcome], Request] = {}
    try:
        while not packing.is_done:
            for request in packing.commands(clock.monotonic()):
                flying[asyncio.ensure_future(send(request))] = request
            await _something(flying, packing.wake_at(), clock)
            for task in [task for task in flying if task.done()]:
                _tell(packing, flying.pop(task), task.result(), clock.monotonic(), rng.random())
    finally:
        await _abandon(flying)


def _tell(packing: Packing, request: Request, outcome: Outcome, now: float, draw: float) -> None:
    if isinstance(outcome, Answered):
        packing.on_answer(request, outcome.results, now, draw)
    elif isinstance(outcome, Rejected):
        packing.on_rejected(request, outcome.code, outcome.message)
    else:
        packing.on_failure(request, now, draw)


async def _something(
    flying: dict[asyncio.Future[Outcome], Request], wake_at: float | None, clock: Clock
) -> None:
    """Wait for an answer or for the machine's next moment, whichever comes first."""
    assert flying or wake_at is not None, "nothing to wait for: the batch would never end"
    waits: set[asyncio.Future[Outcome] | asyncio.Future[None]] = set(flying)
    nap: asyncio.Future[None] | None = None
    if wake_at is not None:
        nap = asyncio.ensure_future(clock.sleep(max(0.0, wake_at - clock.monotonic())))
        waits.add(nap)
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if nap is not None:
            nap.cancel()


async def _abandon(flying: dict[asyncio.Future[Outcome], Request]) -> None:
    for task in flying:
        task.cancel()
    await asyncio.gather(*flying, return_exceptions=True)
