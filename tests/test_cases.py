"""`processor test`: files of cases, what is told of differences, and what is wrong with a file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from processor import cli, config
from processor.core.plan import compile
from processor.testing import reading, shape
from processor.testing.running import Trial
from processor.testing.suite import Case

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "processor" / "local" / "demo.cases.yaml"
OURS = Path(__file__).parent / "testing"
PAGE = (ROOT / "docs" / "testing.md").read_text()
PIPELINE = """
app: ${APP:-shop}
source: {stream: orders}
event: {id: id, time: at, unit: s, partition_key: store, out_of_orderness: 0s}
sinks: {alerts: {stdout: json}, spare: {stdout: json}}
rules:
  orders:
    where: {type: [order]}
    group_by: [store]
    window: {tumbling: 10m}
    aggregates: {orders: count, revenue: {sum: amount}}
    emit: {windows: alerts}
  refunds:
    where: {type: [refund]}
    group_by: [store]
    window: {tumbling: 10m}
    aggregates: {refunds: count}
    emit: {windows: spare}
"""
ORDER = "{id: a, type: order, store: oslo, at: +1m, amount: 20}"
ONE = f"pipeline: shop.yaml\ncases:\n  one:\n    - records: [{ORDER}]\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


class Folder:
    """A pipeline file, and cases beside it."""

    def __init__(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.path, self._capsys = path, capsys
        (path / "shop.yaml").write_text(PIPELINE)

    def run(self, cases: str, *arguments: str) -> tuple[int, str, str]:
        """Exit code, stdout and stderr without the folder's path."""
        file = self.path / "shop.cases.yaml"
        file.write_text(cases)
        code = cli.main(["test", str(file), *arguments])
        out, err = self._capsys.readouterr()
        return code, out.replace(f"{self.path}/", ""), err.replace(f"{self.path}/", "")

    def steps(self, *steps: str) -> tuple[int, str, str]:
        """One case of these steps."""
        return self.run("\n".join(("pipeline: shop.yaml", "cases:", "  one:", *map(_step, steps))))

    def told(self, *steps: str) -> list[str]:
        """What is told of the differences after these steps; [] where there is none."""
        code, out, err = self.steps(*steps)
        assert err == ""
        lines = [line.removeprefix("      ") for line in out.splitlines()]
        found = [line for line in lines[:-1] if not line.startswith((" ", "shop.cases.yaml"))]
        assert code == int(bool(found)), out
        return [line for line in lines if line in found or line.startswith("    ")][1:]

    def agree(self, *steps: str) -> None:
        assert self.told(*steps) == []


def _step(step: str) -> str:
    return f"    - {{{step}}}"


@pytest.fixture
def folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Folder:
    return Folder(tmp_path, capsys)


# ---- the whole, as a process ------------------------------------------------------------------


def test_the_cases_of_the_demo_s_pipeline_are_right() -> None:
    command = [sys.executable, "-m", "processor", "test", str(DEMO)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert ended.stdout.splitlines()[-1].endswith("cases: all ok")


@pytest.mark.parametrize("name", ["storm", "windows"])
def test_windows_of_every_kind_and_storms_tell_what_their_cases_say(name: str) -> None:
    assert cli.main(["test", str(OURS / f"{name}.cases.yaml")]) == 0


def test_the_page_s_example_is_right_and_what_it_shows_is_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / "README.md").read_text()
    (pipeline,) = re.findall(r"^```yaml\n(app: shop.*?)^```", readme, re.MULTILINE | re.DOTALL)
    (tmp_path / "shop.yaml").write_text(pipeline)
    monkeypatch.chdir(tmp_path)
    (cases,) = blocks("yaml")
    Path("shop.cases.yaml").write_text(cases)
    assert cli.main(["test", "shop.cases.yaml"]) == 0
    capsys.readouterr()

    Path("shop.cases.yaml").write_text(cases.replace("values: {orders: 1}", "values: {orders: 2}"))
    assert cli.main(["test", "shop.cases.yaml"]) == 1
    (shown,) = blocks("text")
    assert [
        "$ processor test shop.cases.yaml; echo $?",
        *capsys.readouterr().out.splitlines(),
        "1",
    ] == (shown.splitlines())


