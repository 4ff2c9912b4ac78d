"""Our Kinesis as a pure model: what only a clock in hand can show (rates, expiry, retention)."""

import msgspec
import pytest

from processor.local.kinesis_api import page_json
from processor.local.kinesis_errors import ServiceError
from processor.local.kinesis_limits import MEBIBYTE, Limits
from processor.local.kinesis_model import IteratorType, KinesisModel, NewRecord, Page
from processor.local.kinesis_stream import HOUR_MS
from processor.local.kinesis_tokens import Listing

NOW = 1_700_000_000_000
SHARD = "shardId-000000000000"
HASH_KEYS = 2**128


class Record(msgspec.Struct, rename="pascal"):
    data: bytes
    sequence_number: str
    approximate_arrival_timestamp: float
    partition_key: str | None = None


def model_of(shards: int = 1, limits: Limits | None = None) -> KinesisModel:
    model = KinesisModel(limits)
    model.create_stream("s", shards, NOW)
    return model


def free_model(shards: int = 1) -> KinesisModel:
    return model_of(shards, Limits.without_rates())


def put(model: KinesisModel, *data: bytes, at: int = NOW) -> list[str | None]:
    placed = model.put("s", [NewRecord(item, "key") for item in data], at)
    return [each.sequence_number for each in placed]


def start(model: KinesisModel, kind: IteratorType = "TRIM_HORIZON", at: int = NOW) -> str:
    return model.iterator("s", SHARD, kind, at)


def records_in(page: Page) -> list[Record]:
    return msgspec.json.decode(b"[" + b",".join(page.fragments) + b"]", type=list[Record])


def data_in(page: Page) -> list[bytes]:
    return [record.data for record in records_in(page)]


def refusal_of(error: pytest.ExceptionInfo[ServiceError]) -> str:
    return error.value.kind


# Positions and iterators


def test_the_arrival_time_is_that_of_the_call_to_the_millisecond() -> None:
    model = free_model()
    put(model, b"x", at=NOW + 7)
    [record] = records_in(model.get_records(start(model), NOW + 7))
    assert record.approximate_arrival_timestamp == 1_700_000_000.007


def test_arrival_times_never_go_back_when_the_clock_does() -> None:
    model = free_model()
    put(model, b"1", at=NOW + 50)
    put(model, b"2", at=NOW)
    first, second = records_in(model.get_records(start(model), NOW + 50))
    assert first.approximate_arrival_timestamp == second.approximate_arrival_timestamp


def test_an_iterator_lives_five_minutes() -> None:
    model = free_model()
    iterator = start(model)
    model.get_records(iterator, NOW + 300_000)
    with pytest.raises(ServiceError) as error:
        model.get_records(iterator, NOW + 300_001)
    assert refusal_of(error) == "ExpiredIteratorException"


def test_each_page_brings_an_iterator_with_five_minutes_of_its_own() -> None:
    model = free_model()
    following = model.get_records(start(model), NOW + 300_000).next_iterator
    assert following is not None
    assert model.get_records(following, NOW + 600_000).next_iterator


def test_an_iterator_does_not_read_a_later_stream_of_the_same_name() -> None:
    model = free_model()
    iterator = start(model)
    model.delete_stream("s")
    model.create_stream("s", 1, NOW + 1)
    with pytest.raises(ServiceError) as error:
        model.get_records(iterator, NOW + 2)
    assert refusal_of(error) == "ResourceNotFoundException"


def test_a_time_begins_with_what_arrived_then() -> None:
    model = free_model()
    for i in range(4):
        put(model, b"%d" % i, at=NOW + 10 * i)
    iterator = model.iterator("s", SHARD, "AT_TIMESTAMP", NOW + 99, at_ms=NOW + 11)
    assert data_in(model.get_records(iterator, NOW + 99)) == [b"2", b"3"]


def test_behind_is_the_age_of_the_next_record() -> None:
    model = free_model()
    for i in range(3):
        put(model, b"%d" % i, at=NOW + 1_000 * i)
    page = model.get_records(start(model), NOW + 5_000, limit=1)
    assert page.behind_ms == 4_000


def test_two_models_with_the_same_history_answer_the_same_bytes() -> None:
    def history() -> bytes:
        model = free_model(2)
        put(model, b"1", b"2")
        model.stream("s", NOW).split(SHARD, 2**126, NOW + 5)
        return page_json(model.get_records(start(model), NOW + 6))

    assert history() == history()


