"""A Kinesis as a pure model: streams, records and iterators, with `now_ms` always an argument.

No I/O, no clock, no randomness: the wire server, the benchmarks and the simulator are shells around
it. `now_ms` is wall-clock milliseconds and should not go back. Administrative calls take effect at
once: a stream is ACTIVE when the call that made or resharded it returns. Refusals are ServiceError.
"""

import dataclasses
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from processor.local.kinesis_errors import (
    ServiceError,
    in_use,
    invalid_argument,
    invalid_value,
    not_found,
    throttled,
)
from processor.local.kinesis_limits import Limits
from processor.local.kinesis_shards import Entry, Shard
from processor.local.kinesis_stream import (
    RETENTION_MAX_H,
    RETENTION_MIN_H,
    SHARDS_MAX,
    Distribution,
    Mode,
    Stream,
    hash_key_from,
    hash_key_of,
)
from processor.local.kinesis_tokens import Listing, Position, open_listing, open_position, seal

PARTITION_KEY_CHARS_MAX = 256
LISTED_SHARDS_MAX = 1_000  # "if you specify a value greater than 1000, at most 1000 are returned"

IteratorType = Literal[
    "AT_SEQUENCE_NUMBER", "AFTER_SEQUENCE_NUMBER", "AT_TIMESTAMP", "TRIM_HORIZON", "LATEST"
]


class NewRecord(msgspec.Struct, rename="pascal"):
    """A record to put, in the shape of a PutRecords entry."""

    data: bytes
    partition_key: str | None = None
    explicit_hash_key: str | None = None


