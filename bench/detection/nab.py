"""Reads the Numenta Anomaly Benchmark from a folder, whole or any part of it.

The layout is NAB's own: `data/<category>/<file>.csv` with a timestamp and a value a line, and
`labels/combined_windows.json` with the windows in which an anomaly counts as found.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from processor.errors import UsageError
from processor.model import Floats, Ints

PROBATION_SHARE = 0.15  # of a file's points nobody is judged on …
PROBATION_MAX = 750  # … and at most of 5,000 points


class File(NamedTuple):
    """One series of n points with its labels."""

    name: str  # category/file.csv
    times_ms: Ints  # int64[n], as written; they have no zone, so they count as local
    values: Floats  # float64[n]
    windows: tuple[tuple[int, int], ...]  # first and last point of each

    @property
    def step_ms(self) -> int:
        """The usual distance of two points; the size of a window, as a rule would have it."""
        steps, counts = np.unique(np.diff(self.times_ms), return_counts=True)
        usual = int(steps[counts.argmax()]) if len(steps) else 0
        return usual if usual > 0 else 300_000

    @property
    def probation(self) -> int:
        """So many points at the start are not scored."""
        return min(int(PROBATION_SHARE * len(self.values)), PROBATION_MAX)


def load(folder: Path) -> list[File]:
    """All files there are, sorted by name; labels of absent files are ignored.

    Raises UsageError where there is no data, no label for a file, or a label without its point.
    """
    labels_path = folder / "labels" / "combined_windows.json"
    paths = sorted((folder / "data").glob("*/*.csv"))
    if not paths:
        raise UsageError(f"{folder}: no files data/<category>/<file>.csv there; give NAB's folder")
    try:
        labels = json.loads(labels_path.read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(f"{labels_path}: {error}; NAB's windows are needed to score") from error
    return [_file(path, labels, labels_path) for path in paths]


def _file(path: Path, labels: dict[str, Sequence[tuple[str, str]]], labels_path: Path) -> File:
    name = f"{path.parent.name}/{path.name}"
    if name not in labels:
        raise UsageError(f"{labels_path}: no windows for {name}; write an empty list for none")
    with path.open(newline="") as lines:
        rows = [row for row in csv.reader(lines) if row][1:]
    try:
        times = np.array([_ms(row[0]) for row in rows], dtype=np.int64)
        values = np.array([float(row[1]) for row in rows])
    except (IndexError, ValueError) as error:
        raise UsageError(f"{path}: {error}; a line is timestamp,value") from error
    try:
        windows = tuple((_at(times, first), _at(times, last)) for first, last in labels[name])
    except ValueError as error:
        raise UsageError(f"{labels_path}: {name}: {error}") from error
    return File(name, times, values, windows)


def _at(times_ms: Ints, text: str) -> int:
    found = np.flatnonzero(times_ms == _ms(text))
    if not len(found):
        raise ValueError(f"a window's limit {text} is no point of the file")
    return int(found[0])  # as NAB takes it, where a time comes twice


def _ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)
