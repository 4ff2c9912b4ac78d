"""`processor warm`: learns from history into the first checkpoint, before any worker runs.

Progress goes to stderr; what was learnt, by rule, to stdout.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from msgspec import Struct, to_builtins

from processor import app
from processor.app import WarmTools
from processor.cli import Parser, load_pipeline, write_json
from processor.cli_leases import say, write_table
from processor.core.leases import firsts, seeking
from processor.core.leases.rows import ShardRow
from processor.core.rules import Learnt
from processor.errors import UsageError
from processor.history import recording, warming
from processor.history.learning import Learning, silent
from processor.history.recording import Bad, Recording
from processor.model import Pipeline
from processor.runtime.reliving import Relived, Reliving

DAY_MS = 86_400_000
SHOWN_S = 5.0  # between two lines of progress
LATE_SHARE_MAX = 0.01  # more late records than that are worth a warning

Told = Learning | Relived
T = TypeVar("T")

ABOUT = """\
Give each shard of the stream a state that history has taught, so that an alert is useful on the
first day. Nothing is told of history: no events, no dead letters. Run it before the first worker;
it is refused (75) while one lives, and where there is a state already.

--from         reads recordings: one JSON event a line, or one envelope
               {"partition_key": …, "arrival": …, "data": …}; plain, gzip or zstd; in order of time.
               What detectors learnt is kept. Windows and event ids are not; the stream is read from
               source.start, and its first windows are partial, as those of any new rule.
--stream-from  reads the stream itself, from that time up to now. Everything is kept, open windows
               too, and workers go on after the last record that was read.
