"""What a replay found, beside what somebody labelled: as text, as JSON, as charts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson

from processor import charts, detectors
from processor.core.columns import Columns
from processor.detectors.base import Wave
from processor.local.recorded import Recorded, Stretch
from processor.local.recorded_pipeline import options, size_text
from processor.model import Floats

NO_LABEL = -1


@dataclass(frozen=True, slots=True)
class Opening:
    """An alarm, as the bus brought it; `label` is the stretch that it lies in, or NO_LABEL."""

    start_ms: int
    end_ms: int
    label: int
    anomaly: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """One file's openings in order of time."""

    series: Recorded
    openings: tuple[Opening, ...]

    @property
    def labels(self) -> tuple[Stretch, ...]:
        return self.series.labels or ()

    @property
    def hit(self) -> set[int]:
        """Which of the labels an alarm was opened in."""
        return {one.label for one in self.openings} - {NO_LABEL}

    @property
    def outside(self) -> list[Opening]:
        """Openings in no label; of a file that nobody labelled all."""
        return [one for one in self.openings if one.label == NO_LABEL]

    @property
    def is_missed(self) -> bool:
        """Whether the file has labels, and nothing was found in any."""
        return bool(self.labels) and not self.hit


def judge(series: Sequence[Recorded], bodies: Iterable[bytes]) -> list[Found]:
    """What the bus brought, by file. A repeated event is one."""
    told: dict[str, dict[str, Any]] = {}
    for body in bodies:
        if b'"Anomaly Opened"' in body:
            detail = orjson.loads(body)["detail"]
            told[detail["id"]] = detail
    by_name: dict[str, list[dict[str, Any]]] = {one.name: [] for one in series}
    for detail in told.values():
        by_name[detail["key"]["series"]].append(detail)
    return [_found(one, by_name[one.name]) for one in series]


def _found(series: Recorded, details: Sequence[dict[str, Any]]) -> Found:
    openings = []
    for detail in details:
        start_ms, end_ms = detail["window"]["start"], detail["window"]["end"]
        inside = (
            i
            for i, (first, last) in enumerate(series.labels or ())
            if start_ms <= last and end_ms > first
        )
        openings.append(Opening(start_ms, end_ms, next(inside, NO_LABEL), detail["anomaly"]))
    return Found(series, tuple(sorted(openings, key=lambda one: one.start_ms)))


# ---- for people -----------------------------------------------------------------------------


def as_text(found: Sequence[Found]) -> Iterator[str]:
    """Lines: each file with its labels and openings, then the sum."""
    for one in found:
        series = one.series
        first, last = (_when(int(series.times_ms[i])) for i in (0, -1))
        yield (
            f"{_safe(series.name)}: {len(series.times_ms):,} records, {first} to {last} UTC, "
            f"windows of {size_text(series.size_ms)}"
        )
        for i, (from_ms, to_ms) in enumerate(one.labels):
            said = "found" if i in one.hit else "missed"
            yield f"  {said:<8} {_when(from_ms)} to {_when(to_ms)}, as labelled"
            yield from (_line(opening) for opening in one.openings if opening.label == i)
        if one.outside:
            where = "outside of the labels" if series.labels is not None else "openings; no labels"
            yield f"  {len(one.outside)} {where}"
            yield from map(_line, one.outside)
        yield ""
    yield summary(found)


def summary(found: Sequence[Found]) -> str:
    labelled = [one for one in found if one.series.labels is not None]
    openings = sum(len(one.openings) for one in found)
    if not labelled:
        return (
            f"{openings} alarms opened in {len(found)} files; there are no labels to compare with"
        )
    windows, hit = sum(len(one.labels) for one in labelled), sum(len(one.hit) for one in labelled)
    strange = [one for one in labelled if one.labels]
    files = sum(not one.is_missed for one in strange)
    outside = sum(len(one.outside) for one in labelled)
    return (
        f"found {hit} of {windows} labelled windows, in {files} of {len(strange)} files that have "
        f"any; {outside} of {openings} openings lie outside"
    )


def _line(opening: Opening) -> str:
    anomaly = opening.anomaly
    score = "–" if anomaly["score"] is None else f"{anomaly['score']:.2f}"
    return f"    {_when(opening.start_ms)}  score {score}  {anomaly['sentence']}"


def _when(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _safe(name: str) -> str:
    """A file's name may hold what a terminal would obey."""
    return "".join(one if one.isprintable() else "\ufffd" for one in name)


# ---- for machines ---------------------------------------------------------------------------


def as_json(found: Sequence[Found], level: str, sensitivity: str) -> dict[str, Any]:
    return {
        "level": level,
        "sensitivity": sensitivity,
        "records": sum(len(one.series.times_ms) for one in found),
        "labelled_windows": sum(len(one.labels) for one in found),
        "found": sum(len(one.hit) for one in found),
        "files_missed": [one.series.name for one in found if one.is_missed],
        "outside": sum(len(one.outside) for one in found if one.series.labels is not None),
        "openings": sum(len(one.openings) for one in found),
        "files": [_file_json(one) for one in found],
    }


def _file_json(found: Found) -> dict[str, Any]:
    series = found.series
    return {
        "file": series.name,
        "records": len(series.times_ms),
        "window": size_text(series.size_ms),
        "from": _iso(int(series.times_ms[0])),
        "to": _iso(int(series.times_ms[-1])),
        "is_labelled": series.labels is not None,
        "labels": [
            {"from": _iso(first), "to": _iso(last), "found": i in found.hit}
            for i, (first, last) in enumerate(found.labels)
        ],
        "outside": len(found.outside),
        "openings": [
            {
                "start": _iso(one.start_ms),
                "end": _iso(one.end_ms),
                "label": None if one.label == NO_LABEL else one.label,
                "anomaly": one.anomaly,
            }
            for one in found.openings
        ],
    }


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat().replace("+00:00", "Z")


# ---- charts ---------------------------------------------------------------------------------


def plot(found: Sequence[Found], folder: Path, level: str, sensitivity: str) -> Iterator[Path]:
    """A PNG a file, below `folder` under the file's own name."""
    for one in found:
        path = (folder / one.series.name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        series = _charted(one.series, level, sensitivity)
        alarms = [opening.start_ms for opening in one.openings]
        charts.save(charts.series_chart(series, alarms, one.labels), path)
        yield path


def _charted(series: Recorded, level: str, sensitivity: str) -> charts.Series:
    """The series by window, with the band that the detector tells of each: events hold only those
    of alarms. It is learnt here once more, from the same windows."""
    starts_ms, means, counts = _windows(series)
    detector = detectors.get("novelty")
    params = msgspec.convert(options(level, sensitivity), detector.params)
    state = Columns(detector.columns(params))
    state.ensure(1)
    rows = np.zeros(1, dtype=np.intp)
    band = np.full((3, len(means)), np.nan)
    for i, start_ms in enumerate(starts_ms.tolist()):
        end_ms = start_ms + series.size_ms
        wave = Wave(start_ms, end_ms, start_ms, means[i : i + 1], counts[i : i + 1])
        verdict = detector.judge(params, state.arrays, rows, wave)
        band[:, i] = verdict.expected[0], verdict.lower[0], verdict.upper[0]
    return charts.Series(series.name, starts_ms, means, *band)


def _windows(series: Recorded) -> tuple[Any, Floats, Any]:
    """Starts, means and counts of the windows that hold records."""
    windows = series.times_ms // series.size_ms
    starts, first, counts = np.unique(windows, return_index=True, return_counts=True)
    means = np.add.reduceat(series.values, first) / counts
    return starts * series.size_ms, means, counts.astype(np.int64)