class Placed(msgspec.Struct, frozen=True, gc=False):
    """Where a record went; without a sequence number the shard refused it for its rate."""

    shard_id: str
    sequence_number: str | None


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to GetRecords. No `next_iterator` means that the shard ended: `children` follow."""

    fragments: list[bytes]
    next_iterator: str | None
    behind_ms: int
    children: list[Shard]
    shard: Shard
    next_index: int  # of the record that follows in the shard


class KinesisModel:
    """The streams of one account in one region."""

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        region: str = "us-east-1",
        account: str = "000000000000",
    ) -> None:
        self.limits = limits or Limits()
        self.region = region
        self.account = account
        self.streams: dict[str, Stream] = {}

    def __repr__(self) -> str:
        return f"<KinesisModel {list(self.streams.values())}>"

    # Streams

    def create_stream(
        self,
        name: str,
        shard_count: int,
        now_ms: int,
        *,
        mode: Mode = "PROVISIONED",
        distribution: Distribution = "USER_PARTITION_KEY",
        record_bytes_max: int | None = None,
    ) -> Stream:
        """Make a stream of evenly cut shards; ResourceInUseException if the name is taken.

        `record_bytes_max` can only lower the limits' own.
        """
        if name in self.streams:
            raise in_use(f"Stream {name} under account {self.account} already exists.")
        if not 1 <= shard_count <= SHARDS_MAX:
            raise invalid_value(f"Value '{shard_count}' at 'shardCount' must be in 1..{SHARDS_MAX}")
        arn = f"arn:aws:kinesis:{self.region}:{self.account}:stream/{name}"
        limits = self.limits
        if record_bytes_max is not None:
            lower = min(record_bytes_max, limits.record_bytes_max)
            limits = dataclasses.replace(limits, record_bytes_max=lower)
        stream = Stream(
            name, arn, shard_count, limits, now_ms, mode=mode, distribution=distribution
        )
        self.streams[name] = stream
        return stream

    def delete_stream(self, name: str) -> None:
        del self.streams[self._known(name).name]

    def stream(self, name: str, now_ms: int) -> Stream:
        """The stream as retention leaves it at `now_ms`, or ResourceNotFoundException."""
        stream = self._known(name)
        stream.trim(now_ms)
        return stream

    def set_retention(self, name: str, hours: int, now_ms: int) -> None:
        """Keep records for 24 to 8,760 hours from now on; InvalidArgumentException otherwise."""
        if not RETENTION_MIN_H <= hours <= RETENTION_MAX_H:
            raise invalid_argument(
                f"Retention period is {hours} hours; it must be {RETENTION_MIN_H} to"
                f" {RETENTION_MAX_H} hours."
            )
        self.stream(name, now_ms).retention_h = hours

    def _known(self, name: str) -> Stream:
        stream = self.streams.get(name)
        if stream is None:
            raise not_found(f"Stream {name} under account {self.account} not found.")
        return stream

    # Writing

    def put(self, name: str, records: Sequence[NewRecord], now_ms: int) -> list[Placed]:
        """Put a batch in its order; a shard refuses single records when its write rate is used up.

        ValidationException or InvalidArgumentException refuse the whole batch before any is taken.
        """
        stream = self.stream(name, now_ms)
        entries = [self._checked(stream, record) for record in records]
        self._check_batch(entries)
        placed: list[Placed] = [Placed("", None)] * len(records)
        for shard, places in _routed(stream, records).items():
            taken = _admitted(shard, entries, places, now_ms)
            numbers = shard.append([entries[place] for place in taken], now_ms)
            for place in places[len(taken) :]:
                placed[place] = Placed(shard.shard_id, None)
            for place, number in zip(taken, numbers, strict=True):
                placed[place] = Placed(shard.shard_id, number)
        return placed

    def load(self, name: str, pairs: Iterable[tuple[str, bytes]], now_ms: int) -> int:
        """Append (partition key, data) pairs in bulk, whatever rates and sizes say; how many."""
        stream = self.stream(name, now_ms)
        records = [NewRecord(data, key) for key, data in pairs]
        entries = [_entry(record) for record in records]
        for shard, places in _routed(stream, records).items():
            shard.append([entries[place] for place in places], now_ms)
        return len(records)

    def _checked(self, stream: Stream, record: NewRecord) -> Entry:
        key = record.partition_key
        if key is None and stream.distribution != "AUTO":
            raise invalid_value("Value null at 'partitionKey': Member must not be null")
        if key is not None and not 1 <= len(key) <= PARTITION_KEY_CHARS_MAX:
            raise invalid_value(
                f"Value '{key}' at 'partitionKey': Member must have length between 1 and"
                f" {PARTITION_KEY_CHARS_MAX}"
            )
        if len(record.data) > stream.limits.record_bytes_max:
            raise invalid_argument(
                f"Record data size {len(record.data)} exceeds the stream's max record size of"
                f" {stream.limits.record_bytes_max} bytes"
            )
        return _entry(record)

    def _check_batch(self, entries: Sequence[Entry]) -> None:
        records_max, bytes_max = self.limits.request_records_max, self.limits.request_bytes_max
        if not 1 <= len(entries) <= records_max:
            raise invalid_value(
                f"Value at 'records': Member must have length between 1 and {records_max}"
            )
        if len(entries) > 1 and sum(entry.size_bytes for entry in entries) > bytes_max:
            raise invalid_argument(f"Records size exceeds {bytes_max} bytes limit")

    # Reading

    def iterator(
        self,
        name: str,
        shard_id: str,
        kind: IteratorType,
        now_ms: int,
        *,
        sequence_number: str | None = None,
        at_ms: int | None = None,
    ) -> str:
        """An iterator that lives five minutes; TRIM_HORIZON, LATEST and times are resolved now."""
        stream = self.stream(name, now_ms)
        shard = stream.shard(shard_id)
        index = _start_index(shard, kind, now_ms, sequence_number, at_ms)
        return seal(Position(name, stream.created_ms, shard_id, index, now_ms))

    def position(self, iterator: str, now_ms: int) -> Position:
        """What an iterator stands for; InvalidArgumentException or ExpiredIteratorException."""
        position = open_position(iterator)
        if position is None:
            raise invalid_argument("Invalid ShardIterator.")
        if now_ms - position.issued_at_ms > self.limits.iterator_ms:
            raise expired_iterator(position.issued_at_ms, now_ms, self.limits.iterator_ms)
        return position

    def get_records(self, iterator: str, now_ms: int, limit: int | None = None) -> Page:
        """The next page of a shard, charged to its read rates.

        ProvisionedThroughputExceededException while they are used up. The page that reaches the
        end of a closed shard has no next iterator and names the children.
        """
        position = self.position(iterator, now_ms)
        stream = self._same_stream(position, now_ms)
        shard = stream.shard(position.shard_id)
        if not (shard.reads.has(1, now_ms) and shard.read_bytes.has(0, now_ms)):
            raise throttled(shard.shard_id, stream.name, self.account)
        found = shard.read(position.index, self._page_records(limit), self.limits.page_bytes_max)
        shard.reads.take(1)
        shard.read_bytes.take(found.size_bytes)
        following = msgspec.structs.replace(position, index=found.next_index, issued_at_ms=now_ms)
        if found.next_index < shard.next_index:
            # 0 would say that nothing is left, so a record of this millisecond counts as 1.
            behind_ms = max(1, now_ms - shard.arrived_at_ms(found.next_index))
            return Page(found.fragments, seal(following), behind_ms, [], shard, found.next_index)
        if shard.is_open:
            return Page(found.fragments, seal(following), 0, [], shard, found.next_index)
        children = stream.children_of(shard.shard_id)
        return Page(found.fragments, None, 0, children, shard, found.next_index)

    def _page_records(self, limit: int | None) -> int:
        most = self.limits.page_records_max
        return most if limit is None else min(limit, most)

    def _same_stream(self, token: Position | Listing, now_ms: int) -> Stream:
        stream = self.stream(token.stream, now_ms)
        if stream.created_ms != token.created_ms:
            raise not_found(f"Stream {stream.name} is not the one that this token was made for.")
        return stream

    # Listing

    def list_shards(
        self, listing: Listing, now_ms: int, shards_max: int
    ) -> tuple[list[Shard], str | None]:
        """At most `shards_max` more shards of a listing, and the token that goes on (or None)."""
        stream = self.stream(listing.stream, now_ms)
        found = [
            shard
            for shard in stream.shards.values()
            if shard.shard_id > listing.after_shard_id
            and _is_listed(stream, shard, listing, now_ms)
        ]
        shards = found[: min(shards_max, LISTED_SHARDS_MAX)]
        if len(shards) == len(found):
            return shards, None
        rest = msgspec.structs.replace(
            listing, after_shard_id=shards[-1].shard_id, issued_at_ms=now_ms
        )
        return shards, seal(rest)

    def listing(self, token: str, now_ms: int) -> Listing:
        """What a NextToken stands for; InvalidArgumentException or ExpiredNextTokenException."""
        listing = open_listing(token)
        if listing is None:
            raise invalid_argument("NextToken is invalid.")
        if now_ms - listing.issued_at_ms > self.limits.iterator_ms:
            raise ServiceError("ExpiredNextTokenException", "NextToken has expired.")
        self._same_stream(listing, now_ms)
        return listing


def expired_iterator(issued_at_ms: int, now_ms: int, lives_ms: int) -> ServiceError:
    return ServiceError(
        "ExpiredIteratorException",
        f"Iterator expired. The iterator was created at time {issued_at_ms} ms while right now it"
        f" is {now_ms} ms which is further in the future than the tolerated delay of"
        f" {lives_ms} milliseconds.",
    )


def _entry(record: NewRecord) -> Entry:
    data, key = record.data, record.partition_key
    data_base64 = b2a_base64(data, newline=False)
    if key is None:
        return Entry(data_base64, b"", len(data))
    key_member = b'"PartitionKey":%b,' % msgspec.json.encode(key)
    return Entry(data_base64, key_member, len(data) + len(key.encode()))


def _routed(stream: Stream, records: Sequence[NewRecord]) -> dict[Shard, list[int]]:
    """For each shard the places in the batch that it takes, in order."""
    routed: dict[Shard, list[int]] = {}
    for place, record in enumerate(records):
        routed.setdefault(_shard_of(stream, record), []).append(place)
    return routed


def _shard_of(stream: Stream, record: NewRecord) -> Shard:
    if stream.distribution == "AUTO" or record.partition_key is None:
        return stream.next_shard()
    if record.explicit_hash_key is not None:
        return stream.shard_for(hash_key_from(record.explicit_hash_key))
    return stream.shard_for(hash_key_of(record.partition_key))


def _admitted(shard: Shard, entries: Sequence[Entry], places: list[int], now_ms: int) -> list[int]:
    """The first of `places` that the shard's write rates still allow."""
    for taken, place in enumerate(places):
        if not (shard.write_records.has(1, now_ms) and shard.write_bytes.has(0, now_ms)):
            return places[:taken]
        shard.write_records.take(1)
        shard.write_bytes.take(entries[place].size_bytes)
    return places


