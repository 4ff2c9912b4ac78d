"""A fleet too large to read whole each second: each worker watches those that come after it.

The rules are tried with small figures: from five workers on, each reads the next two, and all rows
each ten seconds.
"""

from msgspec.structs import replace

from processor.core.leases import commands as c
from processor.core.leases.fleet import Fleet
from processor.core.leases.rows import Held, WorkerRow, claimed, fresh_row
from processor.core.leases.shares import Shares
from processor.model import TRIM_HORIZON, Shard
from tests.core.leases.world import STREAM, World, shard_id

TIMING = c.Timing(all_max=4, near=2, all_s=10.0)
NAMES = "abcdefgh"


def a_world(shards: int = 24, workers: str = NAMES) -> World:
    world = World(shards, timing=TIMING)
    for name in workers:
        world.join(name)
    world.run(30)
    return world


def reads(world: World, name: str) -> list[str]:
    return [line.split(name, 1)[1] for line in world.log if f" {name} ReadWorkers" in line]


def test_each_reads_its_next_ones_each_second_and_all_rows_seldom() -> None:
    world = a_world()
    world.log.clear()
    world.run(30)
    told = [line.split(maxsplit=2)[2] for line in world.log if " c ReadWorkers" in line]
    assert told.count("ReadWorkers c+3") in (29, 30, 31)
    assert told.count("ReadWorkers") == 3
    assert len(told) == told.count("ReadWorkers c+3") + 3


def test_workers_that_start_together_take_their_fair_share() -> None:
    world = a_world()
    assert set(world.counts().values()) == {3}
    assert set(world.epochs().values()) == {1}


def test_a_killed_workers_shards_are_owned_again_within_fifteen_seconds() -> None:
    for name in NAMES:
        world = a_world()
        world.kill(name)
        world.run(15)
        assert name not in world.owners().values()


def test_it_is_buried_and_followed_by_those_who_watched_it() -> None:
    world = a_world()
    world.log.clear()
    world.kill("d")
    world.run(15)
    buriers = {line.split()[1] for line in world.log if "Bury d" in line}
    claimers = {line.split()[1] for line in world.log if "of d at" in line}
    assert buriers <= {"b", "c"}
    assert claimers <= {"b", "c"}
    assert claimers


def test_two_neighbours_that_die_at_once_are_followed_by_who_is_left() -> None:
    world = a_world()
    for name in "cd":
        world.kill(name)
    world.run(15)
    assert not {"c", "d"} & set(world.owners().values())


def test_a_stopped_worker_hands_over_to_those_who_watch_it() -> None:
    world = a_world()
    world.log.clear()
    world.stop("d")
    world.run(6)
    assert "d" not in world.owners().values()
    assert {line.split()[-1] for line in world.log if " d Release" in line} <= {"b", "c"}
    assert not [line for line in world.log if " Bury" in line]


def test_a_newcomer_is_given_its_share_though_most_do_not_watch_it() -> None:
    world = a_world()
    world.join("dd")
    world.run(120)
    counts = world.counts()
    assert max(counts.values()) - min(counts.values()) <= 1
    assert set(world.owners().values()) == {*NAMES, "dd"}


def test_a_shard_that_was_released_to_nobody_is_found_by_somebody() -> None:
    world = a_world()
    key = shard_id(5)
    owner = world.owners()[key]
    assert owner is not None
    row = world.content.shards[STREAM, key]
    world.content.shards[STREAM, key] = replace(row, owner=None)
    world.run(90)
    assert world.owners()[key] is not None
    assert len(world.acting(key)) == 1


# ---- what one of them knows


def rows(names: str) -> list[WorkerRow]:
    return [WorkerRow(name, 1, held=(Held(f"s{name}", 1),)) for name in names]


def fleet_of(names: str, me: str = "c") -> Fleet:
    fleet = Fleet(me, TIMING)
    fleet.on_workers(rows(names), c.ReadWorkers(), 0.0)
    return fleet