"""


class Summary(Struct, frozen=True):
    """What a warm start did."""

    app: str
    records: int
    seconds: float
    records_per_s: int
    shards: int
    state_bytes: int
    bad_lines: int
    rejected: int
    late: int
    duplicates: int
    unplaced: int
    left_to_stream: int
    rules: list[dict[str, Any]]
    warnings: list[str]


def add_arguments(parser: Parser) -> None:
    parser.description, parser.formatter_class = ABOUT, argparse.RawDescriptionHelpFormatter
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--from",
        dest="paths",
        metavar="FILES",
        nargs="+",
        help="files, folders, globs, s3://bucket/prefix; read in this order",
    )
    which.add_argument("--stream-from", metavar="TIME", help=seeking.STARTS)


def warm(args: argparse.Namespace) -> int:
    pipeline = load_pipeline(args)
    if not any(rule.detect for rule in pipeline.rules):
        raise UsageError("no rule has a detector: there is nothing to learn from history")
    if args.stream_from is not None:
        seeking.initial(args.stream_from, seeking.ANY_DATE_MS)
        summary = _with_tools(pipeline, lambda tools: from_stream(tools, args.stream_from))
    else:
        summary = _from_files(pipeline, args.paths)
    _show(args, summary)
    return 0


def _with_tools(pipeline: Pipeline, do: Callable[[WarmTools], Any]) -> Any:
    async def main() -> Any:
        async with app.open_warming(pipeline, say) as tools:
            return await do(tools)

    return asyncio.run(main())


# ---- from files -------------------------------------------------------------------------------


def _from_files(pipeline: Pipeline, paths: list[str]) -> Summary:
    """Learning has no event loop, for recordings in S3 have one of their own."""
    region = pipeline.source.region
    now_ms = time.time_ns() // 1_000_000
    found = recording.read(paths, pipeline.event, region=region, now_ms=now_ms, on_bad=_tell_bad())
    targets = _with_tools(pipeline, lambda tools: warming.prepare(tools.source, tools.merge))
    clock = Progress(found)
    learner = warming.learn(pipeline, targets, found, lambda one: clock.tell(one.told))
    seconds = clock.seconds
    size = _with_tools(
        pipeline, lambda tools: warming.write(tools.source, tools.merge, targets, learner)
    )
    return summarised(pipeline, learner.told, learner.learnt, seconds, len(targets.takers), size)


def _tell_bad() -> Callable[[Bad], None]:
    told = 0

    def tell(bad: Bad) -> None:
        nonlocal told
        told += 1
        if told <= recording.BAD_MAX:
            say(str(bad))

    return tell


class Progress:
    """A line now and then."""

    def __init__(self, found: Recording | None = None) -> None:
        self._found = found
        self._began = self._told = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    def tell(self, told: Told) -> None:
        now = time.monotonic()
        if now - self._told < SHOWN_S:
            return
        self._told = now
        text = f"{told.records:,} records, {told.records / self.seconds:,.0f} a second"
        if self._found is not None:
            done, all_ = self._found.read_bytes, sum(p.size for p in self._found.pieces)
            text += f"; {done / 1e6:,.0f} of {all_ / 1e6:,.0f} MB in whole files"
        say(text)


# ---- from the stream --------------------------------------------------------------------------


async def from_stream(tools: WarmTools, start: str) -> Summary:
    """Nothing is written before all is read."""
    leases = await tools.source.prepare(is_relived=True)
    merged: list[ShardRow] = []
    if tools.merge is not None:
        merged = firsts.takers((await tools.merge.prepare(is_relived=True)).shards)
    info = await tools.source.describe()
    position = seeking.initial(start, info.service_date_ms)
    from_ms = int(position.value) if position.kind == "at_time" else info.created_ms
    clock = Progress()
    reliving = Reliving(
        silent(tools.pipeline),
        leases.shards,
        merged,
        await tools.source.generation(),
        clock.tell,
    )
    await reliving.run(tools.stream, max(from_ms, info.created_ms), info.service_date_ms)
    seconds = clock.seconds
    size = await tools.source.write(reliving.firsts())
    if tools.merge is not None:
        size += await tools.merge.write(reliving.merged())
    n = len(reliving.firsts())
    return summarised(tools.pipeline, reliving.told, reliving.learnt, seconds, n, size)


# ---- what is told -----------------------------------------------------------------------------


def summarised(
    pipeline: Pipeline,
    told: Told,
    learnt: Mapping[str, Learnt],
    seconds: float,
    n_shards: int,
    size: int,
) -> Summary:
    rules = [
        {"rule": name, "keys": one.keys, "days": round(one.judged_ms / DAY_MS, 2)}
        for name, one in learnt.items()
    ]
    bad = told.bad_lines if isinstance(told, Learning) else 0
    unplaced = told.unplaced if isinstance(told, Learning) else 0
    left = told.left_to_stream if isinstance(told, Learning) else 0
    return Summary(
        pipeline.app,
        told.records,
        round(seconds, 3),
        round(told.records / max(seconds, 1e-3)),
        n_shards,
        size,
        bad,
        told.rejected,
        told.late,
        told.duplicates,
        unplaced,
        left,
        rules,
        warnings(pipeline, told, learnt, bad),
    )


def warnings(pipeline: Pipeline, told: Told, learnt: Mapping[str, Learnt], bad: int) -> list[str]:
    """What makes a warm start less than it could be."""
    found = []
    if not told.records:
        found.append("no record was learnt from: every detector begins with nothing")
    if isinstance(told, Learning) and told.unplaced:
        found.append(
            f"{told.unplaced} records were left out: no shard that is to be read holds their"
            " partition key; it is that of the line's envelope, or event.partition_key"
        )
    for name, one in learnt.items():
        if told.records and one.judged_ms < DAY_MS:
            hours = one.judged_ms / 3_600_000
            found.append(
                f"rule {name} has learnt from {hours:.1f} h: less than a day, so it does not know"
                " each hour yet"
            )
    most = {rule.name: rule.max_groups for rule in pipeline.rules}
    for name, n in told.overflowed.items():
        found.append(f"rule {name}: {n} records had a key beyond max_groups ({most[name]})")
    if told.late > LATE_SHARE_MAX * told.records:
        found.append(f"{told.late} times a record came too late: give files in order of time")
    if bad:
        found.append(f"{bad} lines could not be read, and were left out")
    if told.rejected:
        found.append(f"{told.rejected} records are bad for the pipeline, and were left out")
    return found


def _show(args: argparse.Namespace, summary: Summary) -> None:
    if args.output == "json":
        write_json(to_builtins(summary))
    else:
        write_table(summary.rules)
    for warning in summary.warnings:
        say(f"warning: {warning}")
    say(
        f"{summary.records:,} records in {summary.seconds:.1f} s"
        f" ({summary.records_per_s:,} a second), {summary.shards} shards begin with"
        f" {summary.state_bytes:,} bytes of state"
    )
