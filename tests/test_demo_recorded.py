"""`processor demo --data` as a person runs it: real processes, real sockets, charts on the disk."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pytest

SLOW_S = 240
START = datetime(2014, 7, 1, tzinfo=UTC)
STEPS = 24 * 9  # nine days of hours
SPIKE = 24 * 8 + 3


def demo(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "processor", "demo", *arguments],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=SLOW_S,
        check=False,
    )


def write_series(path: Path, start: datetime, spike: float) -> None:
    noise = np.random.default_rng(1).normal(size=STEPS)
    values = 100 + 20 * np.sin(np.arange(STEPS) / 24 * 2 * np.pi) + noise
    values[SPIKE] += spike
    hours = (start + timedelta(hours=i) for i in range(STEPS))
    lines = [f"{at:%Y-%m-%d %H:%M:%S},{value}" for at, value in zip(hours, values, strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["timestamp,value", *lines]))


def stretch(hour: int) -> list[str]:
    return [f"{START + timedelta(hours=hour + by):%Y-%m-%d %H:%M:%S}" for by in (-5, 5)]


def test_a_planted_spike_is_found_in_its_label_and_drawn(tmp_path: Path) -> None:
    write_series(tmp_path / "nab" / "data" / "real" / "spiky.csv", START, 300.0)
    write_series(tmp_path / "nab" / "data" / "real" / "calm.csv", START - timedelta(days=900), 0.0)
    labels = {"real/spiky.csv": [stretch(SPIKE)], "real/calm.csv": []}
    (tmp_path / "nab" / "labels").mkdir()
    (tmp_path / "nab" / "labels" / "combined_windows.json").write_text(json.dumps(labels))
    where = ("--data", str(tmp_path / "nab" / "data" / "real"), "--plot", str(tmp_path / "plots"))
    done = demo(tmp_path, *where, "--output", "json", "--sensitivity", "high")
    assert done.returncode == 0, done.stderr
    report = orjson.loads(done.stdout)
    assert report["found"] == report["labelled_windows"] == 1
    calm, spiky = report["files"]
    assert (calm["file"], spiky["file"]) == ("calm.csv", "spiky.csv")
    assert calm["records"] == spiky["records"] == STEPS
    [hit] = [one for one in spiky["openings"] if one["label"] == 0]
    assert hit["start"] == f"{START + timedelta(hours=SPIKE):%Y-%m-%dT%H:%M:%SZ}"
    assert hit["anomaly"]["direction"] == "above"
    for name in ("calm.png", "spiky.png"):
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")
    assert not list(tmp_path.glob("processor-demo-*"))


def test_a_file_whose_labels_are_all_missed_fails_the_run(tmp_path: Path) -> None:
    write_series(tmp_path / "calm.csv", START, 0.0)
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({"calm.csv": [stretch(30)]}))  # too early for any alarm
    done = demo(tmp_path, "--data", str(tmp_path), "--labels", str(labels))
    assert done.returncode == 1, done.stderr
    assert "missed   2014-07-02" in done.stdout
    assert "found 0 of 1 labelled windows, in 0 of 1 files" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "absent"), "--data absent: no such folder"),
        (("--data", ".", "--kill"), "--kill does not go with --data"),
        (("--data", ".", "--seed", "7"), "--seed and --duration do not go with --data"),
        (("--plot", "x"), "--plot goes with --data"),
        (("--level", "lite"), "--level goes with --data"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_before_anything_starts(
    tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    done = demo(tmp_path, *arguments)
    assert done.returncode == 64
    assert said in done.stderr