def test_the_page_that_reaches_the_end_of_a_closed_shard_is_the_last() -> None:
    model = free_model()
    put(model, b"a", b"b")
    iterator = start(model)
    model.stream("s", NOW).split(SHARD, HASH_KEYS // 2, NOW)
    page = model.get_records(iterator, NOW, 10)
    assert len(page.fragments) == 2
    assert page.next_iterator is None
    assert [child.shard_id[-1] for child in page.children] == ["1", "2"]


# Sizes


def test_a_page_ends_before_ten_mebibytes() -> None:
    model = free_model()
    put(model, *([bytes(3 * MEBIBYTE)] * 2))
    put(model, *([bytes(3 * MEBIBYTE)] * 2))
    page = model.get_records(start(model), NOW)
    assert len(page.fragments) == 3
    assert page.next_iterator is not None
    assert len(model.get_records(page.next_iterator, NOW).fragments) == 1


def test_a_record_larger_than_a_page_is_a_page() -> None:
    model = model_of(limits=Limits(page_bytes_max=10, reads_per_s=None, read_bytes_per_s=None))
    put(model, bytes(100), b"small")
    assert data_in(model.get_records(start(model), NOW)) == [bytes(100)]


def test_a_page_has_ten_thousand_records_at_most() -> None:
    model = free_model()
    assert model.load("s", [("k", b"")] * 10_001, NOW) == 10_001
    page = model.get_records(start(model), NOW)
    assert len(page.fragments) == 10_000
    assert page.behind_ms > 0


def test_a_batch_over_ten_mebibytes_is_refused_whole() -> None:
    model = free_model()
    with pytest.raises(ServiceError) as error:
        put(model, *([bytes(4 * MEBIBYTE)] * 3))
    assert refusal_of(error) == "InvalidArgumentException"
    assert model.get_records(start(model), NOW).fragments == []


# Rates


def test_a_shard_is_read_five_times_a_second() -> None:
    model = model_of()
    iterator = start(model)
    for _ in range(5):
        model.get_records(iterator, NOW)
    with pytest.raises(ServiceError) as error:
        model.get_records(iterator, NOW + 199)
    assert refusal_of(error) == "ProvisionedThroughputExceededException"
    model.get_records(iterator, NOW + 200)


def test_an_answer_of_ten_mebibytes_blocks_the_shard_for_five_seconds() -> None:
    model = model_of(limits=Limits(write_bytes_per_s=None, reads_per_s=None))
    key_bytes = len("key")
    put(model, bytes(10 * MEBIBYTE - key_bytes))
    page = model.get_records(start(model), NOW)
    assert page.next_iterator is not None
    with pytest.raises(ServiceError) as error:
        model.get_records(page.next_iterator, NOW + 4_999)
    assert refusal_of(error) == "ProvisionedThroughputExceededException"
    model.get_records(page.next_iterator, NOW + 5_000)


def test_a_shard_takes_a_thousand_records_a_second_and_refuses_the_rest_singly() -> None:
    model = model_of()
    put(model, *([b""] * 500))
    put(model, *([b""] * 400))
    numbers = put(model, *([b""] * 150))
    assert [number is not None for number in numbers] == [True] * 100 + [False] * 50
    assert None not in put(model, *([b""] * 500), at=NOW + 500)


def test_a_shard_takes_a_mebibyte_a_second() -> None:
    model = model_of()
    assert None not in put(model, bytes(MEBIBYTE))
    assert put(model, b"more", at=NOW + 999) == [None]
    assert None not in put(model, b"more", at=NOW + 1_001)


def test_a_full_shard_does_not_hold_back_another() -> None:
    model = model_of(2, Limits(write_records_per_s=1))
    keys = ["0", str(HASH_KEYS - 1), "0", str(HASH_KEYS - 1)]
    placed = model.put("s", [NewRecord(b"", "k", key) for key in keys], NOW)
    assert [each.sequence_number is not None for each in placed] == [True, True, False, False]
    assert [each.shard_id[-1] for each in placed] == ["0", "1", "0", "1"]


def test_every_rate_can_be_switched_off() -> None:
    model = free_model()
    iterator = start(model)
    for _ in range(20):
        assert None not in put(model, *([bytes(20_000)] * 500))
        model.get_records(iterator, NOW)


# Retention


def test_records_past_retention_are_gone() -> None:
    model = free_model()
    put(model, b"old", at=NOW)
    put(model, b"new", at=NOW + 12 * HOUR_MS)
    later = NOW + 25 * HOUR_MS
    page = model.get_records(start(model, at=later), later)
    assert data_in(page) == [b"new"]


def test_a_position_older_than_the_horizon_starts_at_the_horizon() -> None:
    model = free_model()
    [old] = put(model, b"old")
    put(model, b"lost", at=NOW + 1)
    put(model, b"new", at=NOW + 12 * HOUR_MS)
    later = NOW + 25 * HOUR_MS
    iterator = model.iterator("s", SHARD, "AFTER_SEQUENCE_NUMBER", later, sequence_number=old)
    assert data_in(model.get_records(iterator, later)) == [b"new"]


def test_numbers_go_on_where_they_were_after_everything_was_trimmed() -> None:
    model = free_model()
    [old] = put(model, b"old")
    later = NOW + 25 * HOUR_MS
    [new] = put(model, b"new", at=later)
    assert old is not None
    assert new is not None
    assert int(new) > int(old)
    [record] = records_in(model.get_records(start(model, at=later), later))
    assert record.sequence_number == new


def test_a_closed_shard_goes_when_its_last_record_has_to() -> None:
    model = free_model()
    model.stream("s", NOW).split(SHARD, 2**127, NOW + HOUR_MS)
    everything = Listing("s", NOW, "", NOW, "FROM_TRIM_HORIZON", 0)
    before, _ = model.list_shards(everything, NOW + 25 * HOUR_MS, 100)
    after, _ = model.list_shards(everything, NOW + 26 * HOUR_MS, 100)
    assert [shard.shard_id[-1] for shard in before] == ["0", "1", "2"]
    assert [shard.shard_id[-1] for shard in after] == ["1", "2"]


def test_a_longer_retention_keeps_records_longer() -> None:
    model = free_model()
    put(model, b"kept")
    model.set_retention("s", 48, NOW)
    later = NOW + 47 * HOUR_MS
    assert data_in(model.get_records(start(model, at=later), later)) == [b"kept"]


# Listing


def test_at_a_time_the_shards_of_that_time_are_listed() -> None:
    model = free_model()
    model.stream("s", NOW).split(SHARD, 2**127, NOW + 1_000)

    def listed(at_ms: int) -> list[str]:
        listing = Listing("s", NOW, "", NOW, "AT_TIMESTAMP", at_ms)
        shards, _ = model.list_shards(listing, NOW + 5_000, 100)
        return [shard.shard_id[-1] for shard in shards]

    assert listed(NOW + 999) == ["0"]
    assert listed(NOW + 1_001) == ["1", "2"]


def test_a_listing_token_lives_five_minutes() -> None:
    model = free_model(2)
    _, token = model.list_shards(Listing("s", NOW, "", NOW, "AT_LATEST", 0), NOW, 1)
    assert token is not None
    assert model.listing(token, NOW + 300_000).filter_type == "AT_LATEST"
    with pytest.raises(ServiceError) as error:
        model.listing(token, NOW + 300_001)
    assert refusal_of(error) == "ExpiredNextTokenException"


def test_a_listing_in_pages_names_each_shard_once() -> None:
    model = model_of(5)
    listing = Listing("s", NOW, "", NOW, "FROM_TRIM_HORIZON", 0)
    shards, token = model.list_shards(listing, NOW, 2)
    names = [shard.shard_id for shard in shards]
    while token is not None and len(names) < 10:  # twice what there is
        shards, token = model.list_shards(model.listing(token, NOW), NOW, 2)
        names += [shard.shard_id for shard in shards]
    assert names == [f"shardId-{n:012d}" for n in range(5)]


# Streams that place records themselves


def test_an_auto_stream_needs_no_partition_key_and_uses_all_shards() -> None:
    model = KinesisModel(Limits.without_rates())
    model.create_stream("s", 4, NOW, mode="ON_DEMAND", distribution="AUTO")
    placed = model.put("s", [NewRecord(b"x") for _ in range(8)], NOW)
    assert len({each.shard_id for each in placed}) == 4
    [first, _] = records_in(model.get_records(start(model), NOW))
    assert first.partition_key is None


def test_any_other_stream_refuses_a_record_without_partition_key() -> None:
    with pytest.raises(ServiceError) as error:
        free_model().put("s", [NewRecord(b"x")], NOW)
    assert refusal_of(error) == "ValidationException"
