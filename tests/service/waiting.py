"""How tests of real processes wait: for states, never for times."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Coroutine
from typing import Any

POLL_S = 0.05


async def eventually(
    holds: Callable[[], Any], within_s: float = 30.0, what: Callable[[], object] = lambda: ""
) -> Any:
    """The first true value of `holds`, asked again and again; `what` explains its absence."""
    deadline = time.monotonic() + within_s
    while True:
        value = holds()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what()}"
        await asyncio.sleep(POLL_S)


async def together(*scenarios: Coroutine[Any, Any, object]) -> None:
    """Scenarios side by side: most of their time is waiting. All are told of that failed."""
    outcomes = await asyncio.gather(*scenarios, return_exceptions=True)
    failures = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if len(failures) == 1:
        raise failures[0]
    if failures:
        raise ExceptionGroup("scenarios", failures)
