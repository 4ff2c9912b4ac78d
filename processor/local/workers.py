"""The demo's workers: real processes, watched through the HTTP port that each of them serves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from processor.errors import ProcessorError
from processor.local import processes
from processor.observe.latency import Latency, merged

PIPELINE = Path(__file__).with_name("demo.yaml")
POLL_S = 0.5
POLL_TIMEOUT_S = 2.0
STOP_S = 35.0  # a worker promises to be gone 30 s after SIGTERM


class WorkerDied(ProcessorError):
    """A worker ended by itself."""

    def __init__(self, child: processes.Child):
        super().__init__(child.name, child.exit_code)
        self._text = f"{child.name} ended with {child.exit_code}; {child.log} ends:\n{child.tail()}"

    def __str__(self) -> str:
        return self._text


@dataclass(slots=True)
class Worker:
    """A process and what it last said of itself."""

    child: processes.Child
    url: str
    is_killed: bool = False  # by us
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardView:
    """A shard as its owner sees it; `totals` count over its whole life, whoever owned it."""

    worker: str
    worker_id: str
    epoch: int
    last_number: int  # sequence number of the last record taken, 0 before the first
    totals: Mapping[str, int]


class Fleet:
    """All workers that were ever started, the killed one included."""

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.workers: list[Worker] = []
        self._environment, self._folder = environment, folder

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.child.is_running]

    async def start(self) -> Worker:
        """One more worker; it may take seconds until it owns anything."""
        name = f"worker-{len(self.workers) + 1}"
        port = processes.free_port()
        child = await processes.start(
            name,
            [
                *(sys.executable, "-m", "processor", "run", "-c", str(PIPELINE)),
                *("--set", f"http.port={port}", "--log-format", "json"),
            ],
            environment=self._environment,
            log=self._folder / f"{name}.log",
        )
        worker = Worker(child, f"http://127.0.0.1:{port}")
        self.workers.append(worker)
        return worker

    async def watch(self) -> None:
        """Poll for ever; raises WorkerDied when one ends that nobody stopped."""
        timeout = aiohttp.ClientTimeout(total=POLL_TIMEOUT_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                await asyncio.gather(*(_poll(session, worker) for worker in self.living))
                for worker in self.workers:
                    if not (worker.child.is_running or worker.is_killed):
                        raise WorkerDied(worker.child)
                await asyncio.sleep(POLL_S)

    async def kill(self, worker: Worker) -> None:
        """SIGKILL, as a crash would end it."""
        worker.is_killed = True
        await worker.child.kill()

    async def stop(self) -> list[str]:
        """SIGTERM to all at once; what was wrong with how they ended."""
        living = self.living
        codes = await asyncio.gather(*(worker.child.stop(STOP_S) for worker in living))
        return [
            f"{worker.child.name} ended with {code} on SIGTERM, should be 0"
            for worker, code in zip(living, codes, strict=True)
            if code != 0
        ]

    def kill_now(self) -> None:
        """Without waiting, for the last resort."""
        for worker in self.workers:
            worker.child.kill_now()

    # ---- what they say ----------------------------------------------------------------------

    def shards(self) -> dict[str, ShardView]:
        """Each shard as its present owner sees it: of two that claim it the higher epoch is."""
        out: dict[str, ShardView] = {}
        for worker in self.living:
            for shard_id, shard in worker.status.get("shards", {}).items():
                view = ShardView(
                    worker.child.name,
                    str(worker.status["worker_id"]),
                    int(shard["epoch"]),
                    _number(str(shard["position"])),
                    shard["totals"],
                )
                if shard_id not in out or out[shard_id].epoch < view.epoch:
                    out[shard_id] = view
        return out

    def total(self, name: str) -> int:
        """A figure over all shards; exact, since it is part of each shard's state."""
        return sum(int(view.totals[name]) for view in self.shards().values())

    def published(self) -> int:
        """Events that the bus took, over all processes; what a killed one said last."""
        return sum(
            int(worker.status.get("totals", {}).get("events_published", 0))
            for worker in self.workers
        )

    def latency(self) -> Latency:
        """From taking a closing record to the bus's answer, over all processes."""
        said = (worker.status.get("latency", {}) for worker in self.workers)
        return merged(one["close_to_accepted"]["histogram"] for one in said if one)


async def _poll(session: aiohttp.ClientSession, worker: Worker) -> None:
    """Ask once; a worker that is starting or dying has nothing to say."""
    try:
        async with session.get(f"{worker.url}/status") as answer:
            if answer.status == 200:
                worker.status = await answer.json()
    except (aiohttp.ClientError, TimeoutError):
        return  # it is asked again soon; if it is dead, its exit code says so


def _number(position: str) -> int:
    digits = position.rpartition(":")[2]
    return int(digits) if digits.isdigit() else 0
