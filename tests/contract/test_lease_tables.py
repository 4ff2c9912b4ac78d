"""What every lease table promises, over each of them: DynamoDB is ministack's, over sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from msgspec.structs import replace

from processor.core.instructions import Instruction, encoded
from processor.core.leases.rows import (
    AppRow,
    Generation,
    Held,
    Pair,
    Ready,
    ShardRow,
    StateRef,
    StreamKey,
    WorkerRow,
    claimed,
    committed,
    ended,
    fresh_row,
    marked,
    of_generation,
    released,
)
from processor.errors import Outage, Throttled, Unavailable
from processor.model import END, TRIM_HORIZON, Mark, Position, Shard
from processor.ports import LeaseTable, Placed
from processor.runtime.inbox import Inbox
from processor.stores.dynamodb import DynamoTable, create_table
from processor.stores.dynamodb_items import instruction_item, worker_key, worker_values
from processor.stores.memory import MemoryTable
from tests.faults import Answer, CutAfter, FaultProxy, Garble, fault_proxy
from tests.support import aws_client
from tests.virtual_time import VirtualClock

STREAM = StreamKey("orders", 1_600_000_000_000)
BIG = "9" * 56  # a sequence number: more digits than a DynamoDB number holds


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture(params=["memory", "dynamodb"])
async def table(request: pytest.FixtureRequest, stack: AsyncExitStack) -> LeaseTable:
    if request.param == "memory":
        return MemoryTable()
    return await dynamo(stack, request.getfixturevalue("ministack"))


async def dynamo(stack: AsyncExitStack, url: str) -> DynamoTable:
    client = await stack.enter_async_context(aws_client("dynamodb", url))
    await create_table(client, "leases")
    return DynamoTable(client, "leases")


def shard(number: int, *parents: int) -> Shard:
    names = tuple(f"shardId-{parent:012d}" for parent in parents)
    return Shard(f"shardId-{number:012d}", 0, 2**128 - 1, names)


def fresh(number: int = 0, *parents: int) -> ShardRow:
    return fresh_row(STREAM, shard(number, *parents), TRIM_HORIZON)


def pair(row: ShardRow, number: str) -> Pair:
    ref = StateRef("item", f"{STREAM}/{row.id}/1-{row.commit + 1}-w", "digest", 17)
    return Pair(Position("after", number), row.commit + 1, ref)


def commit(row: ShardRow, number: str, write_id: str = "w") -> ShardRow:
    return committed(row, row.pairs[-1], pair(row, number), write_id)


async def owned(table: LeaseTable, worker: str = "a") -> ShardRow:
    """A shard's row in the table, owned by `worker` under epoch 1."""
    row = fresh()
    await table.create_shards([row])
    after = claimed(row, worker, 0)
    assert (await table.write(row, after)).applied
    return after


# ---- the application


async def test_application_and_start_are_pinned_once(table: LeaseTable) -> None:
    first = AppRow("shop", STREAM, Position("at_time", "1700000000000"))
    second = AppRow("billing", STREAM, Position("at_time", "1800000000000"))
    assert await table.read_app(STREAM) is None
    assert await table.pin(first) == first
    assert await table.pin(second) == first
    assert await table.read_app(STREAM) == first


async def test_a_stream_made_again_is_pinned_anew(table: LeaseTable) -> None:
    await table.pin(AppRow("shop", STREAM, Position("at_time", "1700000000000")))
    again = AppRow("shop", StreamKey("orders", 1_800_000_000_000), TRIM_HORIZON)
    assert await table.pin(again) == again


async def test_the_buckets_of_a_merge_stream_stay_as_they_were_pinned(table: LeaseTable) -> None:
    first = AppRow("shop", STREAM, TRIM_HORIZON, buckets=16)
    assert await table.pin(first) == first
    assert await table.pin(replace(first, buckets=8)) == first
    assert await table.read_app(STREAM) == first
    after = replace(first, generations=(Generation(1, "a"),))
    assert await table.remember(first, after) == await table.read_app(STREAM) == after


