"""`processor diff`: what becomes of each rule's state, why, and what the exit code says of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from processor import cli

FOLDER = Path(__file__).parent / "pipelines"
FILE = (FOLDER / "full.yaml").read_text()
SHOP = (FOLDER / "shop.yaml").read_text()


class Files:
    """Two versions of a file in a folder."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._folder, self._capsys = folder, capsys

    def run(self, old: str, new: str, *arguments: str) -> tuple[int, str, str]:
        paths = []
        for name, text in (("old.yaml", old), ("new.yaml", new)):
            (self._folder / name).write_text(text)
            paths.append(str(self._folder / name))
        code = cli.main(["diff", *paths, *arguments])
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err

    def changes(self, old: str, new: str) -> Any:
        code, out, err = self.run(old, new, "--output", "json")
        told = json.loads(out)
        assert (err, code) == ("", int(told["loses_state"]))
        return told


@pytest.fixture
def files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Files:
    monkeypatch.setenv("STAGE", "test")
    return Files(tmp_path, capsys)


def edited(*pairs: tuple[str, str], text: str = SHOP) -> str:
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new)
    return text


# One edit each, what becomes of the rule, and the setting that is named.
EDITS = [
    ("tumbling: 10m", "tumbling: 5m", "reset", "window.tumbling: 10m -> 5m"),
    ("tumbling: 10m", "tumbling: 10m, offset: 1m", "reset", "window.offset"),
    ("[order.placed]", "[order.paid]", "reset", "where: "),
    ("group_by: [store]", "group_by: [store, city]", "reset", "group_by: "),
    ("group_by: [store]", "group_by: [store]\n    max_groups: 7", "reset", "max_groups: "),
    ("group_by: [store]", "group_by: [store]\n    overflow: dead_letter", "reset", "overflow: "),
    ("group_by: [store]", "group_by: [store]\n    forget_after: 7d", "reset", "forget_after: "),
    ("{sum: amount}", "{max: amount}", "reset", "aggregates[sum:amount]: there -> none"),
    ("{sum: amount}", "{sum: price}", "reset", "aggregates[sum:price]: none -> there"),
    (
        "{sum: amount}",
        "{sum: amount, where: {vip: [true]}}",
        "reset",
        'aggregates[sum:amount where {"vip":[true]}]: none -> there',
    ),
    (
        "{sum: amount}",
        "{sum: amount}, per_second: {rate: revenue}",
        "converted",
        "aggregates[rate(sum:amount)]: none -> there",
    ),
    (
        "[{novelty: orders}, {absence: orders}]",
        "[{novelty: orders}, {absence: orders}, {threshold: revenue, above: 2}]",
        "reset",
        "detect[threshold(sum:amount)]: none -> there",
    ),
    ("{novelty: orders}", "{novelty: orders, level: full}", "reset", "level: standard -> full"),
    ("{novelty: orders}", "{novelty: orders, min_count: 2}", "reset", "min_count: 0 -> 2"),
    ("{novelty: orders}, ", "", "reset", "detect[novelty(count)]: there -> none"),
    ("{novelty: orders}", "{novelty: revenue}", "reset", "detect[novelty(sum:amount)]"),
    ("time: at", "time: when", "reset", "event.time: at -> when"),
    ("unit: ms", "unit: ms, dedupe_horizon: 1m", "reset", "event.dedupe_horizon: 10m -> 1m"),
    ("{novelty: orders}", "{novelty: orders, sensitivity: low}", "converted", "medium -> low"),
    ("{novelty: orders}", "{novelty: orders, severity: info}", "converted", "warning -> info"),
    ("{novelty: orders}", "{novelty: orders, name: odd}", "converted", "novelty -> odd"),
    ("{absence: orders}", "{absence: orders, threshold: 9}", "converted", "threshold: 3.99 -> 9"),
    ("revenue: ", "turnover: ", "converted", "aggregates[sum:amount].name: revenue -> turnover"),
    (
        "{novelty: orders}, {absence: orders}",
        "{absence: orders}, {novelty: orders}",
        "converted",
        "detect.order",
    ),
    ("unit: ms", "unit: ms, correlation_id: request", "converted", "event.correlation_id"),
    ("unit: ms", "unit: ms, out_of_orderness: 9s", "converted", "event.out_of_orderness: 5s -> 9s"),
    ("emit: {windows: alerts, anomalies", "emit: {anomalies", "kept", "emit.windows: alerts"),
    ("start: trim_horizon", "start: latest", "kept", None),
]


