"""`collapse` in a pipeline file: how it is read, refused, shown, compared and explained."""

from __future__ import annotations

import pytest

from processor import config
from processor.config import ConfigErrors
from processor.config.changes import compare
from processor.config.render import show, to_yaml
from processor.core import versions
from processor.explaining.account import Assumed, account
from processor.model import CollapseSpec, Pipeline

FILE = """app: shop
source: {stream: orders}
event: {id: id, time: at, partition_key: store}
sinks: {alerts: {eventbridge: shop-events}}
rules:
  orders:
    group_by: [site, store]
    window: {tumbling: 10m}
    aggregates: {orders: count}
    detect: [{novelty: orders}]
    emit: {anomalies: alerts}
"""


def text(collapse: str) -> str:
    return f"{FILE}    collapse: {collapse}\n"


def read(collapse: str) -> Pipeline:
    return config.loads(text(collapse), {}).pipeline


def errors_of(source: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        config.loads(source, {}, file="f.yaml")
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("{by: site, over: 50}", CollapseSpec(50, "site")),
        ("{by: site}", CollapseSpec(200, "site")),
        ("{over: 50}", CollapseSpec(50)),
    ],
)
def test_it_is_read_and_shown_as_it_was_meant(given: str, meant: CollapseSpec) -> None:
    pipeline = read(given)
    assert pipeline.rules[0].collapse == meant
    again = config.loads(to_yaml(show(pipeline)), {}).pipeline
    assert again.rules == pipeline.rules


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        ("{by: town}", 'collapse.by: found the text "town", expected site or store'),
        ("{by: sit}", "did you mean site?"),
        ("{over: 0}", "over: a whole number from 1 to 1000000"),
        ("{by: 7}", "by: a field's dotted path"),
        ("{}", "expected {by: FIELD, over: N}"),
        ("{over: 5, buy: site}", "expected {by: FIELD, over: N}"),
        ("200", "expected {by: FIELD, over: N}"),
    ],
)
def test_what_is_wrong_in_it_is_told(given: str, wrong: str) -> None:
    (error,) = errors_of(text(given))
    assert error.startswith("f.yaml:12: rules.orders.collapse")
    assert wrong in error


def test_a_rule_whose_alarms_nobody_hears_of_has_none() -> None:
    silent = text("{over: 5}").replace("emit: {anomalies", "emit: {windows")
    assert "found a rule without emit.anomalies, expected a sink there" in errors_of(silent)[0]
    blind = text("{over: 5}").replace("    detect: [{novelty: orders}]\n", "")
    assert "found a rule without detect" in errors_of(blind)[0]


def test_another_one_is_tuned_and_nothing_is_learnt_anew() -> None:
    one, other, none = read("{by: site}"), read("{over: 9}"), config.loads(FILE, {}).pipeline
    for changed in (other, none):
        rules = one.rules[0], changed.rules[0]
        assert versions.rule_version(one, rules[0]) != versions.rule_version(changed, rules[1])
        assert versions.state_version(one, rules[0]) == versions.state_version(changed, rules[1])
    (rule,) = compare(one, other).rules
    assert rule.fate == "converted"
    assert [(each.path, each.new) for each in rule.why] == [("collapse", '{"over":9}')]


def test_one_that_is_out_of_reach_is_warned_of() -> None:
    def warnings(source: str) -> list[str]:
        found = config.loads(source, {}, file="f.yaml").warnings
        return [str(one) for one in found if one.path.endswith("collapse")]

    assert not warnings(text("{by: site}"))
    assert not warnings(text("{over: 100000}"))
    (few,) = warnings(text("{over: 100001}"))
    assert "the rule never has more than 100,001 alarms at a time (1 detector on 100,001" in few
    sites = text("{by: site}").replace("[site, store]", "[site]")
    (alone,) = warnings(sites.replace("partition_key: store", "partition_key: site"))
    assert "one site never has more than 1 alarm at a time (1 detector on 1 group)" in alone


def test_it_is_explained() -> None:
    (rule,) = account(read("{by: site}"), [], Assumed(rate=1, shards=1, keys=1)).rules
    assert rule.collapses == [
        "more than 200 alarms of one value of site in one window and shard are told as one event"
    ]