async def test_generations_are_remembered_unless_somebody_was_faster(table: LeaseTable) -> None:
    row = await table.pin(AppRow("shop", STREAM, TRIM_HORIZON))
    first = replace(row, generations=(Generation(1, "a"),))
    second = replace(row, generations=(Generation(1, "a"), Generation(2, "b")))
    assert await table.remember(row, first) == first
    assert await table.remember(row, second) == first, "what it builds on no longer stands"
    assert await table.remember(first, second) == second
    assert await table.pin(row) == second


# ---- workers


async def test_a_worker_says_what_it_holds(table: LeaseTable) -> None:
    first = Held("shardId-000000000000", 3, rests=True, to="b", rate=17)
    held = (first, Held("shardId-000000000001", 1))
    ready = (Ready("shardId-000000000002", 5),)
    row = WorkerRow("a", 7, draining=True, held=held, ready=ready, generation=4, behind_ms=-5)
    await table.join(STREAM, WorkerRow("a", 1))
    assert await table.heartbeat(STREAM, row)
    assert await table.read_workers(STREAM) == [row]
    assert await table.heartbeat(STREAM, replace(row, ready=()))
    assert await table.read_workers(STREAM) == [replace(row, ready=())]


async def test_joining_twice_leaves_the_first_row(table: LeaseTable) -> None:
    await table.join(STREAM, WorkerRow("a", 1))
    await table.heartbeat(STREAM, WorkerRow("a", 5))
    await table.join(STREAM, WorkerRow("a", 1))
    assert await table.read_workers(STREAM) == [WorkerRow("a", 5)]


async def test_a_deleted_worker_can_not_come_back_by_a_heartbeat(table: LeaseTable) -> None:
    await table.join(STREAM, WorkerRow("a", 1))
    await table.delete_worker(STREAM, "a")
    assert not await table.heartbeat(STREAM, WorkerRow("a", 2))
    assert await table.read_workers(STREAM) == []


async def test_a_buried_worker_is_refused_its_heartbeat(table: LeaseTable) -> None:
    await table.join(STREAM, WorkerRow("a", 1))
    assert await table.bury(STREAM, "a", 1)
    assert not await table.heartbeat(STREAM, WorkerRow("a", 2))
    (row,) = await table.read_workers(STREAM)
    assert row.buried
    assert row.counter == 1


async def test_a_worker_whose_counter_moved_is_not_buried(table: LeaseTable) -> None:
    await table.join(STREAM, WorkerRow("a", 1))
    await table.heartbeat(STREAM, WorkerRow("a", 2))
    assert not await table.bury(STREAM, "a", 1)
    assert await table.heartbeat(STREAM, WorkerRow("a", 3))


async def test_burying_twice_or_a_missing_worker_does_nothing(table: LeaseTable) -> None:
    await table.join(STREAM, WorkerRow("a", 1))
    assert await table.bury(STREAM, "a", 1)
    assert not await table.bury(STREAM, "a", 1)
    assert not await table.bury(STREAM, "b", 0)
    assert [row.id for row in await table.read_workers(STREAM)] == ["a"]


async def test_deleting_an_absent_worker_is_no_error(table: LeaseTable) -> None:
    await table.delete_worker(STREAM, "nobody")


def test_a_worker_row_of_fifty_leases_is_one_write_unit_also_while_they_are_handed_over() -> None:
    """1 KB; a heartbeat goes out every three seconds, whatever the worker does."""
    others = [f"5a8c1f0e-{n:04x}-4b7e-9d21-{n * 7919:012x}" for n in range(20)]
    held = tuple(Held(f"shardId-{n:012d}", 3 + n % 5, rate=n * 7 % 40) for n in range(50))
    assert _bytes(held) <= 1_024
    assert _bytes(tuple(replace(one, to=others[n % 6]) for n, one in enumerate(held))) <= 1_024


