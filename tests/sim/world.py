"""One history as it happens: the world's main coroutine, which carries out the schedule.

It starts processes, puts records, cuts shards and brings the faults; then lets everything come to
rest, hands all shards to one last worker, and stops. What it saw is a log, one line an event.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any

from processor.core.snapshots import Totals
from tests.sim.breach import Breach, Verdict
from tests.sim.checkers import Checkers
from tests.sim.faults import (
    ACTS,
    AIMS,
    AIMS_OF_GLOBAL_RULES,
    SHORT_S,
    ZOMBIE_S,
    Aim,
    Air,
    Fault,
    outage,
    schedule,
    weather,
)
from tests.sim.fleet import Fleet
from tests.sim.history import (
    CLOSING_S,
    CLOSING_S_MAX,
    END_S,
    OWNED_BY_S,
    SWEPT_S,
    History,
    Put,
    Reshard,
)
from tests.sim.log import Log
from tests.sim.loop import Host, SimLoop
from tests.sim.network import Network
from tests.sim.process import Process
from tests.sim.services import MERGE_STREAM, STREAM, Services
from tests.sim.traffic import Traffic
from tests.sim.watch import Watch
from tests.virtual_time import START_MS

# A process becomes deaf so long before a checkpoint falls due: its next heartbeat comes within 3 s
# and counts for 6 s, its answer may be 2 s late, and a checkpoint waits for the next page.
HEARD_S = 6.5
STEP_S = 1.0  # how often a breach is looked for


class World:
    def __init__(self, loop: SimLoop, history: History) -> None:
        self.loop, self.history = loop, history
        self.log = Log(loop)
        self.services = services = Services(loop)
        self.verdict = verdict = Verdict(self.log)
        self.checkers: dict[str, Checkers] = {}  # by stream
        for name, shards in ((STREAM, history.shards), (MERGE_STREAM, history.merge_shards)):
            if shards:
                self.services.model.create_stream(name, shards, START_MS)
                prefix = "" if name == STREAM else "m"
                self.checkers[name] = Checkers(services, name, verdict, prefix)
        watch = Watch(services, self.checkers, verdict)
        self.traffic = Traffic(loop, services, history.seed, lambda text: self.log.note(None, text))
        self.air = Air(loop, history.seed, self._on_aim, self.traffic.on_mark)
        network = Network(loop, self.air, watch)
        self.fleet = Fleet(loop, history, services, network, verdict)
        self.totals: dict[str, Totals] = {}  # by shard of the source, when all was counted
        self.merged: dict[str, Totals] = {}  # of the merge stream, likewise
        self._rng = random.Random(f"world/{history.seed}")

    async def play(self) -> None:
        """From the first worker's start to the last one's end. Raises Breach."""
        for _ in range(self.history.workers):
            self.fleet.start()
        for at_s, event in self._events():
            await self._until(at_s)
            self._happen(event)
        self._calm()
        await self._until(OWNED_BY_S)
        self._check_owned()
        await self._until(CLOSING_S)
        while self.fleet.windows_open() and self.loop.now < CLOSING_S_MAX:
            await self._until(self.loop.now + STEP_S)
        await self._close()

    def _calm(self) -> None:
        self.log.note(None, "the faults stop")
        self.air.clear()
        for process in self.fleet.processes:
            self.fleet.thaw(process)
        while len(self.fleet.alive()) < 2:
            self.fleet.start()

    async def _close(self) -> None:
        """One more worker takes everything over; its claims sweep what earlier owners left."""
        closing_s = self.loop.now
        self.totals = self.fleet.totals(STREAM)
        if self.history.merge_shards:
            self.merged = self.fleet.totals(MERGE_STREAM)
        self.traffic.forget_closed()
        leaving = [p for p in self.fleet.processes if not p.is_dead]
        last = self.fleet.start()
        await self._until(closing_s + 5)
        await asyncio.gather(*(self.fleet.stop(p) for p in leaving))
        await self._until(max(END_S, closing_s + SWEPT_S))
        self._check_owned()
        await self.fleet.stop(last)
        await self.fleet.settle()
        self._raise()

    def _events(self) -> Iterator[tuple[float, Any]]:
        batches: dict[float, list[Put]] = {}
        for put in self.history.puts:
            batches.setdefault(put.at_s, []).append(put)
        events: list[tuple[float, int, Any]] = [
            *((at_s, 0, batch) for at_s, batch in batches.items()),
            *((one.at_s, 1, (STREAM, one)) for one in self.history.reshards),
            *((one.at_s, 1, (MERGE_STREAM, one)) for one in self.history.merge_reshards),
            *((one.at_s, 2, one) for one in schedule(self.history)),
        ]
        for at_s, _, event in sorted(events, key=lambda event: event[:2]):
            yield at_s, event

    async def _until(self, at_s: float) -> None:
        while self.loop.now < at_s:
            await asyncio.sleep(min(STEP_S, at_s - self.loop.now))
            self._raise()

    def _raise(self) -> None:
        if self.verdict.breach is not None:
            raise self.verdict.breach

    def _happen(self, event: Any) -> None:
        match event:
            case list():
                self.traffic.put(event)
            case (str(stream), Reshard() as reshard):
                self.traffic.reshard(stream, reshard)
                of = "" if stream == STREAM else " of the merge stream"
                self.verdict.paths[f"reshard by {reshard.kind}{of}"] += 1
            case Fault():
                self._strike(event)

    # ---- faults

    def _strike(self, fault: Fault) -> None:
        rng = random.Random(fault.draw)
        alive = self.fleet.alive()
        self.air.counts[fault.kind] += 1
        match fault.kind:
            case "weather":
                self._blow("weather", weather(rng, alive, self.loop.now))
            case "outage":
                self._blow("an outage", outage(rng, alive, self.loop.now))
            case "aim":
                skip = 0 if fault.at else rng.randrange(4)
                aims = AIMS + AIMS_OF_GLOBAL_RULES if self.history.merge_shards else AIMS
                aim = Aim(fault.at or rng.choice(aims), rng.choice(ACTS), skip)
                self.air.aims.append(aim)
                self.log.note(None, f"lies in wait: {aim.act} at a {aim.kind}")
            case "deafness":
                self._deafen(rng)
            case "crash" if alive:
                self.fleet.do(self.fleet.crash_and_restart(rng.choice(alive), rng.uniform(0.5, 20)))
            case "pause" if alive:
                seconds = rng.uniform(*rng.choice((ZOMBIE_S, ZOMBIE_S, SHORT_S)))
                self.fleet.do(self.fleet.pause(rng.choice(alive), seconds))
            case "deploy":
                self.fleet.do(self.fleet.deploy(rng, changed=rng.random() < 0.6))
            case "damage":
                self._damage(rng)
            case "refusal":
                self.services.refusals.until_s = self.loop.now + rng.uniform(5, 60)
                self.log.note(None, "the bus refuses some events")

    def _blow(self, name: str, what: Any) -> None:
        self.air.weather.append(what)
        self.log.note(None, f"{name}: {what}")

    def _deafen(self, rng: random.Random) -> None:
        """So that the next checkpoint falls due when the last heartbeat is about to be too old."""
        after_s = max(0.0, self.history.checkpoint_ms / 1_000 - HEARD_S)
        self.air.aims.append(Aim("commit", "deafen later", rng.randrange(4), after_s=after_s))
        self.log.note(None, "lies in wait: a heartbeat's answer is late, and the next are lost")

    def _damage(self, rng: random.Random) -> None:
        """A state that has an older one beside it can't be read any more, and its owner crashes."""
        keys = sorted(
            (row.owner, row.pairs[-1].state.key)
            for checkers in self.checkers.values()
            for row in checkers.rows.values()
            if len(row.pairs) == 2 and row.pairs[0].state and row.pairs[1].state and row.owner
        )
        if not keys:
            return
        owner, key = rng.choice(keys)
        services = self.services
        store = services.content.blobs if key in services.content.blobs else services.blobs
        store[key] = b"damaged" + store[key]
        services.damaged.add(key)
        self.log.note(None, f"damages {key}")
        for process in self.fleet.alive():
            if owner in process.worker_ids():
                self.fleet.do(self.fleet.crash_and_restart(process, rng.uniform(0.5, 15)))

    def _on_aim(self, aim: Aim, host: Host, duration_s: float) -> None:
        """Right at the moment that was lain in wait for."""
        assert isinstance(host, Process)
        self.log.note(host, f"meets {aim.act} at a {aim.kind}")
        if duration_s:
            self.fleet.do(self.fleet.pause(host, duration_s))
        else:
            self.fleet.do(self.fleet.crash_and_restart(host, self._rng.uniform(0.5, 15)))

    # ---- liveness

    def _check_owned(self) -> None:
        """Every shard that can be read is owned by somebody who lives."""
        workers = self.services.content.workers
        living = {id_ for (_, id_), row in workers.items() if not row.buried}
        for name, checkers in self.checkers.items():
            for shard_id in self.services.model.streams[name].shards:
                row = checkers.rows.get(shard_id)
                if row is None or not (row.ended or row.owner in living):
                    owner = None if row is None else checkers.name_of(row.owner)
                    raise Breach("liveness", f"{checkers.short(shard_id)} is owned by {owner}")
