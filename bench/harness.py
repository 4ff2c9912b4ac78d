"""What benchmarks share: interleaved repeats, median and spread, machine facts, table and JSON."""

from __future__ import annotations

import gc
import os
import platform
import subprocess
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from msgspec import Struct, field

ROOT = Path(__file__).parents[1]
PACKAGES = ("aiobotocore", "aiohttp", "msgspec", "numpy", "orjson", "processor", "uvloop")


class Options(Struct, frozen=True):
    """How to run: `is_quick` is the smallest size, which shows that it works and little more."""

    is_quick: bool = False
    seed: int = 1


class Measure(Struct, frozen=True):
    """One figure, measured several times."""

    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return median(self.samples)

    @property
    def spread(self) -> float:
        """From the lowest to the highest sample, relative to the median."""
        return (max(self.samples) - min(self.samples)) / self.median if self.median else 0.0

    def __str__(self) -> str:
        return f"{figure(self.median)} {self.unit} ± {self.spread / 2:.0%}"


class Table(Struct, frozen=True):
    """For people; the first column is text, the others are figures."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


class Report(Struct, frozen=True):
    """What a benchmark found. `ratio`: ours to the plain way; above 1 ours is faster."""

    benchmark: str
    ratio: Measure
    parameters: Mapping[str, Any]
    measures: Mapping[str, Measure]
    tables: Sequence[Table]
    # Further figures at the JSON's top level, by a name that a script can rely on.
    figures: Mapping[str, Any] = field(default_factory=dict)


def interleaved(
    runs: Mapping[str, Callable[[], Mapping[str, float]]], repeats: int
) -> dict[str, list[Mapping[str, float]]]:
    """Each run's figures, `repeats` times in turn after one round of warm-up.

    In turn, since a machine's speed drifts: what is compared must be measured side by side.
    """
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in runs}
    for round_ in range(repeats + 1):
        for name, run in runs.items():
            gc.collect()
            figures = run()
            if round_:
                found[name].append(figures)
    return found


def ratios(plain: Sequence[float], ours: Sequence[float]) -> Measure:
    """Of costs, round by round: how many times cheaper ours is."""
    return Measure("×", tuple(p / o for p, o in zip(plain, ours, strict=True)))


def machine() -> dict[str, Any]:
    """The facts without which a figure means nothing."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None,
        "load_1m": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def versions() -> dict[str, str]:
    return {name: version(name) for name in PACKAGES}


def to_json(report: Report, options: Options) -> bytes:
    """`ratio` and the named figures stand at top level; every measure with its samples."""
    found = dict(report.figures) | {
        "benchmark": report.benchmark,
        "ratio": report.ratio.median,
        "ratio_spread": report.ratio.spread,
        "is_quick": options.is_quick,
        "seed": options.seed,
        "parameters": report.parameters,
        "machine": machine(),
        "versions": versions(),
        "measures": {name: _in_json(measure) for name, measure in report.measures.items()},
    }
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


def to_text(report: Report) -> str:
    parts = [as_text(table) for table in report.tables]
    named = [
        f"{report.benchmark}: {name} {figure(value)}"
        for name, value in report.figures.items()
        if isinstance(value, int | float)
    ]
    last = "\n".join([*named, f"{report.benchmark}: ratio {report.ratio}"])
    return "\n\n".join([*parts, last])


def figure(value: float) -> str:
    """Three digits that count.

    >>> figure(2.4681), figure(0.0312), figure(487_000.3)
    ('2.47', '0.031', '487,000')
    """
    return f"{value:,.0f}" if value >= 100 else f"{value:.{2 if value >= 0.1 else 3}f}"


def _in_json(measure: Measure) -> dict[str, Any]:
    return {
        "unit": measure.unit,
        "median": measure.median,
        "spread": measure.spread,
        "samples": measure.samples,
    }


def as_text(table: Table) -> str:
    """Its columns aligned."""
    lines = [table.header, *table.rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([table.title, *(f"  {row}" for row in rows)])


def _cpu_model() -> str:
    """As Linux names it; elsewhere what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _commit() -> str | None:
    """The commit, with a + where files differ from it; None without git or a checkout."""
    try:
        done = subprocess.run(
            ("git", "describe", "--always", "--dirty=+"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError:
        return None
    return done.stdout.strip() or None