def _start_index(
    shard: Shard, kind: IteratorType, now_ms: int, sequence_number: str | None, at_ms: int | None
) -> int:
    if kind == "TRIM_HORIZON":
        return shard.first_index
    if kind == "LATEST":
        return shard.next_index
    if kind == "AT_TIMESTAMP":
        return _index_at_time(shard, now_ms, at_ms)
    number = _checked_number(shard, sequence_number)
    return shard.index_at(number) if kind == "AT_SEQUENCE_NUMBER" else shard.index_after(number)


def _index_at_time(shard: Shard, now_ms: int, at_ms: int | None) -> int:
    if at_ms is None:
        raise invalid_argument(
            "Must specify timestamp parameter for iterator of type AT_TIMESTAMP."
        )
    if at_ms > now_ms:
        raise invalid_argument(
            f"The timestampInMillis parameter cannot be greater than the currentTimestampInMillis."
            f" timestampInMillis: {at_ms}, currentTimestampInMillis: {now_ms}"
        )
    return shard.index_at_time(at_ms)


def _checked_number(shard: Shard, text: str | None) -> int:
    if text is None:
        raise invalid_argument("Must specify startingSequenceNumber for this iterator type.")
    if not (text.isascii() and text.isdigit() and shard.has_issued(int(text))):
        raise invalid_argument(
            f"StartingSequenceNumber {text} used in GetShardIterator on shard {shard.shard_id}"
            " is invalid because it did not come from this stream."
        )
    return int(text)


def _is_listed(stream: Stream, shard: Shard, listing: Listing, now_ms: int) -> bool:
    at_ms = max(listing.at_ms, stream.horizon_ms(now_ms))
    lived_then = shard.closed_at_ms is None or shard.closed_at_ms >= at_ms
    match listing.filter_type:
        case "AT_LATEST":
            return shard.is_open
        case "FROM_TIMESTAMP":
            return lived_then
        case "AT_TIMESTAMP" | "AT_TRIM_HORIZON":
            return lived_then and shard.opened_at_ms <= at_ms
        case "FROM_TRIM_HORIZON" | "AFTER_SHARD_ID":
            return True
