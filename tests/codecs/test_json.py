"""The codec `json`: what a payload gives, and every way in which it can be bad."""

from __future__ import annotations

import datetime
import json
import resource
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processor.codecs.base import Decoded
from processor.codecs.json import ABSENT, DEPTH_MAX, Elements, Fields, Json

RECORD_BYTES_MAX = 10 * 2**20  # what the service takes
TYPES: dict[str, Any] = {"key": str | int, "amount": float, "any": Any}


def decode(*payloads: bytes, types: dict[str, Any] = TYPES) -> Decoded:
    return Json(Fields(types).row_type).decode(payloads)


def field(payload: bytes, path: str, type_: Any = Any) -> Any:
    fields = Fields({path: type_})
    decoded = Json(fields.row_type).decode([payload])
    assert decoded.faults == {}
    return fields.column(decoded.rows, path)[0]


def reason(payload: bytes, types: dict[str, Any] = TYPES) -> str | None:
    """Why it is refused; None if it is good."""
    rows, faults = decode(payload, types=types)
    assert (rows == [None]) == bool(faults)
    return faults[0].reason if faults else None


# ---- good ones ------------------------------------------------------------------------------


def test_fields_in_use_are_read_and_the_others_are_skipped_unseen() -> None:
    [row], faults = decode(b'{"other": [1, {"key": 2}], "key": "k", "amount": 2, "any": [null]}')
    assert faults == {}
    fields = Fields(TYPES)
    assert [fields.column([row], path) for path in TYPES] == [["k"], [2.0], [[None]]]


def test_what_is_absent_is_told_from_what_is_null() -> None:
    assert field(b"{}", "key") is ABSENT
    assert field(b'{"key": null}', "key", str | int) is None


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b'{"order": {"store": {"id": 7}}}', 7),
        (b'{"order": {"store": {"id": null}}}', None),
        (b'{"order": {"store": {}}}', ABSENT),
        (b'{"order": {"store": null}}', ABSENT),
        (b'{"order": null}', ABSENT),
        (b"{}", ABSENT),
        (b'{"order.store.id": 7}', ABSENT),
        (b'{"order": {"store": {"id": 7}}, "order": {"store": {}}}', ABSENT),
    ],
)
def test_a_dotted_path_leads_through_objects(payload: bytes, expected: Any) -> None:
    assert field(payload, "order.store.id") == expected


def test_a_null_on_the_way_hides_no_other_record() -> None:
    fields = Fields({"a.b": int, "a.c": int})
    rows, _ = Json(fields.row_type).decode([b'{"a": {"b": 1}}', b'{"a": null}', b'{"a": {"c": 2}}'])
    assert fields.column(rows, "a.b") == [1, ABSENT, ABSENT]
    assert fields.column(rows, "a.c") == [ABSENT, ABSENT, 2]


def test_where_an_object_belongs_nothing_else_does() -> None:
    assert reason(b'{"a": 1}', {"a.b": int}) == "wrong_type"
    assert reason(b'{"a": []}', {"a.b": int}) == "wrong_type"


def test_where_only_patterns_look_something_else_in_an_objects_place_hides_its_fields() -> None:
    for other in (b"1", b"1.5", b'"x"', b"true", b"null"):
        assert field(b'{"a": {"b": %b}}' % other, "a.b.c") == ABSENT
    types = {"a.b.c": Any, "a.d": int}
    assert reason(b'{"a": 1}', types) == "wrong_type"
    assert reason(b'{"a": {"b": 1, "d": 2}}', types) is None


def test_an_array_in_an_objects_place_is_kept_whole_for_patterns() -> None:
    fields = Fields({"a.b.c": Any, "a.b.d.e": Any})
    rows, _ = Json(fields.row_type).decode([b'{"a": {"b": [{"c": 1}, 2]}}', b'{"a": [[]]}'])
    expected = [Elements("a.b", [{"c": 1}, 2]), Elements("a", [[]])]
    assert fields.column(rows, "a.b.c") == fields.column(rows, "a.b.d.e") == expected


def test_names_need_not_be_identifiers() -> None:
    names = ["class", "1", "f0", "ü é", "@type", "a-b", "self", "__init__", "'", "💡"]
    fields = Fields(dict.fromkeys(names, int))
    payload = json.dumps({name: i for i, name in enumerate(names)}).encode()
    rows, faults = Json(fields.row_type).decode([payload])
    assert faults == {}
    assert [fields.column(rows, name)[0] for name in names] == list(range(len(names)))


def test_of_duplicate_keys_the_last_wins() -> None:
    assert field(b'{"key": "first", "key": "last"}', "key", str) == "last"


def test_texts_of_every_plane_and_escape_are_read() -> None:
    text = 'é \u2028 💡 " \\ \n \x7f'
    assert field(json.dumps({"key": text}).encode(), "key", str) == text
    assert field(json.dumps({"key": text}, ensure_ascii=False).encode(), "key", str) == text


