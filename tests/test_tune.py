"""`processor tune` as a person runs it: what each sensitivity would have raised, and the page."""

from __future__ import annotations

import math
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import orjson
import pytest

HOUR_MS = 3_600_000
HOSTILE = "<script>alert(1)</script>&$x$"
PIPELINE = """\
app: tuned
source: {stream: orders}
event: {time: at, unit: ms, partition_key: host}
sinks: {bus: {eventbridge: events}}
rules:
  load:
    group_by: [host]
    window: {tumbling: 1h}
    aggregates: {cpu: {mean: cpu}, n: count}
    detect:
      - {novelty: cpu, sensitivity: low}
      - {absence: n}
      - {threshold: cpu, above: 500}
state: {table: tuned, objects: /tmp/tuned}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve days of two hosts, the second of which spikes twice."""
    folder = tmp_path_factory.mktemp("tune")
    (folder / "pipeline.yaml").write_text(PIPELINE)
    lines = []
    for hour in range(24 * 12):
        for host in ("calm", HOSTILE):
            wave = 100 + 20 * math.sin(hour / 24 * 2 * math.pi) + math.sin(hour * 7.3)
            spike = {200: 40.0, 260: 900.0}.get(hour, 0.0) if host == HOSTILE else 0.0
            at = 1_700_000_000_000 + hour * HOUR_MS
            lines.append(orjson.dumps({"host": host, "at": at, "cpu": wave + spike}))
    (folder / "capture.jsonl").write_bytes(b"\n".join(lines) + b"\nnot json\n")
    return folder


def tune(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            *(sys.executable, "-m", "processor", "tune", "-c", str(folder / "pipeline.yaml")),
            *("--from", str(folder / "capture.jsonl"), *arguments),
        ],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_lower_threshold_raises_no_less_and_a_planted_spike_is_raised_by_all(
    folder: Path,
) -> None:
    done = tune(folder, "--output", "json")
    assert done.returncode == 0, done.stderr
    assert "capture.jsonl:577: not JSON" in done.stderr
    told = orjson.loads(done.stdout)
    assert told["records"] == 2 * 24 * 12
    novelty, absence, threshold = told["detectors"]
    names = [one["setting"] for one in novelty["settings"]]
    assert names == ["high", "medium", "as in the file", "low"]
    openings = [one["openings"] for one in novelty["settings"]]
    assert openings == sorted(openings, reverse=True)
    assert openings[2] == openings[3] >= 1
    own = novelty["settings"][2]
    assert own["by_series"][orjson.dumps([HOSTILE]).decode()] >= 1
    assert sum(own["by_day"].values()) == own["openings"]
    assert [one["openings"] for one in absence["settings"]] == [0, 0, 0]
    assert threshold["settings"][0]["openings"] == 1
    assert "no sensitivity" in threshold["note"]


def test_it_says_which_setting_gives_so_many_alarms(folder: Path) -> None:
    done = tune(folder, "--per-day", "1000")
    assert "for up to 1000 alarms a day: high" in done.stdout
    done = tune(folder, "--per-day", "0.001")
    assert "every setting tells more than 0.001 alarms a day" in done.stdout


class Page(HTMLParser):
    """What a browser would see."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "xlink:href") and not (value or "").startswith("#"):
                self.outside.append(f"{tag} {value}")
            assert not name.startswith("on"), f"{tag} {name}"


def test_the_page_holds_charts_and_runs_and_loads_nothing(folder: Path) -> None:
    out = folder / "out.html"
    done = tune(folder, "--html", str(out))
    assert done.returncode == 0, done.stderr
    text = out.read_text()
    page = Page(text)
    assert page.tags.count("svg") == 2  # the novelty's series, and the threshold's
    assert "script" not in page.tags
    assert page.outside == []
    assert len(page.ids) == len(set(page.ids))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "Charts of 1 of 1 series with alarms" in text
    assert "<code>{novelty: cpu, sensitivity: &quot;low&quot;}</code>" in text  # as in a file
    tune(folder, "--html", str(out))
    assert out.read_text() == text


def test_charts_are_bounded_and_the_page_says_so(folder: Path) -> None:
    done = tune(folder, "--html", str(folder / "few.html"), "--charts", "1")
    assert done.returncode == 0, done.stderr
    text = (folder / "few.html").read_text()
    assert Page(text).tags.count("svg") == 1
    assert "Charts of 0 of 1 series with alarms" in text


def test_what_can_not_be_tuned_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "capture.jsonl").write_text("")
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    done = tune(tmp_path)
    assert (done.returncode, "no record in it" in done.stderr) == (64, True)
    done = tune(folder, "--charts", "many")
    assert (done.returncode, "expected 0 to 200" in done.stderr) == (64, True)
    done = tune(folder, "--html", str(tmp_path / "absent" / "x.html"))
    assert (done.returncode, "--html" in done.stderr) == (1, True)