def test_every_key_is_on_the_page_and_in_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    keys = [key.name for key in (*shape.TOP, *shape.CASE, *shape.step(0), *shape.EXPECT)]
    keys += [*shape.STEP_ALSO[:-1], *shape.EXPECT_ALSO, "env", "cases"]
    assert [key for key in keys if f"| `{key}` |" not in PAGE] == []
    assert cli.main(["test", "--schema"]) == 0
    schema = capsys.readouterr().out
    assert [key for key in [*keys, *shape.EVENT_KEYS] if f'"{key}"' not in schema] == []


def test_every_field_that_an_event_has_can_be_expected() -> None:
    found: dict[str, set[str]] = {"event": set(), "anomaly": set()}
    for file in (DEMO, OURS / "storm.cases.yaml"):
        pipeline = file.parent / file.name.replace(".cases", "")
        plan = compile(config.load(pipeline, {"DEMO_FOLDER": "x"}))
        suite = reading.load(str(file), {})
        for each in suite.cases:
            trial = Trial(plan, suite.start_ms, Case("", 0, ()))
            for step in each.steps:
                trial.take(step)
            for event in trial.outcome().events:
                found["event"] |= event.keys()
                found["anomaly"] |= event.get("anomaly", {}).keys()
    assert found["event"] <= set(shape.EVENT_KEYS)
    assert found["anomaly"] == set(shape.ANOMALY_KEYS)


# ---- differences ------------------------------------------------------------------------------


def test_an_event_is_told_field_by_field_beside_its_nearest_expectation(folder: Folder) -> None:
    assert folder.told(
        f"records: [{ORDER}]",
        "watermark: +10m, expect: [{rule: orders, key: {store: oslo}, window: {end: +20m},"
        " values: {orders: 2, revenue: 20}}]",
    ) == [
        "≠ event of line 5: {rule: orders, key: {store: oslo}, window: {start: +0s, end: +10m}}",
        "    window.end: expected +20m, told +10m",
        "    values.orders: expected 2, told 1",
    ]


def test_what_is_missing_and_what_is_too_much_are_told_apart(folder: Folder) -> None:
    assert folder.told(
        f"records: [{ORDER}]",
        "watermark: +10m, expect: [{rule: refunds, key: {store: rome}}]",
    ) == [
        "- event of line 5 that was not told:",
        "    {rule: refunds, key: {store: rome}}",
        "+ event that is not expected:",
        "    {rule: orders, key: {store: oslo}, window: {start: +0s, end: +10m}, count: 1,"
        " values: {orders: 1, revenue: 20.0}}",
    ]


@pytest.mark.parametrize(
    ("expect", "difference"),
    [
        ("nothing", "+ event that is not expected:"),
        ("{late: 0}", "+ event that is not expected:"),
        ("{contains: nothing}", None),
        ("{contains: [{rule: orders}]}", None),
        ("{exactly: [{rule: orders}], unmatched: 0}", None),
        ("{contains: [{rule: orders}], unmatched: 1}", "unmatched: expected 1, told 0"),
        ("[{rule: orders, values: {revenue: 20.000001}}]", None),
        ("[{rule: orders, values: {revenue: 20.001}}]", "≠ event"),
        ("[{rule: orders, count: '1'}]", "≠ event"),
        ("[{rule: orders, is_final: 1}]", "≠ event"),
        ('[{values: {revenue: [{numeric: [">", 19]}]}}]', None),
        ("[{rule: orders, part: [{exists: false}]}]", None),
        ("[{rule: orders, part: shard-0}]", "≠ event"),
        ("[{rule: orders, correlation_ids: []}]", None),
        ("[{rule: orders, sink: spare}]", "≠ event"),
        ("[{detail_type: Window Result}, {rule: orders}]", "- event of line 5"),
    ],
)
def test_what_is_written_is_compared_and_nothing_else(
    folder: Folder, expect: str, difference: str | None
) -> None:
    told = folder.told(f"records: [{ORDER}]", f"watermark: +10m, expect: {expect}")
    assert [
        line for line in told[:1] if difference is None or not line.startswith(difference)
    ] == []
    assert bool(told) is (difference is not None)


