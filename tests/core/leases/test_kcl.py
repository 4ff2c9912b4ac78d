"""KCL's lease table: the shapes that KCL writes, and where each lease goes on."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from processor.core.leases.kcl import (
    KclLease,
    leases_of,
    of_stream,
    owners,
    place_of,
    require_still,
)
from processor.core.leases.rows import StreamKey
from processor.errors import ConfigError, Refused, UsageError
from processor.model import END, TRIM_HORIZON, Position
from tests.kcl import coordinator_rows, lease

ORDERS = StreamKey("orders", 1_700_000_000_123)
NUMBER = "49590338271490256608559692538361571095921575989136588898"


def one(**changes: Any) -> KclLease:
    (found,) = leases_of([lease("shardId-000000000000", **changes)], "app")
    return found


# ---- where a lease goes on --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("checkpoint", "sub", "splits", "position"),
    [
        (NUMBER, 0, False, Position("after", NUMBER)),
        (NUMBER, 0, True, Position("at", NUMBER, 1)),
        (NUMBER, 41, True, Position("at", NUMBER, 42)),
        ("000" + NUMBER, 0, False, Position("after", NUMBER)),
        ("TRIM_HORIZON", 0, True, TRIM_HORIZON),
        ("SHARD_END", 0, False, END),
    ],
)
def test_a_checkpoint_names_the_last_record_that_was_done(
    checkpoint: str, sub: int, splits: bool, position: Position
) -> None:
    place = place_of(one(checkpoint=checkpoint, sub=sub), None, splits=splits)
    assert (place.shard_id, place.position) == ("shardId-000000000000", position)


@pytest.mark.parametrize("checkpoint", ["LATEST", "AT_TIMESTAMP"])
def test_a_lease_without_a_checkpoint_needs_a_word_on_where_to_begin(checkpoint: str) -> None:
    with pytest.raises(UsageError, match=f"is at {checkpoint}.*--initial.*loses what has come"):
        place_of(one(checkpoint=checkpoint), None, splits=False)
    begin = Position("at_time", "5")
    assert place_of(one(checkpoint=checkpoint), begin, splits=False).position == begin


def test_a_place_within_an_aggregate_needs_the_pipeline_to_take_them_apart() -> None:
    with pytest.raises(ConfigError, match=r"source.decode: .*sub-sequence number 3.*\[kpl, json\]"):
        place_of(one(checkpoint=NUMBER, sub=3), None, splits=False)


def test_a_pending_checkpoint_is_passed_over_as_kcl_does() -> None:
    place = place_of(one(checkpoint="7", pending="9"), None, splits=False)
    assert place.position == Position("after", "7")
    assert "pending" in place.note


# ---- whose it is ------------------------------------------------------------------------------


def test_what_is_no_lease_is_passed_over_in_a_table_of_3x() -> None:
    items = [*coordinator_rows(), lease("shardId-000000000000", entity_type="LEASE")]
    items.append(lease("shardId-000000000001", entity_type="SOMETHING_NEW"))
    assert [found.shard_id for found in leases_of(items, "app")] == [
        "shardId-000000000000",
        "shardId-000000000001",
    ]


def multi(*streams: str) -> list[KclLease]:
    return leases_of([lease("shardId-000000000000", stream=each) for each in streams], "app")


def test_of_a_table_of_many_streams_only_ours_are_taken() -> None:
    leases = multi("111122223333:orders:1700000000", "111122223333:returns:1")
    (found,) = of_stream(leases, ORDERS, None)
    assert found.shard_id == "shardId-000000000000"
    assert found.key == "111122223333:orders:1700000000:shardId-000000000000"


def test_of_streams_of_one_name_the_one_made_at_our_time_is_meant() -> None:
    leases = multi("111122223333:orders:1700000000", "111122223333:orders:1600000000")
    (found,) = of_stream(leases, ORDERS, None)
    assert found.stream == "111122223333:orders:1700000000"


def test_where_it_is_not_plain_which_stream_is_meant_it_must_be_named() -> None:
    two = multi("111122223333:orders:1", "444455556666:orders:1")
    for leases in (two, multi("111122223333:returns:1")):
        with pytest.raises(UsageError, match="Name it with --kcl-stream"):
            of_stream(leases, ORDERS, None)
    (found,) = of_stream(two, ORDERS, "444455556666:orders:1")
    assert found.stream == "444455556666:orders:1"


@pytest.mark.parametrize(
    ("item", "why"),
    [
        ({"pk": "shard#0", "sk": "x"}, "no KCL lease table"),
        (lease("a", checkpoint="tail"), "found checkpoint 'tail'"),
        (lease("a") | {"checkpoint": None}, "found checkpoint None"),
        (lease("a") | {"checkpointSubSequenceNumber": -1}, "sub-sequence number -1"),
        (lease("x:y"), "expected account:stream:epoch:shard"),
    ],
)
def test_what_is_no_lease_table_is_a_wrong_command_line(item: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=f"--kcl-table app: .*{why}"):
        leases_of([item], "app")


# ---- who is alive -----------------------------------------------------------------------------


def test_any_change_between_two_looks_is_a_sign_of_life() -> None:
    still = one(owner="w", counter=5)
    require_still([still], [still])
    for change in ({"counter": 6}, {"owner": "v"}, {"checkpoint": "8"}, {"sub": 1}):
        with pytest.raises(Refused, match="the KCL application is alive"):
            require_still([still], [replace(still, **change)])
    with pytest.raises(Refused, match="is new"):
        require_still([], [still])


def test_an_owner_is_also_who_still_works_on_a_lease_that_is_handed_over() -> None:
    given = lease("shardId-000000000000", owner="next", checkpoint_owner="old")
    assert owners(leases_of([given], "app")) == {"old"}
    assert owners([one(owner=None)]) == set()
