"""The leases that one worker owns, and every change of their stages (`stages` draws them)."""

from __future__ import annotations

from collections.abc import Mapping

from processor.core.leases import commands as c
from processor.core.leases.agenda import Agenda
from processor.core.leases.fleet import Fleet
from processor.core.leases.handoff import verdict
from processor.core.leases.rows import Held, ShardRow
from processor.core.leases.shares import Shares
from processor.core.leases.stages import Lease, Stage, TaskEnd

RATE_STEP = 0.1  # of the rate as others know it: what is less is not told


class Portfolio:
    """Leases by shard. `outbox`: what changes of stage ask the shell to do, and nobody answers."""

    def __init__(self, fleet: Fleet, shares: Shares, agenda: Agenda, timing: c.Timing) -> None:
        self.leases: dict[str, Lease] = {}
        self.outbox: list[c.Command] = []
        self.shunned: dict[str, float] = {}  # shards whose task stalled here, and until when
        self._fleet = fleet
        self._shares = shares
        self._agenda = agenda
        self._timing = timing

    def __repr__(self) -> str:
        return str({key: lease.stage.value for key, lease in sorted(self.leases.items())})

    # ---- questions

    def held(self, now: float) -> dict[str, Held]:
        """As our row says it."""
        return {
            key: Held(key, lease.row.epoch, now < lease.rests_until, lease.to, lease.rate)
            for key, lease in sorted(self.leases.items())
        }

    def awaited(self) -> set[str]:
        """Workers whose next word decides on one of our leases."""
        return {
            lease.to
            for lease in self.leases.values()
            if lease.to is not None and lease.stage in (Stage.OFFERED, Stage.GIVEN)
        }

    def is_giving(self) -> bool:
        return any(lease.to is not None for lease in self.leases.values())

    def is_all_given(self) -> bool:
        return all(lease.stage is Stage.GIVEN for lease in self.leases.values())

    def movable(self, now: float) -> list[str]:
        """What runs and does not rest."""
        return sorted(
            key
            for key, lease in self.leases.items()
            if lease.stage is Stage.RUNNING and lease.rests_until <= now
        )

    def stopped(self) -> list[Lease]:
        return [lease for lease in self.leases.values() if lease.stage is Stage.STOPPED]

    def to_reclaim(self, now: float) -> list[Lease]:
        """Shards whose task failed: again, from the last checkpoint, under a new epoch."""
        failed = (lease for lease in self.leases.values() if lease.stage is Stage.FAILED)
        return [lease for lease in failed if self._agenda.is_due(lease.until, now)]

    # ---- the table's word

    def on_claimed(self, row: ShardRow, now: float) -> None:
        known = self.leases.get(row.id)
        lease = Lease(row, Stage.RUNNING, now)
        if known is not None:
            lease.failures, lease.waits = known.failures, known.waits
            lease.rate = known.rate
        if row.moved:
            lease.rests_until = now + self._timing.rest_s
        self.leases[row.id] = lease
        self.outbox.append(c.Run(row))

    def on_released(self, row: ShardRow, now: float) -> None:
        lease = self._of(row)
        if lease is not None:
            lease.stage = Stage.GIVEN
            lease.until = now + self._timing.successor_s

    def compare(self, shard_id: str) -> None:
        """Take over what the row as last seen says of our lease; drop it if it is not ours."""
        lease = self.leases.get(shard_id)
        if lease is None:
            return
        row = self._fleet.rows.get(shard_id)
        if row is None or row.epoch > lease.row.epoch:
            self._drop(lease)
        elif row.epoch == lease.row.epoch and lease.stage is not Stage.GIVEN:
            if row.owner == self._fleet.me:
                lease.row = max(lease.row, row, key=lambda one: one.commit)
            elif not (lease.has_task and row.ended):  # else its task will say so itself
                self._drop(lease)

    def drop_all(self) -> None:
        for lease in list(self.leases.values()):
            self._drop(lease)

    def _drop(self, lease: Lease) -> None:
        del self.leases[lease.row.id]
        if lease.has_task:
            self.outbox.append(c.Cancel(lease.row.id))

    # ---- the tasks' word

    def on_committed(self, row: ShardRow) -> None:
        """If it got on by that, earlier setbacks no longer count."""
        lease = self._of(row)
        if lease is not None:
            if row.position != lease.row.position:
                lease.failures = lease.waits = 0
            lease.row = row

    def on_rates(self, rates: Mapping[str, int]) -> None:
        """Points of each shard; a change by a little is none."""
        for key, rate in rates.items():
            lease = self.leases.get(key)
            if lease is not None and abs(rate - lease.rate) > RATE_STEP * lease.rate:
                lease.rate = rate

    def on_ended(self, row: ShardRow) -> None:
        self.leases.pop(row.id, None)

    def on_task_end(self, row: ShardRow, how: TaskEnd, now: float) -> None:
        lease = self._of(row)
        if lease is None:
            return
        lease.row = max(lease.row, row, key=lambda one: one.commit)
        if how == "lost":
            del self.leases[row.id]
        elif lease.stage is Stage.STOPPING:
            lease.stage = Stage.STOPPED
        elif not lease.has_task:
            pass  # cancelled, and not waited for any more
        elif how == "unreadable":
            lease.stage, lease.to = Stage.PARKED, None
        else:
            self._fail(lease, how, now)

    def _fail(self, lease: Lease, how: TaskEnd, now: float) -> None:
        lease.to = None
        if how == "waited":
            lease.waits += 1
        else:
            lease.failures += 1
        is_hopeless = lease.failures >= self._timing.failures_max
        lease.stage = Stage.PARKED if is_hopeless else Stage.FAILED
        doublings = min(lease.setbacks - 1, self._timing.doublings_max)
        lease.until = now + self._timing.backoff_s * (1 << doublings)

    def _of(self, row: ShardRow) -> Lease | None:
        """The lease under that row's epoch; words of another one come too late."""
        lease = self.leases.get(row.id)
        return lease if lease is not None and lease.row.epoch == row.epoch else None

    def on_stalled(self, shard_id: str, now: float) -> bool:
        """Give it to another worker at once; where there is none, it has failed here."""
        lease = self.leases.get(shard_id)
        if lease is None or lease.stage not in (Stage.RUNNING, Stage.OFFERED):
            return False
        if now - lease.since < self._timing.stalled_s:
            return False  # the one before it, which has not ended yet
        heir = self._shares.heirs(self.held(now), [shard_id], now).get(shard_id)
        if heir is None:
            self.outbox.append(c.Cancel(shard_id))
            self._fail(lease, "failed", now)
            return True
        self.shunned[shard_id] = now + self._timing.shun_s
        lease.stage, lease.to, lease.is_stalled = Stage.STOPPING, heir, True
        self._end_task(lease, now)
        return True

    # ---- time's

    def advance(self, now: float) -> None:
        self.shunned = {key: until for key, until in self.shunned.items() if until > now}
        for key, lease in list(self.leases.items()):
            if lease.stage is Stage.OFFERED:
                self._follow_offer(lease, now)
            elif lease.stage is Stage.STOPPING and self._agenda.is_due(lease.until, now):
                self._end_task(lease, now)
            elif lease.stage is Stage.GIVEN:
                is_taken = self._fleet.holdings.epoch(key) > lease.row.epoch
                if is_taken or self._agenda.is_due(lease.until, now):
                    del self.leases[key]

    def drain(self, stop_at: float, now: float) -> None:
        """Everything gets an heir, and another one if that goes; what runs is offered to it."""
        for key, heir in self._heirs(now).items():
            lease = self.leases[key]
            if lease.stage in (Stage.RUNNING, Stage.OFFERED):
                if heir is not None and now < stop_at:
                    self.offer(key, heir, stop_at, now)
                else:
                    self._stop(lease, heir, now)
            else:
                lease.to = heir
                if not lease.has_task:
                    lease.stage = Stage.STOPPED
        for lease in self.leases.values():
            if lease.stage is Stage.OFFERED:  # maybe since before we knew that we leave
                lease.until = min(lease.until, stop_at)

    def _heirs(self, now: float) -> Mapping[str, str | None]:
        """For what is on its way to nobody who could take it; None: nobody is there."""
        needy = sorted(
            key
            for key, lease in self.leases.items()
            if lease.stage is not Stage.GIVEN
            and (lease.to is None or not self._fleet.is_prompt(lease.to, now))
        )
        heirs = self._shares.heirs(self.held(now), needy, now) if needy else {}
        return {key: heirs.get(key) for key in needy}

    def offer(self, shard_id: str, to: str, until: float, now: float) -> None:
        """Begin to hand a lease over; its task goes on."""
        lease = self.leases[shard_id]
        if lease.stage is Stage.RUNNING:
            lease.offered_at = now
        lease.stage, lease.to, lease.until = Stage.OFFERED, to, until

    def _follow_offer(self, lease: Lease, now: float) -> None:
        match verdict(lease, self._fleet, now):
            case "stop":
                self._stop(lease, lease.to, now)
            case "call off":
                lease.stage, lease.to = Stage.RUNNING, None
            case "wait":
                self._agenda.is_due(lease.until, now)

    def _stop(self, lease: Lease, to: str | None, now: float) -> None:
        waited_s = None if lease.offered_at is None or to is None else now - lease.offered_at
        lease.stage, lease.to = Stage.STOPPING, to
        lease.until, lease.stopped_at = now + self._timing.drain_s, now
        self.outbox.append(c.Stop(lease.row.id, waited_s))

    def _end_task(self, lease: Lease, now: float) -> None:
        """Cancel it; if that was done already, go on without waiting for its end. What it still
        does has no effect on the table: its lease is closed."""
        if lease.is_cancelled:
            lease.stage = Stage.STOPPED
        else:
            lease.is_cancelled, lease.until = True, now + self._timing.cancel_s
            self.outbox.append(c.Cancel(lease.row.id))
