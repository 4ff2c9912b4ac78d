"""`kpl`: what was packed comes out; what is no aggregate passes; no bytes crash it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processor.codecs.base import Events
from processor.codecs.kpl import EVENTS_MAX, Kpl, hash_of
from tests.kpl import MAGIC, aggregate, number, record, sealed, text, varint

keys = st.text(min_size=1, max_size=20)
hash_keys = st.none() | st.integers(0, 2**128 - 1)
packed = st.lists(st.tuples(keys, st.binary(max_size=300), hash_keys), min_size=1, max_size=30)


def split(*payloads: bytes) -> Events:
    return Kpl().split(payloads, [f"pk-{i}" for i in range(len(payloads))])


def fault(message: bytes) -> str:
    """What is said of a message with the right MD5."""
    events = split(sealed(message))
    assert events.payloads == [sealed(message)], "it stands for itself"
    assert events.faults[0].reason == "bad_aggregate"
    return events.faults[0].detail


# ---- round trip -------------------------------------------------------------------------------


@given(st.lists(packed | st.binary(max_size=60), max_size=6))
def test_what_was_packed_comes_out_in_order_with_its_own_keys(
    records: list[list[tuple[str, bytes, int | None]] | bytes],
) -> None:
    payloads = [one if isinstance(one, bytes) else aggregate(one) for one in records]
    events = split(*payloads)
    expected = []
    for i, one in enumerate(records):
        if isinstance(one, bytes):
            expected.append((i, 0, one, f"pk-{i}", None))
            continue
        for at, (key, data, explicit) in enumerate(one):
            expected.append((i, at, data, key, hash_of(key) if explicit is None else explicit))
    assert list(zip(*_columns(events), strict=True)) == expected
    assert events.faults == {}


def _columns(events: Events) -> tuple[list[object], ...]:
    return (
        list(events.records),
        list(events.indexes),
        list(events.payloads),
        list(events.partition_keys),
        list(events.hash_keys),
    )


def test_the_published_layout_byte_by_byte() -> None:
    """Written out by hand, so that encoder and parser can't be wrong together."""
    tables, first, second = "0a0161 0a0162 120137", "1a07 0801 1000 1a0178", "1a05 0800 1a0179"
    message = bytes.fromhex(f"{tables} {first} {second}")
    events = split(MAGIC + message + hashlib.md5(message).digest())
    assert events.payloads == [b"x", b"y"]
    assert events.partition_keys == ["b", "a"]
    assert events.hash_keys == [7, int(hashlib.md5(b"a").hexdigest(), 16)]


def test_unknown_fields_and_tags_are_skipped() -> None:
    tags = text(4, text(1, b"tag"))
    extra = number(9, 2**63) + text(10, b"more") + varint(11 << 3 | 1) + bytes(8)
    extra += varint(12 << 3 | 5) + bytes(4)
    message = extra + text(3, record(b"x", 0) + tags + extra) + text(1, b"key")
    assert split(sealed(message)).payloads == [b"x"], "a table may follow what refers to it"


def test_an_index_of_two_bytes_is_not_taken_for_what_the_kpl_writes() -> None:
    """Its second byte looks like the tag that would follow an index of one byte."""
    at = 0x1A << 7
    message = b"".join(text(1, str(i).encode()) for i in range(at + 1)) + text(3, record(b"x", at))
    assert split(sealed(message)).partition_keys == [str(at)]


def test_an_aggregate_of_nothing_holds_nothing() -> None:
    assert split(sealed(number(9, 1))).payloads == []


# ---- what is no aggregate ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        MAGIC,
        MAGIC + hashlib.md5(b"").digest(),
        MAGIC + text(1, b"key") + bytes(16),
        aggregate([("key", b"data")])[:-1],
        b"\x00" + aggregate([("key", b"data")]),
    ],
)
def test_a_record_without_mark_or_digest_passes_as_it_is(payload: bytes) -> None:
    events = split(payload)
    assert (events.payloads, events.partition_keys, events.faults) == ([payload], ["pk-0"], {})


# ---- untrusted bytes --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (text(3, record(b"x", 0)), "partition_key_index 0 of a table of 0"),
        (text(1, b"k") + text(3, record(b"x", 2**64 - 1)), "of a table of 1"),
        (text(1, b"k") + text(3, record(b"x", 0, 3)), "explicit_hash_key_index 3 of a table of 0"),
        (text(1, b"k") + text(3, text(3, b"x")), "without partition_key_index"),
        (text(1, b"k") + text(3, number(1, 0)), "without data"),
        (text(1, b"\xff"), "utf-8"),
        (text(2, b"-1"), "explicit hash key"),
        (text(2, str(2**128).encode()), "explicit hash key"),
        (text(2, b"9" * 5000), "explicit hash key"),
        (text(2, "²".encode()), "explicit hash key"),
        (number(1, 7), "field 1 has wire type 0"),
        (varint(1 << 3 | 3), "wire type 3"),
        (varint(1 << 3 | 2) + varint(2**60), "where 0 are left"),
        (b"\x80" * 40, "a number without end"),
        (text(1, b"k") + text(3, b"\x0a\xff"), "a number without end"),
    ],
)
def test_a_sealed_message_that_cannot_be_read_is_one_fault(message: bytes, why: str) -> None:
    assert why in fault(message)


def test_more_events_than_a_record_may_hold_are_refused_before_they_are_made() -> None:
    one = text(3, record(b"", 0))
    assert f"more than {EVENTS_MAX} events" in fault(text(1, b"k") + one * (EVENTS_MAX + 1))


@given(st.binary(max_size=400))
def test_no_sealed_bytes_crash_or_yield_more_than_they_hold(message: bytes) -> None:
    events = split(sealed(message), b"after")
    assert events.payloads[-1] == b"after"
    assert sum(map(len, events.payloads[:-1])) <= len(sealed(message))
    assert set(events.faults) <= {0}


@given(packed, st.data())
def test_no_damage_under_a_right_seal_crashes(
    events: list[tuple[str, bytes, int | None]], data: st.DataObject
) -> None:
    message = bytearray(aggregate(events)[4:-16])
    for _ in range(data.draw(st.integers(1, 4))):
        if message:
            message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    found = split(sealed(bytes(message)))
    assert sum(map(len, found.payloads)) <= len(message) + 20