def _bytes(held: tuple[Held, ...]) -> int:
    row = WorkerRow("5a8c1f0e-0000-4b7e-9d21-000000000000", 123_456, held=held)
    item = worker_key(STREAM, row.id) | worker_values(row)
    return sum(len(name) + _value_bytes(value) for name, value in item.items())


def _value_bytes(value: dict[str, Any]) -> int:
    (content,) = value.values()
    return len(content) if isinstance(content, str | bytes) else 1


async def test_some_workers_are_read_from_an_id_on_and_around_the_end(table: LeaseTable) -> None:
    for name in "dbeca":
        await table.join(STREAM, WorkerRow(name, 1))

    async def read(first: str, count: int) -> str:
        return "".join(row.id for row in await table.read_workers(STREAM, first, count))

    assert await read("b", 3) == "bcd"
    assert await read("bb", 2) == "cd"
    assert await read("d", 4) == "deab"
    assert await read("x", 1) == "a"
    assert await read("b", 9) == "bcdea"
    assert await read("a", 5) == "abcde"


async def test_workers_of_another_stream_are_neither_seen_nor_touched(table: LeaseTable) -> None:
    other, row = StreamKey("returns", STREAM.created_ms), WorkerRow("a", 1)
    await table.join(STREAM, row)
    assert await table.read_workers(other) == []
    assert not await table.heartbeat(other, WorkerRow("a", 2))
    assert not await table.bury(other, "a", 1)
    await table.delete_worker(other, "a")
    assert await table.read_workers(STREAM) == [row]


# ---- shards


async def test_shard_rows_come_back_as_they_were_stored(table: LeaseTable) -> None:
    row = await owned(table)
    first = commit(row, BIG)
    assert (await table.write(row, first)).applied
    mark = Mark(Position("after", BIG), "idle", 1_700_000_000_000)
    second = replace(marked(first, mark, "w2"), caught_up_at_ms=1_700_000_000_001)
    second = of_generation(second, 3)
    assert (await table.write(first, second)).applied
    assert await table.read_shard(STREAM, row.id) == second
    assert await table.read_shards(STREAM) == [second]


async def test_all_buckets_are_read_and_only_this_stream(table: LeaseTable) -> None:
    rows = [fresh(number) for number in range(40)]
    other = replace(fresh(1), stream=StreamKey("orders", 1_600_000_000_001))
    await table.create_shards([*rows, other])
    assert {row.id for row in await table.read_shards(STREAM)} == {row.id for row in rows}


async def test_a_missing_row_is_none(table: LeaseTable) -> None:
    assert await table.read_shard(STREAM, "shardId-000000000009") is None


async def test_creating_again_changes_nothing(table: LeaseTable) -> None:
    row = await owned(table)
    await table.create_shards([fresh(0), fresh(1)])
    assert await table.read_shard(STREAM, row.id) == row
    assert await table.read_shard(STREAM, fresh(1).id) == fresh(1)


async def test_of_many_claimers_one_wins(table: LeaseTable) -> None:
    row = fresh()
    await table.create_shards([row])
    tries = [table.write(row, claimed(row, f"worker-{n}", 0)) for n in range(20)]
    answers = await asyncio.gather(*tries)
    (winner,) = [answer for answer in answers if answer.applied]
    assert {answer.row for answer in answers} == {winner.row}


async def test_a_refused_write_shows_the_row_that_stands(table: LeaseTable) -> None:
    row = await owned(table)
    stolen = claimed(row, "b", 0)
    assert (await table.write(row, stolen)).applied
    answer = await table.write(row, commit(row, "5"))
    assert not answer.applied
    assert answer.row == stolen


