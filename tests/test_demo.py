"""The demo end to end, as a person runs it: real processes, real sockets, its own check.

A few seconds of traffic are too few for the detectors (they are judged from 45 s on), but every
record, window and dead letter is exact; the fortnight just holds fewer of them.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

SLOW_S = 240  # a killed worker is replaced within 15 s; machines with two busy cores take longer
TRAFFIC_RUNS = " workers own 4 shards"  # what the demo says when it begins to send


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo with its scratch folder in `folder`; killed if the test leaves it running."""
    process = subprocess.Popen(
        [sys.executable, "-m", "processor", "demo", "--output", "json", *arguments],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    assert process.stderr is not None
    seen = ""
    for line in process.stderr:
        seen += line
        if text in line:
            return
    pytest.fail(f"the demo ended with {process.wait()}: {seen}")


def report_of(stdout: str, stderr: str) -> dict[str, Any]:
    lines = stdout.splitlines()
    assert lines, stderr
    report: dict[str, Any] = orjson.loads(lines[-1])
    return report


def processes_in(folder: Path) -> list[str]:
    """Whatever still works below the folder: each of the demo's children does."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if Path(os.readlink(entry)).is_relative_to(folder):
                found.append(entry.parent.name)
        except OSError:
            continue  # it ended just now, or isn't ours to look at
    return found


def assert_exact(report: dict[str, Any]) -> None:
    assert report["records_processed"] == report["records_sent"] > 0
    assert report["dead_letters"] == report["broken_sent"]
    assert report["duplicates_dropped"] == report["duplicates_sent"]
    assert report["late_dropped"] == report["late_sent"]
    assert report["windows_correct"] == report["windows_expected"] > 1_000
    assert report["windows_wrong"] == report["windows_missing"] == report["conflicting_ids"] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="looks for children in /proc")
class TestDemo:
    def test_what_was_sent_is_what_the_bus_delivered(self, tmp_path: Path) -> None:
        with demo(tmp_path, "--duration", "6", "--seed", "5") as process:
            stdout, stderr = process.communicate(timeout=SLOW_S)
        report = report_of(stdout, stderr)
        assert process.returncode == 0, stderr
        assert_exact(report)
        assert report["seed"] == 5
        assert report["records_sent"] == 12_000
        assert report["events_received"] == report["events_published"]
        assert report["duplicate_ids"] == report["shards_moved"] == 0
        assert report["p99_ms"] >= report["p50_ms"] > 0
        assert list(tmp_path.iterdir()) == []
        assert processes_in(tmp_path) == []

    def test_a_killed_worker_s_shards_move_and_nothing_is_lost_or_changed(
        self, tmp_path: Path
    ) -> None:
        with demo(tmp_path, "--duration", "12", "--seed", "6", "--kill") as process:
            stdout, stderr = process.communicate(timeout=SLOW_S)
        report = report_of(stdout, stderr)
        assert process.returncode == 0, stderr
        assert_exact(report)
        assert report["shards_moved"] >= 1
        assert processes_in(tmp_path) == []

    def test_workers_are_replaced_one_by_one_and_nothing_is_lost_or_changed(
        self, tmp_path: Path
    ) -> None:
        with demo(tmp_path, "--duration", "12", "--seed", "7", "--deploy") as process:
            stdout, stderr = process.communicate(timeout=SLOW_S)
        report = report_of(stdout, stderr)
        assert process.returncode == 0, stderr
        assert_exact(report)
        assert report["deploys"] == 2
        assert report["shards_moved"] == 4
        assert processes_in(tmp_path) == []

    def test_splits_and_a_merge_in_the_midst_of_it_change_no_window(self, tmp_path: Path) -> None:
        arguments = ("--duration", "12", "--seed", "8", "--reshard", "--kill", "--deploy")
        with demo(tmp_path, *arguments) as process:
            stdout, stderr = process.communicate(timeout=SLOW_S)
        report = report_of(stdout, stderr)
        assert process.returncode == 0, stderr
        assert_exact(report)
        assert report["reshards"] == 3
        assert report["deploys"] == 2
        assert processes_in(tmp_path) == []

    def test_ctrl_c_ends_the_traffic_and_checks_what_was_sent(self, tmp_path: Path) -> None:
        with demo(tmp_path, "--duration", "60") as process:
            wait_for(process, TRAFFIC_RUNS)
            wait_for(process, "sent ")
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=SLOW_S)
        report = report_of(stdout, stderr)
        assert process.returncode == 0, stderr
        assert report["records_processed"] == report["records_sent"] < 60 * 2_000
        assert report["windows_correct"] == report["windows_expected"] > 0
        assert processes_in(tmp_path) == []

    def test_sigterm_ends_everything_in_order(self, tmp_path: Path) -> None:
        with demo(tmp_path, "--duration", "60") as process:
            wait_for(process, TRAFFIC_RUNS)
            process.send_signal(signal.SIGTERM)
            stdout, stderr = process.communicate(timeout=SLOW_S)
        assert process.returncode == 128 + signal.SIGTERM, stderr
        assert stdout == ""
        assert list(tmp_path.iterdir()) == []
        assert processes_in(tmp_path) == []

    def test_a_second_ctrl_c_kills_at_once(self, tmp_path: Path) -> None:
        with demo(tmp_path, "--duration", "60") as process:
            wait_for(process, TRAFFIC_RUNS)
            process.send_signal(signal.SIGINT)
            wait_for(process, "of the traffic is sent")
            process.send_signal(signal.SIGINT)
            stdout, _ = process.communicate(timeout=SLOW_S)
        assert process.returncode == 128 + signal.SIGINT
        assert stdout == ""
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--duration", "1"], "--duration 1: give 5 to 600 s"),
        (["--duration", "601"], "--duration 601: give 5 to 600 s"),
        (["--seed", "-1"], "--seed -1: give a whole number from 0 on"),
    ],
)
def test_arguments_that_make_no_demo_are_refused(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    with demo(tmp_path, *arguments) as process:
        _, stderr = process.communicate(timeout=SLOW_S)
    assert process.returncode == 64
    assert message in stderr
