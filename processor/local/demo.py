"""The demo: the whole service on this machine, a fortnight in a minute, and its own check.

Order: stand-ins (Kinesis; DynamoDB, EventBridge and SQS), stream, table, bus, queues → two real
worker processes → traffic, while a receiver empties the queues → a flush record a shard → wait
until all is processed and received → stop the workers → compare with what was sent → report.

Ctrl-C during the traffic ends it early and the check runs on what was sent; see `interrupts`.
With `--data` recorded series take the place of the traffic: see `recorded_demo`.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from processor.errors import UsageError
from processor.local import check, recorded_demo
from processor.local.changes import Wanted
from processor.local.emulator import interpreter
from processor.local.interrupts import Interrupted, Interrupts
from processor.local.phases import Phases
from processor.local.stage import Stage
from processor.local.traffic import fortnight_end_ms, plan_traffic
from processor.local.view import make_view
from processor.local.workers import Fleet

WORKERS, SEED = 2, 1
DURATION_S, DURATION_MIN_S, DURATION_MAX_S = 60.0, 5.0, 600.0  # 1.2 million records held in memory


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    seed: int
    duration_s: float
    wanted: Wanted
    as_json: bool


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The demo's own arguments; `--output` is global."""
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the traffic (default {SEED})")
    parser.add_argument(
        "--duration", type=float, default=DURATION_S, metavar="SECONDS", help="default 60"
    )
    parser.add_argument(
        "--kill", action="store_true", help="kill one worker at 25 s of 60, and start another"
    )
    parser.add_argument(
        "--reshard", action="store_true", help="split two shards from 12 s on, merge two halves"
    )
    parser.add_argument(
        "--deploy", action="store_true", help="replace the workers one by one from 35 s on"
    )
    recorded_demo.add_arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Run the demo; the exit code. Raises ProcessorError for what kept it from being run."""
    if args.data is not None:
        return recorded_demo.main(_of_data(args))
    _refuse(args, ("plot", "labels", "level", "sensitivity"), "goes with --data")
    wanted = Wanted(kill=args.kill, reshard=args.reshard, deploy=args.deploy)
    options = Options(args.seed, args.duration, wanted, args.output == "json")
    if not DURATION_MIN_S <= options.duration_s <= DURATION_MAX_S:
        raise UsageError(
            f"--duration {options.duration_s:g}: give {DURATION_MIN_S:g} to {DURATION_MAX_S:g} s"
        )
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: give a whole number from 0 on")
    interpreter()  # before anything is begun: without the emulator there is no demo
    folder = Path(tempfile.mkdtemp(prefix="processor-demo-"))
    try:
        outcome = asyncio.run(_Demo(options, folder).run())
    except Interrupted:
        shutil.rmtree(folder)
        raise
    except BaseException:
        sys.stderr.write(f"logs of all processes: {folder}\n")
        raise
    _print(outcome, options)
    if outcome.failures:
        sys.stderr.write(f"logs of all processes: {folder}\n")
        return 1
    shutil.rmtree(folder)
    return 0


def _of_data(args: argparse.Namespace) -> argparse.Namespace:
    """The rest is about made-up traffic."""
    _refuse(args, ("kill", "reshard", "deploy"), "does not go with --data")
    if args.duration != DURATION_S or args.seed != SEED:
        raise UsageError(
            "--seed and --duration do not go with --data: it is replayed at full speed"
        )
    return args


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(args, name):
            raise UsageError(f"--{name} {why}; see `processor demo --help`")


def _print(outcome: check.Outcome, options: Options) -> None:
    for note in outcome.notes:
        sys.stderr.write(f"note: {note}\n")
    for failure in outcome.failures:
        sys.stderr.write(f"FAILED: {failure}\n")
    if options.as_json:
        sys.stdout.write(orjson.dumps(outcome.report).decode() + "\n")
    else:
        width = max(map(len, outcome.report))
        for name, value in outcome.report.items():
            sys.stdout.write(f"{name:<{width}}  {value}\n")
        sys.stdout.write("all checks passed\n" if not outcome.failures else "checks failed\n")
    sys.stdout.flush()


class _Demo:
    """One run. Its parts are made as the run comes to them; `kill_now` ends those that are."""

    def __init__(self, options: Options, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._view = make_view(not options.as_json)
        self._stage = Stage(folder)
        self._fleet: Fleet | None = None

    def kill_now(self) -> None:
        """End every process without waiting, and leave nothing behind."""
        if self._fleet is not None:
            self._fleet.kill_now()
        self._stage.kill_now()
        self._view.__exit__(None, None, None)
        shutil.rmtree(self._folder, ignore_errors=True)

    async def run(self) -> check.Outcome:
        """Everything in order; on the way out, what was started last is stopped first."""
        options, view = self._options, self._view
        async with AsyncExitStack() as stack:
            interrupts = stack.enter_context(Interrupts(self.kill_now))
            stack.enter_context(view)
            view.say(f"planning a fortnight of traffic, seed {options.seed}")
            end_ms = fortnight_end_ms(round(time.time() * 1000))
            plan = await asyncio.to_thread(plan_traffic, options.seed, end_ms, options.duration_s)
            view.say("starting Kinesis, DynamoDB, EventBridge and SQS on loopback")
            await stack.enter_async_context(self._stage)
            view.say(f"starting {WORKERS} workers")
            self._fleet = Fleet(self._stage.worker_environment, self._folder)
            stack.push_async_callback(self._fleet.stop)
            phases = Phases(plan, self._stage, self._fleet, view)
            for _ in range(WORKERS):
                await self._fleet.start()
            await phases.perform(
                WORKERS,
                lambda changes: changes.perform(options.wanted, options.duration_s),
                lambda runs: interrupts.allow(phases.producer.stop, runs),
            )
            run = phases.run()
            view.say("stopping the workers")
            faults = phases.faults + await self._fleet.stop()
            outcome = check.judge(run)
            return replace(outcome, failures=outcome.failures + faults)