def test_an_integer_of_any_size_is_a_number() -> None:
    assert field(b'{"amount": 1%b}' % (b"0" * 300), "amount", float) == 1e300
    assert field(b'{"key": 1%b}' % (b"0" * 300), "key", str | int) == 10**300


# ---- bad ones -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (b"", "empty"),
        (b" ", "malformed"),
        (b"{", "malformed"),
        (b"}", "malformed"),
        (b"{} {}", "malformed"),
        (b'{"other": 01}', "malformed"),
        (b'{"other": "\x01"}', "malformed"),
        (b'{"other": "\\q"}', "malformed"),
        (b'{"other": [1,]}', "malformed"),
        (b"{'key': 1}", "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'{"amount": NaN}', "malformed"),
        (b'{"other": NaN}', "malformed"),
        (b'{"amount": Infinity}', "malformed"),
        (b'{"amount": -Infinity}', "malformed"),
        (b'{"key": "\\ud800"}', "malformed"),
        (b'{"key": "\\udc00\\ud800"}', "malformed"),
        (b"null", "wrong_type"),
        (b"[{}]", "wrong_type"),
        (b'"{}"', "wrong_type"),
        (b"7", "wrong_type"),
        (b'{"key": 1.5}', "wrong_type"),
        (b'{"key": true}', "wrong_type"),
        (b'{"key": {}}', "wrong_type"),
        (b'{"amount": "7"}', "wrong_type"),
        (b'{"amount": false}', "wrong_type"),
        (b'{"amount": 1e400}', "out_of_range"),
        (b'{"amount": -1e400}', "out_of_range"),
        (b'{"any": 1e400}', "out_of_range"),
        (b'{"key": 1%b}' % (b"0" * 5_000), "out_of_range"),
        (b"\xff", "not_utf8"),
        (b"\xff\xfe{\x00}\x00", "not_utf8"),
        (b"\x1f\x8b\x08\x00", "not_utf8"),  # gzip, and no `decode: [gzip, json]`
        (b'{"key": "\xff"}', "not_utf8"),
        (b'{"any": ["\xed\xa0\x80"]}', "not_utf8"),
    ],
)
def test_a_bad_payload_is_a_value_with_its_reason(payload: bytes, expected: str) -> None:
    rows, faults = decode(b'{"key": 1}', payload, b'{"key": 2}')
    assert Fields(TYPES).column([rows[0], rows[2]], "key") == [1, 2]
    assert rows[1] is None
    assert list(faults) == [1]
    assert faults[1].reason == expected
    assert 0 < len(faults[1].detail) <= 200


def test_a_fault_names_its_field() -> None:
    [fault] = decode(b'{"a": {"b": "x"}}', types={"a.b": int}).faults.values()
    assert fault.detail == "Expected `int | null`, got `str` - at `$.a.b`"


def test_bytes_that_are_no_utf8_in_a_field_that_nobody_reads_are_skipped_unseen() -> None:
    assert reason(b'{"other": "\xff", "\xfe": 1}') is None


def test_a_time_that_is_none_is_of_the_wrong_type() -> None:
    types = {"at": datetime.datetime}
    assert reason(b'{"at": "2023-11-14T22:13:20Z"}', types) is None
    assert reason(b'{"at": "yesterday"}', types) == "wrong_type"


def test_a_page_of_faults_only_and_no_page_at_all() -> None:
    rows, faults = decode(*[b"{"] * 5)
    assert rows == [None] * 5
    assert list(faults) == [0, 1, 2, 3, 4]
    assert decode() == Decoded([], {})


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"{}", b'{"key": 1}', b"", b"[", b'{"key": []}', b"\xff"])))
def test_each_payload_is_judged_by_itself(payloads: list[bytes]) -> None:
    codec = Json(Fields(TYPES).row_type)
    rows, faults = codec.decode(payloads)
    assert len(rows) == len(payloads)
    for i, payload in enumerate(payloads):
        [row], alone = codec.decode([payload])
        assert rows[i] == row
        assert faults.get(i) == alone.get(0)


# What could be taken for one value with its neighbours, or for several.
PIECES = (
    *(b'{"key":[{}', b"{}]}", b'{"key":"a}', b'{"}', b'{"any":{"key":1}', b'{"key":2}}', b"{}{}"),
    *(
        b'{"any":[{}\n',
        b"{},{}]}",
        b'{"any":1}\n',
        b'{"any":1}\n\n',
        b"{}\n{}",
        b"{} {}",
        b"{}{",
        b"}",
    ),
    *(
        b'{"any":"\\',
        b'"}',
        b'{"any":"\\"}',
        b'{"any":"\xff"}',
        b'{"key":"\xff"}',
        b"",
        b"{",
        b"\n",
    ),
    *(b'{"amount":1}', b'{"amount":"1"}', b' {"amount":1}', b'{"amount":1} ', b"[{}]", b"null"),
)