@pytest.mark.parametrize(("old", "new", "fate", "why"), EDITS, ids=[edit[1] for edit in EDITS])
def test_each_edit_is_named_with_what_becomes_of_the_rule(
    files: Files, old: str, new: str, fate: str, why: str | None
) -> None:
    changes = files.changes(SHOP, edited((old, new)))
    (rule,) = changes["rules"]
    settings = [f"{one['path']}: {one['old']} -> {one['new']}" for one in rule["why"]]
    assert rule["fate"] == fate
    assert (settings == []) if why is None else any(why in setting for setting in settings)
    assert changes["loses_state"] == (fate == "reset")
    assert any(one["shapes_state"] for one in rule["why"]) == (fate == "reset"), settings


def test_another_share_of_a_quantile_is_read_from_the_same_state(files: Files) -> None:
    def with_quantile(q: str) -> str:
        return edited(("{sum: amount}", f"{{quantile: amount, q: {q}}}"))

    (rule,) = files.changes(with_quantile("0.9"), with_quantile("0.99"))["rules"]
    assert rule["fate"] == "converted"
    assert [(one["path"], one["shapes_state"]) for one in rule["why"]] == [
        ("aggregates[quantile:amount(q=0.9)]", False),
        ("aggregates[quantile:amount(q=0.9)].name", False),
        ("aggregates[quantile:amount(q=0.99)]", False),
        ("aggregates[quantile:amount(q=0.99)].name", False),
    ]


def test_one_file_twice_changes_nothing(files: Files) -> None:
    code, out, err = files.run(FILE, FILE)
    assert (code, err) == (0, "")
    assert out == (
        "readings: kept: nothing happens to it\nhot-engines: kept: nothing happens to it\n"
        "all-countries: kept: nothing happens to it\n"
    )


def test_a_change_is_told_with_its_settings_and_its_consequence(files: Files) -> None:
    new = edited(
        ("tumbling: 10m", "tumbling: 5m"),
        ("{novelty: orders}", "{novelty: orders, sensitivity: high}"),
        ("shop-events", "other-events"),
    )
    code, out, err = files.run(SHOP, new)
    assert (code, err) == (1, "")
    assert (
        out
        == """\
orders-by-store: reset: windows open at the deploy will be partial; detectors learn anew
    window.tumbling: 10m -> 5m
    detect[novelty(count)].sensitivity: medium -> high (state would go on)
sinks:
    sinks.alerts.eventbridge: shop-events -> other-events
"""
    )


def test_rules_that_come_go_or_get_another_name_are_told_as_such(files: Files) -> None:
    more = "  extra:\n" + SHOP[SHOP.index("    where:") :].replace("10m", "1h")
    (added,) = files.changes(SHOP, SHOP + more)["rules"][1:]
    assert (added["rule"], added["fate"]) == ("extra", "added")
    (_, removed) = files.changes(SHOP + more, SHOP)["rules"]
    assert (removed["rule"], removed["fate"]) == ("extra", "removed")
    (renamed,) = files.changes(SHOP, edited(("orders-by-store", "sales")))["rules"]
    assert (renamed["rule"], renamed["was"], renamed["fate"]) == (
        "sales",
        "orders-by-store",
        "renamed",
    )


def test_an_added_rule_alone_loses_nothing_and_a_removed_one_does(files: Files) -> None:
    more = SHOP + "  extra:\n" + SHOP[SHOP.index("    where:") :]
    assert files.run(SHOP, more)[0] == 0
    assert files.run(more, SHOP)[0] == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("app: shop", "app: store", "every event id is new"),
        ("stream: orders", "stream: sales", "another stream"),
        ("app: shop", "app: shop\nstate: {table: other}", "reading begins at source.start"),
    ],
)
def test_a_file_that_leaves_all_state_behind_says_so(
    files: Files, old: str, new: str, said: str
) -> None:
    code, out, _ = files.run(SHOP, edited((old, new)))
    assert code == 1
    assert said in out
    assert "nothing happens" not in out


@pytest.mark.parametrize(
    ("old", "new", "can_take_along"),
    [
        ("app: shop", "app: store", True),
        ("app: shop", "app: shop\nstate: {table: other}", True),
        ("stream: orders", "stream: sales", False),
    ],
)
def test_each_rule_is_left_behind_by_another_app_table_or_stream(
    files: Files, old: str, new: str, can_take_along: bool
) -> None:
    changes = files.changes(SHOP, edited((old, new)))
    (rule,) = changes["rules"]
    assert (rule["fate"], changes["loses_state"]) == ("left behind", True)
    assert "stay behind; it starts anew" in rule["means"]
    remedies = ["`processor leases export`" in one["means"] for one in changes["elsewhere"]]
    assert any(remedies) == can_take_along


