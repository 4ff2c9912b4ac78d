"""The operations of our Kinesis: from a request's JSON to an answer's, still without I/O or clock.

    answer = answer_to(model, "GetRecords", body, now_ms)      # bytes, or ServiceError

The hot answer, GetRecords, is one join over fragments that were rendered when the records were put.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec

from processor.local import kinesis_requests as req
from processor.local.kinesis_errors import (
    ServiceError,
    invalid_argument,
    invalid_value,
    throttle_text,
    throttled,
)
from processor.local.kinesis_model import KinesisModel, NewRecord, Page, Placed
from processor.local.kinesis_shards import HashRange, Shard
from processor.local.kinesis_stream import Stream
from processor.local.kinesis_tokens import Listing

ON_DEMAND_SHARDS = 4  # what the service gives a new on-demand stream
Json = dict[str, Any]
_Request = TypeVar("_Request")
_Operation = Callable[[KinesisModel, bytes, int], bytes]


def answer_to(model: KinesisModel, operation: str, body: bytes, now_ms: int) -> bytes:
    """Carry out one request; the answer's body, or the refusal as ServiceError."""
    found = _OPERATIONS.get(operation)
    if found is None:
        raise ServiceError("UnknownOperationException", f"{operation!r} is not an operation here.")
    with _in_the_services_words():
        return found(model, body, now_ms)


def page_of(model: KinesisModel, body: bytes, now_ms: int) -> Page:
    """Carry out a GetRecords as answer_to does; `page_json` is its answer's body."""
    with _in_the_services_words():
        request = _get_records_requests.decode(body)
    return model.get_records(request.shard_iterator, now_ms, request.limit)


def answer_in_part(model: KinesisModel, operation: str, body: bytes, now_ms: int) -> bytes:
    """As answer_to, but PutRecords refuses the second half of its records as throttled."""
    if operation != "PutRecords":
        return answer_to(model, operation, body, now_ms)
    with _in_the_services_words():
        request = _put_records_requests.decode(body)
    half = len(request.records) // 2
    placed = model.put(_name(request), request.records[:half], now_ms) if half else []
    refused = [Placed("", None)] * (len(request.records) - half)
    return msgspec.json.encode(_placed_json(placed + refused, _name(request), model.account))


def shard_of(model: KinesisModel, operation: str, body: bytes, now_ms: int) -> str | None:
    """The shard that a request names, if it is one that can; for faults by shard."""
    if operation not in _NAMES_SHARD:
        return None
    try:
        named = _named_shards.decode(body)
        if named.shard_iterator is not None:
            return model.position(named.shard_iterator, now_ms).shard_id
    except (msgspec.DecodeError, ServiceError):
        return None  # the operation itself will refuse it
    return named.shard_id or named.shard_to_split or named.shard_to_merge


@contextmanager
def _in_the_services_words() -> Iterator[None]:
    try:
        yield
    except msgspec.ValidationError as error:
        raise invalid_value(str(error)) from error
    except msgspec.DecodeError as error:
        raise ServiceError("SerializationException", str(error)) from error


class _NamedShard(msgspec.Struct, rename="pascal"):
    shard_iterator: str | None = None
    shard_id: str | None = None
    shard_to_split: str | None = None
    shard_to_merge: str | None = None


_NAMES_SHARD = frozenset(("GetRecords", "GetShardIterator", "SplitShard", "MergeShards"))
_named_shards = msgspec.json.Decoder(_NamedShard)


def _name(request: req.OfStream) -> str:
    if request.stream_name is not None:
        return request.stream_name
    if request.stream_arn is None:
        raise invalid_argument("Both StreamARN and StreamName are null.")
    return request.stream_arn.rpartition("/")[2]


# Streams


def _create_stream(model: KinesisModel, request: req.CreateStream, now_ms: int) -> Json:
    details = request.stream_mode_details
    mode = details.stream_mode if details else "PROVISIONED"
    count = request.shard_count or ON_DEMAND_SHARDS
    model.create_stream(
        request.stream_name,
        count,
        now_ms,
        mode=mode,
        distribution=request.record_distribution_strategy,
        record_bytes_max=request.max_record_size and request.max_record_size * 1024,
    )
    return {}


def _delete_stream(model: KinesisModel, request: req.OfStream, now_ms: int) -> Json:
    model.delete_stream(_name(request))
    return {}


def _list_streams(model: KinesisModel, request: req.ListStreams, now_ms: int) -> Json:
    after = request.next_token or request.exclusive_start_stream_name or ""
    names = sorted(name for name in model.streams if name > after)
    listed = names[: request.limit]
    answer: Json = {
        "StreamNames": listed,
        "HasMoreStreams": len(names) > len(listed),
        "StreamSummaries": [_identity(model.streams[name]) for name in listed],
    }
    if len(names) > len(listed):
        answer["NextToken"] = listed[-1]
    return answer


