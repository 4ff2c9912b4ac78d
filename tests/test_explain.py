"""`processor explain`: as a process, as text and as JSON; and what it refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from processor import cli

FOLDER = Path(__file__).parent / "pipelines"
SHOP = str(FOLDER / "shop.yaml")


def test_every_rule_of_a_file_is_explained() -> None:
    command = [sys.executable, "-m", "processor", "explain", "-c", SHOP, "--rate", "50"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "shop: 1 rule"
    labels = {line[2:12].strip() for line in lines if line[2:3].strip()}
    assert labels >= {"scope", "counts", "figures", "windows", "tells", "late", "groups"}
    assert labels >= {"detectors", "sends", "memory", "events"}
    assert max(map(len, lines)) <= 100


def test_the_readme_shows_what_is_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    (shown,) = re.findall(r"^\$ processor explain shop.yaml (.*?)^```", readme, re.M | re.S)
    arguments, *lines = shown.splitlines()
    (pipeline,) = re.findall(r"^```yaml\n(app: shop.*?)^```", readme, re.M | re.S)
    (tmp_path / "shop.yaml").write_text(pipeline)
    assert cli.main(["explain", str(tmp_path / "shop.yaml"), *arguments.split()]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line not in printed] == ["  …"]


def test_options_are_written_as_in_the_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAGE", "test")
    assert cli.main(["explain", str(FOLDER / "full.yaml")]) == 0
    assert "per_minute: rate of readings (per 1m)" in capsys.readouterr().out


def test_as_json_there_are_figures_beside_the_words(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--rate", "1000000", "--keys", "500", "--shards", "9", "--output", "json"]
    assert cli.main(["explain", SHOP, *arguments]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["assumed"] == {"rate": 1e6, "keys": 500, "shards": 9}
    (rule,) = told["rules"]
    assert (rule["name"], rule["is_global"]) == ("orders-by-store", False)
    assert rule["traffic"]["events"] == pytest.approx(500 * 144)
    assert rule["traffic"]["usd"] == pytest.approx(
        500 * 144 * told["prices"]["usd_per_million_events"] / 1e6
    )
    assert rule["memory_bytes"] == 500 * rule["memory"]["a_key"]
    assert rule["memory_bytes_max"] == 100_000 * rule["memory"]["a_key"]


def test_it_tells_the_warnings_of_validate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "shop.yaml"
    file.write_text(Path(SHOP).read_text().replace("[store]", "[store, user_id]"))
    assert cli.main(["validate", str(file)]) == 0
    (warning,) = capsys.readouterr().err.splitlines()
    assert "user_id looks unbounded" in warning
    assert cli.main(["explain", str(file), "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"][0]["warnings"] == [warning]


def test_a_bad_file_is_told_as_validate_tells_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text("app: shop\nsource: {strem: orders}\n")
    assert cli.main(["explain", str(file)]) == 78
    captured = capsys.readouterr()
    assert captured.out == ""
    assert f"{file}:2: source.strem: found an unknown key" in captured.err


@pytest.mark.parametrize(
    "arguments",
    [["--rate", "many"], ["--rate", "0"], ["--rate", "nan"], ["--keys", "0"], ["--shards", "1.5"]],
)
def test_an_assumption_that_can_not_be_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["explain", SHOP, *arguments]) == 64
    assert f"found '{arguments[1]}', expected" in capsys.readouterr().err


def test_without_a_file_the_ways_to_name_one_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PROCESSOR_CONFIG", raising=False)
    assert cli.main(["explain"]) == 64
    assert "-c FILE or in PROCESSOR_CONFIG" in capsys.readouterr().err
