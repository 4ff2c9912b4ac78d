"""`processor tune`: what each detector would have raised on a recording, at each sensitivity.

Nothing is sent and nothing is written but the page that `--html` names.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from processor import charts, history
from processor.cli import Parser, load_pipeline, write_json
from processor.errors import ProcessorError, UsageError
from processor.history import Recording
from processor.tuning import drawing, page
from processor.tuning.trying import Outcome, Result, attempt, suggestion

CHARTS, CHARTS_MAX = 24, 200  # a chart has some 100 kB: a page of 20 MB is what browsers bear
PER_DAY = 5.0  # alarms a detector that one person still reads


def add_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--from",
        dest="sources",
        metavar="CAPTURE",
        nargs="+",
        required=True,
        help="recordings: files, folders, globs, s3://bucket/prefix; one JSON event a line",
    )
    parser.add_argument("--html", type=Path, metavar="OUT.html", help="write a page with charts")
    parser.add_argument(
        "--charts",
        type=_charts,
        default=CHARTS,
        metavar="N",
        help=f"of how many series, at most ({CHARTS})",
    )
    parser.add_argument(
        "--per-day",
        type=_rate,
        default=PER_DAY,
        metavar="N",
        help=f"how many alarms a detector and day are welcome ({PER_DAY:g})",
    )


def _charts(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text[:6]) > CHARTS_MAX:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected 0 to {CHARTS_MAX}")
    return int(text)


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= 1e9:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected alarms a day, such as 5")
    return rate


def tune(args: argparse.Namespace) -> int:
    """0. Raises ConfigError, and UsageError where there is nothing to try or to read."""
    pipeline = load_pipeline(args)
    if not any(rule.detect for rule in pipeline.rules):
        raise UsageError("no rule has a detector: there is nothing to tune")
    if args.html is not None:
        charts.require()  # not after minutes of work
    now_ms = round(time.time() * 1000)
    region = pipeline.source.region
    recorded = history.read(args.sources, pipeline.event, region=region, now_ms=now_ms)
    outcome = attempt(pipeline, recorded)
    _tell_bad(recorded)
    if not outcome.records:
        raise UsageError(f"--from {' '.join(args.sources)}: no record in it")
    if args.html is not None:
        drawn = drawing.chosen(outcome.results, args.charts)
        drawing.read(pipeline, recorded, drawn)
        _write(args.html, page.page(pipeline.app, outcome, drawn, args.per_day))
    if args.output == "json":
        write_json(_as_json(outcome, args.per_day))
    else:
        _print(outcome, args.per_day)
    return 0


def _tell_bad(recorded: Recording) -> None:
    for bad in recorded.bad:
        sys.stderr.write(f"left out: {bad}\n")
    if recorded.bad_lines > len(recorded.bad):
        sys.stderr.write(f"left out: {recorded.bad_lines:,} lines in all\n")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ProcessorError(f"--html {path}: {error}") from None
    sys.stderr.write(f"page: {path}\n")


def _print(outcome: Outcome, per_day: float) -> None:
    sys.stdout.write(f"{outcome.records:,} records, {outcome.days:.1f} days\n")
    for result in outcome.results:
        spec = result.detect
        sys.stdout.write(f"\n{result.rule.name}: {spec.name} of {spec.aggregate}\n")
        for one in result.tried:
            sys.stdout.write(
                f"  {one.rung.name:<16} threshold {one.rung.threshold:<8.3g} "
                f"{one.total:>7,} openings, {one.total / outcome.days:>9.2f} a day, "
                f"{len(one.by_key):>6,} series\n"
            )
        if result.note:
            sys.stdout.write(f"  {result.note}\n")
        sys.stdout.write(f"  {suggestion(result, outcome.days, per_day)}\n")


def _as_json(outcome: Outcome, per_day: float) -> dict[str, Any]:
    return {
        "records": outcome.records,
        "days": outcome.days,
        "detectors": [_detector_json(one, outcome.days, per_day) for one in outcome.results],
    }


def _detector_json(result: Result, days: float, per_day: float) -> dict[str, Any]:
    spec = result.detect
    return {
        "rule": result.rule.name,
        "detector": spec.name,
        "kind": spec.kind,
        "aggregate": spec.aggregate,
        "note": result.note or None,
        "suggestion": suggestion(result, days, per_day),
        "settings": [
            {
                "setting": one.rung.name,
                "threshold": one.rung.threshold,
                "openings": one.total,
                "per_day": one.total / days,
                "by_day": {page.day_text(day): n for day, n in sorted(one.by_day.items())},
                "by_series": dict(one.by_key.most_common(page.KEYS_SHOWN)),
                "series": len(one.by_key),
            }
            for one in result.tried
        ],
    }
