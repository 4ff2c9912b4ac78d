"""Items of KCL's lease tables as KCL 2.x and 3.x write them, for tests; values are plain."""

from __future__ import annotations

from typing import Any

NUMBER = "49590338271490256608559692538361571095921575989136588898"


def lease(
    shard_id: str,
    *,
    checkpoint: str = NUMBER,
    sub: int = 0,
    owner: str | None = None,
    counter: int = 17,
    stream: str | None = None,
    parents: list[str] | None = None,
    children: list[str] | None = None,
    pending: str | None = None,
    entity_type: str | None = None,
    checkpoint_owner: str | None = None,
) -> dict[str, Any]:
    """DynamoDBLeaseSerializer.toDynamoRecord and, with `stream`, the multi-stream one."""
    item: dict[str, Any] = {
        "leaseKey": shard_id if stream is None else f"{stream}:{shard_id}",
        "leaseCounter": counter,
        "ownerSwitchesSinceCheckpoint": 0,
        "checkpoint": checkpoint,
        "checkpointSubSequenceNumber": sub,
        "startingHashKey": "0",
        "endingHashKey": str(2**128 - 1),
        "throughputKBps": 12.5,
    }
    optional = {
        "leaseOwner": owner,
        "parentShardId": set(parents) if parents else None,
        "childShardIds": set(children) if children else None,
        "pendingCheckpoint": pending,
        "pendingCheckpointSubSequenceNumber": 0 if pending else None,
        "entityType": entity_type,
        "checkpointOwner": checkpoint_owner,
        "streamName": stream,
        "shardId": shard_id if stream else None,
    }
    return item | {name: value for name, value in optional.items() if value is not None}


def coordinator_rows() -> list[dict[str, Any]]:
    """What stands beside the leases since 3.x keeps all in one table."""
    return [
        {"leaseKey": "Migration3.0", "entityType": "CLIENT_VERSION_MIGRATION", "cv": "3x"},
        {"leaseKey": "leader", "entityType": "LEADER", "leaseOwner": "w", "leaseCounter": 3},
        {"leaseKey": "w", "entityType": "WORKER_METRIC_STATS", "lut": 1_700_000_000},
        {"leaseKey": "111122223333:orders:1", "entityType": "STREAM"},
    ]


def dynamo(item: dict[str, Any]) -> dict[str, Any]:
    """The item as DynamoDB takes it."""

    def typed(value: Any) -> dict[str, Any]:
        match value:
            case str():
                return {"S": value}
            case set():
                return {"SS": sorted(value)}
            case bytes():
                return {"B": value}
        return {"N": str(value)}

    return {name: typed(value) for name, value in item.items()}