def _describe_stream(model: KinesisModel, request: req.DescribeStream, now_ms: int) -> Json:
    stream = model.stream(_name(request), now_ms)
    after = request.exclusive_start_shard_id or ""
    shards = [shard for shard in stream.shards.values() if shard.shard_id > after]
    return {
        "StreamDescription": {
            **_description(stream),
            "Shards": [_shard(shard) for shard in shards[: request.limit]],
            "HasMoreShards": len(shards) > request.limit,
        }
    }


def _describe_summary(model: KinesisModel, request: req.OfStream, now_ms: int) -> Json:
    stream = model.stream(_name(request), now_ms)
    facts = {
        "OpenShardCount": len(stream.open_shards),
        "ConsumerCount": 0,
        "MaxRecordSizeInKiB": stream.limits.record_bytes_max // 1024,
        "RecordDistributionStrategy": stream.distribution,
    }
    return {"StreamDescriptionSummary": {**_description(stream), **facts}}


def _increase_retention(model: KinesisModel, request: req.SetRetention, now_ms: int) -> Json:
    hours, stream = request.retention_period_hours, model.stream(_name(request), now_ms)
    if hours < stream.retention_h:
        raise invalid_argument(f"{hours} hours are shorter than the {stream.retention_h} of now.")
    model.set_retention(stream.name, hours, now_ms)
    return {}


def _decrease_retention(model: KinesisModel, request: req.SetRetention, now_ms: int) -> Json:
    hours, stream = request.retention_period_hours, model.stream(_name(request), now_ms)
    if hours > stream.retention_h:
        raise invalid_argument(f"{hours} hours are longer than the {stream.retention_h} of now.")
    model.set_retention(stream.name, hours, now_ms)
    return {}


def _identity(stream: Stream) -> Json:
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "StreamStatus": "ACTIVE",
        "StreamModeDetails": {"StreamMode": stream.mode},
        "StreamCreationTimestamp": stream.created_ms / 1000,
    }


def _description(stream: Stream) -> Json:
    return {
        **_identity(stream),
        "RetentionPeriodHours": stream.retention_h,
        "EnhancedMonitoring": [{"ShardLevelMetrics": []}],
        "EncryptionType": "NONE",
    }


# Shards


def _list_shards(model: KinesisModel, request: req.ListShards, now_ms: int) -> Json:
    listing = _listing(model, request, now_ms)
    shards, token = model.list_shards(listing, now_ms, request.max_results)
    following = {} if token is None else {"NextToken": token}
    return {"Shards": [_shard(shard) for shard in shards], **following}


def _listing(model: KinesisModel, request: req.ListShards, now_ms: int) -> Listing:
    if request.next_token is not None:
        if request.stream_name is not None or request.stream_arn is not None:
            raise invalid_argument("NextToken and StreamName cannot be provided together.")
        return model.listing(request.next_token, now_ms)
    stream = model.stream(_name(request), now_ms)
    chosen = request.shard_filter or req.ShardFilter("FROM_TRIM_HORIZON")
    if chosen.type == "AFTER_SHARD_ID" and chosen.shard_id is None:
        raise invalid_argument("ShardId must be specified for a filter of type AFTER_SHARD_ID.")
    if chosen.type in ("AT_TIMESTAMP", "FROM_TIMESTAMP") and chosen.timestamp is None:
        raise invalid_argument(f"Timestamp must be specified for a filter of type {chosen.type}.")
    after = chosen.shard_id if chosen.type == "AFTER_SHARD_ID" else request.exclusive_start_shard_id
    at_ms = _milliseconds(chosen.timestamp) or 0
    return Listing(stream.name, stream.created_ms, after or "", now_ms, chosen.type, at_ms)


def _split_shard(model: KinesisModel, request: req.SplitShard, now_ms: int) -> Json:
    stream = model.stream(_name(request), now_ms)
    stream.split(request.shard_to_split, int(request.new_starting_hash_key), now_ms)
    return {}


def _merge_shards(model: KinesisModel, request: req.MergeShards, now_ms: int) -> Json:
    stream = model.stream(_name(request), now_ms)
    stream.merge(request.shard_to_merge, request.adjacent_shard_to_merge, now_ms)
    return {}


def _update_shard_count(model: KinesisModel, request: req.UpdateShardCount, now_ms: int) -> Json:
    if request.scaling_type != "UNIFORM_SCALING":
        raise invalid_value(
            f"Value '{request.scaling_type}' at 'scalingType': UNIFORM_SCALING only"
        )
    stream = model.stream(_name(request), now_ms)
    before = len(stream.open_shards)
    stream.scale(request.target_shard_count, now_ms)
    return {
        "StreamName": stream.name,
        "StreamARN": stream.arn,
        "CurrentShardCount": before,
        "TargetShardCount": request.target_shard_count,
    }


