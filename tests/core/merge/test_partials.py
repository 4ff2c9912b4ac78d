"""The wire: what is written is read again, and what anybody else puts there harms nobody."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.codecs.base import Fault
from processor.core import windows
from processor.core.merge import partials
from processor.core.merge.partials import Closing, Deltas
from processor.model import Shard

SHARD = Shard("shardId-000000000007", 5, 2**127, ("shardId-000000000003",))


def closing(**more: object) -> Closing:
    nothing = windows.Saved(b"", {}, [])
    made = Closing(
        1,
        "version",
        2,
        4,
        partials.teller(SHARD, "1700000000000.3", 17, "where it began"),
        5,
        0,
        1,
        1_700_000_000_000,
        False,
        False,
        Deltas([["a", 1], ["b", -(2**63)]], nothing),
    )
    return msgspec.structs.replace(made, **more)


def test_a_closing_is_read_as_it_was_written() -> None:
    written = closing()
    partial = partials.partial(written)
    envelope = partials.envelope(partials.enveloped(partial.body, 12))
    assert isinstance(envelope, partials.Envelope)
    assert (envelope.generation, envelope.body) == (12, partial.body)
    assert partials.head(partial.body) == written.head
    assert partials.closing(partial.body) == written
    assert (partial.shard_id, partial.bucket) == (SHARD.id, 2)


def test_a_head_of_a_later_format_can_still_be_read() -> None:
    body = msgspec.msgpack.encode([9, "version", 2, 4, {"whatever": "comes"}, 1.5])
    assert partials.head(body) == partials.Head(9, "version", 2, 4)
    assert isinstance(partials.closing(body), Fault)


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": 2},
        {"bucket": 4},
        {"buckets": 0},
        {"buckets": 10**6},
        {"split": 1},
        {"splits": 0},
        {"number": -1},
        {"watermark_ms": 2**63 - 1},
        {"watermark_ms": "soon"},
        {"is_idle": 1},
        {"deltas": [[["a", 1.5]], None]},
        {"deltas": [[["a", 1]], [b"", [], []]]},
    ],
    ids=str,
)
def test_what_can_not_be_is_a_fault(wrong: dict[str, object]) -> None:
    body = msgspec.msgpack.encode(closing(**wrong))
    found = partials.closing(body)
    assert isinstance(found, Fault)
    assert found.reason == "no_partial"


@pytest.mark.parametrize(
    "wrong",
    [
        {"first": b"short"},
        {"first": b"\xff" * 16},
        {"incarnation": "never"},
        {"incarnation": "1.2.3"},
        {"shard_id": "s" * 5_000},
        {"parents": tuple("abcdefghijklmnopqrstuvw")},
    ],
    ids=str,
)
def test_a_teller_that_can_not_be_is_a_fault(wrong: dict[str, object]) -> None:
    teller = msgspec.structs.replace(closing().teller, **wrong)
    assert isinstance(partials.closing(msgspec.msgpack.encode(closing(teller=teller))), Fault)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_value(data: bytes) -> None:
    for read in (partials.envelope, partials.head, partials.closing):
        read(data)


@given(st.integers(0, 2**32))
def test_a_record_with_flipped_bytes_is_a_value(seed: int) -> None:
    rng = random.Random(seed)
    raw = bytearray(partials.partial(closing()).body)
    for _ in range(rng.randint(1, 4)):
        raw[rng.randrange(len(raw))] = rng.randrange(256)
    partials.closing(bytes(raw[: rng.randrange(len(raw) + 1)]))
    partials.closing(bytes(raw))


def test_deep_nesting_is_a_value() -> None:
    assert isinstance(partials.closing(b"\x91" * 100_000), Fault)


def test_the_keys_of_buckets_lie_in_the_middle_of_equal_parts() -> None:
    assert [partials.hash_key_of(bucket, 4) for bucket in range(4)] == [
        2**125,
        3 * 2**125,
        5 * 2**125,
        7 * 2**125,
    ]
    assert partials.place(3, 4) == (7 * 2**125).to_bytes(16, "big")


def test_groups_spread_over_all_buckets_and_a_text_is_no_number() -> None:
    found = [partials.bucket_of([f"store-{i}", i], 16) for i in range(1_600)]
    assert all(60 < found.count(bucket) < 140 for bucket in range(16))
    assert partials.bucket_of(["1"], 2**30) != partials.bucket_of([1], 2**30)
    assert partials.bucket_of([], 16) == partials.bucket_of([], 16)