def test_who_is_missing_between_two_rows_of_a_read_is_gone() -> None:
    fleet = fleet_of("abcdefg")
    fleet.on_workers(rows("cef"), c.ReadWorkers("c", 3), 1.0)
    assert sorted(fleet.workers) == ["a", "b", "c", "e", "f", "g"]
    assert set(fleet.gone) == {"d"}


def test_an_owner_that_one_read_does_not_show_may_have_joined_after_it_was_sent() -> None:
    """All rows are read seldom: nothing would show it before its shard was taken for free."""
    row = claimed(fresh_row(STREAM, Shard("sz"), TRIM_HORIZON), "z", 0)
    fleet = fleet_of("abcdefg")
    fleet.on_shard(row, 0.9)
    fleet.on_workers(rows("abcdefg"), c.ReadWorkers(), 1.0)
    assert not fleet.is_claimable("sz", 1.0 + TIMING.dead_after_s)
    fleet.on_workers(rows("abcdefg"), c.ReadWorkers(), 11.0)
    assert not fleet.is_claimable("sz", 11.0)
    assert fleet.is_claimable("sz", 11.0 + TIMING.dead_after_s)


def test_a_read_over_the_end_of_the_ring_says_nothing_of_those_it_does_not_reach() -> None:
    fleet = fleet_of("abcdefg")
    fleet.on_workers(rows("gb"), c.ReadWorkers("f", 2), 1.0)
    assert sorted(fleet.workers) == ["b", "c", "d", "e", "g"]


def test_fewer_rows_than_asked_for_are_all_that_there_are() -> None:
    fleet = fleet_of("abcdefg")
    fleet.on_workers(rows("cd"), c.ReadWorkers("c", 3), 1.0)
    assert sorted(fleet.workers) == ["c", "d"]


def test_what_a_gone_worker_held_is_free_though_its_shards_row_was_never_read() -> None:
    fleet = fleet_of("abcdefg")
    fleet.on_workers(rows("cef"), c.ReadWorkers("c", 3), 1.0)
    assert fleet.free({}) == ["sd"]
    assert not fleet.is_claimable("sd", 1.0)
    fleet.on_shard(claimed(fresh_row(STREAM, Shard("sd"), TRIM_HORIZON), "e", 0), 1.1)
    shares = Shares(fleet, TIMING)
    assert shares.wanted({}, 1.2).shards == set()  # somebody was faster


def test_rows_are_read_again_as_long_as_a_read_shows_new_ones_that_nobody_ever_owned() -> None:
    fleet = fleet_of("abcdefg")
    fresh = [fresh_row(STREAM, Shard(f"new{n}"), TRIM_HORIZON) for n in range(4)]
    owned = [claimed(row, "b", 0) for row in fresh[:2]]
    fleet.on_shards(owned, 1.0, 1.1)
    assert not fleet.is_beginning
    fleet.on_shards([*owned, *fresh[2:]], 2.0, 2.1)
    assert fleet.is_beginning  # somebody is still creating them
    fleet.on_shards([*owned, *fresh[2:]], 4.0, 4.1)
    assert not fleet.is_beginning


def test_workers_that_see_many_shards_long_left_take_a_few_and_not_the_same() -> None:
    left = [fresh_row(STREAM, Shard(f"left{n:03}"), TRIM_HORIZON) for n in range(100)]
    long_after_s = 2 * TIMING.successor_s + 1.0

    def taken_by(me: str) -> set[str]:
        fleet = fleet_of("abcdefg", me)
        fleet.on_shards(left, 0.5, 0.6)
        fleet.on_workers(rows("abcdefg"), c.ReadWorkers(), long_after_s)
        return Shares(fleet, TIMING).wanted({}, long_after_s).shards

    of_c, of_d = taken_by("c"), taken_by("d")
    assert len(of_c) < 50
    assert of_d - of_c
