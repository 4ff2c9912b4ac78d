"""Versions: what makes a rule another one, and what its state another state."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from processor.core import versions
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    DetectSpec,
    EventSpec,
    Pipeline,
    RuleSpec,
    SinkSpec,
    SourceSpec,
    StateSpec,
    WindowSpec,
)

RULE = RuleSpec(
    name="orders",
    where={"type": ["order"], "amount": [{"numeric": [">", 0]}]},
    group_by=("region",),
    window=WindowSpec(size_ms=60_000),
    aggregates=(AggregateSpec(name="orders", kind="count"),),
    detect=(
        DetectSpec(
            name="surge", kind="zscore", aggregate="orders", options={"warm_up": 5, "k": 3.5}
        ),
    ),
    emit_windows="bus",
)
PIPELINE = Pipeline(
    app="shop",
    source=SourceSpec(stream="orders"),
    event=EventSpec(id="id", time="ts"),
    sinks={"bus": SinkSpec(name="bus", kind="eventbridge", target="shop")},
    rules=(RULE,),
    state=StateSpec(table="t"),
    dead_letters=DeadLetterSpec(sqs="letters"),
)


def version(pipeline: Pipeline = PIPELINE, **changes: Any) -> str:
    return versions.rule_version(pipeline, replace(RULE, **changes))


def test_a_version_is_short_and_does_not_depend_on_the_order_of_the_file():
    turned = {"amount": [{"numeric": [">", 0]}], "type": ["order"]}
    detect = (replace(RULE.detect[0], options={"k": 3.5, "warm_up": 5}),)
    assert version() == version(where=turned, detect=detect)
    assert len(version()) == 12


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"where": {"type": ["order"]}},
        {"group_by": ()},
        {"window": WindowSpec(size_ms=1)},
        {"window": WindowSpec(size_ms=60_000, offset_ms=1)},
        {"aggregates": (AggregateSpec(name="orders", kind="sum", field="n"),)},
        {"detect": ()},
        {"max_groups": 5},
    ],
)
def test_a_rule_that_counts_otherwise_has_another_version(changes):
    assert version(**changes) != version()


@pytest.mark.parametrize(
    "pipeline",
    [
        replace(PIPELINE, event=EventSpec(id="id", time="when")),
        replace(PIPELINE, event=EventSpec(id="id", time="ts", out_of_orderness_ms=1)),
        replace(PIPELINE, source=SourceSpec(stream="orders", decode=("gzip", "json"))),
    ],
)
def test_reading_events_otherwise_is_another_version_of_every_rule(pipeline):
    assert version(pipeline) != version()


def test_where_results_go_and_where_state_lies_is_no_part_of_the_version():
    moved = replace(PIPELINE, sinks={}, state=StateSpec(table="other"))
    assert version(moved, emit_windows="other", emit_anomalies="other") == version()


def test_a_setting_that_a_release_adds_leaves_every_version_as_it_is():
    wider = msgspec.defstruct(
        "RuleSpec", [("late", int, 0)], bases=(RuleSpec,), frozen=True, kw_only=True
    )
    rule = wider(**{name: getattr(RULE, name) for name in RULE.__struct_fields__})
    assert versions.rule_version(PIPELINE, rule) == version()