def test_drops_are_differences_unless_they_are_written(folder: Folder) -> None:
    steps = (
        f"records: [{ORDER}, {ORDER}, {{type: order, at: +1m}}]",
        "watermark: +10m",
        f"records: [{ORDER.replace('id: a', 'id: b')}]",
    )
    told = folder.told(*steps, "watermark: +11m, expect: [{rule: orders}]")
    assert [line for line in told if not line.startswith(" ")] == [
        "+ dead letter that is not expected:",
        "late: expected 0, told 1",
        "duplicates: expected 0, told 1",
    ]
    expect = (
        "{contains: nothing, duplicates: 1, late: {orders: 1},"
        " dead_letters: [{reason: missing_field}]}"
    )
    folder.agree(*steps, f"watermark: +11m, expect: {expect}")


def test_dead_letters_for_one_reason_are_told_as_one(folder: Folder) -> None:
    slip = ORDER.replace("store: oslo, ", "")
    told = folder.told(
        f"records: [{ORDER}, {slip}], repeat: {{times: 50, every: 1s}}, expect: nothing"
    )
    assert told[0] == "+ dead letter that is not expected:"
    assert told[1].startswith('    {reason: missing_field, detail: "store: absent')
    assert told[2:] == ["    and 49 more like it"]


def test_an_expectation_is_of_all_that_was_told_since_the_one_before(folder: Folder) -> None:
    folder.agree(
        f"records: [{ORDER}]",
        "watermark: +10m",
        f"records: [{ORDER.replace('+1m', '+11m').replace('id: a', 'id: b')}]",
        "watermark: +20m, expect: [{window: {start: +0s}}, {window: {start: +10m}}]",
        "watermark: +30m, expect: nothing",
    )


def test_rules_that_are_not_looked_at_say_nothing(folder: Folder) -> None:
    code, out, _ = folder.run(
        f"""
pipeline: shop.yaml
cases:
  one:
    rules: [refunds]
    steps:
      - records: [{ORDER}]
      - {{watermark: +10m, expect: nothing}}
"""
    )
    assert code == 0, out


# ---- time and shards --------------------------------------------------------------------------


def test_an_idle_shard_s_watermark_follows_the_clock_after_half_a_minute(folder: Folder) -> None:
    # The clock goes on from +1m; the watermark follows 30 s behind it.
    folder.agree(
        f"records: [{ORDER}]",
        "idle: 9m29s, expect: nothing",
        "idle: 1s, expect: [{rule: orders}]",
    )


def test_records_end_idleness_and_a_record_arrives_when_it_happened(folder: Folder) -> None:
    first, second, third = (
        f"records: [{ORDER.replace('+1m', at).replace('id: a', f'id: {at}')}]"
        for at in ("+9m20s", "+9m50s", "+9m59s")
    )
    idle = "idle: 29s, expect: nothing"  # a second more, and the clock would count
    folder.agree(first, idle, second, idle, third, idle, "idle: 1m, expect: [{count: 3}]")


def test_a_record_far_ahead_of_its_arrival_is_a_dead_letter(folder: Folder) -> None:
    folder.agree(
        f"records: [{ORDER.replace('+1m', '+2h')}], arrival: +1m,"
        " expect: {dead_letters: [{reason: future}]}"
    )


def test_repeats_come_later_and_under_ids_of_their_own(folder: Folder) -> None:
    folder.agree(
        f"records: [{ORDER}], repeat: {{times: 3, every: 5m}}",
        "watermark: +1h,"
        " expect: [{window: {end: +10m}, count: 2}, {window: {end: +20m}, count: 1}]",
    )