async def test_nothing_that_a_stale_epoch_writes_is_accepted(table: LeaseTable) -> None:
    row = await owned(table)
    stolen = claimed(row, "b", 0)
    assert (await table.write(row, stolen)).applied
    mark = Mark(TRIM_HORIZON, "idle", 1)
    final = replace(pair(row, "5"), position=END)
    late = [
        commit(row, "5"),
        marked(row, mark, "w"),
        released(row, "c", moved=True),
        claimed(row, "a", 0),
        ended(row, row.pairs[-1], final, "w"),
    ]
    for after in late:
        assert not (await table.write(row, after)).applied
    assert not (await table.end(row, late[-1], [fresh(1, 0)])).applied
    assert await table.read_shards(STREAM) == [stolen]


async def test_what_an_owners_earlier_epoch_still_writes_is_refused(table: LeaseTable) -> None:
    """The same owner and commit: only the epoch tells a failed task's late write from the new's."""
    row = await owned(table)
    again = claimed(row, "a", 0)
    assert (await table.write(row, again)).applied
    late = [
        commit(row, "5"),
        marked(row, Mark(TRIM_HORIZON, "idle", 1), "w"),
        released(row, None, moved=False),
    ]
    for after in late:
        assert not (await table.write(row, after)).applied
    assert await table.read_shard(STREAM, row.id) == again


async def test_what_a_released_owner_still_writes_is_refused(table: LeaseTable) -> None:
    row = await owned(table)
    free = released(row, "b", moved=True)
    assert (await table.write(row, free)).applied
    assert not (await table.write(row, commit(row, "5"))).applied
    assert await table.read_shard(STREAM, row.id) == free


async def test_a_repeat_of_an_applied_commit_is_refused_and_shows_it(table: LeaseTable) -> None:
    row = await owned(table)
    after = commit(row, "5", "mine")
    assert (await table.write(row, after)).applied
    again = await table.write(row, after)
    assert not again.applied
    assert again.row == after


async def test_a_commit_out_of_turn_is_refused(table: LeaseTable) -> None:
    row = await owned(table)
    first = commit(row, "5")
    assert (await table.write(row, first)).applied
    assert not (await table.write(row, commit(row, "6", "other"))).applied
    assert (await table.write(first, commit(first, "7"))).applied


async def test_a_missing_row_is_not_created_by_a_claim(table: LeaseTable) -> None:
    row = fresh()
    answer = await table.write(row, claimed(row, "a", 0))
    assert not answer.applied
    assert answer.row is None
    assert await table.read_shards(STREAM) == []


async def test_a_shard_ends_together_with_the_birth_of_its_children(table: LeaseTable) -> None:
    row = await owned(table)
    after = ended(row, row.pairs[-1], replace(pair(row, "5"), position=END), "w")
    children = [replace(fresh(n, 0), successor="a", seeks=2) for n in (1, 2)]
    assert (await table.end(row, after, children)).applied
    stored = sorted(await table.read_shards(STREAM), key=lambda one: one.id)
    assert stored == [after, *children]


async def test_the_end_of_a_second_parent_leaves_the_child_as_it_is(table: LeaseTable) -> None:
    row = await owned(table)
    child = replace(fresh(2, 0, 1), successor="b", seeks=4)
    await table.create_shards([child])
    after = ended(row, row.pairs[-1], replace(pair(row, "5"), position=END), "w")
    assert (await table.end(row, after, [replace(fresh(2, 0), successor="a")])).applied
    assert await table.read_shard(STREAM, child.id) == replace(child, successor="a")


async def test_two_parents_may_end_at_one_moment_and_leave_one_child(table: LeaseTable) -> None:
    parents = [claimed(row, row.id, 0) for row in (fresh(0), fresh(1))]
    await table.create_shards([fresh(0), fresh(1)])
    for before, row in zip((fresh(0), fresh(1)), parents, strict=True):
        await table.write(before, row)
    child = fresh(2, 0, 1)
    ends = (
        table.end(
            row,
            ended(row, row.pairs[-1], replace(pair(row, "5"), position=END), f"w-{row.id[-1]}"),
            [replace(child, successor=row.owner)],
        )
        for row in parents
    )
    assert all(written.applied for written in await asyncio.gather(*ends))
    rows = {row.id: row for row in await table.read_shards(STREAM)}
    assert rows[parents[0].id].ended
    assert rows[parents[1].id].ended
    assert rows[child.id].successor in {row.owner for row in parents}
    assert replace(rows[child.id], successor=None) == child


