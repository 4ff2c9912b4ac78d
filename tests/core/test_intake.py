"""Intake: from payloads to columns, where each record is good or rejected by itself alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.codecs.json import Fields, Json
from processor.core import intake
from processor.core.intake import Batch
from processor.model import EventSpec, Page, Unit

NOW_MS = 1_700_000_000_123
HOUR_MS = 3_600_000
# A number that a producer writes for NOW_MS, by unit, and what follows it within the millisecond.
TICKS: dict[Unit, str] = {
    "s": "1700000000.123",
    "ms": "1700000000123",
    "us": "1700000000123999",
    "ns": "1700000000123999999",
    "iso8601": '"2023-11-14T22:13:20.123999Z"',
}
UNITS = list(TICKS)


def batch(payloads: Sequence[bytes], arrival_ms: int = NOW_MS, **types: Any) -> Batch:
    fields = Fields(types)
    n = len(payloads)
    page = Page(list(payloads), [str(i) for i in range(n)], ["p"] * n, np.full(n, arrival_ms), 0, 0)
    return intake.read(page, Json(fields.row_type), fields)


def column(texts: Sequence[str], type_: Any, arrival_ms: int = NOW_MS) -> Batch:
    """Records `{"f": …}`; an empty text leaves the field out."""
    payloads = [f'{{"f": {text}}}' if text else "{}" for text in texts]
    return batch([payload.encode() for payload in payloads], arrival_ms, f=type_)


def reasons(found: Batch) -> dict[int, tuple[str, str]]:
    return {i: (reject.reason, reject.detail) for i, reject in found.rejects.items()}


def read_times(
    texts: Sequence[str], unit: Unit, arrival_ms: int = NOW_MS
) -> list[int | tuple[str, str]]:
    """By record its time, or why there is none."""
    found = column(texts, intake.TIMES[unit], arrival_ms)
    times = intake.times_ms(found, EventSpec(time="f", unit=unit))
    assert times.dtype == np.int64
    good = {int(i): int(t) for i, t, ok in zip(found.index, times, found.valid, strict=True) if ok}
    return [good[i] if i in good else reasons(found)[i] for i in range(len(texts))]


# ---- times ----------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", UNITS)
def test_a_time_in_any_unit_is_cut_to_whole_milliseconds(unit: Unit) -> None:
    assert read_times([TICKS[unit]], unit) == [NOW_MS]


@pytest.mark.parametrize("unit", UNITS)
def test_a_time_that_is_absent_or_null_is_a_missing_field(unit: Unit) -> None:
    expected = ("missing_field", f"f: absent, expected a time in {unit}")
    assert read_times(["", "null", TICKS[unit]], unit) == [expected, expected, NOW_MS]


@pytest.mark.parametrize(
    ("text", "time_ms"),
    [
        ('"2023-11-14T22:13:20"', 1_700_000_000_000),  # without a zone it is UTC
        ('"2023-11-14T23:13:20+01:00"', 1_700_000_000_000),
        ('"2023-11-14T16:43:20-05:30"', 1_700_000_000_000),
        ('"2023-11-14T22:13:20.0015Z"', 1_700_000_000_001),
        ('"1970-01-01T00:00:00Z"', 0),
    ],
)
def test_iso_8601_is_read_with_and_without_a_zone(text: str, time_ms: int) -> None:
    assert read_times([text], "iso8601") == [time_ms]


@pytest.mark.parametrize("text", ['"2023-11-14"', '"14.11.2023"', '"2016-12-31T23:59:60Z"', "1"])
def test_what_is_no_iso_8601_time_is_of_the_wrong_type(text: str) -> None:
    [(reason, detail)] = read_times([text], "iso8601")
    assert reason == "wrong_type"
    assert "$.f" in detail


@settings(deadline=None)
@given(st.integers(0, 999))
def test_float_seconds_keep_the_millisecond_that_was_written(ms: int) -> None:
    assert read_times([f"1700000000.{ms:03d}"], "s", NOW_MS + HOUR_MS) == [1_700_000_000_000 + ms]


@pytest.mark.parametrize(
    ("text", "unit"),
    [
        ("-1", "ms"),
        ("-0.001", "ms"),
        ("-1e-9", "s"),
        ("1e308", "s"),  # a thousand times that is infinite
        ("-1e308", "s"),
        ("1e308", "ms"),
        ("253402300800001", "ms"),
        ("9223372036854775808", "us"),
        ("1" + "0" * 400, "ns"),
        ('"1969-12-31T23:59:59.999Z"', "iso8601"),
        ('"0001-01-01T00:00:00+23:59"', "iso8601"),
        ('"9999-12-31T23:59:59-23:59"', "iso8601"),
    ],
)
def test_a_time_before_1970_or_beyond_the_year_10000_is_out_of_range(text: str, unit: Unit) -> None:
    [(reason, detail)] = read_times([text], unit)
    assert reason == "out_of_range"
    assert detail.startswith("f: ")
    assert f"expected {unit} since 1970" in detail
    assert len(detail) < 100


def test_numbers_that_the_parser_cannot_hold_are_out_of_range() -> None:
    for text in ("1e400", "1" + "0" * 5_000):
        [(reason, _)] = read_times([text], "ms")
        assert reason == "out_of_range"


def test_an_hour_ahead_of_arrival_counts_and_more_is_the_future() -> None:
    limit = NOW_MS + HOUR_MS
    late = ("future", f"f: {limit + 1} is over an hour ahead of arrival")
    assert read_times([str(limit), str(limit + 1)], "ms") == [limit, late]


def test_without_a_time_field_arrival_is_the_time() -> None:
    found = batch([b"{}", b"{", b"{}"])
    assert intake.times_ms(found, EventSpec()).tolist() == [NOW_MS, NOW_MS]


time_texts = st.one_of(
    st.integers(-(10**3), 10**20).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["", "null", "1e308", "-1e308", *(TICKS[u] for u in UNITS if u != "iso8601")]),
)


@settings(deadline=None)
@given(st.lists(time_texts, min_size=1, max_size=8), st.sampled_from(["s", "ms", "us", "ns"]))
def test_whether_and_how_a_time_is_read_never_depends_on_its_neighbours(
    texts: list[str], unit: Unit
) -> None:
    alone = [each for text in texts for each in read_times([text], unit)]
    assert read_times(texts, unit) == alone


@settings(deadline=None)
@given(st.floats(0, 3e11), st.sampled_from(["s", "ms", "us", "ns"]))
def test_a_float_time_is_cut_as_exact_arithmetic_cuts_it(number: float, unit: Unit) -> None:
    per_ms = {"s": Fraction(1, 1_000), "ms": 1, "us": 1_000, "ns": 1_000_000}[unit]
    exact = Fraction(number) / per_ms
    [found] = read_times([repr(number)], unit, arrival_ms=2**50)
    if isinstance(found, int):
        assert abs(found - exact) <= 1, "a float of seconds is rounded once before it is cut"
        assert unit == "s" or found == exact.__floor__()


# ---- numbers --------------------------------------------------------------------------------


def numbers(texts: Sequence[str], type_: Any = intake.NUMBER) -> tuple[Batch, list[float]]:
    found = column(texts, type_)
    found.need_numbers("f", found.valid)
    return found, found.numbers("f")[found.valid].tolist()


@pytest.mark.parametrize("type_", [intake.NUMBER, int | float])
def test_numbers_up_to_2_to_the_53_are_taken_in_both_signs(type_: Any) -> None:
    found, values = numbers(["9007199254740992", "-9007199254740992", "0.1", "-0.0"], type_)
    assert values == [2.0**53, -(2.0**53), 0.1, 0.0]
    assert found.rejects == {}


@pytest.mark.parametrize("type_", [intake.NUMBER, int | float])
@pytest.mark.parametrize("text", ["9007199254740994", "-1e16", "1" + "0" * 30, "1" + "0" * 300])
def test_a_larger_number_is_out_of_range_and_hides_no_neighbour(text: str, type_: Any) -> None:
    found, values = numbers(["1", text, "2"], type_)
    assert values == [1.0, 2.0]
    [(reason, detail)] = reasons(found).values()
    assert reason == "out_of_range"
    assert detail.startswith("f: ")
    assert detail.endswith("expected at most 2^53")
    assert len(detail) < 80


def test_an_integer_beyond_float64_is_out_of_range_too() -> None:
    found, values = numbers(["1" + "0" * 400, "3"], int | float)
    assert values == [3.0]
    assert reasons(found)[0][0] == "out_of_range"


def test_a_wanted_number_that_is_absent_or_null_is_a_missing_field() -> None:
    found, values = numbers(["", "null", "5"])
    missing = ("missing_field", "f: absent, expected a number")
    assert values == [5.0]
    assert reasons(found) == {0: missing, 1: missing}


def test_a_text_where_a_number_belongs_is_of_the_wrong_type() -> None:
    found, _ = numbers(['"5"', "true", "[]"])
    assert {reason for reason, _ in reasons(found).values()} == {"wrong_type"}
    assert all("$.f" in detail for _, detail in reasons(found).values())


def test_records_that_no_rule_wants_need_no_number() -> None:
    found = column(["", "1e300", "1"], intake.NUMBER)
    found.need_numbers("f", np.array([False, False, True]))
    assert found.rejects == {}


# ---- keys and ids ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "missing_field", "f: absent, expected a text or an integer"),
        ("null", "missing_field", "f: absent, expected a text or an integer"),
        ('"' + "x" * 513 + '"', "out_of_range", "f: 513 characters, at most 512"),
        ("9223372036854775808", "out_of_range", "f: an integer of 64 bits, at most 63"),
        ("1" + "0" * 300, "out_of_range", "f: an integer of 997 bits, at most 63"),
    ],
)
def test_a_key_that_cannot_be_one_says_why(text: str, reason: str, detail: str) -> None:
    found = column(['"good"', text, "7"], intake.KEY)
    found.need_keys("f", found.valid)
    assert reasons(found) == {1: (reason, detail)}


@pytest.mark.parametrize("text", ["1.5", "1.0", "true", "{}", "[1]"])
def test_a_key_is_a_text_or_an_integer_and_nothing_else(text: str) -> None:
    assert reasons(column([text], intake.KEY))[0][0] == "wrong_type"


@pytest.mark.parametrize(
    "text", ['""', '"' + "x" * 512 + '"', "0", "-9223372036854775808", "9223372036854775807"]
)
def test_keys_at_their_bounds_are_good(text: str) -> None:
    found = column([text], intake.KEY)
    found.need_keys("f", found.valid)
    assert found.rejects == {}


def hashes(texts: Sequence[str]) -> list[int]:
    found = column(texts, intake.KEY)
    result = intake.id_hashes(found, EventSpec(id="f"))
    assert result is not None
    assert result.dtype == np.uint64
    return [int(h) for h in result]


ids = st.one_of(st.text(max_size=5), st.integers(-(2**63), 2**63 - 1))


@settings(deadline=None)
@given(st.lists(ids, min_size=1, max_size=10))
def test_an_id_has_one_hash_whatever_its_neighbours_are(values: list[str | int]) -> None:
    texts = [json.dumps(value) for value in values]
    assert hashes(texts) == [hashes([text])[0] for text in texts]
    assert len(set(hashes(texts))) == len({(type(v), v) for v in values})


def test_1_and_the_text_1_are_two_ids_and_no_text_is_an_integer_in_disguise() -> None:
    assert len(set(hashes(["1", '"1"', '"\\u00001"', '"\\u0001"']))) == 4


def test_records_without_their_id_are_rejected_and_the_others_keep_theirs() -> None:
    found = column(['"a"', "", '"b"'], intake.KEY)
    result = intake.id_hashes(found, EventSpec(id="f"))
    assert result is not None
    assert reasons(found) == {
        1: ("missing_field", "f: absent, expected a text or an integer"),
    }
    assert result[found.valid].tolist() == hashes(['"a"', '"b"'])


def test_a_stream_without_ids_has_no_hashes() -> None:
    assert intake.id_hashes(batch([b"{}"]), EventSpec()) is None


# ---- the batch ------------------------------------------------------------------------------


def test_the_first_reason_stays_and_indices_are_those_of_the_page() -> None:
    found = batch([b"", b"{}", b"{", b'{"k": "x"}'], n=intake.NUMBER, k=intake.KEY)
    assert found.index.tolist() == [1, 3]
    found.need_keys("k", found.valid)
    found.need_numbers("n", found.valid)
    assert {i: reason for i, (reason, _) in reasons(found).items()} == {
        0: "empty",
        1: "missing_field",
        2: "malformed",
        3: "missing_field",
    }
    assert reasons(found)[1][1].startswith("k:")
    assert reasons(found)[3][1].startswith("n:")
    assert not found.valid.any()


def test_a_page_of_faults_only_is_a_batch_of_none() -> None:
    found = batch([b"", b"{", b"\xff"], f=intake.KEY)
    event = EventSpec(id="f", time="f", unit="ms")
    assert len(found) == 0
    assert intake.times_ms(found, event).tolist() == []
    hashes = intake.id_hashes(found, event)
    assert hashes is not None
    assert hashes.tolist() == []
    found.need_numbers("f", found.valid)
    assert len(found.rejects) == 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('"r-1"', "r-1"),
        ("12", "12"),
        ("", None),
        ("null", None),
        ("true", None),
        ("1.5", None),
        ("[]", None),
        ("9223372036854775808", None),
        ('"' + "x" * 256 + '"', "x" * 256),
        ('"' + "x" * 257 + '"', None),
    ],
)
def test_a_sample_is_a_short_text_or_an_integer_or_nothing(text: str, expected: str | None) -> None:
    assert column([text], Any).text("f", 0) == expected


# ---- one field, several uses ----------------------------------------------------------------


def test_patterns_take_any_type_so_the_other_use_decides() -> None:
    assert intake.field_type({Any}) is Any
    for type_ in (intake.KEY, intake.NUMBER, *intake.TIMES.values()):
        assert intake.field_type({Any, type_}) == type_


def test_a_time_that_is_also_a_figure_keeps_its_last_digits() -> None:
    assert intake.field_type({intake.TIMES["ns"], intake.NUMBER}) == int | float


def test_uses_that_contradict_each_other_never_come_this_far() -> None:
    with pytest.raises(AssertionError, match="one field as"):
        intake.field_type({intake.KEY, intake.NUMBER})
