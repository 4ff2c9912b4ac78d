"""The list of metrics, and the series made from it."""

import re

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from processor.observe.metrics import (
    BY_NAME,
    METRICS,
    OTHER,
    PREFIX,
    VALUE_CHARS_MAX,
    VALUES_MAX,
    Metric,
    Metrics,
    document,
)

UNITS = {"counter": "_total", "seconds": "_seconds", "bytes": "_bytes"}
Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def series(metrics: Metrics) -> Series:
    """All samples by name (without the prefix) and labels."""
    return {
        (sample.name.removeprefix(PREFIX), tuple(sorted(sample.labels.items()))): sample.value
        for family in parse_text(metrics.text().decode())
        for sample in family.samples
    }


# The list


def test_names_are_unique_and_plain() -> None:
    assert len(BY_NAME) == len(METRICS)
    assert [m.name for m in METRICS if not re.fullmatch(r"[a-z]+(_[a-z]+)*", m.name)] == []


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_name_ends_as_its_type_and_unit_want(metric: Metric) -> None:
    base = metric.name.removesuffix("_total")
    assert (base != metric.name) == (metric.kind == "counter")
    if metric.unit in ("seconds", "bytes"):
        assert base.endswith(metric.unit)
    else:
        assert not base.endswith(("_seconds", "_bytes"))
    assert metric.name.endswith("_info") == metric.sentence.startswith("Always 1")


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_a_metric_has_a_sentence_and_a_histogram_has_rising_buckets(metric: Metric) -> None:
    assert re.fullmatch(r"[A-Z0-9].*\.", metric.sentence)
    assert "|" not in metric.sentence, "it would end a cell of the table"
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(set(metric.buckets))


def test_every_metric_is_documented_with_type_unit_labels_and_sentence() -> None:
    lines = document().splitlines()
    assert len(lines) == len(METRICS) + 2
    assert (
        "| `processor_late_total` | counter | records | `rule` |"
        " Records that came after their window had fired. |"
    ) in lines


# The series


def test_both_formats_show_every_family_with_its_type_and_sentence() -> None:
    metrics = Metrics()
    for parse, text in ((parse_text, metrics.text()), (parse_openmetrics, metrics.openmetrics())):
        families = {family.name.removeprefix(PREFIX): family for family in parse(text.decode())}
        assert {name: (f.type, f.documentation) for name, f in families.items()} == {
            m.name.removesuffix("_total"): (m.kind, m.sentence) for m in METRICS
        }


def test_two_instances_do_not_know_of_each_other() -> None:
    one, other = Metrics(), Metrics()
    one.add("records_total", 5)
    assert series(one)["records_total", ()] == 5
    assert series(other)["records_total", ()] == 0


def test_counters_add_gauges_are_set_and_histograms_collect() -> None:
    metrics = Metrics()
    metrics.add("late_total", 2, rule="r")
    metrics.add("late_total", rule="r")
    metrics.set("draining", 1)
    metrics.observe("loop_lag_seconds", 0.03)
    told = series(metrics)
    assert told["late_total", (("rule", "r"),)] == 3
    assert told["draining", ()] == 1
    assert told["loop_lag_seconds_sum", ()] == 0.03
    assert told["loop_lag_seconds_bucket", (("le", "0.05"),)] == 1
    assert told["loop_lag_seconds_bucket", (("le", "0.025"),)] == 0


def test_a_trace_stands_beside_its_bucket() -> None:
    metrics = Metrics()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    metrics.observe("end_to_end_seconds", 0.2, trace_id=trace_id)
    samples = [s for f in parse_openmetrics(metrics.openmetrics().decode()) for s in f.samples]
    (exemplar,) = [s.exemplar for s in samples if s.exemplar]
    assert (exemplar.labels, exemplar.value) == ({"trace_id": trace_id}, 0.2)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda m: m.add("recods_total"), "recods_total is not in METRICS"),
        (lambda m: m.set("records_total", 1), "records_total is a counter, not a gauge"),
        (lambda m: m.add("late_total"), r"late_total has labels \('rule',\)"),
        (lambda m: m.add("records_total", rule="r"), r"records_total has labels \(\)"),
    ],
)
def test_a_mistake_of_ours_fails_loudly(act: object, message: str) -> None:
    assert callable(act)
    with pytest.raises(AssertionError, match=message):
        act(Metrics())


# Bounds


def test_values_of_a_label_are_bounded_and_the_rest_is_other() -> None:
    metrics = Metrics()
    for i in range(VALUES_MAX + 50):
        metrics.add("rejects_total", reason=f"reason-{i}")
    metrics.add("rejects_total", reason="reason-3")
    told = {labels: n for (name, labels), n in series(metrics).items() if name == "rejects_total"}
    assert len(told) == VALUES_MAX + 1
    assert told[(("reason", OTHER),)] == 50
    assert told[(("reason", "reason-3"),)] == 2


@pytest.mark.parametrize("value", ["", "x" * (VALUE_CHARS_MAX + 1)])
def test_a_value_that_is_no_name_is_other(value: str) -> None:
    metrics = Metrics()
    metrics.add("publish_failed_total", code=value)
    assert series(metrics)["publish_failed_total", (("code", OTHER),)] == 1


def test_a_value_with_quotes_and_line_ends_does_not_break_the_text() -> None:
    metrics = Metrics()
    metrics.add("publish_failed_total", code='a"b\nc\\d')
    assert series(metrics)["publish_failed_total", (("code", 'a"b\nc\\d'),)] == 1


def shards(metrics: Metrics) -> set[str]:
    return {value for _, labels in series(metrics) for label, value in labels if label == "shard"}


def test_series_of_a_shard_go_with_its_lease_and_come_back_with_it() -> None:
    every = Metrics()
    metrics = every.of("orders")
    for name in (m.name for m in METRICS if "shard" in m.labels):
        metrics.set(name, 1, shard="shard-0")
        metrics.set(name, 1, shard="shard-1")
    metrics.forget_shard("shard-0")
    metrics.forget_shard("never-seen")
    assert shards(every) == {"shard-1"}
    metrics.set("lag_seconds", 2, shard="shard-0")
    assert shards(every) == {"shard-0", "shard-1"}


def test_only_shards_that_are_held_keep_their_series() -> None:
    every = Metrics()
    metrics = every.of("orders")
    for i in range(3):
        metrics.set("lag_seconds", 1, shard=f"shard-{i}")
    metrics.keep_shards({"shard-1"})
    assert shards(every) == {"shard-1"}


def test_shards_of_two_streams_have_series_of_their_own_though_they_are_called_alike() -> None:
    every = Metrics()
    orders, merge = every.of("orders"), every.of("merge")
    orders.set("lag_seconds", 1, shard="shard-0")
    merge.set("lag_seconds", 2, shard="shard-0")
    orders.keep_shards(())
    told = {
        dict(labels)["stream"]: n
        for (name, labels), n in series(every).items()
        if name == "lag_seconds"
    }
    assert told == {"merge": 2}
