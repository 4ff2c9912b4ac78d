"""The lease machine: who claims, keeps, hands over and drops what, and when."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.core.leases import commands as c
from processor.core.leases.machine import Machine
from processor.core.leases.rows import Pair, WorkerRow, claimed, committed, fresh_row
from processor.core.leases.stages import Stage, TaskEnd
from processor.model import TRIM_HORIZON, Position, Shard
from tests.core.leases.world import STREAM, TIMING, World, shard_id


def told(world: World, *words: str) -> list[str]:
    """Lines of the log in which any of the words occurs."""
    return [line for line in world.log if any(word in line for word in words)]


# ---- alone


def test_a_lone_worker_joins_reads_and_claims() -> None:
    world = World(1, delay_s=0)
    world.join("a")
    world.run(4.5)
    assert [line for line in world.log if "ReadWorkers" not in line] == [
        "   0.00 a Join 1 holds []",
        "   0.00 a ReadShards",
        "   0.00 a Discover",
        "   1.00 a Claim 0 of None at epoch 1",
        "   1.00 a Run 0 epoch 1",
        "   1.00 a Heartbeat 2 holds [0e1]",
        "   3.45 a Discover",
        "   4.00 a Heartbeat 3 holds [0e1]",
    ]


def test_nothing_is_claimed_before_the_row_stands() -> None:
    machine = Machine("a", TIMING)
    (command,) = machine.commands(0.0)
    assert isinstance(command, c.Join)
    assert machine.commands(1.0) == []


def test_validity_counts_from_the_send_of_the_heartbeat() -> None:
    machine = Machine("a", TIMING)
    machine.commands(0.0)
    machine.on_heartbeat(True, 0.0, 1.5)
    assert machine.valid_for_s(1.5) == pytest.approx(8.0 - 2.0 - 1.5)
    assert machine.valid_for_s(6.5) < 0


def test_timing_that_would_let_two_own_a_shard_is_refused() -> None:
    with pytest.raises(ValueError, match=r"validity_s 12\.0 < ttl_s 10\.0"):
        c.Timing(validity_s=12.0)


def test_a_heartbeat_goes_out_every_three_seconds_at_rest() -> None:
    world = World(0)
    world.join("a")
    world.run(60)
    assert len(told(world, "Heartbeat")) in (19, 20)


# ---- a worker that others took for dead


def test_a_worker_without_a_row_drops_everything() -> None:
    world = World(3)
    world.join("a")
    world.run(5)
    del world.content.workers[STREAM, "a"]
    world.run(5)
    assert world.machines["a"].is_dead
    assert world.machines["a"].leases == {}
    assert len(told(world, "Cancel")) == 3
    assert world.machines["a"].commands(world.now) == []


def test_a_frozen_worker_that_wakes_up_buried_drops_everything() -> None:
    world = World(4)
    world.join("a")
    world.join("b")
    world.run(5)
    world.freeze("a", 30)
    world.run(60)
    assert world.machines["a"].is_dead
    assert set(world.owners().values()) == {"b"}


# ---- take-over


def test_a_killed_workers_shards_are_owned_again_within_fifteen_seconds() -> None:
    world = World(8)
    for name in "abc":
        world.join(name)
    world.run(10)
    assert sorted(world.counts().values()) == [2, 3, 3]
    before = world.epochs()
    killed = [key for key, owner in world.owners().items() if owner == "a"]
    world.kill("a")
    world.run(15)
    assert world.counts() == {"b": 4, "c": 4}
    assert all(world.epochs()[key] == before[key] + 1 for key in killed)
    assert "a" not in {row.id for row in world.content.workers.values() if not row.buried}


def test_the_dead_are_buried_before_anything_of_theirs_is_claimed() -> None:
    world = World(3)
    world.join("a")
    world.run(5)
    world.join("b")
    world.kill("a")
    world.run(30)
    lines = told(world, "Bury", "of a at")
    assert lines[0].endswith("b Bury a")
    assert len(lines) == 4


def test_a_buried_workers_row_goes_when_no_shard_is_in_its_name() -> None:
    world = World(3)
    world.join("a")
    world.join("b")
    world.run(5)
    world.kill("a")
    world.run(30)
    assert set(world.content.workers) == {(STREAM, "b")}


def test_an_outage_of_the_table_is_nobodys_death() -> None:
    world = World(6)
    for name in "abc":
        world.join(name)
    world.run(10)
    before = world.owners(), world.epochs()
    for name in "abc":
        world.cut_off(name, 60)
    world.run(59)
    assert all(world.acting(key) == [] for key in world.owners())
    world.run(30)
    assert (world.owners(), world.epochs()) == before
    assert told(world, "Bury") == []
    assert all(world.acting(key) for key in world.owners())


def test_unchanged_time_counts_only_over_reads_close_together() -> None:
    world = World(2)
    world.join("a")
    world.join("b")
    world.run(5)
    world.kill("a")
    world.run(8)
    world.cut_off("b", 2.5)  # its reads hang, and fail by 16 at the latest
    world.run(13)
    assert told(world, "Bury") == []
    world.run(5)
    assert len(told(world, "Bury")) == 1


def test_after_a_lapse_rows_are_read_before_anything_is_done() -> None:
    world = World(2)
    world.join("a")
    world.run(5)
    world.cut_off("a", 12)
    world.run(12)
    machine = world.machines["a"]
    assert machine.valid_for_s(world.now) <= 0
    row = world.content.shards[STREAM, shard_id(0)]
    world.content.shards[STREAM, shard_id(0)] = claimed(row, "an operator", 0)
    world.run(5)
    assert machine.valid_for_s(world.now) > 0
    assert set(machine.leases) == {shard_id(1)}
    assert len(told(world, "Cancel 0")) == 1


def test_a_shard_of_an_owner_without_a_row_waits_as_long_as_one_of_a_dead_one() -> None:
    world = World(1)
    row = world.content.shards[STREAM, shard_id(0)]
    world.content.shards[STREAM, shard_id(0)] = claimed(row, "gone", 0)
    world.join("a")
    world.run(TIMING.dead_after_s)
    assert world.owners() == {shard_id(0): "gone"}
    world.run(3)
    assert world.owners() == {shard_id(0): "a"}


# ---- balance


def test_workers_that_start_together_take_their_fair_share() -> None:
    world = World(10)
    for name in "abc":
        world.join(name)
    world.run(5)
    assert sorted(world.counts().values()) == [3, 3, 4]
    assert all(epoch == 1 for epoch in world.epochs().values())


def test_a_joining_worker_is_given_shards_until_counts_are_even() -> None:
    world = World(9)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(30)
    assert world.counts() == {"a": 5, "b": 4}


def test_what_b_was_given_lately_is_not_given_to_c_before_it_rested() -> None:
    world = World(9)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(30)
    world.join("c")
    world.run(30)
    assert world.counts() == {"a": 3, "b": 4, "c": 2}
    world.run(TIMING.rest_s)
    assert world.counts() == {"a": 3, "b": 3, "c": 3}


def test_what_is_moved_is_released_to_the_worker_that_takes_it() -> None:
    world = World(2)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(20)
    releases = told(world, "Release")
    assert releases
    assert all(line.endswith("to b") for line in releases)


def test_what_was_moved_is_claimed_once() -> None:
    world = World(4)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(20)
    assert sorted(world.epochs().values()) == [1, 1, 2, 2]


def test_a_difference_of_one_moves_nothing() -> None:
    world = World(5)
    world.join("a")
    world.join("b")
    world.run(120)
    assert told(world, "Release") == []


def test_one_move_is_under_way_at_a_time() -> None:
    world = World(8)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(30)
    beats = told(world, "a Heartbeat")
    assert max(line.count("→") for line in beats) == 1
    assert [line.split()[2] for line in told(world, "Stop", "Release")] == ["Stop", "Release"] * 4


def test_a_moved_lease_rests_five_minutes() -> None:
    world = World(4)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(20)
    moved = {lease.row.id for lease in world.machines["b"].leases.values()}
    assert len(moved) == 2
    resting = [held for held in world.content.workers[STREAM, "b"].held if held.rests]
    assert {held.shard_id for held in resting} == moved
    world.run(TIMING.rest_s)
    assert not any(held.rests for held in world.content.workers[STREAM, "b"].held)


def test_leases_of_a_stopped_worker_do_not_rest() -> None:
    world = World(4)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(20)
    world.stop("a")
    world.run(10)
    resting = [held for held in world.content.workers[STREAM, "b"].held if held.rests]
    assert len(world.content.workers[STREAM, "b"].held) == 4
    assert len(resting) == 2


def test_the_successor_claims_what_is_released_to_it_within_moments() -> None:
    world = World(2)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(20)
    released = next(line for line in world.log if "Release" in line)
    claim = next(line for line in world.log if "b Claim" in line)
    assert claim.split()[3] == released.split()[3]
    assert float(claim.split()[0]) - float(released.split()[0]) < 1.5


def test_a_successor_that_died_gives_way_to_anybody() -> None:
    world = World(4)
    world.join("a")
    world.run(5)
    world.join("b")
    world.run(2)
    stopping = next(key for key, one in world.machines["a"].leases.items() if one.to == "b")
    world.kill("b")
    world.run(14)
    assert world.owners()[stopping] == "a"


# ---- balance by load


def loaded(world: World, seconds: int, points: dict[str, int]) -> None:
    """So long, each shard costs whoever runs it that much."""
    for _ in range(seconds // 3):
        for machine in world.machines.values():
            rates = {key: points[key] for key, one in machine.leases.items() if one.has_task}
            machine.on_rates(rates, world.now)
        world.run(3)


def loads(world: World, points: dict[str, int]) -> dict[str, int]:
    found = dict.fromkeys(world.counts(), 0)
    for key, owner in world.owners().items():
        assert owner is not None
        found[owner] += points[key]
    return found


def two_workers(heavy: int, light: int) -> tuple[World, dict[str, int]]:
    """Three shards each: a's cost `heavy` points, b's `light`."""
    world = World(6)
    world.join("a")
    world.join("b")
    world.run(5)
    owners = world.owners()
    return world, {key: heavy if owner == "a" else light for key, owner in owners.items()}


def test_a_worker_with_much_more_to_do_exchanges_a_shard_for_one_of_less() -> None:
    world, points = two_workers(heavy=30, light=2)
    loaded(world, 60, points)
    assert world.counts() == {"a": 3, "b": 3}
    assert loads(world, points) == {"a": 62, "b": 34}


def test_a_load_that_differs_by_little_moves_nothing() -> None:
    world, points = two_workers(heavy=30, light=25)
    loaded(world, 60, points)
    assert told(world, "Release") == []


def test_a_load_that_differs_for_a_moment_moves_nothing() -> None:
    world, points = two_workers(heavy=30, light=2)
    loaded(world, 6, points)
    loaded(world, 60, dict.fromkeys(points, 2))
    assert told(world, "Release") == []


def test_rates_alone_send_no_heartbeat() -> None:
    world, points = two_workers(heavy=3, light=3)
    world.log.clear()
    for _ in range(20):
        points = {key: rate + 1 for key, rate in points.items()}
        loaded(world, 3, points)
    assert len(told(world, "a Heartbeat")) in (19, 20, 21)
    held = world.content.workers[STREAM, "a"].held
    assert all(one.rate > 15 for one in held)


def test_a_load_is_moved_on_only_after_it_rested() -> None:
    world, points = two_workers(heavy=30, light=2)
    loaded(world, 60, points)
    first = len(told(world, "Release"))
    points = {key: 40 if owner == "b" else 1 for key, owner in world.owners().items()}
    loaded(world, 60, points)
    moved = [line.split()[3] for line in told(world, "Release")]
    assert len(moved) > first
    assert len(set(moved)) == len(moved)


# ---- stopping


def test_a_stopping_worker_names_successors_and_leaves_no_row() -> None:
    world = World(6)
    for name in "abc":
        world.join(name)
    world.run(10)
    world.stop("a")
    world.run(4)
    assert world.machines["a"].is_finished
    assert (STREAM, "a") not in world.content.workers
    assert world.counts() == {"b": 3, "c": 3}


def test_the_last_worker_releases_everything() -> None:
    world = World(3)
    world.join("a")
    world.run(5)
    world.stop("a")
    world.run(5)
    assert set(world.owners().values()) == {None}
    assert world.content.workers == {}
    assert {row.commit for row in world.content.shards.values()} == {1}


def test_a_stop_before_anything_was_claimed_ends_at_once() -> None:
    world = World(3)
    world.join("a")
    world.stop("a")
    world.run(1)
    assert world.machines["a"].is_finished
    assert world.content.workers == {}


def test_workers_read_while_our_own_row_goes_are_not_taken_for_our_death() -> None:
    machine = Machine("a", TIMING)
    machine.commands(0.0)
    machine.on_heartbeat(True, 0.0, 0.0)
    assert c.ReadWorkers() in machine.commands(0.0)
    machine.on_stop(0.1)
    assert machine.commands(0.1) == [c.Leave("a")]
    machine.on_workers([], 0.2)  # served after the row was deleted
    assert not machine.is_dead
    assert machine.commands(5.0) == []  # nor is anything read any more
    machine.on_left()
    assert machine.is_finished


def test_a_stop_while_the_table_is_out_ends_all_the_same() -> None:
    world = World(3)
    world.join("a")
    world.run(5)
    world.cut_off("a", 100)
    world.stop("a")
    world.run(29)
    assert world.machines["a"].is_finished


# ---- shard tasks


def failing(world: World, name: str, key: str, how: TaskEnd = "failed") -> None:
    machine = world.machines[name]
    machine.on_task_end(machine.leases[key].row, how, world.now)


def test_a_failed_task_starts_again_under_a_new_epoch() -> None:
    world = World(1)
    world.join("a")
    world.run(5)
    failing(world, "a", shard_id(0))
    world.run(5)
    assert world.epochs() == {shard_id(0): 2}
    assert world.machines["a"].leases[shard_id(0)].stage is Stage.RUNNING
    assert world.machines["a"].leases[shard_id(0)].failures == 1


def test_five_failures_in_a_row_park_the_shard_and_keep_it_owned() -> None:
    world = World(1)
    world.join("a")
    world.run(5)
    for _ in range(5):
        failing(world, "a", shard_id(0))
        world.run(20)
    assert world.machines["a"].leases[shard_id(0)].stage is Stage.PARKED
    assert world.owners() == {shard_id(0): "a"}
    assert [held.shard_id for held in world.content.workers[STREAM, "a"].held] == [shard_id(0)]


def test_a_task_that_waits_for_a_service_is_never_parked() -> None:
    world = World(1)
    world.join("a")
    world.run(5)
    for _ in range(20):
        failing(world, "a", shard_id(0), "waited")
        world.run(65)
    assert world.machines["a"].leases[shard_id(0)].stage is Stage.RUNNING


def test_waits_and_failures_in_a_row_put_the_next_start_off_until_the_shard_gets_on() -> None:
    world = World(1)
    world.join("a")
    world.run(5)
    story: list[TaskEnd] = ["waited", "failed", *["waited"] * 6]
    pauses: list[float] = []
    for how in story:
        failing(world, "a", shard_id(0), how)
        pauses.append(world.machines["a"].leases[shard_id(0)].until - world.now)
        world.run(65)
    assert pauses == pytest.approx([1, 2, 4, 8, 16, 32, 64, 64])
    row = world.machines["a"].leases[shard_id(0)].row
    pair = Pair(Position("after", "1"), row.commit + 1)
    world.machines["a"].on_committed(committed(row, row.pairs[-1], pair, "w"))
    failing(world, "a", shard_id(0), "waited")
    assert world.machines["a"].leases[shard_id(0)].until - world.now == pytest.approx(1)


def test_a_state_that_cannot_be_read_parks_the_shard_at_once() -> None:
    world = World(1)
    world.join("a")
    world.run(5)
    machine = world.machines["a"]
    machine.on_task_end(machine.leases[shard_id(0)].row, "unreadable", world.now)
    world.run(30)
    assert machine.leases[shard_id(0)].stage is Stage.PARKED


def test_the_word_of_an_older_epochs_task_changes_nothing() -> None:
    world = World(1)
    world.join("a")
    world.run(5)
    old = world.machines["a"].leases[shard_id(0)].row
    failing(world, "a", shard_id(0))
    world.run(5)
    world.machines["a"].on_task_end(old, "lost", world.now)
    assert world.machines["a"].leases[shard_id(0)].stage is Stage.RUNNING


def test_a_child_waits_for_its_parents_and_is_claimed_by_who_ended_the_last() -> None:
    world = World(2)
    child = fresh_row(STREAM, Shard(shard_id(2), parents=(shard_id(0), shard_id(1))), TRIM_HORIZON)
    world.content.shards[STREAM, child.id] = child
    world.join("a")
    world.run(20)
    assert world.owners()[child.id] is None


# ---- the table shows what an answer did not


def test_a_claim_whose_answer_was_lost_is_claimed_anew() -> None:
    machine = Machine("a", TIMING)
    machine.commands(0.0)
    machine.on_heartbeat(True, 0.0, 0.0)
    row = fresh_row(STREAM, Shard(shard_id(0)), TRIM_HORIZON)
    machine.on_shards([row], 0.0, 0.0, 1.0)
    machine.on_workers([WorkerRow("a", 1)], 0.0)
    machine.on_workers([WorkerRow("a", 1)], 0.1)
    (claim,) = [one for one in machine.commands(0.2) if isinstance(one, c.Claim)]
    machine.on_failed(claim, 0.3)
    (again,) = [one for one in machine.commands(0.9) if isinstance(one, c.Claim)]
    assert again == claim
    machine.on_shard(row.id, claim.after, 1.0)
    (third,) = [one for one in machine.commands(1.0) if isinstance(one, c.Claim)]
    assert (third.before, third.after.epoch) == (claim.after, 2)


# ---- whatever happens

NAMES = ("a", "b", "c")
misfortunes = st.lists(
    st.tuples(
        st.sampled_from(["freeze", "cut_off", "kill", "stop"]),
        st.sampled_from(NAMES),
        st.floats(0.5, 25),  # for so long
        st.floats(0.1, 15),  # until the next
    ),
    max_size=7,
)


@settings(max_examples=60, deadline=None)
@given(misfortunes, st.integers(0, 2**16), st.sampled_from([0.005, 0.05, 0.3]))
def test_never_two_owners_and_every_shard_is_owned_in_the_end(
    story: list[tuple[str, str, float, float]], seed: int, delay_s: float
) -> None:
    world = World(5, seed, delay_s)
    for name in NAMES:
        world.join(name)
    epochs = world.epochs()
    for what, name, seconds, pause in story:
        act = getattr(world, what)
        act(name, seconds) if what in ("freeze", "cut_off") else act(name)
        world.run(pause)
        assert all(world.epochs()[key] >= epoch for key, epoch in epochs.items())
        epochs = world.epochs()
    world.join("last")  # faults stop before liveness is judged
    world.run(25 + 20 + 15)
    living = world.counts().keys()
    assert "last" in living
    assert set(world.owners().values()) <= living
    assert all(len(world.acting(key)) == 1 for key in world.owners())


@settings(max_examples=20, deadline=None)
@given(misfortunes, st.integers(0, 2**16))
def test_one_seed_is_one_history(story: list[tuple[str, str, float, float]], seed: int) -> None:
    def history() -> list[str]:
        world = World(3, seed)
        for name in NAMES:
            world.join(name)
        for what, name, seconds, pause in story:
            act = getattr(world, what)
            act(name, seconds) if what in ("freeze", "cut_off") else act(name)
            world.run(pause)
        return world.log

    assert history() == history()