def test_a_rule_whose_results_go_nowhere_from_now_on_is_told_so(files: Files) -> None:
    all_gone = "emit: {windows: alerts, anomalies: alerts}"
    (silent,) = files.changes(SHOP, edited((all_gone, "emit: {anomalies: alerts}")))["rules"]
    assert silent["means"] == "its state goes on; its windows go nowhere from now on"
    (both,) = files.changes(
        SHOP, edited(("windows: alerts, ", ""), ("tumbling: 10m", "tumbling: 5m"))
    )["rules"]
    assert both["fate"] == "reset"
    assert both["means"].endswith("; its windows go nowhere from now on")
    (loud,) = files.changes(edited((all_gone, "emit: {anomalies: alerts}")), SHOP)["rules"]
    assert loud["means"] == "nothing happens to it"


def test_states_that_lay_as_objects_elsewhere_do_not_go_on(files: Files) -> None:
    old, new = (
        edited(("app: shop", f"app: shop\nstate: {{objects: /tmp/{name}}}")) for name in "xy"
    )
    changes = files.changes(old, new)
    (rule,) = changes["rules"]
    assert (rule["fate"], changes["loses_state"]) == ("kept", True)
    assert "only on shards whose state lies in the table" in rule["means"]
    assert "are not found" in changes["elsewhere"][0]["means"]


def test_a_first_place_for_objects_loses_nothing(files: Files) -> None:
    new = edited(("app: shop", "app: shop\nstate: {objects: /tmp/x}"))
    changes = files.changes(SHOP, new)
    assert changes["rules"][0]["means"] == "nothing happens to it"
    assert not changes["loses_state"]


MERGED = edited(("group_by: [store]", "group_by: [region]")) + "merge: {stream: one, buckets: 8}\n"


def test_a_new_merge_stream_leaves_global_rules_behind_and_no_others(files: Files) -> None:
    changes = files.changes(MERGED, edited(("stream: one", "stream: two"), text=MERGED))
    (rule,) = changes["rules"]
    assert (rule["fate"], changes["loses_state"]) == ("left behind", True)
    assert "stay with the old stream" in changes["elsewhere"][0]["means"]
    own = edited(("[region]", "[store]"), text=MERGED)
    (rule,) = files.changes(own, edited(("stream: one", "stream: two"), text=own))["rules"]
    assert rule["fate"] == "kept"


def test_other_buckets_of_a_merge_stream_are_told_to_be_refused(files: Files) -> None:
    changes = files.changes(MERGED, edited(("buckets: 8", "buckets: 9"), text=MERGED))
    assert changes["loses_state"]
    (told,) = changes["elsewhere"]
    assert told["setting"]["path"] == "merge.buckets"
    assert "workers refuse the new file" in told["means"]


def test_a_first_merge_stream_changes_nothing_for_rules_without_it(files: Files) -> None:
    changes = files.changes(SHOP, SHOP + "merge: {stream: one}\n")
    assert (changes["elsewhere"], changes["loses_state"]) == ([], False)
    changes = files.changes(SHOP + "merge: {stream: one}\n", SHOP)
    assert (changes["elsewhere"], changes["loses_state"]) == ([], False)


def test_the_order_is_told_by_what_it_was_and_not_where_something_was_added(files: Files) -> None:
    both, turned = "{novelty: orders}, {absence: orders}", "{absence: orders}, {novelty: orders}"
    (rule,) = files.changes(SHOP, edited((both, turned)))["rules"]
    (order,) = (one for one in rule["why"] if one["path"] == "detect.order")
    assert order["old"] == "novelty(count), absence(count)"
    more = "{threshold: revenue, above: 9}, "
    (rule,) = files.changes(SHOP, edited((both, more + both)))["rules"]
    assert [one for one in rule["why"] if one["path"] == "detect.order"] == []


def test_a_bad_file_ends_with_78_and_its_faults(files: Files) -> None:
    code, out, err = files.run(SHOP, edited(("tumbling: 10m", "tumbling: 10")))
    assert (code, out) == (78, "")
    assert "new.yaml:9: rules.orders-by-store.window.tumbling: found the number 10" in err
