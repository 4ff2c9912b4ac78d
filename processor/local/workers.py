"""The demo's workers: real processes, watched through the HTTP port that each of them serves."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Mapping
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
    ended_at_s: float | None = None  # monotonic seconds, when we killed it or told it to stop
    status: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShardView:
    """A shard as its owner sees it; `totals` count over its whole life, whoever owned it."""

    worker: str
    worker_id: str
    epoch: int
    last_number: int  # sequence number of the last record taken, 0 before the first
    watermark_ms: int | None
    totals: Mapping[str, int]


class Fleet:
    """All workers that were ever started, those that ended included."""

    def __init__(
        self, environment: Mapping[str, str], folder: Path, pipeline: Path = PIPELINE
    ) -> None:
        self.workers: list[Worker] = []
        self._environment, self._folder, self._pipeline = environment, folder, pipeline

    @property
    def living(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.child.is_running]

    async def start(self) -> Worker:
        """One more worker; it may take seconds until it owns anything.

        Its access key is its name, so whoever sees a request knows whose it is.
        """
        name = f"worker-{len(self.workers) + 1}"
        port = processes.free_port()
        child = await processes.start(
            name,
            [
                *(sys.executable, "-m", "processor", "run", "-c", str(self._pipeline)),
                *("--set", f"http.port={port}", "--log-format", "json"),
            ],
            environment={**self._environment, "AWS_ACCESS_KEY_ID": name},
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
                    if not (worker.child.is_running or worker.ended_at_s):
                        raise WorkerDied(worker.child)
                await asyncio.sleep(POLL_S)

    async def kill(self, worker: Worker) -> None:
        """SIGKILL, as a crash would end it."""
        worker.ended_at_s = time.monotonic()
        await worker.child.kill()

    async def retire(self, worker: Worker) -> list[str]:
        """SIGTERM, as a deploy would end it; what was wrong with how it ended."""
        worker.ended_at_s = time.monotonic()
        code = await worker.child.stop(STOP_S)
        return [] if code == 0 else [f"{worker.child.name} ended with {code} on SIGTERM, not 0"]

    async def stop(self) -> list[str]:
        """SIGTERM to all at once; what was wrong with how they ended."""
        faults = await asyncio.gather(*(self.retire(worker) for worker in self.living))
        return [fault for some in faults for fault in some]

    def kill_now(self) -> None:
        """Without waiting, for the last resort."""
        for worker in self.workers:
            worker.child.kill_now()

    # ---- what they say ----------------------------------------------------------------------

    def shards(self) -> dict[str, ShardView]:
        """Each open shard as its owner sees it: of two that claim it the one of higher epoch."""
        return _newest(self.living, "shards")

    def ended(self) -> dict[str, ShardView]:
        """Each shard that came to its end, as its last owner saw it then."""
        return _newest(self.workers, "ended")

    def merging(self) -> dict[str, ShardView]:
        """Each open shard of the merge stream, likewise."""
        return _newest(self.living, "shards", of_merge=True)

    def merged(self) -> dict[str, ShardView]:
        """Each shard of the merge stream that came to its end, likewise."""
        return _newest(self.workers, "ended", of_merge=True)

    def total(self, name: str) -> int:
        """A figure over all shards; exact, since it is part of each shard's state."""
        views = self.shards() | self.ended()
        return sum(int(view.totals[name]) for view in views.values())

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


def _newest(
    workers: Iterable[Worker], kind: str, *, of_merge: bool = False
) -> dict[str, ShardView]:
    out: dict[str, ShardView] = {}
    for worker in workers:
        stage = (worker.status.get("merge") or {}) if of_merge else worker.status
        for shard_id, shard in stage.get(kind, {}).items():
            view = ShardView(
                worker.child.name,
                str(stage["worker_id"]),
                int(shard["epoch"]),
                _number(str(shard["position"])),
                shard["watermark_ms"],
                shard["totals"],
            )
            if shard_id not in out or out[shard_id].epoch < view.epoch:
                out[shard_id] = view
    return out


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
