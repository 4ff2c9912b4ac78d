"""Recorded series: files of `timestamp,value`, and stretches that somebody labelled in them.

    DIR/nyc_taxi.csv                          a folder of files, nested ones included
    DIR/data/realKnownCause/nyc_taxi.csv      … or of a corpus with its labels beside `data`,
    DIR/labels/combined_windows.json          as NAB's (https://github.com/numenta/NAB)

Labels are a JSON object: a file's path below `data` → a list of pairs of timestamps. They are
looked for beside `data`, also where DIR is a part of it. Times without a zone are UTC.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from processor.errors import UsageError
from processor.model import Floats, Ints

FILES_MAX = 1_000  # a shard of four then has 250 series
RECORDS_MAX = 1_000_000  # of all files: four shards take 4,000 a second, so some four minutes
VALUE_MAX = 1e30  # beyond, detectors take no value for one
LABELS = Path("labels", "combined_windows.json")
TIMESTAMP, VALUE = "timestamp", "value"
SECOND_MS, MINUTE_MS, HOUR_MS, DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000
# Windows that a person would choose, all parts of a day or days. A series takes the smallest that
# holds a record as a rule.
SIZES_MS = (
    *(n * SECOND_MS for n in (1, 2, 5, 10, 15, 20, 30)),
    *(n * MINUTE_MS for n in (1, 2, 3, 5, 10, 15, 20, 30)),
    *(n * HOUR_MS for n in (1, 2, 3, 4, 6, 8, 12)),
    *(n * DAY_MS for n in (1, 7)),
)
STEP_ROOM = 0.99  # a step may be so much of a window: clocks that sample each 5 min run a bit late
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)

Stretch = tuple[int, int]  # from, to; both inside


@dataclass(frozen=True, slots=True)
class Recorded:
    """One file, in order of time; of equal times in order of lines. `name`: its path below DIR.

    `labels` is None where nobody labelled the file; an empty list says that nothing is strange.
    """

    name: str
    times_ms: Ints
    values: Floats
    labels: tuple[Stretch, ...] | None = None

    @property
    def size_ms(self) -> int:
        """Of its windows."""
        steps = np.diff(self.times_ms)
        usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else SIZES_MS[0]
        return next((size for size in SIZES_MS if size >= usual * STEP_ROOM), SIZES_MS[-1])


def read(folder: Path, labels: Path | None, now_ms: int) -> list[Recorded]:
    """All series in order of their names. Raises UsageError that names file, line and value."""
    root = folder / "data" if (folder / "data").is_dir() else folder
    paths = _files(root)
    labels = labels or _labels_of(root)
    known = {} if labels is None else _read_labels(labels)
    out: list[Recorded] = []
    records = 0
    for path in paths:
        times_ms, values = _series(path, now_ms)
        records += len(times_ms)
        if records > RECORDS_MAX:
            raise UsageError(
                f"--data {folder}: more than {RECORDS_MAX:,} records up to {path}; give fewer files"
            )
        name = path.relative_to(root).as_posix() if path != root else path.name
        out.append(Recorded(name, times_ms, values, _of_file(known, path)))
    if known and all(one.labels is None for one in out):
        raise UsageError(
            f"{labels}: names none of the files in {root}; its first: {next(iter(known))!r}"
        )
    return out


def _files(root: Path) -> list[Path]:
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise UsageError(f"--data {root}: no such folder")
    found = sorted(path for path in root.rglob("*.csv") if path.is_file())
    if not found:
        raise UsageError(f"--data {root}: no .csv file in it; expected files of timestamp,value")
    if len(found) > FILES_MAX:
        raise UsageError(
            f"--data {root}: {len(found):,} files; give a folder of up to {FILES_MAX:,}"
        )
    return found


# ---- a file ---------------------------------------------------------------------------------


def _series(path: Path, now_ms: int) -> tuple[Ints, Floats]:
    rows = list(_rows(path, now_ms))
    if not rows:
        raise UsageError(f"{path}: no rows of timestamp,value in it")
    times_ms = np.array([time_ms for time_ms, _ in rows], dtype=np.int64)
    order = np.argsort(times_ms, kind="stable")
    return times_ms[order], np.array([value for _, value in rows], dtype=np.float64)[order]


def _rows(path: Path, now_ms: int) -> Iterator[tuple[int, float]]:
    columns = (0, 1)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if reader.line_num == 1 and _is_header(row):
                    columns = _columns(row, where)
                elif any(cell.strip() for cell in row):
                    yield _row(row, columns, where, now_ms)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path}: can't be read as CSV in UTF-8: {error}") from None


def _is_header(row: Sequence[str]) -> bool:
    """A first line without any number or time; data without a header are taken as they come."""
    return all(_time_ms(cell) is None and _number(cell) is None for cell in row) and bool(row)


def _columns(header: Sequence[str], where: str) -> tuple[int, int]:
    names = [cell.strip().lower() for cell in header]
    for name in (TIMESTAMP, VALUE):
        if names.count(name) != 1:
            raise UsageError(f"{where}: found the columns {header}, expected {TIMESTAMP},{VALUE}")
    return names.index(TIMESTAMP), names.index(VALUE)


def _row(
    row: Sequence[str], columns: tuple[int, int], where: str, now_ms: int
) -> tuple[int, float]:
    if len(row) <= max(columns):
        raise UsageError(f"{where}: found {','.join(row)[:80]!r}, expected {TIMESTAMP},{VALUE}")
    time, number = row[columns[0]], row[columns[1]]
    time_ms, value = _time_ms(time), _number(number)
    if time_ms is None:
        raise UsageError(
            f"{where}: {TIMESTAMP}: found {time[:80]!r}, expected a time as 2014-07-01 00:30:00"
        )
    if time_ms > now_ms:
        raise UsageError(f"{where}: {TIMESTAMP}: found {time!r}, which is yet to come")
    if value is None or not abs(value) <= VALUE_MAX:
        raise UsageError(f"{where}: {VALUE}: found {number[:80]!r}, expected a number up to 1e30")
    return time_ms, value


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _time_ms(text: str) -> int | None:
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    return (time - _EPOCH) // _MS


# ---- labels ---------------------------------------------------------------------------------


def _labels_of(root: Path) -> Path | None:
    """Those of the nearest folder that holds `data`, or of the given one itself."""
    for folder in (root.resolve(), *root.resolve().parents):
        if (folder / LABELS).is_file():
            return folder / LABELS
        if folder.name == "data":
            return found if (found := folder.parent / LABELS).is_file() else None
    return None


def _read_labels(path: Path) -> dict[str, tuple[Stretch, ...]]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: can't be read as JSON: {error}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: found {type(tree).__name__}, expected an object of files")
    return {name: tuple(_stretches(path, name, value)) for name, value in tree.items()}


def _stretches(path: Path, name: str, value: Any) -> Iterator[Stretch]:
    for one in value if isinstance(value, list) else [value]:
        ends = [_time_ms(end) for end in one if isinstance(end, str)] if _is_pair(one) else []
        match ends:
            case [int(first), int(last)] if first <= last:
                yield first, last
            case _:
                found = json.dumps(one)[:80]
                raise UsageError(f"{path}: {name}: found {found}, expected pairs of timestamps")


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def _of_file(known: Mapping[str, tuple[Stretch, ...]], path: Path) -> tuple[Stretch, ...] | None:
    """By the longest end of the file's path that the labels name."""
    parts = path.resolve().parts
    names = ("/".join(parts[i:]) for i in range(1, len(parts)))
    return next((known[name] for name in names if name in known), None)
