"""The worker processes: how they start, leave in good order, crash, stand still, are replaced."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

from processor.core.snapshots import Totals
from tests.sim.breach import Breach, Verdict
from tests.sim.history import History, plan_of
from tests.sim.loop import CURRENT, Host, SimLoop
from tests.sim.network import Network
from tests.sim.process import Process
from tests.sim.services import Services

LEAVE_S = 30.0  # a process that is told to stop is gone by then
KILL_S = 45.0  # an orchestrator's patience: a drain that met an outage ends here


class Fleet:
    def __init__(
        self,
        loop: SimLoop,
        history: History,
        services: Services,
        network: Network,
        verdict: Verdict,
    ) -> None:
        self.processes: list[Process] = []
        self._loop, self._history = loop, history
        self._services, self._network, self._verdict = services, network, verdict
        self._note = verdict.note
        self._is_changed = False  # the pipeline file, by the last deploy
        self.changing_s: tuple[float, float] | None = None  # from when to when
        self._tasks: set[asyncio.Task[None]] = set()

    def alive(self) -> list[Process]:
        """Those who run and are not on their way out."""
        return [p for p in self.processes if not p.is_dead and not p.stopping.is_set()]

    def windows_open(self) -> int:
        views = (w.shards().values() for p in self.alive() for w in p.workers.values())
        return sum(view.windows_open for each in views for view in each)

    def totals(self, stream: str) -> dict[str, Totals]:
        """What became of the records of each shard that is followed, as `/status` tells it."""
        workers = [p.workers[stream] for p in self.alive()]
        views = [view for worker in workers for view in worker.shards().items()]
        return {shard_id: view.totals for shard_id, view in views}

    def ended(self, stream: str) -> dict[str, Totals]:
        """The same of shards that came to their end, whoever saw it, the dead included."""
        workers = [p.workers[stream] for p in self.processes]
        views = [view for worker in workers for view in worker.ended().items()]
        return {shard_id: view.totals for shard_id, view in views}

    # ---- a process

    def start(self) -> Process:
        name = f"w{len(self.processes) + 1}"
        history = self._history
        process = Process(
            name,
            f"{name}/{history.seed}",
            history.drift,
            self._services,
            self._network,
            self._on_told,
        )
        self.processes.append(process)
        is_global = bool(history.merge_shards)
        process.start(plan_of(history.checkpoint_ms, is_global, self._is_changed))
        process.task.add_done_callback(lambda task: self._on_end(process, task))
        release = "the changed pipeline, " if self._is_changed else ""
        self._note(process, f"starts with {release}its clock at {process.rate:.4f}")
        return process

    async def stop(self, process: Process) -> None:
        """In good order, which takes a limited time where nothing is out."""
        if process.is_dead:
            return
        self._tell_to_stop(process)
        await asyncio.wait([process.task], timeout=LEAVE_S)
        if not process.is_dead:
            raise Breach("leaving", f"{process.name} is there {LEAVE_S:g} s after its SIGTERM")

    async def crash(self, process: Process) -> None:
        if process.is_dead:
            return
        self._note(process, "crashes")
        self.thaw(process)
        await process.crash()

    async def crash_and_restart(self, process: Process, after_s: float) -> None:
        await self.crash(process)
        await asyncio.sleep(after_s)
        self.start()

    async def pause(self, process: Process, seconds: float) -> None:
        if process.is_dead or process.is_frozen:
            return
        self._note(process, f"stands still for {seconds:.1f} s")
        self._loop.freeze(process)
        await asyncio.sleep(seconds)
        self.thaw(process)

    def thaw(self, process: Process) -> None:
        if process.is_frozen:
            self._note(process, "goes on")
            self._loop.thaw(process)

    async def deploy(self, rng: random.Random, *, changed: bool) -> None:
        """One after the other; who has not left in time is killed. A change stays."""
        began_at, is_change = self._loop.now, changed and not self._is_changed
        self._is_changed = self._is_changed or changed
        self._note(None, "a deploy begins" + " of a changed pipeline" * is_change)
        for process in self.alive():
            self.start()
            await asyncio.sleep(rng.uniform(1, 8))
            if process.is_dead:
                continue
            self._tell_to_stop(process)
            await asyncio.wait([process.task], timeout=KILL_S)
            await self.crash(process)
        if is_change:
            self.changing_s = (began_at, self._loop.now)

    def _tell_to_stop(self, process: Process) -> None:
        self._note(process, "is told to stop")
        process.stopping.set()

    # ---- what is under way

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin something that belongs to the world, whoever caused it."""
        token = CURRENT.set(None)
        try:
            task = self._loop.create_task(work)
        finally:
            CURRENT.reset(token)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def settle(self) -> None:
        await asyncio.gather(*self._tasks)

    async def end(self) -> None:
        """Whoever is left, and whatever is under way, goes without a trace."""
        for task in self._tasks:
            task.cancel()
        for process in self.processes:
            if not process.task.done():
                self._loop.thaw(process)
                await process.crash()

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._verdict.on_breach("world", repr(error))

    def _on_end(self, process: Process, task: asyncio.Task[None]) -> None:
        """Whoever was not told to stop has no reason to end."""
        if process.is_dead:
            return
        process.is_dead = True
        error = None if task.cancelled() else task.exception()
        if error is not None or not process.stopping.is_set():
            self._verdict.on_breach("process", f"{process.name} ended by itself: {error!r}")
        self._note(process, "has stopped")

    def _on_told(self, host: Host, path: str, text: str) -> None:
        self._note(host, f"{path} {text}".rstrip())
        self._verdict.paths[path] += 1
        if path == "a task failed":
            self._verdict.on_breach("ring", f"{host.name}: {path} {text}")
