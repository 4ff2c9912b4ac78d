"""`processor leases export` and `import`: positions to a file, from one, or from a KCL table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from secrets import token_hex
from typing import Any

from processor import codecs
from processor.app import LeaseTools
from processor.cli import Parser, write_json
from processor.cli_leases import apply, need_yes, say, shown, wording, write_table
from processor.config.values import Wrong, parse_duration
from processor.core.leases import kcl, placing, seeking
from processor.core.leases.placing import Place
from processor.core.leases.rows import ShardRow
from processor.errors import ConfigError, UsageError
from processor.model import END, Pipeline, Position
from processor.runtime import kcl_import
from processor.runtime.lease_admin import Leases

LEASE_DURATION = "10s"  # KCL's failoverTimeMillis where an application sets none


def add_arguments(parser: Parser) -> None:
    """Of `import`."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("file", metavar="FILE", nargs="?", help="what `export` wrote; - for stdin")
    where.add_argument("--kcl-table", metavar="NAME", help="lease table of a KCL 2.x or 3.x app")
    parser.add_argument(
        "--initial", metavar="PLACE", help=f"for shards without a checkpoint: {seeking.STARTS}"
    )
    parser.add_argument("--kcl-stream", metavar="ACCOUNT:STREAM:EPOCH", help="in multi-stream mode")
    parser.add_argument(
        "--kcl-lease-duration",
        metavar="DURATION",
        default=LEASE_DURATION,
        help=f"its failoverTimeMillis, as a duration; default {LEASE_DURATION}",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    parser.add_argument("--overwrite", action="store_true", help="our own progress, too")
    parser.add_argument("--yes", metavar="APP", help="with --overwrite: yes, drop its state")


# ---- export -----------------------------------------------------------------------------------


async def export(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    leases = await tools.admin.read()
    body = placing.export(pipeline.app, leases.stream, leases.shards, leases.service_date_ms)
    if args.file == "-":
        sys.stdout.write(body.decode())
        return
    _replace(Path(args.file), body)
    say(f"{len(leases.shards)} positions of {leases.stream.name} are in {args.file}, without state")


def _replace(path: Path, body: bytes) -> None:
    """Whole or not at all: an export that was cut must not pass for one."""
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        with os.fdopen(handle, "wb") as file:
            file.write(body)
        os.replace(name, path)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror or error}") from error


# ---- import -----------------------------------------------------------------------------------


def check_import(pipeline: Pipeline, args: argparse.Namespace) -> None:
    """The words, and that the file is there; its bytes are kept in `body`, for stdin ends."""
    if args.initial is not None:
        seeking.initial(args.initial, seeking.ANY_DATE_MS)
    _duration_s(args.kcl_lease_duration)
    args.body = None if args.file is None else _read(args.file)


async def import_(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    """Looked at first, as a dry run; then watched, read again, and written."""
    admin = tools.admin
    leases = await admin.read()
    listing = list((await admin.listed()).values())
    date_ms = leases.service_date_ms
    initial = None if args.initial is None else seeking.initial(args.initial, date_ms)
    known = await _known(tools, pipeline, args, leases, initial)
    found = placing.places(listing, known, initial)
    placing.require_free(leases.shards, found, overwrite=args.overwrite)
    await admin.probe({place.shard_id: place.position for place in found})
    if args.dry_run:
        _show(args, found, leases.shards)
        say("dry run: nothing was changed, and nobody was watched")
        return
    if any(placing.has_begun(leases.shards.get(place.shard_id)) for place in found):
        need_yes(pipeline, args.yes, "every shard that is imported")
    if args.kcl_table is not None:
        known = await _known(tools, pipeline, args, leases, initial, watch=True)
    before, leases = leases, await admin.discover()
    found = placing.places(listing, known, initial)
    placing.require_free(leases.shards, found, overwrite=args.overwrite)
    changes = placing.changes(leases.shards, found, token_hex(8))
    await apply(admin, leases, changes, is_all=True)
    _show(args, found, before.shards)
    for place in placing.left_out(listing, known):
        if place.position != END:
            where = f"{place.shard_id}, at {shown(place.position)},"
            say(f"warning: {where} is not in the stream any more")


async def _known(
    tools: LeaseTools,
    pipeline: Pipeline,
    args: argparse.Namespace,
    leases: Leases,
    initial: Position | None,
    *,
    watch: bool = False,
) -> list[Place]:
    """What the other side knows; `watch`: only once nobody works on it."""
    if args.kcl_table is None:
        return placing.read_export(args.body, args.file, leases.stream)
    table = tools.kcl_table(args.kcl_table)
    wanted = (leases.stream, args.kcl_stream)
    if watch:
        duration_s = _duration_s(args.kcl_lease_duration)
        found = await kcl_import.watched(tools.admin, table, *wanted, duration_s)
    else:
        found = await kcl_import.read(tools.admin, table, *wanted)
    splits = codecs.splitter(pipeline.source.decode) is not None
    return [kcl.place_of(lease, initial, splits=splits) for lease in found]


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        expected = "a file that `processor leases export` wrote"
        raise ConfigError("", error.strerror or str(error), expected, file=file) from error


def _duration_s(text: str) -> float:
    try:
        return parse_duration(text) / 1000
    except Wrong as wrong:
        found = f"--kcl-lease-duration: found {text!r}"
        raise UsageError(f"{found}, expected {wrong.expected}") from None


def _show(args: argparse.Namespace, found: Sequence[Place], rows: Mapping[str, ShardRow]) -> None:
    """Where each shard was and goes on, on standard output."""
    told = wording(args)
    lines: list[dict[str, Any]] = [
        {
            "shard": place.shard_id,
            "was_at": told(rows[place.shard_id].position) if place.shard_id in rows else None,
            "goes_on_at": told(place.position),
            "note": place.note,
        }
        for place in found
    ]
    write_json({"shards": lines}) if args.output == "json" else write_table(lines)