async def test_an_end_may_be_repeated_when_its_answer_was_lost(table: LeaseTable) -> None:
    row = await owned(table)
    after = ended(row, row.pairs[-1], replace(pair(row, "5"), position=END), "w")
    assert (await table.end(row, after, [fresh(1, 0)])).applied
    again = await table.end(row, after, [fresh(1, 0)])
    assert again.row == after


# ---- what people ask


def asked(number: int, expires_ms: int = 5_000) -> Placed:
    id_ = f"{number:013d}-0123abcd"
    key = {"store": "s1"}
    return Placed(number, Instruction(id_, "mute", expires_ms, rule="orders", key=key, until_ms=9))


async def test_instructions_come_back_in_order_and_only_those_of_the_app(table: LeaseTable) -> None:
    desk = table.instructions
    for placed in (asked(17), asked(3)):
        assert await desk.put("shop", placed, now_ms=1_000)
    assert await desk.put("other", asked(4), now_ms=1_000)
    assert await desk.read("shop") == [asked(3), asked(17)]
    assert await desk.read("shop", consistent=True) == [asked(3), asked(17)]


async def test_a_place_is_taken_until_what_is_in_it_has_expired(table: LeaseTable) -> None:
    desk, second = table.instructions, asked(3)._replace(place=5)
    assert await desk.put("shop", asked(5, expires_ms=5_000), now_ms=1_000)
    assert not await desk.put("shop", second, now_ms=4_000)
    assert await desk.put("shop", second, now_ms=7_000)
    assert await desk.read("shop") == [second]


async def test_only_the_instruction_that_was_meant_is_removed_with_who_took_it(
    table: LeaseTable,
) -> None:
    desk, placed, other = table.instructions, asked(5), asked(3)._replace(place=5)
    await desk.put("shop", placed, now_ms=1_000)
    for shard in ("orders/s1", "orders/s0", "orders/s1"):
        await desk.acknowledge("shop", placed.instruction, shard)
    assert await desk.taken("shop", placed.instruction) == ["orders/s0", "orders/s1"]
    assert not await desk.remove("shop", other)
    assert await desk.read("shop") == [placed]
    assert await desk.remove("shop", placed)
    assert not await desk.remove("shop", placed)
    assert (await desk.read("shop"), await desk.taken("shop", placed.instruction)) == ([], [])


async def test_a_mark_keeps_the_instruction_that_it_carries(table: LeaseTable) -> None:
    row = await owned(table)
    mark = Mark(TRIM_HORIZON, "instructed", 0, payload=encoded(asked(1).instruction))
    after = marked(row, mark, "w")
    assert (await table.write(row, after)).applied
    assert await table.read_shard(STREAM, row.id) == after


# ---- DynamoDB alone: what goes wrong over a wire


async def test_what_a_newer_release_asks_is_left_alone_and_the_rest_is_read(
    stack: AsyncExitStack, ministack: str
) -> None:
    """One line a time that it comes up; the others don't wait for it."""
    table, reports = await dynamo(stack, ministack), []
    newer = instruction_item("shop", asked(1)) | {"body": {"S": '{"id":"x","act":"snooze"}'}}
    client = await stack.enter_async_context(aws_client("dynamodb", ministack))
    await client.put_item(TableName="leases", Item=newer)
    await table.instructions.put("shop", asked(2), now_ms=1_000)
    assert await table.instructions.read("shop") == [asked(2)]
    assert not await table.instructions.put("shop", asked(1), now_ms=1_000), "the place is taken"
    clock = VirtualClock()
    inbox = Inbox(
        table.instructions, "shop", clock, lambda what, error: reports.append((what, error))
    )
    for _ in range(2):
        await inbox.look()
    assert inbox.asked == (asked(2).instruction,)
    [(what, error)] = reports
    assert asked(1).instruction.id in what
    assert "snooze" in str(error)


