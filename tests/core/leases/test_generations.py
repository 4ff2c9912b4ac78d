"""Generations of a pipeline: which number a file gets, and whose shards its workers may claim."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from processor.core.leases.generations import (
    GENERATIONS_MAX,
    Registered,
    registered,
    state_generation,
)
from processor.core.leases.rows import Generation, fresh_row
from processor.core.leases.seeking import moved_to
from processor.model import TRIM_HORIZON, Shard
from tests.core.leases.world import STREAM, World, shard_id


def ran(*pipelines: str) -> tuple[Generation, ...]:
    return tuple(Generation(number, name) for number, name in enumerate(pipelines, 1))


@pytest.mark.parametrize(
    ("known", "pipeline", "is_rollback", "expected"),
    [
        ((), "a", False, (1, ran("a"))),
        (ran("a"), "a", False, (1, ran("a"))),
        (ran("a"), "b", False, (2, ran("a", "b"))),
        (ran("a", "b"), "a", False, (1, ran("a", "b"))),
        (ran("a", "b"), "a", True, (3, (Generation(2, "b"), Generation(3, "a")))),
        (ran("a", "b"), "b", True, (2, ran("a", "b"))),
        (ran("a", "b"), "c", True, (3, ran("a", "b", "c"))),
    ],
    ids=["first", "again", "new", "older", "rolled back", "is the newest", "new by rollback"],
)
def test_a_file_that_is_new_is_the_newest_and_a_known_one_keeps_its_number(
    known: tuple[Generation, ...],
    pipeline: str,
    is_rollback: bool,
    expected: tuple[int, tuple[Generation, ...]],
) -> None:
    assert registered(known, pipeline, is_rollback=is_rollback) == Registered(*expected)


def test_so_many_files_are_told_apart_and_one_from_before_counts_as_new() -> None:
    known: tuple[Generation, ...] = ()
    for i in range(GENERATIONS_MAX + 1):
        known = registered(known, f"{i}").known
    assert len(known) == GENERATIONS_MAX
    assert registered(known, "1").number == 2
    assert registered(known, "0").number == GENERATIONS_MAX + 2


def test_what_a_child_begins_with_is_as_new_as_its_parents_states() -> None:
    left, right = (fresh_row(STREAM, Shard(name), TRIM_HORIZON) for name in ("left", "right"))
    child = fresh_row(STREAM, Shard("child", parents=("left", "right")), TRIM_HORIZON)
    rows = {"left": replace(left, generation=4), "right": replace(right, generation=7)}
    assert state_generation(child, rows) == 7
    assert state_generation(replace(child, generation=8), rows) == 8
    assert state_generation(child, {}) == 0


def test_what_a_child_was_sought_to_has_nothing_of_its_parents() -> None:
    parent = replace(fresh_row(STREAM, Shard("parent"), TRIM_HORIZON), generation=2)
    child = fresh_row(STREAM, Shard("child", parents=("parent",)), TRIM_HORIZON)
    sought = moved_to(child, TRIM_HORIZON, "w", inherits=False)
    behind_it = moved_to(child, TRIM_HORIZON, "w", inherits=True)
    assert state_generation(sought, {"parent": parent}) == 0
    assert state_generation(behind_it, {"parent": parent}) == 2


# ---- who claims what


def test_workers_of_a_new_file_get_all_and_those_of_the_old_one_nothing_more() -> None:
    world = World(6)
    world.join("old", 1)
    world.run(10)
    world.join("new", 2)
    world.run(60)
    assert world.counts() == {"new": 3, "old": 3}
    world.join("other", 1)
    world.run(60)
    assert world.counts() == {"new": 3, "old": 3, "other": 0}
    world.stop("old")
    world.run(30)
    assert world.counts() == {"new": 6, "other": 0}


def test_what_a_newer_generation_committed_is_never_claimed_by_an_older_one() -> None:
    world = World(4)
    world.join("old", 1)
    world.run(10)
    world.join("new", 2)
    world.run(60)
    world.stop("new")  # it hands over to nobody, and commits before
    world.run(60)
    left = {key for key, owner in world.owners().items() if owner is None}
    assert left
    assert {world.row(key).generation for key in left} == {2}
    assert set(world.machines["old"].barred(world.now)) == left
    world.join("newer", 3)
    world.run(60)
    assert world.counts() == {"newer": 2, "old": 2}
    assert world.machines["old"].barred(world.now) == []


def test_a_successor_of_an_older_file_is_not_waited_for() -> None:
    world = World(1)
    world.table_row(shard_id(0), generation=2, successor="old")
    world.join("old", 1)
    world.join("new", 2)
    world.run(2.5)  # a successor's precedence would last for three seconds
    assert world.owners() == {shard_id(0): "new"}


def test_what_a_newer_worker_claimed_and_never_committed_an_older_one_may_have_back() -> None:
    world = World(2)
    world.join("new", 2)
    world.run(10)
    assert world.counts() == {"new": 2}
    world.kill("new")
    world.join("old", 1)
    world.run(30)
    assert world.counts() == {"old": 2}
