"""The lease machine given its facts one by one: what it must not do yet, and what it may."""

from collections.abc import Sequence

from processor.core.leases import commands as c
from processor.core.leases.machine import Machine
from processor.core.leases.rows import Held, ShardRow, WorkerRow, claimed, fresh_row
from processor.model import TRIM_HORIZON, Shard
from tests.core.leases.world import STREAM, TIMING, shard_id

SILENT = WorkerRow("z", 7)
BURIED = WorkerRow("z", 7, buried=True)


def fresh() -> ShardRow:
    return fresh_row(STREAM, Shard(shard_id(0)), TRIM_HORIZON)


def joined(rows: Sequence[ShardRow], *others: WorkerRow) -> Machine:
    """Worker a, who joined at 0 and has read all shards once and all workers twice."""
    machine = Machine("a", TIMING)
    machine.commands(0.0)
    machine.on_heartbeat(True, 0.0, 0.0)
    machine.on_shards(rows, 0.0, 0.0, 1.0)
    for at in (0.0, 0.1):
        machine.on_workers([WorkerRow("a", 1), *others], at)
    return machine


def kinds(commands: Sequence[c.Command]) -> set[str]:
    return {type(command).__name__ for command in commands}


def test_nothing_takes_effect_with_less_validity_than_the_margin() -> None:
    machine = joined([fresh()])
    now = TIMING.validity_s - TIMING.margin_s + 0.1
    machine.on_shards([fresh()], now, now, 1.0)
    for at in (now - 0.05, now):
        machine.on_workers([WorkerRow("a", 1)], at)
    assert machine.valid_for_s(now) < 0
    assert not kinds(machine.commands(now)) & {"Claim", "Bury", "Release", "Forget"}


def test_a_read_without_our_own_row_is_our_death() -> None:
    machine = joined([])
    machine.on_workers([], 0.2)
    assert machine.is_dead


def test_nothing_of_a_dead_workers_is_claimed_before_its_burial_is_read() -> None:
    row = claimed(fresh(), "z", 0)
    machine = joined([row], SILENT)
    now, seen = 0.1, set[str]()
    while now < TIMING.dead_after_s + 5:
        now += 1.0
        machine.on_heartbeat(True, now, now)
        machine.on_workers([WorkerRow("a", 1), SILENT], now)
        commands = machine.commands(now)
        seen |= kinds(commands)
        for command in commands:
            if isinstance(command, c.ReadShard):
                machine.on_shard(row.id, row, now)
            elif isinstance(command, c.Bury):
                machine.on_failed(command, now)  # nobody knows whether it was applied
    assert "Bury" in seen
    assert "Claim" not in seen
    machine.on_buried("z", True, now)
    machine.on_workers([WorkerRow("a", 1), BURIED], now)
    machine.on_shard(row.id, row, now)
    assert "Claim" in kinds(machine.commands(now))


def test_an_owner_whose_shard_was_seen_before_its_row_is_not_taken_for_gone() -> None:
    """It joined and claimed between two of our reads: the row that comes later counts."""
    row = claimed(fresh(), "z", 0)
    machine = joined([row])
    machine.on_workers([WorkerRow("a", 1)], 0.2)  # read before z joined
    now, counter = 0.2, 1
    while now < TIMING.dead_after_s + 5:
        now, counter = now + 1.0, counter + 1
        machine.on_heartbeat(True, now, now)
        machine.on_workers([WorkerRow("a", 1), WorkerRow("z", counter)], now)
        machine.on_shard(row.id, row, now)
        assert "Claim" not in kinds(machine.commands(now))


def test_a_failed_read_of_the_workers_starts_everybodys_silence_anew() -> None:
    machine = joined([], SILENT)
    now, seen = 0.1, set[str]()
    while now < TIMING.dead_after_s + 3:
        now += 1.0
        machine.on_heartbeat(True, now, now)
        if 10 < now < 11.5:
            machine.on_failed(c.ReadWorkers(), now)
        else:
            machine.on_workers([WorkerRow("a", 1), SILENT], now)
        seen |= kinds(machine.commands(now))
    assert "Bury" not in seen


def test_a_buried_workers_row_stays_until_all_shards_were_read_again() -> None:
    """He may have claimed since our last read: a shard in the name of nobody is harder to judge."""
    machine = joined([], SILENT)
    machine.on_workers([WorkerRow("a", 1), BURIED], 1.0)
    assert "Forget" not in kinds(machine.commands(1.0))
    machine.on_shards([], 1.1, 1.2)
    assert "Forget" in kinds(machine.commands(1.3))


def test_what_came_to_be_while_all_rows_were_read_is_not_taken_for_gone() -> None:
    """A child of ours, claimed as it was created: its bucket may have been read before."""
    machine = joined([fresh()])
    child = claimed(fresh_row(STREAM, Shard(shard_id(7)), TRIM_HORIZON), "a", 0)
    machine.on_claimed(child, 1.2)
    assert kinds(machine.commands(1.2)) >= {"Run"}
    machine.on_shards([fresh()], 1.1, 1.3)  # sent before, answered after
    assert list(machine.leases) == [child.id]
    assert "Cancel" not in kinds(machine.commands(1.3))
    machine.on_shards([fresh()], 1.4, 1.5)
    assert not machine.leases


def test_what_was_fetched_of_a_shard_that_no_longer_comes_is_forgone() -> None:
    """Whether the fetching ended well or not: some of it may be here."""
    row = claimed(fresh(), "z", 0)
    offer = WorkerRow("z", 2, held=(Held(row.id, row.epoch, to="a"),))
    withdrawn = WorkerRow("z", 3, held=(Held(row.id, row.epoch),))
    fetch = c.Prefetch(row.id, row.epoch)
    for is_answered in (True, False):
        machine = joined([row], offer)
        assert fetch in machine.commands(0.2)
        machine.on_workers([WorkerRow("a", 1), withdrawn], 1.2)
        machine.commands(1.2)  # forgone already, but more may come
        if is_answered:
            machine.on_fetched(row.id, row.epoch, row, 1.3)
        else:
            machine.on_failed(fetch, 1.3)
        assert c.Forgo(row.id) in machine.commands(1.3)


def discovers_at(machine: Machine, first: float, last: float) -> float | None:
    """The first of these seconds at which the machine wants a listing."""
    at = first
    while at <= last:
        machine.on_heartbeat(True, at, at)
        if c.ReadShards(discover=True) in machine.commands(at):
            return at
        at += 1.0
    return None


def fleet_of_eight() -> Machine:
    machine = joined([], *(WorkerRow(f"w{n}", 1) for n in range(7)))
    assert discovers_at(machine, 1.0, 9.0) is not None
    return machine


def test_a_fleet_of_eight_lists_each_half_minute_and_each_5_s_while_it_reshards() -> None:
    machine = fleet_of_eight()
    machine.on_shards([], 10.0, 10.0, 1.0)
    assert discovers_at(machine, 11.0, 60.0) == 40.0
    machine.on_shards([], 40.0, 40.0, 1.0, is_resharding=True)
    assert discovers_at(machine, 41.0, 90.0) == 45.0


def test_a_listing_that_failed_is_not_repeated_at_once() -> None:
    machine = fleet_of_eight()
    machine.on_failed(c.ReadShards(discover=True), 10.0)
    assert discovers_at(machine, 10.5, 90.0) == 15.5