async def test_an_ended_row_goes_once_and_only_in_the_version_that_was_seen(
    table: LeaseTable,
) -> None:
    row = await owned(table)
    assert not await table.remove_shard(row)  # it has not ended
    after = ended(row, row.pairs[-1], replace(pair(row, "5"), position=END), "w")
    await table.end(row, after, [fresh(1, 0)])
    assert not await table.remove_shard(row)
    assert not await table.remove_shard(replace(after, commit=after.commit + 1))
    assert not await table.remove_shard(replace(after, owner="b"))
    assert await table.read_shard(STREAM, row.id) == after
    assert await table.remove_shard(after)
    assert await table.read_shard(STREAM, row.id) is None
    assert not await table.remove_shard(after)
    assert [one.id for one in await table.read_shards(STREAM)] == [shard(1).id]


async def test_a_missing_table_says_which_action_and_how_to_make_it(
    stack: AsyncExitStack, ministack: str
) -> None:
    client = await stack.enter_async_context(aws_client("dynamodb", ministack))
    with pytest.raises(Unavailable) as caught:
        await DynamoTable(client, "nowhere").pin(AppRow("shop", STREAM, TRIM_HORIZON))
    assert "table nowhere: dynamodb:PutItem failed" in str(caught.value)
    assert "aws dynamodb create-table --table-name nowhere" in str(caught.value)
    with pytest.raises(Unavailable, match="table nowhere: dynamodb:Query failed"):
        await DynamoTable(client, "nowhere").check()


async def test_an_empty_table_passes_its_check(stack: AsyncExitStack, ministack: str) -> None:
    await (await dynamo(stack, ministack)).check()


async def test_a_table_is_made_once_however_many_ask(stack: AsyncExitStack, ministack: str) -> None:
    client = await stack.enter_async_context(aws_client("dynamodb", ministack))
    await asyncio.gather(*(create_table(client, "leases") for _ in range(3)))
    description = (await client.describe_table(TableName="leases"))["Table"]
    assert description["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
    assert [key["AttributeName"] for key in description["KeySchema"]] == ["pk", "sk"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("ProvisionedThroughputExceededException", Throttled),
        ("ThrottlingException", Throttled),
        ("RequestLimitExceeded", Throttled),
        ("InternalServerError", Outage),
        ("AccessDeniedException", Unavailable),
        ("KMSAccessDeniedException", Unavailable),
        ("ExpiredTokenException", Unavailable),
        ("ResourceNotFoundException", Unavailable),
        ("ValidationException", Unavailable),
    ],
)
async def test_errors_of_the_service_are_translated(
    stack: AsyncExitStack, ministack: str, code: str, expected: type[Exception]
) -> None:
    await dynamo(stack, ministack)
    status = 500 if code == "InternalServerError" else 400
    proxy = await stack.enter_async_context(
        fault_proxy(ministack, ["UpdateItem"], [Answer(status, code)])
    )
    client = await stack.enter_async_context(aws_client("dynamodb", proxy.url))
    with pytest.raises(expected) as caught:
        await DynamoTable(client, "leases").heartbeat(STREAM, WorkerRow("a", 1))
    assert type(caught.value) is expected
    assert "table leases" in str(caught.value)


async def test_a_refused_connection_is_an_outage(stack: AsyncExitStack) -> None:
    client = await stack.enter_async_context(aws_client("dynamodb", "http://127.0.0.1:1"))
    with pytest.raises(Outage, match="EndpointConnectionError"):
        await DynamoTable(client, "leases").read_workers(STREAM)


