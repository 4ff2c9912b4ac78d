"""Reading recorded series and their labels: what is found, in which order, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import orjson
import pytest

from processor import config
from processor.errors import UsageError
from processor.local.recorded import HOUR_MS, MINUTE_MS, Recorded, read
from processor.local.recorded_pipeline import LEVELS, SENSITIVITIES, pipeline_text, size_text
from processor.local.recorded_replay import closing_ms, entries
from processor.local.recorded_report import as_json, as_text, judge

NOW_MS = 1_700_000_000_000


def write(path: Path, *rows: str, header: str = "timestamp,value") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def minutes(*at: int, name: str = "a.csv", values: float = 1.0) -> Recorded:
    times_ms = np.array(at, dtype=np.int64) * MINUTE_MS
    return Recorded(name, times_ms, np.full(len(at), values))


class TestFiles:
    def test_a_folder_of_files_is_read_with_nested_ones_by_name(self, tmp_path: Path) -> None:
        write(tmp_path / "b.csv", "2014-07-01 00:00:00,1")
        write(tmp_path / "deep" / "a.csv", "2014-07-01T00:00:00Z,-2.5e3")
        found = read(tmp_path, None, NOW_MS)
        assert [one.name for one in found] == ["b.csv", "deep/a.csv"]
        assert found[1].values.tolist() == [-2500.0]
        assert found[0].times_ms.tolist() == [1_404_172_800_000] == found[1].times_ms.tolist()
        assert found[0].labels is None

    def test_rows_come_in_order_of_time_and_equal_times_in_order_of_lines(
        self, tmp_path: Path
    ) -> None:
        rows = ("2014-07-01 01:00:00,3", "2014-07-01 00:00:00,1", "2014-07-01 00:00:00,2")
        write(tmp_path / "a.csv", *rows)
        assert read(tmp_path, None, NOW_MS)[0].values.tolist() == [1.0, 2.0, 3.0]

    def test_a_header_names_the_columns_and_may_be_absent(self, tmp_path: Path) -> None:
        write(tmp_path / "a.csv", "7,x,2014-07-01 00:00:00", header="\ufeffValue,host,Timestamp")
        write(tmp_path / "b.csv", header="2014-07-01 00:00:00,8")
        assert [one.values.tolist() for one in read(tmp_path, None, NOW_MS)] == [[7.0], [8.0]]

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ("2014-07-01 00:00:00,many", r"a\.csv:3: value: found 'many', expected a number"),
            ("2014-07-01 00:00:00,nan", r"a\.csv:3: value: found 'nan'"),
            ("2014-07-01 00:00:00,1e31", r"a\.csv:3: value: found '1e31'"),
            ("yesterday,1", r"a\.csv:3: timestamp: found 'yesterday', expected a time"),
            ("2114-07-01 00:00:00,1", r"a\.csv:3: timestamp: found '2114-.*yet to come"),
            ("2014-07-01 00:00:00", r"a\.csv:3: found '2014-07-01 00:00:00', expected timestamp"),
        ],
    )
    def test_a_bad_row_is_named_with_its_file_line_and_value(
        self, tmp_path: Path, row: str, said: str
    ) -> None:
        write(tmp_path / "a.csv", "2014-07-01 00:00:00,1", row)
        with pytest.raises(UsageError, match=said):
            read(tmp_path, None, NOW_MS)

    def test_what_holds_no_series_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match="no such folder"):
            read(tmp_path / "absent", None, NOW_MS)
        with pytest.raises(UsageError, match=r"no \.csv file in it"):
            read(tmp_path, None, NOW_MS)
        write(tmp_path / "a.csv")
        with pytest.raises(UsageError, match=r"a\.csv: no rows"):
            read(tmp_path, None, NOW_MS)
        write(tmp_path / "a.csv", "1,2", header="when,what")
        with pytest.raises(UsageError, match=r"a\.csv:1: found the columns \['when', 'what'\]"):
            read(tmp_path, None, NOW_MS)
        (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match="can't be read as CSV"):
            read(tmp_path, None, NOW_MS)


class TestLabels:
    def corpus(self, folder: Path, labels: object) -> Path:
        write(folder / "data" / "cause" / "a.csv", "2014-07-01 00:00:00,1")
        write(folder / "data" / "cause" / "b.csv", "2014-07-01 00:00:00,1")
        (folder / "labels").mkdir()
        (folder / "labels" / "combined_windows.json").write_text(json.dumps(labels))
        return folder

    @pytest.mark.parametrize("part", ["", "data", "data/cause"])
    def test_those_of_a_corpus_are_found_from_any_folder_of_it(
        self, tmp_path: Path, part: str
    ) -> None:
        pair = ["2014-07-01 00:00:00.000000", "2014-07-01 01:00:00.000000"]
        self.corpus(tmp_path, {"cause/a.csv": [pair], "cause/b.csv": []})
        first, second = read(tmp_path / part, None, NOW_MS)
        assert first.labels == ((1_404_172_800_000, 1_404_172_800_000 + HOUR_MS),)
        assert second.labels == ()

    @pytest.mark.parametrize("stretches", [["2014-07-01"], [["x", "y"]], [[1, 2]], 7, [["2014"]]])
    def test_one_that_is_no_pair_of_times_is_refused(
        self, tmp_path: Path, stretches: object
    ) -> None:
        self.corpus(tmp_path, {"cause/a.csv": stretches})
        with pytest.raises(UsageError, match=r"cause/a\.csv: found .*expected pairs of timestamps"):
            read(tmp_path, None, NOW_MS)

    def test_labels_of_other_files_are_a_mistake(self, tmp_path: Path) -> None:
        self.corpus(tmp_path, {"other/z.csv": []})
        with pytest.raises(UsageError, match="names none of the files"):
            read(tmp_path, None, NOW_MS)


class TestWindows:
    @pytest.mark.parametrize(
        ("at", "text"),
        [
            ((0, 5, 10, 15), "5m"),
            ((0, 30, 60, 600), "30m"),
            ((0, 0, 60, 60, 120), "1h"),  # duplicates are no step
            ((0, 7, 14), "10m"),
            ((3,), "1s"),
            ((0, 60 * 24 * 90), "7d"),
        ],
    )
    def test_their_size_follows_the_usual_step(self, at: tuple[int, ...], text: str) -> None:
        assert size_text(minutes(*at).size_ms) == text

    @pytest.mark.parametrize("level", LEVELS)
    @pytest.mark.parametrize("sensitivity", SENSITIVITIES)
    def test_the_pipeline_has_one_rule_a_size_and_is_valid(
        self, level: str, sensitivity: str
    ) -> None:
        text = pipeline_text([300_000, 3_600_000, 300_000], level, sensitivity)
        pipeline = config.loads(text, {"DEMO_FOLDER": "/srv"}).pipeline
        assert [rule.name for rule in pipeline.rules] == ["every_5m", "every_1h"]


class TestReplay:
    def test_records_of_all_files_come_in_order_of_event_time(self) -> None:
        series = [minutes(0, 5, 10, name="a"), minutes(0, 7, 10, name="b", values=2.0)]
        told = [orjson.loads(payload) for _, payload in entries(series)]
        assert [(one["at"] // MINUTE_MS, one["series"]) for one in told] == [
            *((0, "a"), (0, "b"), (5, "a"), (7, "b"), (10, "a"), (10, "b"))
        ]
        assert {one["series"]: one["window"] for one in told} == {"a": "5m", "b": "5m"}

    def test_the_last_windows_are_closed_but_not_before_they_are_over(self) -> None:
        series = [minutes(0, 5, 10, 12)]
        assert closing_ms(series, NOW_MS) == 15 * MINUTE_MS
        assert closing_ms(series, 13 * MINUTE_MS) == 13 * MINUTE_MS


def event(name: str, minute: int, id_: str) -> bytes:
    anomaly = {"score": 2.5, "sentence": "value is 9, above the 1 expected"}
    start = minute * MINUTE_MS
    window = {"start": start, "end": start + 5 * MINUTE_MS}
    detail = {"id": id_, "key": {"series": name}, "window": window, "anomaly": anomaly}
    return orjson.dumps({"detail-type": "Anomaly Opened", "detail": detail})


class TestReport:
    LABELS = ((10 * MINUTE_MS, 20 * MINUTE_MS), (60 * MINUTE_MS, 70 * MINUTE_MS))

    def series(self, labels: tuple[tuple[int, int], ...] | None) -> Recorded:
        one = minutes(*range(0, 200, 5))
        return Recorded(one.name, one.times_ms, one.values, labels)

    def test_an_alarm_is_in_a_label_that_its_window_touches(self) -> None:
        bodies = [event("a.csv", at, str(at)) for at in (4, 6, 20, 25)]
        [found] = judge([self.series(self.LABELS)], [*bodies, bodies[0]])
        assert [one.label for one in found.openings] == [-1, 0, 0, -1]
        assert found.hit == {0}
        assert not found.is_missed
        report = as_json([found], "full", "medium")
        assert (report["found"], report["labelled_windows"], report["outside"]) == (1, 2, 2)
        text = "\n".join(as_text([found]))
        assert "missed   1970-01-01 01:00" in text
        assert "found 1 of 2 labelled windows, in 1 of 1 files" in text

    def test_a_file_is_missed_only_if_it_has_labels(self) -> None:
        assert judge([self.series(self.LABELS)], [])[0].is_missed
        assert not judge([self.series(())], [])[0].is_missed
        [unlabelled] = judge([self.series(None)], [event("a.csv", 5, "x")])
        assert not unlabelled.is_missed
        assert "no labels to compare with" in "\n".join(as_text([unlabelled]))
        assert as_json([unlabelled], "full", "medium")["outside"] == 0
