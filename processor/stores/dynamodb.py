"""The lease table in DynamoDB, and small states beside it: Query, never Scan; consistent reads.

Give it a client that retries nothing by itself: a hidden repeat would outlive a lease's validity,
and would be refused by the very write that it repeats.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
from botocore import xform_name
from botocore.exceptions import ClientError

from processor.aws_errors import FOREIGN, Subject, code_of, translated, translation
from processor.core.instructions import Instruction
from processor.core.leases.rows import AppRow, ShardRow, StreamKey, WorkerRow
from processor.errors import Outage
from processor.ports import OnStrange, Placed, Written
from processor.stores import dynamodb_items as items
from processor.stores.dynamodb_items import Item

REFUSED = "ConditionalCheckFailedException"
KEYS = "its keys must be pk (S, HASH) and sk (S, RANGE)"
BATCH_MAX = 25  # BatchWriteItem takes no more
CREATED_AT_ONCE = 16


def create_command(table: str) -> str:
    """What a person types to make the table."""
    return (
        f"aws dynamodb create-table --table-name {table} --billing-mode PAY_PER_REQUEST"
        " --attribute-definitions AttributeName=pk,AttributeType=S AttributeName=sk,AttributeType=S"
        " --key-schema AttributeName=pk,KeyType=HASH AttributeName=sk,KeyType=RANGE"
    )


async def create_table(client: Any, table: str) -> None:
    """Make the table if there is none, and wait until it can be used."""
    keys = {"pk": "HASH", "sk": "RANGE"}
    with translation(_subject(table), "CreateTable"):
        try:
            await client.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n in keys],
                KeySchema=[{"AttributeName": n, "KeyType": kind} for n, kind in keys.items()],
            )
        except ClientError as error:
            if code_of(error) != "ResourceInUseException":  # somebody was faster
                raise
        await client.get_waiter("table_exists").wait(
            TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
        )


class DynamoTable:
    """A `LeaseTable` in the table of that name."""

    def __init__(self, client: Any, table: str) -> None:
        self._calls = _Calls(client, table)
        self._items = DynamoItems(self._calls)
        self._instructions = DynamoInstructions(self._calls)

    def __repr__(self) -> str:
        return f"<DynamoTable {self._calls.table}>"

    @property
    def items(self) -> DynamoItems:
        return self._items

    @property
    def instructions(self) -> DynamoInstructions:
        return self._instructions

    async def check(self) -> None:
        """Raises `Unavailable` if the table is missing or may not be read."""
        async for _ in self._calls.query(items.APPS):
            return

    async def pin(self, row: AppRow) -> AppRow:
        refused = await self._calls.put_new(items.app_item(row))
        return row if refused is None else items.app_row(refused, row.stream)

    async def read_app(self, stream: StreamKey) -> AppRow | None:
        item = await self._calls.get(items.app_key(stream))
        return items.app_row(item, stream) if item else None

    async def remember(self, before: AppRow, after: AppRow) -> AppRow:
        known = items.generation_values(before)
        condition = (
            f"#{items.GENERATIONS} = :known"
            if known
            else (f"attribute_exists(#pk) AND attribute_not_exists(#{items.GENERATIONS})")
        )
        values = {"known": known[items.GENERATIONS]} if known else {}
        expression = (
            _Expression(condition, **values)
            .naming(*(() if known else ("pk",)))
            .setting(items.generation_values(after))
        )
        key = items.app_key(before.stream)
        if await self._change(key, expression):
            return after
        return await self.read_app(before.stream) or await self.pin(after)

    # ---- workers

    async def join(self, stream: StreamKey, row: WorkerRow) -> None:
        await self._calls.put_new(items.worker_key(stream, row.id) | items.worker_values(row))

    async def heartbeat(self, stream: StreamKey, row: WorkerRow) -> bool:
        return await self._change(
            items.worker_key(stream, row.id),
            _Expression("attribute_exists(#pk) AND attribute_not_exists(#buried)")
            .naming("pk", "buried")
            .setting(items.worker_values(row), [items.READY, items.BEHIND]),
        )

    async def read_workers(
        self, stream: StreamKey, first: str | None = None, count: int = 0
    ) -> list[WorkerRow]:
        pk = items.workers_pk(stream)
        if first is None:
            return [items.worker_row(item) async for item in self._calls.query(pk)]
        found: list[Item] = []
        for relation in (">=", "<"):  # to the end of the ring, and on from its beginning
            left = count - len(found)
            if left > 0:
                found += [item async for item in self._calls.some(pk, relation, first, left)]
        return [items.worker_row(item) for item in found]

    async def bury(self, stream: StreamKey, worker_id: str, counter: int) -> bool:
        return await self._change(
            items.worker_key(stream, worker_id),
            _Expression("#counter = :seen AND attribute_not_exists(#buried)", seen=_n(counter))
            .naming("counter", "buried")
            .setting({"buried": {"BOOL": True}}),
        )

    async def delete_worker(self, stream: StreamKey, worker_id: str) -> None:
        await self._calls.call("DeleteItem", Key=items.worker_key(stream, worker_id))

    async def _change(self, key: Item, expression: _Expression) -> bool:
        try:
            await self._calls.call("UpdateItem", Key=key, **expression.arguments())
        except _Refused:
            return False
        return True

    # ---- shards

    async def read_shards(self, stream: StreamKey) -> list[ShardRow]:
        buckets = (self._bucket(stream, bucket) for bucket in range(items.BUCKETS))
        return [row for rows in await asyncio.gather(*buckets) for row in rows]

    async def read_shard(self, stream: StreamKey, shard_id: str) -> ShardRow | None:
        item = await self._calls.get(items.shard_key(stream, shard_id))
        return None if item is None else items.shard_row(item, stream)

    async def create_shards(self, rows: Sequence[ShardRow]) -> None:
        for generation in _generations(rows):
            puts = (self._calls.put_new(items.shard_item(row)) for row in generation)
            await asyncio.gather(*puts)

    async def write(self, before: ShardRow, after: ShardRow) -> Written:
        update = _update(before, after)
        try:
            await self._calls.call(
                "UpdateItem", ReturnValuesOnConditionCheckFailure="ALL_OLD", **update
            )
        except _Refused as refused:
            return await self._refused(before, refused.item)
        return Written(True, after)

    async def end(self, before: ShardRow, after: ShardRow, children: Sequence[ShardRow]) -> Written:
        parent = _update(before, after) | {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}
        updates = [parent, *(_child(row) for row in children)]
        try:
            await self._calls.transact(updates, token=f"{after.write_id}-{after.commit}"[:36])
        except _Refused as refused:
            return await self._refused(before, refused.item)
        return Written(True, after)

    async def remove_shard(self, row: ShardRow) -> bool:
        expression = _version(row)
        expression.and_("#ended = :true", true={"BOOL": True}).naming("ended")
        try:
            key = items.shard_key(row.stream, row.id)
            await self._calls.call("DeleteItem", Key=key, **expression.condition())
        except _Refused:
            return False
        return True

    async def _refused(self, before: ShardRow, item: Item | None) -> Written:
        """Real DynamoDB sends the row along; where it does not, read it."""
        if item:
            return Written(False, items.shard_row(item, before.stream))
        return Written(False, await self.read_shard(before.stream, before.id))

    async def _bucket(self, stream: StreamKey, bucket: int) -> list[ShardRow]:
        found = self._calls.query(items.bucket_pk(bucket), items.shards_prefix(stream))
        return [items.shard_row(item, stream) async for item in found]


class DynamoItems:
    """Small blobs as items of the same table; an `ObjectStore` whose `list` sees one folder."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    async def put(self, key: str, body: bytes) -> None:
        await self._calls.call("PutItem", Item=self._key(key) | {"body": {"B": body}})

    async def get(self, key: str) -> bytes | None:
        item = await self._calls.get(self._key(key))
        return None if item is None else bytes(item["body"]["B"])

    async def delete(self, keys: Sequence[str]) -> None:
        for start in range(0, len(keys), BATCH_MAX):
            requests = [
                {"DeleteRequest": {"Key": self._key(key)}}
                for key in keys[start : start + BATCH_MAX]
            ]
            await self._calls.batch(requests)

    async def list(self, prefix: str) -> list[str]:
        pk, first = items.state_place(prefix)
        folder = prefix.rpartition("/")[0]
        found = self._calls.query(pk, first or None, names_only=True)
        return [f"{folder}/{item['sk']['S']}" async for item in found]

    def _key(self, key: str) -> Item:
        return items.key(*items.state_place(key))