async def test_a_garbled_answer_is_not_taken_for_an_empty_table(
    stack: AsyncExitStack, ministack: str
) -> None:
    table = await dynamo(stack, ministack)
    row = await owned(table)
    proxy = await stack.enter_async_context(fault_proxy(ministack, ["Query"], [Garble(), Garble()]))
    client = await stack.enter_async_context(aws_client("dynamodb", proxy.url))
    garbled = DynamoTable(client, "leases")
    with pytest.raises(Outage, match="without Items"):
        await garbled.read_shard(STREAM, row.id)
    with pytest.raises(Outage, match="without Items"):
        await garbled.read_workers(STREAM)
    assert await garbled.read_shard(STREAM, row.id) == row


async def test_a_lost_answer_is_an_outage_and_the_row_tells_what_happened(
    stack: AsyncExitStack, ministack: str
) -> None:
    table = await dynamo(stack, ministack)
    row = await owned(table)
    proxy = await stack.enter_async_context(fault_proxy(ministack, ["UpdateItem"], [CutAfter()]))
    client = await stack.enter_async_context(aws_client("dynamodb", proxy.url))
    after = commit(row, "5", "mine")
    with pytest.raises(Outage):
        await DynamoTable(client, "leases").write(row, after)
    assert await table.read_shard(STREAM, row.id) == after


async def test_what_a_newer_release_added_to_a_row_survives_our_writes(
    stack: AsyncExitStack, ministack: str
) -> None:
    table = await dynamo(stack, ministack)
    row = await owned(table)
    client = await stack.enter_async_context(aws_client("dynamodb", ministack))
    (item,) = [
        item
        for item in (await client.scan(TableName="leases"))["Items"]
        if item["pk"]["S"].startswith("shard#")
    ]
    await client.put_item(TableName="leases", Item=item | {"newer": {"S": "kept"}})
    assert (await table.write(row, commit(row, "5"))).applied
    key = {"pk": item["pk"], "sk": item["sk"]}
    found = (await client.get_item(TableName="leases", Key=key))["Item"]
    assert found["newer"] == {"S": "kept"}
    assert found["position"] == {"S": "after:" + "5".zfill(64)}


async def test_rows_beyond_one_page_of_a_query_are_read(
    stack: AsyncExitStack, ministack: str
) -> None:
    table = await dynamo(stack, ministack)
    held = tuple(Held(f"shardId-{n * 7919:012d}-{n * n:020d}", n) for n in range(2_000))
    for number in range(60):
        await table.join(STREAM, WorkerRow(f"worker-{number:03d}", 1, held=held))
    assert len(await table.read_workers(STREAM)) == 60


async def spied(stack: AsyncExitStack, url: str) -> tuple[DynamoTable, FaultProxy]:
    """A table, and a proxy that does no harm and keeps the requests that passed."""
    await dynamo(stack, url)
    operations = {"TransactWriteItems", "Query", "UpdateItem", "PutItem"}
    proxy = await stack.enter_async_context(fault_proxy(url, operations))
    client = await stack.enter_async_context(aws_client("dynamodb", proxy.url))
    return DynamoTable(client, "leases"), proxy


async def test_a_shards_end_and_its_children_are_one_transaction(
    stack: AsyncExitStack, ministack: str
) -> None:
    table, proxy = await spied(stack, ministack)
    row = await owned(table)
    after = ended(row, row.pairs[-1], replace(pair(row, "5"), position=END), "w")
    assert (await table.end(row, after, [fresh(1, 0), fresh(2, 0)])).applied
    transactions = [one["TransactItems"] for one in proxy.passed if "TransactItems" in one]
    assert [len(items) for items in transactions] == [3]


async def test_every_read_of_rows_is_consistent(stack: AsyncExitStack, ministack: str) -> None:
    table, proxy = await spied(stack, ministack)
    row = await owned(table)
    await table.read_shards(STREAM)
    await table.read_workers(STREAM)
    await table.read_shard(STREAM, row.id)
    queries = [one for one in proxy.passed if "KeyConditionExpression" in one]
    assert len(queries) >= 3
    assert all(query["ConsistentRead"] for query in queries)
