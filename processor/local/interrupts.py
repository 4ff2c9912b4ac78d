"""What Ctrl-C and SIGTERM do to a demo.

Ctrl-C while `allow`ed ends the traffic early; at any other time it ends the demo in order, as
SIGTERM does. Ctrl-C again kills everything at once.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any, Self

from processor.errors import ProcessorError


class Interrupted(ProcessorError):
    """Somebody ended the demo before there was anything to check."""

    def __init__(self, number: int):
        super().__init__(number)
        self.exit_code = 128 + number

    def __str__(self) -> str:
        return f"ended by {signal.Signals(self.exit_code - 128).name}"


class Interrupts:
    """Of the task that enters it. `kill_now` must end every process without waiting."""

    def __init__(self, kill_now: Callable[[], None]) -> None:
        self._kill_now = kill_now
        self._soft: Callable[[], None] | None = None  # ends the traffic, while it runs
        self._number = 0  # of the signal that ended the demo
        self._seen = 0

    def allow(self, soft: Callable[[], None], is_running: bool) -> None:
        """While the traffic runs, Ctrl-C ends just that."""
        self._soft = soft if is_running else None

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None
        loop.add_signal_handler(signal.SIGINT, self._on_ctrl_c, task)
        loop.add_signal_handler(signal.SIGTERM, self._end, task, signal.SIGTERM)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGTERM)
        if kind is asyncio.CancelledError and self._number:
            raise Interrupted(self._number) from None

    def _on_ctrl_c(self, task: asyncio.Task[Any]) -> None:
        self._seen += 1
        if self._seen > 1:
            self._kill_now()
            os._exit(128 + signal.SIGINT)
        if self._soft is not None:
            self._soft()
        else:
            self._end(task, signal.SIGINT)

    def _end(self, task: asyncio.Task[Any], number: signal.Signals) -> None:
        self._number = number
        task.cancel()