def _shard(shard: Shard) -> Json:
    numbers = {"StartingSequenceNumber": str(shard.first_number)}
    if not shard.is_open:
        numbers["EndingSequenceNumber"] = str(shard.sequence_number(shard.next_index))
    lineage = dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parent_ids, strict=False))
    return {
        "ShardId": shard.shard_id,
        **lineage,
        "HashKeyRange": _hash_range(shard.hash_range),
        "SequenceNumberRange": numbers,
    }


def _hash_range(hash_range: HashRange) -> Json:
    return {"StartingHashKey": str(hash_range.first), "EndingHashKey": str(hash_range.last)}


# Records


def _put_record(model: KinesisModel, request: req.PutRecord, now_ms: int) -> Json:
    name = _name(request)
    record = NewRecord(request.data, request.partition_key, request.explicit_hash_key)
    [placed] = model.put(name, [record], now_ms)
    if placed.sequence_number is None:
        raise throttled(placed.shard_id, name, model.account)
    return {**_accepted(placed), "EncryptionType": "NONE"}


def _put_records(model: KinesisModel, request: req.PutRecords, now_ms: int) -> Json:
    name = _name(request)
    return _placed_json(model.put(name, request.records, now_ms), name, model.account)


def _placed_json(placed: list[Placed], stream: str, account: str) -> Json:
    return {
        "FailedRecordCount": sum(entry.sequence_number is None for entry in placed),
        "Records": [
            _accepted(entry) if entry.sequence_number else _refused(entry, stream, account)
            for entry in placed
        ],
        "EncryptionType": "NONE",
    }


def _accepted(placed: Placed) -> Json:
    return {"ShardId": placed.shard_id, "SequenceNumber": placed.sequence_number}


def _refused(placed: Placed, stream: str, account: str) -> Json:
    return {
        "ErrorCode": "ProvisionedThroughputExceededException",
        "ErrorMessage": throttle_text(placed.shard_id, stream, account),
    }


def _get_shard_iterator(model: KinesisModel, request: req.GetShardIterator, now_ms: int) -> Json:
    iterator = model.iterator(
        _name(request),
        request.shard_id,
        request.shard_iterator_type,
        now_ms,
        sequence_number=request.starting_sequence_number,
        at_ms=_milliseconds(request.timestamp),
    )
    return {"ShardIterator": iterator}


def _get_records(model: KinesisModel, body: bytes, now_ms: int) -> bytes:
    return page_json(page_of(model, body, now_ms))


_put_records_requests = msgspec.json.Decoder(req.PutRecords)
_get_records_requests = msgspec.json.Decoder(req.GetRecords)


def page_json(page: Page) -> bytes:
    """The body of GetRecords; one pass over the records' bytes, half a megabyte a thousand."""
    if page.next_iterator is not None:
        following = b'"NextShardIterator":"%b"' % page.next_iterator.encode()
    else:
        following = b'"ChildShards":' + msgspec.json.encode(
            [_child(child) for child in page.children]
        )
    tail = b'],"MillisBehindLatest":%d,%b}' % (page.behind_ms, following)
    if not page.fragments:
        return b'{"Records":[' + tail
    parts = list(page.fragments)
    parts[0] = b'{"Records":[' + parts[0]
    parts[-1] += tail
    return b",".join(parts)


def _child(child: Shard) -> Json:
    return {
        "ShardId": child.shard_id,
        "ParentShards": list(child.parent_ids),
        "HashKeyRange": _hash_range(child.hash_range),
    }


def _milliseconds(timestamp_s: float | None) -> int | None:
    return None if timestamp_s is None else round(timestamp_s * 1000)


def _typed(
    request_type: type[_Request], carry_out: Callable[[KinesisModel, _Request, int], Json]
) -> _Operation:
    decoder = msgspec.json.Decoder(request_type)

    def operation(model: KinesisModel, body: bytes, now_ms: int) -> bytes:
        return msgspec.json.encode(carry_out(model, decoder.decode(body), now_ms))

    return operation


_OPERATIONS: Mapping[str, _Operation] = {
    "CreateStream": _typed(req.CreateStream, _create_stream),
    "DecreaseStreamRetentionPeriod": _typed(req.SetRetention, _decrease_retention),
    "DeleteStream": _typed(req.OfStream, _delete_stream),
    "DescribeStream": _typed(req.DescribeStream, _describe_stream),
    "DescribeStreamSummary": _typed(req.OfStream, _describe_summary),
    "GetRecords": _get_records,
    "GetShardIterator": _typed(req.GetShardIterator, _get_shard_iterator),
    "IncreaseStreamRetentionPeriod": _typed(req.SetRetention, _increase_retention),
    "ListShards": _typed(req.ListShards, _list_shards),
    "ListStreams": _typed(req.ListStreams, _list_streams),
    "MergeShards": _typed(req.MergeShards, _merge_shards),
    "PutRecord": _typed(req.PutRecord, _put_record),
    "PutRecords": _typed(req.PutRecords, _put_records),
    "SplitShard": _typed(req.SplitShard, _split_shard),
    "UpdateShardCount": _typed(req.UpdateShardCount, _update_shard_count),
}