class DynamoInstructions:
    """What people asked for, as items of the same table; `processor.ports.Instructions`."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls

    async def read(
        self, app: str, *, consistent: bool = False, on_strange: OnStrange | None = None
    ) -> list[Placed]:
        known = []
        async for item in self._calls.query(items.instructions_pk(app), consistent=consistent):
            try:
                known.append(items.placed(item))
            except msgspec.DecodeError as error:
                if on_strange is not None:
                    on_strange(item["id"]["S"], error)
        return known

    async def put(self, app: str, placed: Placed, now_ms: int) -> bool:
        free = "attribute_not_exists(#pk) OR #expires_at < :now"
        expression = _Expression(free, now=_n(now_ms // 1_000)).naming("pk", "expires_at")
        try:
            item = items.instruction_item(app, placed)
            await self._calls.call("PutItem", Item=item, **expression.condition())
        except _Refused:
            return False
        return True

    async def remove(self, app: str, placed: Placed) -> bool:
        expression = _Expression("#id = :id", id={"S": placed.instruction.id}).naming("id")
        key = items.instruction_key(app, placed.place)
        try:
            await self._calls.call("DeleteItem", Key=key, **expression.condition())
        except _Refused:
            return False
        shards = await self.taken(app, placed.instruction)
        for start in range(0, len(shards), BATCH_MAX):
            keys = (
                items.taken_key(app, placed.instruction.id, shard)
                for shard in shards[start : start + BATCH_MAX]
            )
            await self._calls.batch([{"DeleteRequest": {"Key": key}} for key in keys])
        return True

    async def acknowledge(self, app: str, instruction: Instruction, shard: str) -> None:
        key = items.taken_key(app, instruction.id, shard)
        await self._calls.call("PutItem", Item=key | items.expiry(instruction))

    async def taken(self, app: str, instruction: Instruction) -> list[str]:
        pk, prefix = items.taken_pk(app), items.taken_sk(instruction.id, "")
        found = self._calls.query(pk, prefix, names_only=True)
        return [item["sk"]["S"].removeprefix(prefix) async for item in found]


class _Refused(Exception):
    """A condition did not hold; `item` is what stands instead, where the service says it."""

    def __init__(self, item: Item | None) -> None:
        super().__init__()
        self.item = item


class _Calls:
    """Requests to one table, errors translated."""

    def __init__(self, client: Any, table: str) -> None:
        self.table = table
        self._client = client
        self._subject = _subject(table)

    async def call(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """One request about the table; _Refused if its condition did not hold."""
        return await self._send(operation, TableName=self.table, **arguments)

    async def put_new(self, item: Item) -> Item | None:
        """Put unless there is one; None, or the one that stands."""
        try:
            await self.call(
                "PutItem",
                Item=item,
                ConditionExpression="attribute_not_exists(pk)",
                ReturnValuesOnConditionCheckFailure="ALL_OLD",
            )
        except _Refused as refused:
            return refused.item or await self.get({"pk": item["pk"], "sk": item["sk"]}) or item
        return None

    async def get(self, key: Item) -> Item | None:
        """By Query: a GetItem whose answer was cut short looks like a missing item."""
        found = [item async for item in self.query(key["pk"]["S"], key["sk"]["S"], exactly=True)]
        return found[0] if found else None

    async def query(
        self,
        pk: str,
        sk: str | None = None,
        *,
        exactly: bool = False,
        names_only: bool = False,
        consistent: bool = True,
    ) -> AsyncIterator[Item]:
        """All items under `pk` whose sk is, or begins with, `sk`."""
        condition, values = "pk = :pk", {":pk": {"S": pk}}
        if sk is not None:
            condition += " AND sk = :sk" if exactly else " AND begins_with(sk, :sk)"
            values[":sk"] = {"S": sk}
        more: dict[str, Any] = {"ProjectionExpression": "pk, sk"} if names_only else {}
        more["ConsistentRead"] = consistent
        async for item in self._pages(condition, values, more):
            yield item

    async def some(self, pk: str, relation: str, sk: str, count: int) -> AsyncIterator[Item]:
        """At most `count` items under `pk` with such an sk, in its order; others cost nothing."""
        values = {":pk": {"S": pk}, ":sk": {"S": sk}}
        more = {"Limit": count, "ConsistentRead": True}
        pages = self._pages(f"pk = :pk AND sk {relation} :sk", values, more)
        async for item in pages:
            yield item
            count -= 1
            if not count:
                await pages.aclose()
                return

    async def _pages(
        self, condition: str, values: Item, more: dict[str, Any]
    ) -> AsyncGenerator[Item, None]:
        while True:
            answer = await self.call(
                "Query",
                KeyConditionExpression=condition,
                ExpressionAttributeValues=values,
                **more,
            )
            if "Items" not in answer:
                raise Outage("dynamodb", "Query", f"table {self.table}: an answer without Items")
            for item in answer["Items"]:
                yield item
            if "LastEvaluatedKey" not in answer:
                return
            more["ExclusiveStartKey"] = answer["LastEvaluatedKey"]

    async def transact(self, updates: Iterable[dict[str, Any]], token: str) -> None:
        """Updates of several items, all or none; _Refused if a condition did not hold."""
        await self._send(
            "TransactWriteItems",
            TransactItems=[{"Update": {"TableName": self.table} | one} for one in updates],
            ClientRequestToken=token,
        )

    async def batch(self, requests: list[dict[str, Any]]) -> None:
        """Unconditional writes; what the service left undone is an outage, as repeats are safe."""
        answer = await self._send("BatchWriteItem", RequestItems={self.table: requests})
        left = answer.get("UnprocessedItems", {}).get(self.table)
        if left:
            cause = f"table {self.table}: {len(left)} writes were not taken"
            raise Outage("dynamodb", "BatchWriteItem", cause)

    async def _send(self, operation: str, **arguments: Any) -> dict[str, Any]:
        try:
            method = getattr(self._client, xform_name(operation))
            answer: dict[str, Any] = await method(**arguments)
        except FOREIGN as error:
            refused = _refusal(error)
            if refused is not None:
                raise refused from error
            raise translated(error, self._subject, operation) from error
        return answer


class _Expression:
    """The condition and the assignments of one update, with every name and value aliased."""

    def __init__(self, condition: str, **values: Item) -> None:
        self._condition = condition
        self._names: set[str] = set()
        self._values = {f":{name}": value for name, value in values.items()}
        self._set: list[str] = []
        self._remove: list[str] = []

    def and_(self, condition: str, **values: Item) -> _Expression:
        """One more thing that must hold."""
        self._condition += f" AND {condition}"
        self._values |= {f":{name}": value for name, value in values.items()}
        return self

    def naming(self, *names: str) -> _Expression:
        self._names.update(names)
        return self

    def setting(self, values: Item, names: Iterable[str] = ()) -> _Expression:
        """Assign `values`; those of `names` without one are removed."""
        for name in {*names, *values}:
            self._names.add(name)
            if name in values:
                self._set.append(f"#{name} = :new_{name}")
                self._values[f":new_{name}"] = values[name]
            else:
                self._remove.append(f"#{name}")
        return self

    def creating(self, values: Item) -> _Expression:
        """Assign only what is not there yet."""
        for name, value in values.items():
            self._names.add(name)
            self._set.append(f"#{name} = if_not_exists(#{name}, :new_{name})")
            self._values[f":new_{name}"] = value
        return self

    def condition(self) -> dict[str, Any]:
        """Of a request that assigns nothing."""
        return {"ConditionExpression": self._condition} | self._aliases()

    def arguments(self) -> dict[str, Any]:
        update = "SET " + ", ".join(sorted(self._set))
        if self._remove:
            update += " REMOVE " + ", ".join(sorted(self._remove))
        arguments: dict[str, Any] = {"UpdateExpression": update} | self._aliases()
        if self._condition:
            arguments["ConditionExpression"] = self._condition
        return arguments

    def _aliases(self) -> dict[str, Any]:
        return {
            "ExpressionAttributeNames": {f"#{name}": name for name in sorted(self._names)},
            "ExpressionAttributeValues": self._values,
        }


def _update(before: ShardRow, after: ShardRow) -> dict[str, Any]:
    """`after` where the version of `before` stands."""
    expression = _version(before).setting(items.shard_values(after), items.CHANGING)
    return {"Key": items.shard_key(before.stream, before.id)} | expression.arguments()


def _version(row: ShardRow) -> _Expression:
    """The condition that this version of a row stands."""
    values = {"epoch": _n(row.epoch), "commit": _n(row.commit)}
    condition = "#epoch = :epoch AND #commit = :commit AND "
    if row.owner is None:
        condition += "attribute_exists(#pk) AND attribute_not_exists(#owner)"
        return _Expression(condition, **values).naming("epoch", "commit", "pk", "owner")
    values["owner"] = {"S": row.owner}
    return _Expression(condition + "#owner = :owner", **values).naming("epoch", "commit", "owner")


def _child(row: ShardRow) -> dict[str, Any]:
    """The row of a shard that begins: created if it is new; its successor is named anyhow."""
    values = items.shard_item(row)
    place = {"pk": values.pop("pk"), "sk": values.pop("sk")}
    named = {name: values.pop(name) for name in ("successor",) if name in values}
    return {"Key": place} | _Expression("").creating(values).setting(named).arguments()


def _generations(rows: Sequence[ShardRow]) -> Iterable[list[ShardRow]]:
    """Runs of rows that may be created at once: no parent beside its child, and not too many."""
    run: list[ShardRow] = []
    for row in rows:
        if len(run) == CREATED_AT_ONCE or {other.id for other in run} & set(row.shard.parents):
            yield run
            run = []
        run.append(row)
    if run:
        yield run


def _refusal(error: Exception) -> _Refused | None:
    """A condition that did not hold, alone or as the reason why a transaction was cancelled."""
    if not isinstance(error, ClientError):
        return None
    if code_of(error) == REFUSED:
        return _Refused(error.response.get("Item"))
    if code_of(error) == "TransactionCanceledException":
        for reason in error.response.get("CancellationReasons", ()):
            if reason.get("Code") == "ConditionalCheckFailed":
                return _Refused(reason.get("Item"))
    return None


def _subject(table: str) -> Subject:
    return Subject("dynamodb", f"table {table}", create_command(table), KEYS)


def _n(number: int) -> Item:
    return {"N": str(number)}
