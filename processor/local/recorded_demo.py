"""`processor demo --data`: recorded series through the whole service, compared with their labels.

Order: read and check all files → stand-ins, stream, table, bus, queues → two real workers → all
records as one stream in order of event time, at full speed → wait until all is processed and
received → stop the workers → report, and charts.

Exit code 1: a file has labelled windows and no alarm was opened in any, or something went wrong on
the way. A single label that is missed is told, and so is an alarm outside of all: neither fails the
run, for labels are opinions.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import orjson

from processor import charts
from processor.errors import ProcessorError, UsageError
from processor.local import recorded, recorded_report
from processor.local.emulator import interpreter
from processor.local.interrupts import Interrupted, Interrupts
from processor.local.recorded import Recorded
from processor.local.recorded_pipeline import LEVELS, REPLAY, SENSITIVITIES, pipeline_text
from processor.local.recorded_replay import Replay
from processor.local.stage import Stage
from processor.local.view import PlainView
from processor.local.workers import Fleet

WORKERS = 2
# All that the detector offers, for recorded series are few. Medium: on recordings that were at hand
# `high` doubles the alarms outside of labels and finds hardly more, `low` misses half of the files.
LEVEL, SENSITIVITY = "full", "medium"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the service told, and what was wrong with how it ran."""

    bodies: list[bytes]
    faults: list[str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recorded series instead of made-up traffic")
    group.add_argument(
        "--data", type=Path, metavar="DIR", help="files of timestamp,value, as NAB's, to replay"
    )
    group.add_argument("--plot", type=Path, metavar="DIR", help="write a chart of each file there")
    group.add_argument(
        "--labels", type=Path, metavar="FILE", help="default: labels/combined_windows.json by DIR"
    )
    group.add_argument("--level", choices=LEVELS, help=f"of the detector (default {LEVEL})")
    group.add_argument("--sensitivity", choices=SENSITIVITIES, help=f"default {SENSITIVITY}")


def main(args: argparse.Namespace) -> int:
    """Replay and compare; the exit code. Raises ProcessorError for what kept it from being run."""
    level, sensitivity = args.level or LEVEL, args.sensitivity or SENSITIVITY
    now_ms = round(time.time() * 1000)
    series = recorded.read(args.data, args.labels, now_ms)
    _check_plot(args.plot)
    interpreter()  # before anything is begun: without the emulator there is no demo
    folder = Path(tempfile.mkdtemp(prefix="processor-demo-"))
    try:
        text = pipeline_text((one.size_ms for one in series), level, sensitivity)
        outcome = asyncio.run(_Demo(series, text, folder, now_ms).run())
    except Interrupted:
        shutil.rmtree(folder)
        raise
    except BaseException:
        sys.stderr.write(f"logs of all processes: {folder}\n")
        raise
    found = recorded_report.judge(series, outcome.bodies)
    if args.output == "json":
        report = recorded_report.as_json(found, level, sensitivity)
        sys.stdout.write(orjson.dumps(report).decode() + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in recorded_report.as_text(found))
    if args.plot is not None:
        _plot(found, args.plot, level, sensitivity)
    for fault in outcome.faults:
        sys.stderr.write(f"FAILED: {fault}\n")
    if outcome.faults:
        sys.stderr.write(f"logs of all processes: {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 1 if any(one.is_missed for one in found) else 0


def _check_plot(folder: Path | None) -> None:
    """Minutes before the charts are drawn, whether they can be."""
    if folder is None:
        return
    charts.require()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--plot {folder}: no folder can be made there: {error}") from None


def _plot(found: list[recorded_report.Found], folder: Path, level: str, sensitivity: str) -> None:
    try:
        for path in recorded_report.plot(found, folder, level, sensitivity):
            sys.stderr.write(f"chart: {path}\n")
    except OSError as error:
        raise ProcessorError(f"--plot {folder}: {error}") from None


class _Demo:
    """One run. Its parts are made as the run comes to them; `kill_now` ends those that are."""

    def __init__(self, series: list[Recorded], pipeline: str, folder: Path, now_ms: int) -> None:
        self._series, self._folder, self._now_ms = series, folder, now_ms
        self._pipeline = folder / "replay.yaml"
        self._pipeline.write_text(pipeline)
        self._view = PlainView()
        self._stage = Stage(folder, names=REPLAY)
        self._fleet: Fleet | None = None

    def kill_now(self) -> None:
        """End every process without waiting, and leave nothing behind."""
        if self._fleet is not None:
            self._fleet.kill_now()
        self._stage.kill_now()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def run(self) -> Outcome:
        """Everything in order; on the way out, what was started last is stopped first."""
        records = sum(len(one.times_ms) for one in self._series)
        async with AsyncExitStack() as stack:
            stack.enter_context(Interrupts(self.kill_now))
            self._view.say(f"replaying {records:,} records of {len(self._series)} files")
            self._view.say("starting Kinesis, DynamoDB, EventBridge and SQS on loopback")
            await stack.enter_async_context(self._stage)
            self._view.say(f"starting {WORKERS} workers")
            environment = self._stage.worker_environment
            self._fleet = fleet = Fleet(environment, self._folder, self._pipeline)
            stack.push_async_callback(fleet.stop)
            for _ in range(WORKERS):
                await fleet.start()
            replay = Replay(self._series, self._stage, fleet, self._view, self._now_ms)
            await replay.perform()
            faults = self._faults(replay, fleet, records)
            self._view.say("stopping the workers")
            return Outcome(replay.bodies, faults + await fleet.stop())

    def _faults(self, replay: Replay, fleet: Fleet, records: int) -> list[str]:
        late, letters = fleet.total("late"), len(replay.letters)
        return [
            text
            for is_wrong, text in (
                (late > 0, f"{late} of {records:,} records came late"),
                (letters > 0, f"{letters} records went to the dead letters"),
                (
                    len(replay.bodies) < fleet.published(),
                    f"{len(replay.bodies)} of {fleet.published()} events were received",
                ),
            )
            if is_wrong
        ]
