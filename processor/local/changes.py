"""What happens to the demo's service in the midst of its traffic: kill, reshard, deploy.

    reshard   two shards are split between their stores; then two halves of different parents, which
              are neighbours, are merged: the child adopts from both
    kill      SIGKILL to the worker with most shards, and another is started
    deploy    each worker in turn is replaced: the new one is ready before the old one gets SIGTERM

One after the other, each as soon as it is due and the one before it is done: a step that begins is
carried through. What a reshard's parents counted is known once their ends are told, so a step waits
for those before anything else happens to the workers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from processor.local.producer import Lane, Producer
from processor.local.view import View
from processor.local.workers import Fleet, Worker

RESHARD_AT, KILL_AT, DEPLOY_AT = 12 / 60, 25 / 60, 35 / 60  # of the traffic's duration
LOOK_S = 0.25
READY_S = 30.0  # a worker starts within 3 s on an idle machine
ENDED_S = 60.0  # from a reshard to its parents' end: at once, but for a backlog or a takeover


@dataclass(frozen=True, slots=True)
class Wanted:
    """What shall happen."""

    kill: bool = False
    reshard: bool = False
    deploy: bool = False


class Changes:
    """Carries out what is wanted; counts what was done, and tells what went wrong."""

    def __init__(self, producer: Producer, fleet: Fleet, view: View) -> None:
        self._producer, self._fleet, self._view = producer, fleet, view
        self.kills = self.reshards = self.deploys = 0  # deploys: workers replaced
        self.owners: dict[str, str] = {}  # worker ids by shard, when the traffic began or a kill
        self.faults: list[str] = []

    async def perform(self, wanted: Wanted, duration_s: float) -> None:
        """All that is wanted, at its time; what has not begun when the traffic is stopped is not
        done. Cancelling it leaves a step half done, and every record counted."""
        self.owners = self._ownership()
        for share, is_wanted, step in self._steps(wanted):
            if is_wanted and await self._is_due(share * duration_s):
                await step()

    def _steps(self, wanted: Wanted) -> Sequence[tuple[float, bool, _Step]]:
        return (
            (RESHARD_AT, wanted.reshard, self.reshard),
            (KILL_AT, wanted.kill, self.kill),
            (DEPLOY_AT, wanted.deploy, self.deploy),
        )

    async def _is_due(self, at_s: float) -> bool:
        """True when the time has come; False if nobody wants to wait for it any more."""
        while not self._producer.is_stopped:
            if self._producer.elapsed_s() >= at_s:
                return True
            await asyncio.sleep(LOOK_S)
        return False

    # ---- steps ------------------------------------------------------------------------------

    async def kill(self) -> None:
        self.owners = self._ownership()
        names = [view.worker for view in self._fleet.shards().values()]
        victim = max(self._fleet.living, key=lambda worker: names.count(worker.child.name))
        self.kills += 1
        await self._fleet.kill(victim)
        started = await self._fleet.start()
        self._view.say(f"killed {victim.child.name}, started {started.child.name}")

    async def reshard(self) -> None:
        """Of the two shards in the middle, by hash key."""
        middle = len(self._producer.lanes) // 2
        first, second = self._producer.lanes[middle - 1 : middle + 1]
        left = await self.split(first)
        right = await self.split(second)
        await self.merge(left[-1], right[0])

    async def split(self, lane: Lane) -> list[Lane]:
        """The children's lanes, by hash key, once the parent's end is told."""
        children = await self._producer.split(lane)
        await self._note_reshard("split", [lane], children)
        return children

    async def merge(self, left: Lane, right: Lane) -> list[Lane]:
        """The child's lane, once both parents' ends are told."""
        children = await self._producer.merge(left, right)
        await self._note_reshard("merged", [left, right], children)
        return children

    async def deploy(self) -> None:
        for old in self._fleet.living:
            await self.replace(old)

    async def replace(self, old: Worker) -> Worker:
        """Start another worker, wait until it is ready, then stop this one; the new worker."""
        new = await self._fleet.start()
        await self._until(lambda: new.status.get("state") == "running", READY_S, "ready", new)
        self.faults += await self._fleet.retire(old)
        self.deploys += 1
        self._view.say(f"replaced {old.child.name} by {new.child.name}")
        return new

    # ---- how --------------------------------------------------------------------------------

    async def _note_reshard(
        self, what: str, parents: Sequence[Lane], children: Sequence[Lane]
    ) -> None:
        self.reshards += 1
        old, new = (", ".join(lane.shard_id for lane in lanes) for lanes in (parents, children))
        self._view.say(f"{what} {old} into {new}")
        ids = {lane.shard_id for lane in parents}
        await self._until(lambda: ids <= self._fleet.ended().keys(), ENDED_S, "told to end", old)

    async def _until(
        self, holds: Callable[[], bool], within_s: float, what: str, who: object
    ) -> None:
        """Wait; a fault if it never comes true."""
        give_up_s = self._producer.elapsed_s() + within_s
        while not holds():
            if self._producer.elapsed_s() > give_up_s:
                self.faults.append(f"{who} is not {what} after {within_s:.0f} s")
                return
            await asyncio.sleep(LOOK_S)

    def _ownership(self) -> dict[str, str]:
        return {shard_id: view.worker_id for shard_id, view in self._fleet.shards().items()}


_Step = Callable[[], Coroutine[Any, Any, None]]