@settings(deadline=None)
@given(
    st.lists(
        st.sampled_from(PIECES) | st.text('{}[]":,\n1', max_size=8).map(str.encode), max_size=6
    ),
    st.integers(0, 40),
)
def test_in_a_large_page_too_none_is_taken_for_a_part_of_another(
    payloads: list[bytes], at: int
) -> None:
    page = [b'{"key":"a"}'] * 40
    page[at:at] = payloads
    codec = Json(Fields(TYPES).row_type)
    rows, faults = codec.decode(page)
    alone = [codec.decode([payload]) for payload in page]
    assert rows == [one.rows[0] for one in alone]
    assert faults == {i: one.faults[0] for i, one in enumerate(alone) if one.faults}


@settings(deadline=None)
@given(st.binary(max_size=40) | st.text('{}[]":,\\ue0179-.aktrfnsl', max_size=40).map(str.encode))
def test_no_bytes_whatever_are_an_exception(payload: bytes) -> None:
    decode(payload)


# ---- depth ----------------------------------------------------------------------------------

OPEN, CLOSE = {"array": b"[", "object": b'{"a":'}, {"array": b"]", "object": b"}"}


def nested(levels: int, kind: str = "array") -> bytes:
    """An object that holds others, `levels` deep in all."""
    inner = levels - 1
    value = b"[]" if kind == "array" else b"{}"
    body = OPEN[kind] * (inner - 1) + value + CLOSE[kind] * (inner - 1)
    return b'{"other": %b}' % body


@pytest.mark.parametrize("kind", ["array", "object"])
def test_nesting_is_taken_up_to_the_bound_and_refused_past_it(kind: str) -> None:
    expected = {DEPTH_MAX - 1: None, DEPTH_MAX: None, DEPTH_MAX + 1: "too_deep"}
    assert {n: reason(nested(n, kind)) for n in expected} == expected


def test_the_bound_holds_in_fields_that_are_read_too() -> None:
    for n, expected in ((DEPTH_MAX, None), (DEPTH_MAX + 1, "too_deep")):
        assert reason(nested(n), {"other": Any}) == expected


@pytest.mark.parametrize("kind", ["array", "object"])
def test_what_is_100_000_deep_is_refused_whole_or_cut(kind: str) -> None:
    whole = nested(100_000, kind)
    assert reason(whole) == "too_deep"
    assert reason(whole[: len(whole) // 2]) == "too_deep"


@pytest.mark.parametrize(
    "text",
    [
        b"[" * 600,
        b'\\"[' * 600,
        b'\\\\\\"[' * 600,
        b"[" * 600 + b"\\\\",
        b'\\u005b\\"' + b"{" * 600,
    ],
)
def test_brackets_in_texts_are_no_nesting(text: bytes) -> None:
    assert reason(b'{"other": "%b", "more": [["%b"]]}' % (text, text)) is None
    deep = b'{"other": "%b", "more": %b}' % (text, b"[" * 500 + b"]" * 500)
    assert reason(deep) == "too_deep"


def test_a_wide_record_is_not_deep() -> None:
    assert reason(b'{"other": [%b[]]}' % (b'[{"a": []}],' * 5_000)) is None


@settings(deadline=None)
@given(st.recursive(st.text(max_size=3), lambda inner: st.lists(inner, max_size=3), max_leaves=20))
def test_depth_is_what_the_values_nesting_is(value: Any) -> None:
    def depth(value: Any) -> int:
        return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0

    levels = DEPTH_MAX - 10
    wrapped = b'{"other": %b}' % (b"[" * levels + json.dumps(value).encode() + b"]" * levels)
    padded = wrapped[:-1] + b', "more": "%b"}' % (b"[" * 600)
    expected = "too_deep" if 1 + levels + depth(value) > DEPTH_MAX else None
    assert reason(padded) == expected


@pytest.mark.parametrize(
    ("start", "repeated", "end", "expected"),
    [
        (b'{"other": "', b"[", b"", "malformed"),
        (b'{"other": "', b"[", b'"}', None),
        (b'{"other": "', b'\\"[', b'"}', None),
        (b'{"other": [', b"[],", b"[]]}", None),
        (b'{"other": [', b"[],", b"[]", "malformed"),
        (b'{"amount": ', b"1", b"}", "out_of_range"),
        (b'{"other": ', b"[", b"}", "too_deep"),
    ],
)
def test_a_record_of_10_mb_is_judged_in_bounded_memory(
    start: bytes, repeated: bytes, end: bytes, expected: str | None
) -> None:
    payload = start + repeated * (RECORD_BYTES_MAX // len(repeated)) + end
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert reason(payload) == expected
    grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb
    assert grown_kb < 20 * RECORD_BYTES_MAX // 1024
