"""The demo's phases against a running stage: ready, traffic, drained; and what they left behind.

Beside them run: the watch over the workers, the receivers of both queues, and the view. If any of
these fails, the phase at hand is cancelled and the failure is raised.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import orjson

from processor.errors import ProcessorError
from processor.local import check
from processor.local.changes import Changes
from processor.local.check import HOUR_MS
from processor.local.collector import Collector
from processor.local.producer import Producer
from processor.local.stage import EVENTS_QUEUE, LETTERS_QUEUE, MERGE_SHARDS, STREAM, Stage
from processor.local.traffic import SHARDS, Plan
from processor.local.view import Progress, ShardLine, View, when
from processor.local.workers import Fleet

EVENT_RECEIVERS, LETTER_RECEIVERS = 4, 1  # 320 events a second come in batches of 10
READY_S, BALANCED_S = 60.0, 20.0  # all shards owned, and by both workers; takes a few seconds
STALL_S = 60.0  # a killed worker's shards are taken over within 15 s
QUIET_S, GIVE_UP_S = 2.0, 20.0  # the bus delivers within milliseconds
LOOK_S = 0.25
DENSE_FROM = 90_000  # records; fewer are too few orders a window (3.6) for detectors to judge


class NotReady(ProcessorError):
    """The workers did not come to own all shards."""


class Phases:
    """One run. `producer.stop()` ends the traffic early; the rest then follows as usual."""

    def __init__(self, plan: Plan, stage: Stage, fleet: Fleet, view: View) -> None:
        self.plan, self._fleet, self._view = plan, fleet, view
        self.producer = Producer(plan, STREAM, stage.kinesis)
        self._events = Collector(stage.queue_urls[EVENTS_QUEUE], stage.aws)
        self._letters = Collector(stage.queue_urls[LETTERS_QUEUE], stage.aws)
        self._told = _Told(self._events.bodies)
        self._begun_at = self._now()
        self._is_complete = False
        self.changes = Changes(self.producer, fleet, view)
        self._faults: list[str] = []  # what the phases themselves found wrong

    async def perform(
        self,
        workers: int,
        script: Callable[[Changes], Coroutine[Any, Any, None]],
        on_traffic: Callable[[bool], None],
    ) -> None:
        """All phases, the script beside the traffic, which ends no sooner.

        `on_traffic` is told when stopping the traffic makes sense, and when not.
        """
        asides: list[Coroutine[Any, Any, None]] = [
            self._fleet.watch(),
            self._events.run(EVENT_RECEIVERS),
            self._letters.run(LETTER_RECEIVERS),
            self._show(),
        ]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(aside) for aside in asides]
                await self._get_ready(workers)
                on_traffic(True)
                await self._send(script)
                on_traffic(False)
                await self._drain()
                for task in tasks:
                    task.cancel()
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from group_error

    @property
    def faults(self) -> list[str]:
        """What went wrong on the way, whatever the check says."""
        return self._faults + self.changes.faults

    def run(self) -> check.Run:
        """What is left behind, for the check. Exact once drained."""
        latency = self._fleet.latency()
        moved = [
            shard_id
            for shard_id, view in self._fleet.shards().items()
            if self.changes.owners.get(shard_id, view.worker_id) != view.worker_id
        ]
        service = check.Service(
            records=self._fleet.total("records") - self.producer.flushes,  # which are in no count
            duplicates=self._fleet.total("duplicates"),
            late=self._fleet.total("late"),
            events_published=self._fleet.published(),
            shards_moved=len(moved),
            p50_ms=latency.p50_ms,
            p99_ms=latency.p99_ms,
        )
        return check.Run(
            seed=self.plan.seed,
            start_ms=self.plan.start_ms,
            end_ms=self._end_ms(),
            until_ms=self._until_ms(),
            sent=[record.sent for record in self.producer.sent],
            planted=self.plan.planted,
            events=self._events.bodies,
            letters=self._letters.bodies,
            service=service,
            killed=self.changes.kills > 0,
            reshards=self.changes.reshards,
            deploys=self.changes.deploys,
            dense=self.plan.total >= DENSE_FROM,
        )

    # ---- phases -----------------------------------------------------------------------------

    async def _get_ready(self, workers: int) -> None:
        begun_at = self._now()
        while self._now() - begun_at < READY_S:
            shards = self._fleet.shards()
            owners = {view.worker_id for view in shards.values()}
            is_owned = len(shards) == SHARDS
            if is_owned and (len(owners) == workers or self._now() - begun_at > BALANCED_S):
                self._view.say(f"{len(owners)} workers own {len(shards)} shards")
                return
            await asyncio.sleep(LOOK_S)
        raise NotReady(f"after {READY_S:.0f} s the workers own {len(self._fleet.shards())} shards")

    async def _send(self, script: Callable[[Changes], Coroutine[Any, Any, None]]) -> None:
        await self.producer.open()
        self._begun_at = self._now()
        async with asyncio.TaskGroup() as group:
            group.create_task(script(self.changes))
            await self.producer.run()
            self._is_complete = len(self.producer.sent) == self.plan.total
        what = "all" if self._is_complete else "part"
        self._view.say(f"{what} of the traffic is sent: {len(self.producer.sent):,} records")
        await self.producer.flush(self._end_ms())

    async def _drain(self) -> None:
        """Until every record is taken and every event received, or nothing moves any more."""
        seen, moved_at = self._figures(), self._now()
        while not (self._is_processed() and self._is_merged() and self._is_received()):
            if self._figures() != seen:
                seen, moved_at = self._figures(), self._now()
            if self._now() - moved_at > STALL_S:
                self._faults.append(f"no progress for {STALL_S:.0f} s: {self._positions()}")
                return
            await asyncio.sleep(LOOK_S)

    def _figures(self) -> tuple[int, int, int]:
        return self._fleet.total("records"), len(self._events.bodies), len(self._letters.bodies)

    def _is_processed(self) -> bool:
        shards, ended = self._fleet.shards(), self._fleet.ended()
        return all(
            shard_id in ended
            or (shard_id in shards and shards[shard_id].last_number >= int(number))
            for shard_id, number in self.producer.last_numbers.items()
        )

    def _is_merged(self) -> bool:
        """Whether global rules told every window that is judged."""
        shards = self._fleet.merging().values()
        told_ms = [view.watermark_ms or 0 for view in shards]
        return len(told_ms) >= MERGE_SHARDS and min(told_ms) >= self._end_ms()

    def _is_received(self) -> bool:
        """All that should come has come and it is quiet; or it is quiet for long."""
        quiet_s = min(self._events.quiet_s(), self._letters.quiet_s())
        broken = check.tally(record.sent for record in self.producer.sent)["broken"]
        is_all = (
            len(self._events.bodies) >= self._fleet.published()
            and len(self._letters.bodies) >= broken
        )
        return quiet_s > (QUIET_S if is_all else GIVE_UP_S)

    # ---- facts ------------------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _positions(self) -> str:
        shards, ended = self._fleet.shards(), self._fleet.ended()
        return ", ".join(
            f"{shard_id} at {shards[shard_id].last_number if shard_id in shards else 'nobody'}"
            f" of {number}"
            for shard_id, number in sorted(self.producer.last_numbers.items())
            if shard_id not in ended
        )

    def _latest_ms(self) -> list[int]:
        """The last times sent, by store."""
        return list(self.producer.last_due_ms.values())

    def _end_ms(self) -> int:
        """Windows up to here are flushed and judged: the plan's end, or the hour of a cut."""
        if self._is_complete:
            return self.plan.end_ms
        latest_ms = max(self._latest_ms(), default=self.plan.start_ms)
        return min(self.plan.end_ms, -(-latest_ms // HOUR_MS) * HOUR_MS)

    def _until_ms(self) -> int:
        if self._is_complete:
            return self.plan.end_ms
        return min(self._latest_ms(), default=self.plan.start_ms)

    # ---- the view ---------------------------------------------------------------------------

    async def _show(self) -> None:
        while True:
            self._view.show(self._progress())
            await asyncio.sleep(LOOK_S)

    def _progress(self) -> Progress:
        shards = sorted(self._fleet.shards().items())
        self._told.read_on()
        return Progress(
            elapsed_s=self._now() - self._begun_at,
            now_ms=max(self._latest_ms(), default=self.plan.start_ms),
            sent=len(self.producer.sent),
            total=self.plan.total,
            throttled=self.producer.throttled,
            processed=self._fleet.total("records"),
            received=len(self._events.bodies),
            letters=len(self._letters.bodies),
            reshards=self.changes.reshards,
            deploys=self.changes.deploys,
            shards=[
                ShardLine(shard_id, view.worker, view.epoch, view.totals["records"])
                for shard_id, view in shards
            ],
            alarms=self._told.alarms(),
            overall=self._told.overall(),
        )


class _Told:
    """What a person reads of the bodies received: alarms, and the newest figures over all shards.
    Reads each body once."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self._bodies = bodies
        self._read = 0
        self._alarms: dict[str, str] = {}  # by event id: a repeat is no second alarm
        self._overall: dict[tuple[str, str], dict[str, Any]] = {}  # by rule and group

    def read_on(self) -> None:
        new, self._read = self._bodies[self._read :], len(self._bodies)
        for body in new:
            if b'"Anomaly Opened"' in body:
                detail = orjson.loads(body)["detail"]
                where = f"{when(detail['window']['start'])}  {detail['key'].get('store', 'all')}"
                self._alarms[detail["id"]] = f"{where}: {detail['anomaly']['sentence']}"
            elif any(rule in body for rule in _GLOBAL):
                self._note(orjson.loads(body)["detail"])

    def _note(self, detail: dict[str, Any]) -> None:
        key = detail["rule"], detail["key"].get("region", "")
        known = self._overall.get(key)
        if known is None or known["window"]["start"] < detail["window"]["start"]:
            self._overall[key] = detail

    def alarms(self) -> list[str]:
        """Sentences, oldest first."""
        return list(self._alarms.values())

    def overall(self) -> str:
        """Empty while nothing is known."""
        return "  ".join(_overall_text(*one) for one in sorted(self._overall.items()))


_GLOBAL = tuple(f'"{rule}"'.encode() for rule in check.GLOBAL)


def _overall_text(key: tuple[str, str], detail: dict[str, Any]) -> str:
    values = detail["values"]
    if key[0] == "failures":
        return f"{values['failure_ratio']:.0%} of {values['payments']} payments failed"
    return f"{key[1]} {values['revenue']:,.0f}"


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The failure that the others follow from: tasks of a group are cancelled by the first."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
