"""A compiled pipeline file decodes each field in use once, as the type that serves all its uses."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from processor.core.plan import Plan
from processor.errors import ConfigError
from processor.model import AggregateSpec, Unit
from tests.core import streams


def decoded(plan: Plan, payload: bytes, path: str) -> Any:
    decoded = plan.codec.decode([payload])
    assert decoded.faults == {}, decoded.faults
    return plan.fields.column(decoded.rows, path)[0]


def test_only_fields_that_something_reads_are_decoded() -> None:
    assert set(streams.plan(streams.rule()).fields.paths) == {
        "id",
        "at",
        "request",
        "store",
        "amount",
        "type",
    }
    bare = streams.rule(where={}, aggregates=(AggregateSpec("n", "count"),), detect=())
    plan = streams.plan(bare, id=None, time=None, correlation_id=None)
    assert set(plan.fields.paths) == {"store"}


@pytest.mark.parametrize(
    ("unit", "text", "expected"),
    [
        ("ms", b"5", 5),
        ("s", b"5.5", 5.5),
        ("iso8601", b'"1970-01-01T00:00:00Z"', datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)),
    ],
)
def test_the_time_field_has_the_type_of_its_unit(unit: Unit, text: bytes, expected: Any) -> None:
    value = decoded(streams.plan(unit=unit), b'{"at": %b}' % text, "at")
    assert value == expected
    assert type(value) is type(expected)


def test_a_time_in_nanoseconds_that_is_also_summed_keeps_its_last_digits() -> None:
    rule = streams.rule(aggregates=(AggregateSpec("latest", "max", "at"),), detect=())
    plan = streams.plan(rule, unit="ns")
    assert decoded(plan, b'{"at": 1699999999999999999}', "at") == 1_699_999_999_999_999_999


def test_a_pattern_on_a_key_or_a_figure_sees_its_type() -> None:
    where = {"store": [{"prefix": "s"}, 7], "amount": [{"numeric": [">", 2]}]}
    plan = streams.plan(streams.rule(where=where, detect=()))
    assert decoded(plan, b'{"store": "s1"}', "store") == "s1"
    assert decoded(plan, b'{"store": 7}', "store") == 7
    assert decoded(plan, b'{"amount": 3}', "amount") == 3.0
    assert 0 in plan.codec.decode([b'{"store": 7.5}']).faults


def test_a_pattern_takes_whatever_stands_in_an_objects_place_but_a_figure_does_not() -> None:
    where = {"items": {"sku": ["a"], "n": [{"numeric": [">", 1]}]}}
    plan = streams.plan(streams.rule(where=where, detect=()))
    payloads = [b'{"items": [{"sku": "a", "n": 1}, {"sku": "b", "n": 2}]}', b'{"items": "none"}']
    rows, faults = plan.codec.decode([*payloads, b'{"items": [{"sku": "a", "n": 2}]}'])
    assert not faults
    pattern = plan.rules[0].pattern
    columns = {path: plan.fields.column(rows, path) for path in pattern.fields}
    assert pattern.mask(columns, 3).tolist() == [False, False, True]
    figure = streams.rule(aggregates=(AggregateSpec("n", "sum", "items.n"),), detect=())
    assert 0 in streams.plan(figure).codec.decode(payloads[:1]).faults


def test_two_rules_share_a_field_that_each_uses_in_its_own_way() -> None:
    by_request = streams.rule("requests", group_by=("store", "request"), detect=())
    plan = streams.plan(streams.rule(detect=()), by_request)
    assert decoded(plan, b'{"request": 12}', "request") == 12
    assert 0 in plan.codec.decode([b'{"request": []}']).faults, "a key now, no longer any value"


def test_each_rule_has_a_version_of_its_own_and_the_same_file_the_same_versions() -> None:
    first, second = streams.plan().rules, streams.plan().rules
    assert [rule.version for rule in first] == [rule.version for rule in second]
    assert len({rule.version for rule in first}) == 2


def test_a_rule_reads_each_figure_once() -> None:
    rule = streams.plan().rules[0]
    assert rule.numeric_fields == ["amount"]
    assert rule.home_field == "store"


def test_a_wrong_pattern_is_named_by_its_place() -> None:
    with pytest.raises(ConfigError, match=r"rules\.orders\.where\.type"):
        streams.plan(streams.rule(where={"type": "order"}))