def test_records_go_to_the_shard_where_their_key_is_at_home(folder: Folder) -> None:
    stores = ", ".join(
        f"{{id: {i}, type: order, store: s{i}, at: +1m, amount: 1}}" for i in range(8)
    )
    code, out, err = folder.run(
        f"""
pipeline: shop.yaml
cases:
  one:
    shards: 4
    steps:
      - records: [{stores}]
      - {{watermark: +10m, shard: 1, expect: {{contains: nothing}}}}
      - {{watermark: +10m, expect: {{contains: [{{rule: orders}}]}}}}
  a record on a shard where its key is not at home is told as its part:
    shards: 2
    steps:
      - records: [{ORDER}]
        shard: 0
      - records: [{ORDER.replace("id: a", "id: b")}]
        shard: 1
      - watermark: +10m
        expect: [{{part: [{{exists: true}}], count: 1}}, {{part: [{{exists: false}}], count: 1}}]
"""
    )
    assert code == 0, out + err


GLOBAL = PIPELINE.replace("group_by: [store]", "group_by: [type]")
GLOBAL += "merge: {stream: meet, on_stall: 5m}\n"


def test_a_global_rule_goes_through_both_stages_and_waits_for_the_slowest_shard(
    folder: Folder,
) -> None:
    (folder.path / "shop.yaml").write_text(GLOBAL)
    code, out, err = folder.run(
        f"""
pipeline: shop.yaml
cases:
  one:
    shards: 2
    steps:
      - {{records: [{ORDER}], shard: 0}}
      - {{records: [{ORDER.replace("id: a", "id: b")}], shard: 1}}
      - {{watermark: +10m, shard: 0, expect: nothing}}
      - {{watermark: +10m, expect: [{{rule: orders, key: {{type: order}}, count: 2}}]}}
      - {{records: [{ORDER.replace("id: a", "id: c")}], shard: 1, expect: {{late: 1}}}}
  a shard that never had a record is waited for until it is idle for certain:
    shards: 2
    steps:
      - {{records: [{ORDER}], shard: 0}}
      - {{watermark: +10m, shard: 0, expect: nothing}}
      - {{idle: 29s, shard: 1, expect: nothing}}
      - {{idle: 1s, shard: 1, expect: [{{count: 1}}]}}
  a shard that stands still is left behind after on_stall:
    shards: 2
    steps:
      - {{records: [{ORDER}], shard: 0}}
      - {{records: [{ORDER.replace("id: a", "id: b")}], shard: 1}}
      - {{idle: 9m30s, shard: 0, expect: nothing}}
      - {{idle: 5m, shard: 0, expect: [{{count: 1, complete: false}}]}}
"""
    )
    assert (code, err) == (0, ""), out


# ---- files that are wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "fault"),
    [
        ("records: [5], expect: nothing", "records[0]: found"),
        ("record: []", "shop.cases.yaml:4: cases.one[0].record: found an unknown key, expected"),
        ("recods: []", "did you mean records?"),
        (f"records: [{ORDER}]", "found a last step without expect, expected what is expected"),
        ("expect: nothing", "cases.one[0]: found nothing to do, expected one of records, idle or"),
        (f"records: [{ORDER}], idle: 1m, expect: nothing", "found records and idle"),
        ("idle: 10, expect: nothing", "idle: found the number 10, expected a duration"),
        ("idle: 1m, arrival: +1m, expect: nothing", "expected it with records only, not idle"),
        ("idle: 1m, shard: 1, expect: nothing", "expected one of the case's 1 shards"),
        ("records: [5], expect: nothing", "records[0]: found the number 5, expected an event"),
        ("records: [{at: +1x}], expect: nothing", 'records[0].at: found the text "+1x"'),
        ("idle: 1m, expect: nothin", 'expect: found the text "nothin", expected nothing, a list'),
        ("idle: 1m, expect: [{rul: orders}]", "expect[0].rul: found an unknown key"),
        ("idle: 1m, expect: [{rule: order}]", "expected orders or refunds; did you mean orders?"),
        ("idle: 1m, expect: [{rule: orders, values: {refunds: 1}}]", "values.refunds: found an"),
        ("idle: 1m, expect: [{key: {shop: a}}]", "key.shop: found an unknown key, expected store"),
        ("idle: 1m, expect: [{window: {end: 10m}}]", "expected a time with its zone, such as"),
        ("idle: 1m, expect: [{count: [{numeric: 5}]}]", "count"),
        ("idle: 1m, expect: [{detail_type: Window Results}]", "did you mean Window Result?"),
        ("idle: 1m, expect: {late: {order: 1}}", 'late.order: found the text "order", expected'),
        ("idle: 1m, expect: {late: -1}", "late: found the number -1, expected a whole number"),
        ("idle: 1m, expect: {exactly: [], contains: []}", "both exactly and contains"),
        ("idle: 1m, expect: {dead_letters: [{why: x}]}", "dead_letters[0].why: found an unknown"),
        (
            f"records: [{ORDER}], repeat: {{times: 5}}, expect: nothing",
            "repeat.every: found nothing",
        ),
    ],
)
def test_a_slip_in_a_file_is_told_with_its_place_and_ends_with_78(
    folder: Folder, step: str, fault: str
) -> None:
    code, out, err = folder.steps(step)
    assert (code, out) == (78, "")
    assert fault in err
    assert err.startswith("shop.cases.yaml:4: cases.one[0]")


