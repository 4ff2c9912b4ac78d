"""Both benchmarks at their smallest size, and that neither would report a wrong result."""

from __future__ import annotations

import inspect
import json

import pytest

from bench import data, end_to_end, hot_path, plain, results
from bench.__main__ import main
from bench.consumer import Outcome
from bench.harness import Options, interleaved

KEY = ("store-0001", "order.placed", data.START_MS)
ROW = (3, 10.25, 7.0, 3.416666666666667)


@pytest.mark.parametrize("name", ["hot-path", "end-to-end", "state", "leases", "global"])
def test_a_benchmark_prints_a_table_and_writes_its_ratio_and_the_facts(name, tmp_path, capsys):
    file = tmp_path / "found.json"
    assert main([name, "--quick", "--seed", "7", "--json", str(file)]) == 0
    found = json.loads(file.read_bytes())
    assert found["ratio"] > 0
    assert found["seed"] == 7
    assert found["versions"]["orjson"]
    assert found["machine"]["python"]
    assert all(measure["median"] >= 0 for measure in found["measures"].values())
    assert f"{name}: ratio" in capsys.readouterr().out


NAMED = {
    "hot-path": ["ratio_at_100"],
    "end-to-end": ["limit_ratio", "rss_mb", "loop_lag_p99_9_ms"],
}


@pytest.mark.parametrize("name", NAMED)
def test_what_is_to_be_accepted_has_a_name_of_its_own_in_the_json(name, tmp_path, capsys):
    file = tmp_path / "found.json"
    assert main([name, "--quick", "--json", str(file)]) == 0
    found, printed = json.loads(file.read_bytes()), capsys.readouterr().out
    for figure in NAMED[name]:
        assert found[figure] > 0
        assert f"{name}: {figure} " in printed


def test_hot_path_refuses_a_run_whose_results_are_not_the_plain_ways():
    def counting_one_too_many(size_ms, out_of_orderness_ms, closed):
        right: plain.Results = {}
        loop = plain.windows(size_ms, out_of_orderness_ms, right)
        late = next(loop)
        while True:
            late = loop.send((yield late))
            closed |= {key: (n + 1, *rest) for key, (n, *rest) in right.items()}

    with pytest.raises(results.ResultsDiffer, match="plain"):
        hot_path.run(Options(is_quick=True), counting_one_too_many)


def outcome(records: int = 3, late: int = 1, row: tuple = ROW) -> Outcome:
    return Outcome(1.0, 1.0, records, 213 * records, late, [(*KEY, *row)])


def test_end_to_end_takes_runs_that_agree():
    end_to_end.check_all({"ours": [outcome(), outcome()], "plain": [outcome()]}, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (outcome(records=2), "ours read 2 of 3 records"),
        (outcome(late=2), "late records: ours 2, plain 1"),
        (outcome(row=(4, *ROW[1:])), "order.placed"),
        (outcome(row=(3, 10.26, *ROW[2:])), "order.placed"),
        (Outcome(1.0, 1.0, 3, 639, 1, []), "1 windows on one side only"),
    ],
)
def test_end_to_end_refuses_any_run_that_found_something_else(wrong, message):
    with pytest.raises(results.ResultsDiffer, match=message):
        end_to_end.check_all({"ours": [outcome(), wrong], "plain": [outcome()]}, 3)


def test_end_to_end_checks_what_its_consumers_found():
    async def consume(job, place):
        return outcome(records=end_to_end.QUICK_RECORDS, late=2 if job.side == "ours" else 1)

    with pytest.raises(results.ResultsDiffer, match="late records"):
        end_to_end.run(Options(is_quick=True), consume)


def test_runs_in_which_no_window_closed_prove_nothing():
    with pytest.raises(results.ResultsDiffer, match="no window closed"):
        results.check({}, {}, late=(0, 0))


def test_events_have_the_size_and_the_keys_that_they_promise():
    workload = data.Workload(records=10_000, warm_up=10_000)
    made = data.events(workload)
    decoded = [json.loads(event.payload) for event in made]
    assert {len(event.payload) for event in made} == {data.EVENT_BYTES}
    assert {event["type"] for event in decoded} == set(data.TYPES)
    assert len({event["store"] for event in decoded}) == workload.keys
    assert data.events(workload) == made


def test_the_plain_way_is_one_loop_of_at_most_forty_lines_that_calls_only_orjson_and_dicts():
    source = inspect.getsource(plain.windows)
    assert len(source.splitlines()) <= 40
    called = inspect.getclosurevars(plain.windows)
    assert set(called.globals) == {"orjson"}
    assert not called.builtins


def test_each_round_runs_everything_once_and_the_first_is_a_warm_up():
    order: list[str] = []

    def run(name):
        order.append(name)
        return {"": float(len(order))}

    found = interleaved({"a": lambda: run("a"), "b": lambda: run("b")}, 2)
    assert order == ["a", "b"] * 3
    assert found == {"a": [{"": 3.0}, {"": 5.0}], "b": [{"": 4.0}, {"": 6.0}]}
