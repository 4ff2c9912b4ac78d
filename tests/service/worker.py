"""One `processor run` as a test sees it: its log, its endpoints, its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

import aiohttp
import orjson

from processor.local import processes
from tests.service.waiting import eventually

START_S = 30.0  # 1 s on an idle core
STOP_S = 30.0  # what the service promises


class Worker:
    """One `processor run`; everything it says goes to its log."""

    def __init__(self, child: processes.Child, http: aiohttp.ClientSession) -> None:
        self.child = child
        self._http = http
        self.url = ""

    def __repr__(self) -> str:
        return f"{self.child!r}\n{self.child.tail(20)}"

    def output(self) -> str:
        return self.child.log.read_text(errors="replace")

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Its log lines; a line that is no JSON is an error, unless it is the process's last."""
        texts = self.output().splitlines()
        if not self.child.is_running and texts and not texts[-1].startswith("{"):
            texts.pop()  # what the command line says at its end, for a person
        found = [orjson.loads(text) for text in texts if text.endswith("}")]
        return [line for line in found if event in (None, line["event"])]

    async def serving(self) -> Worker:
        """Once its endpoints answer."""
        line = await eventually(lambda: self._ended() or self.lines("serving"), START_S, self._said)
        assert line is not True, self
        self.url = line[0]["message"]
        return self

    async def ready(self) -> Worker:
        await self.serving()
        await eventually(self._is_ready, START_S, self._said)
        return self

    async def get(self, path: str) -> tuple[int, str]:
        async with self._http.get(f"{self.url}{path}") as answer:
            return answer.status, await answer.text()

    async def status(self) -> dict[str, Any]:
        code, text = await self.get("/status")
        assert code == 200, text
        status: dict[str, Any] = orjson.loads(text)
        return status

    async def shards(self) -> set[str]:
        """What it works on."""
        return set((await self.status())["shards"])

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code; an AssertionError if it takes longer than it promises."""
        self.signal(number)
        try:
            async with asyncio.timeout(STOP_S):
                return await self.child.wait()
        except TimeoutError:
            raise AssertionError(f"still there {STOP_S:g} s after {number.name}: {self}") from None

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.child.pid, number)

    def _ended(self) -> bool:
        return not self.child.is_running

    def _said(self) -> object:
        return self

    async def _is_ready(self) -> bool:
        assert self.child.is_running, self
        return (await self.get("/readyz"))[0] == 200


async def balanced(workers: Sequence[Worker], *counts: int, within_s: float = 30.0) -> None:
    """Until the workers, whichever, hold so many shards, each shard one worker's."""

    async def is_so() -> bool:
        held = [await worker.shards() for worker in workers]
        is_fair = sorted(map(len, held)) == sorted(counts)
        return is_fair and sum(counts) == len(set().union(*held))

    await eventually(is_so, within_s, lambda: workers)