def test_all_faults_of_all_files_are_told_at_once(folder: Folder) -> None:
    code, _, err = folder.run(
        "pipeline: shop.yaml\nstart: noon\nshards: 2\ncases: {}\n", "none.yaml"
    )
    assert code == 78
    told = [line.partition(": found")[0] for line in err.splitlines()]
    assert told == ["shop.cases.yaml:2: start", "shop.cases.yaml:3: shards", "none.yaml"]


def test_a_fault_of_the_pipeline_file_is_told_as_validate_tells_it(folder: Folder) -> None:
    code, _, err = folder.run("pipeline: nowhere.yaml\ncases: {}\n")
    assert code == 78
    assert err.startswith("shop.cases.yaml:1: pipeline: found nowhere.yaml: no such file, ")
    (folder.path / "bad.yaml").write_text("app: shop\nsource: {strem: orders}\n")
    code, _, err = folder.run("pipeline: bad.yaml\ncases: {}\n")
    assert code == 78
    assert "bad.yaml:2: source.strem: found an unknown key" in err


def test_another_pipeline_and_its_settings_can_be_named(folder: Folder) -> None:
    steps = ONE + "    - {watermark: +1m, expect: [{app: other, window: {end: +1m}}]}\n"
    cases = steps.replace("pipeline: shop.yaml", "env: {APP: other}")
    assert folder.run(cases)[0] == 78
    assert "expected the pipeline file, beside this one, or -c FILE" in folder.run(cases)[2]
    file = str(folder.path / "shop.yaml")
    cases = cases.replace("+1m, amount", "+30s, amount")
    arguments = ("-c", file, "--set", "rules.orders.window.tumbling=1m")
    code, out, err = folder.run(cases, *arguments)
    assert code == 0, out + err


# ---- usage ------------------------------------------------------------------------------------


def test_without_a_file_or_a_case_there_is_nothing_to_do(
    folder: Folder, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["test"]) == 64
    assert "no file of cases" in capsys.readouterr().err
    cases = (
        f"pipeline: shop.yaml\ncases:\n  one:\n    - records: [{ORDER}]\n      expect: nothing\n"
    )
    code, _, err = folder.run(cases, "--only", "two")
    assert code == 64
    assert "no case has this in its name" in err


def test_as_json_each_difference_has_its_fields(folder: Folder) -> None:
    cases = ONE + "    - {watermark: +10m, expect: [{rule: orders, count: 2}]}\n"
    code, out, _ = folder.run(cases, "--output", "json")
    told: Any = json.loads(out)
    assert code == 1
    (case,) = told[0]["cases"]
    (wrong,) = case["wrong"]
    assert (case["name"], case["ok"], wrong["step"], wrong["line"]) == ("one", False, 2, 5)
    (difference,) = wrong["differences"]
    assert difference["fields"] == [{"path": "count", "expected": 2, "told": 1}]
    assert difference["told"]["values"] == {"orders": 1, "revenue": 20.0}
