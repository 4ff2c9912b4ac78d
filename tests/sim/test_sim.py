"""Histories keep every promise, take every path, and repeat themselves to the letter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.faults import schedule
from tests.sim.history import END_S, History, history
from tests.sim.pool import outcomes
from tests.sim.report import Report
from tests.sim.run import run_seed

ROOT = Path(__file__).parent.parent.parent
SEEDS = range(200)


def test_two_hundred_histories_keep_every_promise_and_take_every_path() -> None:
    report = Report()
    for outcome in outcomes(SEEDS, os.cpu_count() or 1):
        report.add(outcome)
    assert not report.failed, "\n".join(report.lines())
    assert not report.missing(), "\n".join(report.lines())


@pytest.mark.parametrize("seed", range(20))
def test_a_seed_stands_for_as_hostile_a_history_as_is_promised(seed: int) -> None:
    one: History = history(seed)
    assert one.workers >= 3
    assert one.shards >= 4
    assert len(one.reshards) >= 2
    assert len(one.puts) >= 2_000
    assert len(schedule(one)) >= 5
    assert END_S >= 600


def test_the_same_seed_gives_the_same_history_to_the_letter() -> None:
    assert run_seed(7).lines == run_seed(7).lines


def test_a_history_does_not_depend_on_the_order_of_hashes() -> None:
    told = {_history_under(hash_seed) for hash_seed in ("0", "1")}
    assert len(told) == 1


def _history_under(hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.sim", "--seed", "7"],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
