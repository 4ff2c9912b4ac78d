"""A pipeline file is read whole, or everything that is wrong with it is told with its line."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from processor import config
from processor.config import ConfigErrors, checks, values
from processor.config.section import Faults
from processor.model import (
    AggregateSpec,
    DeadLetterSpec,
    DetectSpec,
    HttpSpec,
    MergeSpec,
    PanesSpec,
    Pipeline,
    SinkSpec,
    StateSpec,
    WindowSpec,
)

FOLDER = Path(__file__).parent / "pipelines"
SHOP = FOLDER / "shop.yaml"
FULL = FOLDER / "full.yaml"


def shop(*changes: tuple[str, str]) -> str:
    """The sample with texts replaced, each of which it must hold."""
    source = SHOP.read_text()
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    return source


def read(source: str, env: dict[str, str] | None = None, *overrides: str) -> Pipeline:
    return config.loads(source, env or {}, overrides, file="f.yaml").pipeline


def errors_of(source: str, env: dict[str, str] | None = None, *overrides: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        read(source, env, *overrides)
    assert caught.value.exit_code == 78
    return str(caught.value).splitlines()


def warnings_of(source: str) -> list[str]:
    return [str(warning) for warning in config.loads(source, {}, file="f.yaml").warnings]


# ---- what a good file becomes ---------------------------------------------------------------


def test_the_sample_becomes_the_pipeline_that_it_describes() -> None:
    pipeline = config.load(SHOP, {})
    assert (pipeline.app, pipeline.source.stream, pipeline.source.decode) == (
        "shop",
        "orders",
        ("json",),
    )
    assert pipeline.sinks == {"alerts": SinkSpec("alerts", "eventbridge", "shop-events")}
    assert pipeline.state == StateSpec("processor-shop")
    assert pipeline.event.out_of_orderness_ms == 5_000
    [rule] = pipeline.rules
    assert rule.where == {"type": ["order.placed"]}
    assert rule.group_by == ("store",)
    assert rule.window == WindowSpec(600_000)
    assert rule.aggregates == (
        AggregateSpec("orders", "count"),
        AggregateSpec("revenue", "sum", "amount"),
    )
    assert rule.detect == (
        DetectSpec("novelty", "novelty", "orders"),
        DetectSpec("absence", "absence", "orders"),
    )
    assert (rule.emit_windows, rule.emit_anomalies) == ("alerts", "alerts")


def test_every_key_of_the_format_is_read() -> None:
    pipeline = config.load(FULL, {"STAGE": "live", "PORT": ""})
    assert pipeline.source.stream.endswith("stream/live-telemetry")
    assert pipeline.source.start == "2026-01-31T12:00:00Z"
    assert pipeline.source.region == "eu-central-1"
    assert pipeline.event.out_of_orderness_ms == 90_000
    assert pipeline.event.dedupe_horizon_ms == 3_600_000
    assert pipeline.sinks["alerts"].options == {"request_bytes_max": 262_144}
    assert pipeline.state == StateSpec("fleet-leases", "s3://fleet-state/live", 20_000)
    assert pipeline.dead_letters == DeadLetterSpec(
        "https://sqs.eu-central-1.amazonaws.com/123456789012/fleet-dead"
    )
    assert pipeline.http == HttpSpec("0.0.0.0", 9000)
    assert pipeline.merge == MergeSpec("live-merge", 8, 300_000, 600_000)
    readings, hot, all_countries = pipeline.rules
    assert all_countries.group_by == ()
    assert hot.window == readings.window == WindowSpec(300_000, 30_000)  # by the merge
    assert (hot.max_groups, hot.overflow, hot.forget_after_ms) == (
        5_000,
        "dead_letter",
        30 * 86_400_000,
    )
    assert hot.where["country"] == ["NO", "SE"]  # not false: YAML 1.2
    assert hot.detect[0] == DetectSpec(
        "too-hot", "threshold", "hottest", {"above": 120.0, "severity": "critical"}
    )


@pytest.mark.parametrize("path", [SHOP, FULL], ids=lambda path: path.name)
def test_the_resolved_file_reads_as_the_same_pipeline(path: Path) -> None:
    pipeline = config.load(path, {})
    assert read(config.to_yaml(config.show(pipeline))) == pipeline


def test_the_resolved_file_hides_passwords_in_urls() -> None:
    source = shop() + "dead_letters: {sqs: 'https://me:secret@host/queue'}\n"
    shown = config.to_yaml(config.show(read(source)))
    assert "https://***@host/queue" in shown
    assert "secret" not in shown


@pytest.mark.parametrize("place", ["s3://b-1/x", "/var/states", "states", "./a:b", "/a:/b"])
def test_objects_lie_in_a_bucket_or_a_folder(place: str) -> None:
    assert read(shop() + f"state: {{objects: '{place}'}}\n").state.objects == place


def test_an_option_at_its_default_is_the_same_as_none() -> None:
    explicit = shop(("{novelty: orders}", "{novelty: orders, sensitivity: medium}"))
    assert read(explicit) == read(shop())


# ---- variables ------------------------------------------------------------------------------


def test_variables_are_expanded_with_or_without_quotes_and_inside_braces() -> None:
    for scalar in ("${S}", '"${S}"', "${S:-other}", "${NONE:-from-env}", "${EMPTY:-from-env}"):
        source = shop(("stream: orders", f"stream: {scalar}"))
        assert read(source, {"S": "from-env", "EMPTY": ""}).source.stream == "from-env"


def test_a_forest_watches_several_figures() -> None:
    change = ("{novelty: orders}", "{forest: [orders, revenue]}")
    own = shop(change, ("    group_by:", "    max_groups: 200\n    group_by:"))
    pipeline = read(own)
    detect = pipeline.rules[0].detect[0]
    assert (detect.aggregate, detect.others) == ("orders", ("revenue",))
    assert read(config.to_yaml(config.show(pipeline))) == pipeline


def test_a_variable_takes_the_type_that_its_place_needs() -> None:
    source = shop(("stream: orders", "stream: ${N}")) + 'http: {port: "${N}"}\n'
    pipeline = read(source, {"N": "8081"})
    assert (pipeline.source.stream, pipeline.http.port) == ("8081", 8081)


def test_in_a_pattern_a_variable_is_a_number_unless_it_is_quoted() -> None:
    plain = shop(("[order.placed]", '[${N}, "${N}"]'))
    assert read(plain, {"N": "7"}).rules[0].where == {"type": [7, "7"]}


def test_a_value_of_a_variable_is_no_yaml_and_is_not_expanded_again() -> None:
    source = shop(("[order.placed]", "[${V}]"))
    for value in ("a, b", "{a: b}", "${S}", "x: y #z"):
        assert read(source, {"V": value}).rules[0].where == {"type": [value]}


def test_a_doubled_dollar_stands_for_itself() -> None:
    assert read(shop(("[order.placed]", "[$${S}]"))).rules[0].where == {"type": ["${S}"]}


def test_a_variable_that_is_not_set_is_named() -> None:
    [error] = errors_of(shop(("stream: orders", "stream: ${STREAM}")))[:1]
    assert error.startswith("f.yaml:2: source.stream: found ${STREAM}, and the environment has no")
    assert "${STREAM:-default}" in error


@pytest.mark.parametrize("scalar", ['"${}"', '"${1X}"', '"${A:default}"', '"${A"'])
def test_a_garbled_variable_is_refused(scalar: str) -> None:
    assert "${NAME:-default}" in errors_of(shop(("stream: orders", f"stream: {scalar}")))[0]


# ---- overrides ------------------------------------------------------------------------------


def test_set_overrides_and_adds_keys() -> None:
    pipeline = read(
        shop(),
        {},
        "source.stream=123",
        "rules.orders-by-store.window.tumbling=5m",
        "http.port=0",
        "sinks.alerts={stdout: json}",
    )
    assert pipeline.source.stream == "123"
    assert pipeline.rules[0].window.size_ms == 300_000
    assert pipeline.http.port == 0
    assert pipeline.sinks["alerts"].kind == "stdout"


def test_set_reaches_names_that_hold_dots() -> None:
    source = shop(("orders-by-store:", "by.store:"))
    assert read(source, {}, "rules.by.store.max_groups=9").rules[0].max_groups == 9


def test_an_error_in_an_override_names_the_override() -> None:
    [error] = errors_of(shop(), {}, "rules.orders-by-store.window.tumbling=fast")
    assert error.startswith("--set rules.orders-by-store.window.tumbling=fast: rules.orders-by")


@pytest.mark.parametrize("assignment", ["nothing", "=1", "a..b=1", "app.x=1", "http.port=[1"])
def test_an_override_that_can_not_be_made_is_refused(assignment: str) -> None:
    assert "--set" in errors_of(shop(), {}, assignment)[0]


# ---- what is wrong, one by one --------------------------------------------------------------

RULE = "rules.orders-by-store"
WRONG: list[tuple[str, str, str]] = [
    ("app: shop", "app: a b", 'f.yaml:1: app: found the text "a b", expected a name'),
    ("app: shop", "", "app: found nothing, expected the application's name"),
    ("app: shop", "app: 12", "(a text: write it in quotes)"),
    ("stream: orders", "stream: a/b", "f.yaml:2: source.stream: found"),
    ("stream: orders, ", "", "f.yaml:2: source.stream: found nothing, expected name or ARN"),
    ("trim_horizon", "yesterday", "source.start: found"),
    ("trim_horizon", "2026-01-31T12:00:00", "a time with its zone"),
    ("start: trim_horizon", "decode: [xml]", "source.decode: found"),
    ("start: trim_horizon", "decode: json", "a list of codecs"),
    ("start: trim_horizon", "decode: [kpl]", "source.decode: found [kpl], expected json at the"),
    ("start: trim_horizon", "decode: [json, kpl]", "at most one of kpl before it"),
    ("start: trim_horizon", "outside_range: lose", "expected keep or drop"),
    ("start: trim_horizon", "decode: [json, json]", "each once"),
    ("start: trim_horizon", "strat: latest", "source.strat: found an unknown key"),
    ("start: trim_horizon", "strat: latest", "did you mean start?"),
    ("unit: ms", "unit: msec", "f.yaml:3: event.unit: found"),
    ("unit: ms", "unit: msec", "did you mean ms?"),
    ("id: id", "id: 'items[0].id'", "a field's dotted path"),
    ("id: id", "id: a..b", "a field's dotted path"),
    ("unit: ms", "out_of_orderness: -5s", "a duration with a unit"),
    ("unit: ms", "out_of_orderness: 5", "found the number 5, expected a duration with a unit"),
    ("{novelty: orders}", "{threshold: orders, above: high}", "above: found the text"),
    ("unit: ms", "dedupe_horizon: 0.5ms", "whole milliseconds"),
    ("unit: ms", "dedupe_horizon: 9999d", "a duration from 0s to 3650d"),
    ("{eventbridge: shop-events}", "{kafka: x}", "f.yaml:4: sinks.alerts.kafka: found no kind"),
    ("{eventbridge: shop-events}", "{evntbridge: x}", "did you mean eventbridge?"),
    ("{eventbridge: shop-events}", "{eventbridge: 'a b'}", "an event bus's name or ARN"),
    ("{eventbridge: shop-events}", "{eventbridge: a, request_max: 2MB}", "from 1KiB to 999999B"),
    ("{eventbridge: shop-events}", "{eventbridge: a, retry: 1}", "sinks.alerts.retry: found an"),
    ("{eventbridge: shop-events}", "shop-events", "a kind and its target"),
    ("[store]", "store", f"f.yaml:8: {RULE}.group_by: found"),
    ("[store]", "[store, store]", "found store 2 times"),
    ("[store]", "[region]", "merge: found nothing, expected a Kinesis stream of its own"),
    ("[store]", "[]", f"{RULE}, global as group_by does not contain store"),
    (", partition_key: store", "", "without event.partition_key every rule is global"),
    ("tumbling: 10m", "tumbling: 10ms", "a duration from 1s"),
    ("tumbling: 10m", "tumbling: 10m, offset: 10m", "less than the window's size, 10m"),
    (
        "tumbling: 10m",
        "hopping: 10m",
        f"{RULE}.window.every: found nothing, expected how far apart",
    ),
    ("tumbling: 10m", "size: 10m", f"f.yaml:9: {RULE}.window.size: found an unknown key"),
    ("orders: count", "orders: cuont", f"f.yaml:10: {RULE}.aggregates.orders: found"),
    ("orders: count", "orders: cuont", "did you mean count?"),
    ("orders: count", "orders: sum", "its field: {sum: FIELD}"),
    ("orders: count", "orders: {count: id}", 'count alone, or "*": it reads no field'),
    ("orders: count", "orders: {summ: x}", "did you mean sum?"),
    ("{sum: amount}", "{sum: amount, where: x}", "revenue.where: found the text"),
    ("{sum: amount}", "{sum: amount, where: {type: a}}", "revenue.where.type: found the text"),
    ("{sum: amount}", "{sum: amount, max: amount}", "one statistic and its field"),
    ("{sum: amount}", "{sum: amount, q: 0.5}", "no option: sum has none"),
    ("{sum: amount}", "{quantile: amount}", "revenue.q: found nothing, expected an option"),
    ("{sum: amount}", "{quantile: amount, q: 1.5}", "a number <= 1"),
    ("{sum: amount}", "{quantile: amount, q: 0.12345678}", "at most 6 decimals"),
    ("{sum: amount}", "{quantile: amount, q: 0.5, per: 1s}", "revenue.per: found an unknown"),
    ("{sum: amount}", "{top_k: item, k: 0}", "revenue.k: found the number 0"),
    ("{sum: amount}", "ratio", "{ratio: [NUMERATOR, DENOMINATOR]}"),
    ("{sum: amount}", "{ratio: orders}", "numerator and denominator"),
    ("{sum: amount}", "{ratio: [orders, oders]}", "did you mean orders?"),
    ("{sum: amount}", "{ratio: [orders, revenue]}", "counted, not derived"),
    ("{sum: amount}", "{top_k: item}, rate: {rate: revenue}", "revenue, which is a list"),
    ("{sum: amount}", "{rate: orders, per: 0s}", "a longer duration"),
    ("{sum: amount}", "{rate: orders, where: {type: [a]}}", "none: a rate is made of figures"),
    (
        "revenue: {sum: amount}}\n    detect: [{novelty: orders}",
        "revenue: {top_k: item}}\n    detect: [{novelty: revenue}",
        "detect[0].novelty: found revenue, which is a list",
    ),
    ("{sum: amount}", "{sum: 5}", f"{RULE}.aggregates.revenue.sum: found the number 5"),
    ("{novelty: orders}", "{noveltee: orders}", f"f.yaml:11: {RULE}.detect[0].noveltee"),
    ("{novelty: orders}", "{noveltee: orders}", "did you mean novelty?"),
    ("{novelty: orders}", "{novelty: order}", "did you mean orders?"),
    ("{novelty: orders}", "{novelty: orders, sensitivty: low}", "did you mean sensitivity?"),
    ("{novelty: orders}", "{novelty: orders, sensitivity: lowest}", "high, medium or low"),
    *(
        ("    emit:", f"    alarm_budget: {budget}\n    emit:", "alarm_budget: found")
        for budget in ("5 a day", "0/day", "5", "5/month", "-1/day", "[5/day]")
    ),
    ("{novelty: orders}", "{novelty: orders, warm_up: soon}", "detect[0].warm_up: found the text"),
    ("{novelty: orders}", "{novelty: orders, warm_up: 0}", "a whole number >= 1"),
    ("{novelty: orders}", "{threshold: orders}", "neither `above` nor `below`"),
    ("{novelty: orders}", "{absence: orders}", "the name absence a second time on orders"),
    ("{novelty: orders}", "{novelty: [orders, revenue]}", "detect[0].novelty: found a list"),
    ("{novelty: orders}", "{forest: [orders, revenu]}", "did you mean revenue?"),
    ("{novelty: orders}", "{forest: [orders, orders]}", "each aggregate once"),
    ("{novelty: orders}", "{forest: []}", "found 0 aggregates, expected from 1 to 8"),
    ("{novelty: orders}", "{forest: orders}", f"{RULE}.max_groups: found 100000, expected at most"),
    ("{novelty: orders}", "{novelty: orders, name: a b}", "detect[0].name: found"),
    ("windows: alerts", "windows: alrets", f"f.yaml:12: {RULE}.emit.windows: found no sink alrets"),
    ("windows: alerts", "windows: alrets", "did you mean alerts?"),
    ("[order.placed]", "order.placed", f"f.yaml:7: {RULE}.where.type: found"),
    ("[order.placed]", "[{sufix: x}]", "did you mean suffix?"),
    ("{type: [order.placed]}", "{$or: [{type: [a]}, {b: c}]}", f"f.yaml:7: {RULE}.where.$or[1].b"),
    (
        "{type: [order.placed]}",
        "{$or: [{type: [a]}, {amount: [{prefix: b}]}]}",
        f"f.yaml:7: {RULE}.where.$or[1].amount: found a pattern for string",
    ),
    ("orders-by-store:", "'orders by store':", "found the name 'orders by store'"),
    ("where:", "max_groups: 0\n    where:", "a whole number from 1 to 10000000"),
    ("where:", "max_groups: yes\n    where:", "a whole number from 1"),
    ("where:", "overflow: drop\n    where:", "expected other, evict or dead_letter"),
    ("where:", "overflow: evict\n    where:", "absence watches groups that are silent"),
    ("where:", "forget_after: 1s\n    where:", "a duration from 1m"),
    ("where:", "forget_after: 7\n    where:", "a duration with a unit"),
    ("app: shop", "app: shop\nhttp: {port: 70000}", "a whole number from 0 to 65535"),
    ("app: shop", "app: shop\nstate: {objects: 'ftp://x'}", "s3://bucket/prefix or a folder"),
    ("app: shop", "app: shop\nstate: {objects: 's3:/b/x'}", "s3://bucket/prefix or a folder"),
    ("app: shop", "app: shop\nstate: {objects: 'S3:b/x'}", "./a:b if a colon is in it"),
    ("app: shop", "app: shop\nstate: {checkpoint: 10ms}", "a duration from 1s to 1h"),
    ("app: shop", "app: shop\ndead_letters: {sqs: 'ftp://x'}", "a queue's name or URL"),
]


@pytest.mark.parametrize(("old", "new", "words"), WRONG, ids=lambda text: text[:30])
def test_a_fault_is_told_with_its_place_and_what_was_expected(
    old: str, new: str, words: str
) -> None:
    errors = errors_of(shop((old, new)))
    assert any(words in error for error in errors), errors


CONTRADICTIONS: list[tuple[str, str, str]] = [
    ("[store]", "[store, amount]", "amount used as a number, expected one type"),
    (
        "{sum: amount}",
        "{sum: amount}, users: {distinct: amount}",
        "amount used as a key, expected one type",
    ),
    (
        "{sum: amount}",
        "{sum: amount, where: {amount: [{prefix: b}]}}",
        "revenue.where.amount: found a pattern for string",
    ),
    ("time: at", "time: store", "store used as a key, expected one type: event.time reads store"),
    ("{sum: amount}", "{sum: id}", "id used as a number"),
    ("unit: ms", "unit: iso8601, correlation_id: at.x", "at.x, so that at is an object"),
    ("type: [order.placed]", "amount: [free]", "a pattern for string, expected one type"),
    ("type: [order.placed]", "store.id: [a]", "store.id, so that store is an object"),
]


@pytest.mark.parametrize(("old", "new", "words"), CONTRADICTIONS, ids=lambda text: text[:30])
def test_a_field_is_read_as_one_type_by_all(old: str, new: str, words: str) -> None:
    errors = errors_of(shop((old, new)))
    assert any(words in error for error in errors), errors


def test_the_time_may_be_summed_and_a_number_may_be_asked_for_in_a_pattern() -> None:
    read(shop(("{sum: amount}", "{max: at}")))
    read(shop(("type: [order.placed]", 'amount: [{numeric: [">", 5]}]')))
    read(shop(("type: [order.placed]", "store: [a, 5]")))


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("severity: {fatal: 3}", "expected as names info, warning or critical"),
        ("n_of_m: [3, 100]", "expected in it a whole number <= 64"),
    ],
)
def test_a_fault_within_an_option_says_what_belongs_there(option: str, words: str) -> None:
    (error,) = errors_of(shop(("{novelty: orders}", f"{{novelty: orders, {option}}}")))
    assert words in error, error


def test_all_faults_are_told_at_once_in_order_of_lines() -> None:
    source = shop(
        ("start:", "strat:"), ("10m", "ten"), ("count", "cuont"), ("app: shop", "app: ''")
    )
    errors = errors_of(source)
    assert [error.split(":")[1] for error in errors] == ["1", "2", "9", "10"]


def test_an_unknown_key_is_told_at_its_own_line_whatever_lies_below_it() -> None:
    source = "source:\n  stream: orders\n  strem:\n    - x\n    - y"
    (error,) = errors_of(shop(("source: {stream: orders, start: trim_horizon}", source)))
    assert error.startswith("f.yaml:4: source.strem: found an unknown key")


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "found nothing, expected a mapping with app"),
        ("- a", "found a list, expected a mapping"),
        ("app: [", "f.yaml:1"),
        ("app: a\napp: b", "f.yaml:2: app: found the key a second time"),
        ("a: 1\n---\nb: 2", "valid YAML"),
        ("a: !!python/name:os.system x", "expected"),
        ("app: \x00", "valid YAML"),
        ("app: \ue000", "private use"),
        ("? [a]\n: b", "a text as a key"),
        ("${A}: b", "variables in values only"),
        ("a: &a [*a]", "at most 50 levels"),
        ("<<: 5", "an alias of a mapping"),
        ("[" * 5000, "at most 50 levels"),
        ("a: " + "[" * 60 + "]" * 60, "at most 50 levels"),
        ("#" * (1024 * 1024 + 1), "at most 1048576"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_pipeline_file_is_an_error_and_no_crash(source: str, words: str) -> None:
    assert any(words in error for error in errors_of(source)), errors_of(source)


def test_aliases_can_not_unfold_into_a_huge_tree() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    assert "at most 100000, aliases unfolded" in errors_of("\n".join(lines))[0]


def test_a_file_that_can_not_be_read_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"app: caf\xe9")
    for path in (tmp_path / "none.yaml", tmp_path, tmp_path / "latin.yaml"):
        with pytest.raises(ConfigErrors, match="expected a pipeline file in UTF-8"):
            config.load(path, {})


@given(st.text(max_size=200))
def test_any_text_gives_a_pipeline_or_errors(source: str) -> None:
    with pytest.raises(ConfigErrors):
        read(source)


@given(st.data())
def test_a_sample_with_a_part_cut_out_gives_a_pipeline_or_errors(data: st.DataObject) -> None:
    source = FULL.read_text()
    start = data.draw(st.integers(0, len(source)))
    cut = source[:start] + source[start + data.draw(st.integers(1, 40)) :]
    with contextlib.suppress(ConfigErrors):
        read(cut)


# ---- warnings -------------------------------------------------------------------------------


def test_the_samples_give_no_warnings() -> None:
    assert warnings_of(SHOP.read_text()) == warnings_of(FULL.read_text()) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("unit: ms", "out_of_orderness: 2h", "f.yaml:9: rules.orders-by-store.window: warning"),
        ("unit: ms", "out_of_orderness: 2h", "over 10 windows of 10m"),
        ("unit: ms", "out_of_orderness: 15m", "shorter than event.out_of_orderness, 15m"),
        ("emit: {windows: alerts, anomalies: alerts}", "", "it emits nothing"),
        ("emit: {windows: alerts, anomalies: alerts}", "", "sinks.alerts: warning: no rule"),
        (", anomalies: alerts", "", "nobody is told"),
        ("detect: [{novelty: orders}, {absence: orders}]", "", "the rule has no detectors"),
        (
            "{type: [order.placed]}",
            "{type: [a], $or: [{type: [b]}, {kind: [c]}]}",
            f"f.yaml:7: {RULE}.where.type: warning: has no effect where a later list",
        ),
        ("id: id, ", "dedupe_horizon: 1h, ", "without event.id no repeat"),
    ],
)
def test_what_is_legal_but_hardly_meant_is_warned_of(old: str, new: str, words: str) -> None:
    warnings = warnings_of(shop((old, new)))
    assert any(words in warning for warning in warnings), warnings


# ---- durations and sizes --------------------------------------------------------------------


@given(st.integers(0, values.DURATION_MS_MAX))
def test_a_duration_reads_as_it_was_written(ms: int) -> None:
    assert values.parse_duration(values.show_duration(ms)) == ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [
        ("0s", 0),
        ("250ms", 250),
        ("1.5s", 1_500),
        ("4.35s", 4_350),
        ("1.001s", 1_001),
        ("1h30m", 5_400_000),
        ("2d", 172_800_000),
    ],
)
def test_durations_have_units(text: str, ms: int) -> None:
    assert values.parse_duration(text) == ms


@given(st.integers(1, 2**40))
def test_a_size_reads_as_it_was_written(number: int) -> None:
    assert values.size(1, 2**40).read(values.show_size(number)) == number


# ---- global rules ---------------------------------------------------------------------------

GLOBAL = ("[store]", "[region]")
MERGE = "merge: {stream: shop-merge}\n"


def test_a_rule_over_all_shards_is_taken_with_a_stream_to_meet_in() -> None:
    pipeline = read(shop(GLOBAL) + MERGE)
    assert pipeline.merge == MergeSpec("shop-merge")
    assert pipeline.rules[0].group_by == ("region",)


def test_a_global_rule_may_grant_lateness() -> None:
    rule = read(shop(GLOBAL, ("window: {tumbling", "lateness: 5m\n    window: {tumbling")) + MERGE)
    assert rule.rules[0].lateness_ms == 300_000


def test_without_a_partition_key_every_rule_is_global() -> None:
    assert read(shop((", partition_key: store", "")) + MERGE).event.partition_key is None


@pytest.mark.parametrize(
    ("merge", "words"),
    [
        ("{stream: orders}", "f.yaml:13: merge.stream: found orders, the source's own"),
        ("{stream: m, buckets: 0}", "merge.buckets: found the number 0"),
        ("{stream: m, buckets: 257}", "merge.buckets: found the number 257"),
        ("{stream: m, on_stall: 5}", "merge.on_stall: found the number 5, expected a duration"),
        ("{buckets: 4}", "merge.stream: found nothing"),
        ("{stream: m, bukets: 4}", "did you mean buckets?"),
    ],
)
def test_a_fault_in_merge_is_told_with_its_place(merge: str, words: str) -> None:
    errors = errors_of(shop(GLOBAL) + f"merge: {merge}\n")
    assert any(words in error for error in errors), errors


def test_the_merge_stream_is_in_the_region_of_the_source() -> None:
    arn = "arn:aws:kinesis:{}:123456789012:stream/{}"
    there, here = arn.format("us-east-1", "m"), arn.format("eu-central-1", "orders")
    source = shop(GLOBAL, ("stream: orders", f"stream: '{here}'"))
    [error] = errors_of(source + f"merge: {{stream: '{there}'}}\n")
    assert "found a stream in us-east-1, expected one in the source's region, eu-central-1" in error


def test_a_merge_stream_that_no_rule_needs_is_warned_of() -> None:
    [warning] = warnings_of(shop() + MERGE)
    assert "merge: warning: no rule is global" in warning


def test_not_to_outwait_a_take_over_is_warned_of() -> None:
    [warning] = warnings_of(shop(GLOBAL) + "merge: {stream: m, on_stall: 5s}\n")
    assert "merge.on_stall: warning: a killed worker's shards stand still for up to 15 s" in warning


@pytest.mark.parametrize(
    ("window", "against", "words"),
    [
        ("tumbling: 36h", "day", "found windows every 36h, expected windows that divide a day"),
        ("tumbling: 7h", "day", "divide a day, as only these have one a day before"),
        ("tumbling: 7h", "day", "or `against: week`"),
        ("tumbling: 7m", "day", "found windows every 7m"),
        ("tumbling: 14d", "week", "found windows every 14d, expected windows that divide a week"),
        ("tumbling: 5d", "week", "a week before to be compared with"),
        ("hopping: 14h, every: 7h", "day", "found windows every 7h"),
        ("calendar: week", "day", "or `against: week`"),
        ("calendar: month", "week", "divide a week"),
    ],
)
def test_windows_that_nothing_began_with_a_day_or_a_week_before_are_refused(
    window: str, against: str, words: str
) -> None:
    errors = errors_of(with_change(window, against))
    assert any(
        words in error and "f.yaml:11: " in error and "detect[0].change" in error
        for error in errors
    ), errors


@pytest.mark.parametrize(
    ("window", "against"),
    [
        *(("tumbling: 24h", "day"), ("tumbling: 7s", "day"), ("tumbling: 10m", "day")),
        *(("tumbling: 7h", "week"), ("hopping: 36h, every: 1h", "day")),
        *(("calendar: day", "day"), ("calendar: day", "week"), ("calendar: week", "week")),
    ],
)
def test_windows_that_come_round_are_compared(window: str, against: str) -> None:
    assert read(with_change(window, against)).rules[0].detect[0].kind == "change"


def with_change(window: str, against: str) -> str:
    return shop(
        ("tumbling: 10m", window), ("{novelty: orders}", f"{{change: orders, against: {against}}}")
    )


def test_a_running_window_says_itself_when_a_group_is_forgotten() -> None:
    rule = read(shop()).rules[0]
    running = replace(rule, window=WindowSpec(kind="running", ttl_ms=1), forget_after_ms=60_000)
    faults = Faults()
    checks.check_keys(running, faults)
    [error] = faults.errors
    assert "forget_after: found 1m, expected none: of a running window" in str(error)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"window": WindowSpec(kind="session", gap_ms=1)}, "window: found a session window"),
        ({"window": WindowSpec(kind="running", ttl_ms=1)}, "window: found a running window"),
        ({"panes": PanesSpec(early_every_ms=1)}, "panes.early: found a pane early by every"),
        ({"panes": PanesSpec(early_count=1)}, "panes.early: found a pane early by count"),
        ({"panes": PanesSpec(early_when={"n": [1]})}, "panes.early: found a pane early by when"),
        ({"overflow": "evict"}, "overflow: found evict"),
    ],
)
def test_what_only_one_shard_can_do_exactly_is_refused_to_global_rules(
    changes: dict[str, Any], words: str
) -> None:
    pipeline = read(shop(GLOBAL) + MERGE)
    faults = Faults()
    rule = replace(pipeline.rules[0], **changes)
    checks.check_scope(pipeline.event, [rule], faults, has_merge=True)
    [error] = faults.errors
    assert words in str(error)
    assert "the rule is global (group_by lacks store, the partition key), and" in str(error)
    faults = Faults()
    checks.check_scope(replace(pipeline.event, partition_key=None), [rule], faults, has_merge=True)
    assert "global (event.partition_key is not given), and" in str(faults.errors[0])
    faults = Faults()
    own = replace(rule, group_by=("store",))
    checks.check_scope(pipeline.event, [own], faults, has_merge=False)
    assert not faults
