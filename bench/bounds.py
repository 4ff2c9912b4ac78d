"""`bounds`: an unbounded key can't fill the process.

Each case of `flood` in a process of its own, one after the other: a key of its own for every
record, at full speed. Memory is flat if in the second half of the time the process grew, at its
highest, by no more than the allocator's unrest. A leak of nothing but the keys' texts, 65 bytes,
would pass that within a second.

And what a process takes for 100,000 groups with four figures: all of them known, all windows
closed at once. Python's own account is shown beside what the system gave it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
from msgspec import Struct

from bench.flood import CASES, FOOTPRINT_KEYS, Flood, Footprint, Sample
from bench.harness import ROOT, Table, as_text, figure, machine, versions

NAME = "bounds"
SECONDS = 60.0  # all cases together; shorter, and tables are still growing to their size
UNREST_BYTES = 3_000_000  # a page's records and results are half of that, and come and go
FOOTPRINT_BYTES_MAX = 60_000_000
FOOTPRINTS: Mapping[str, tuple[str, ...]] = {
    "as the system tells": (),
    "as Python tells": ("--traced",),
    "with correlation ids": ("--samples",),
}


class Course(Struct, frozen=True):
    """How a case went; bytes a minute over the second half, by least squares."""

    records_per_cpu_s: float
    rss_bytes: int
    rss_grown_bytes: int
    rss_slope_bytes_per_min: float
    groups_max: int
    windows_open_max: int
    samples: list[Sample]


class Result(Struct, frozen=True):
    """What `--json` writes; `failures` is empty where everything is as promised."""

    benchmark: str
    seconds: float
    machine: Mapping[str, object]
    versions: Mapping[str, str]
    courses: Mapping[str, Course]
    footprints: Mapping[str, Footprint]
    footprint_keys: int
    failures: Sequence[str]


def run(seconds: float = SECONDS) -> Result:
    each = seconds / len(CASES)
    courses = {name: course(_flood(name, each)) for name in CASES}
    footprints = {name: _footprint(arguments) for name, arguments in FOOTPRINTS.items()}
    return Result(
        NAME,
        seconds,
        machine(),
        versions(),
        courses,
        footprints,
        FOOTPRINT_KEYS,
        failures(courses, footprints),
    )


def course(flood: Flood) -> Course:
    """What its samples tell."""
    at_s, rss = (
        np.array([getattr(sample, name) for sample in flood.samples], dtype=np.float64)
        for name in ("at_s", "rss_bytes")
    )
    quarter = len(rss) // 4
    half = 2 * quarter
    slope, _ = np.polyfit(at_s[half:], rss[half:], 1)
    return Course(
        flood.samples[-1].records / flood.cpu_s,
        int(rss[-1]),
        int(rss[half + quarter :].max() - rss[quarter:half].max()),
        float(slope) * 60,
        max(sample.groups for sample in flood.samples),
        max(sample.windows_open for sample in flood.samples),
        flood.samples,
    )


def failures(courses: Mapping[str, Course], footprints: Mapping[str, Footprint]) -> Sequence[str]:
    """What is not as promised."""
    found = [
        f"{name}: grew by {_mb(each.rss_grown_bytes)} MB in the second half"
        for name, each in courses.items()
        if each.rss_grown_bytes > UNREST_BYTES
    ]
    footprint = footprints["as the system tells"]
    if footprint.rss_bytes > FOOTPRINT_BYTES_MAX:
        found.append(f"{FOOTPRINT_KEYS:,} groups took {_mb(footprint.rss_bytes)} MB")
    return found


def to_json(result: Result) -> bytes:
    return msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n"


def to_text(result: Result) -> str:
    header = ["", "records/CPU s", "MB", "grown MB", "MB/min", "groups", "open windows"]
    rows = [
        [
            name,
            figure(each.records_per_cpu_s),
            _mb(each.rss_bytes),
            _mb(each.rss_grown_bytes),
            _mb(each.rss_slope_bytes_per_min),
            f"{each.groups_max:,}",
            f"{each.windows_open_max:,}",
        ]
        for name, each in result.courses.items()
    ]
    flat = Table(f"a key that is never the same, {result.seconds:.0f} s in all", header, rows)
    footprints = [
        [
            name,
            *(
                _mb(size) if size else "–"
                for size in (
                    each.rss_bytes,
                    each.rss_max_bytes,
                    each.traced_bytes,
                    each.traced_max_bytes,
                )
            ),
        ]
        for name, each in result.footprints.items()
    ]
    title = f"growth in MB for {result.footprint_keys:,} groups of four figures (bound: 60 at most)"
    held = Table(title, ["", "RSS", "at most", "traced", "at most"], footprints)
    said = [f"FAILED: {failure}" for failure in result.failures] or [f"{NAME}: all flat"]
    return "\n".join([as_text(flat), "", as_text(held), "", *said])


def _mb(size: float) -> str:
    return f"{size / 1e6:.1f}"


def _flood(name: str, seconds: float) -> Flood:
    return msgspec.json.decode(_child(name, str(seconds)), type=Flood)


def _footprint(arguments: Sequence[str]) -> Footprint:
    return msgspec.json.decode(_child("footprint", *arguments), type=Footprint)


def _child(*arguments: str) -> bytes:
    """Its own process: what another case left in memory does not show."""
    command = (sys.executable, "-m", "bench.flood", *arguments)
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout
