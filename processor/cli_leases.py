"""`processor leases …`: arguments, and what is printed; the work is done by `runtime.lease_admin`.

A verb that drops state asks to be told the app's name (`--yes APP`), so that a command that was
meant for another file or environment does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from msgspec import to_builtins

from processor import app
from processor.app import LeaseTools
from processor.cli import Parser, add_verb, load_pipeline, write_json
from processor.core.leases import seeking
from processor.core.leases.lineage import is_readable
from processor.core.leases.rows import ShardRow, WorkerRow
from processor.errors import UsageError
from processor.model import Pipeline, Position
from processor.runtime.lease_admin import LeaseAdmin, Leases, owners_of

Verb = Callable[[LeaseTools, Pipeline, argparse.Namespace], Awaitable[None]]
Check = Callable[[Pipeline, argparse.Namespace], None]
Wording = Callable[[Position], str]

COLUMNS = """\
columns:
  STREAM       only where there is a merge stream, too
  STAGE        held, unowned, for WORKER (who may claim it first), waits for its parents, ended
  EPOCH        how often the lease changed hands, or was set by hand
  POSITION     the last commit: reading goes on from there
  CAUGHT UP    how long ago a commit knew that all that had arrived was read; - if never
  STATE BYTES  size of the stored state
  COMMIT       number of the last commit; while it stands still, nothing is saved
  SEEKS        how often it was set by hand (seek, reset, import); each gives events new ids
  GENERATION   which version of the pipeline committed last; 0: none since it was set
"""


ALL = "all shards, and what global rules know of them; no worker may be alive"


def add_verbs(parser: Parser) -> None:
    from processor import cli_positions as positions  # which uses what stands below

    verbs = parser.add_subparsers(metavar="VERB", required=True)

    def add(name: str, about: str, verb: Verb, check: Check | None = None) -> Parser:
        return add_verb(verbs, name, about, _doing(verb, check))

    one = add("list", "All shards: who has them, and how far they are.", list_)
    one.epilog, one.formatter_class = COLUMNS, argparse.RawDescriptionHelpFormatter
    one = add("show", "One shard's row: positions, state, marks, parents and children.", show)
    _add_shard(one)
    one = add("release", "Give up the lease of an owner that is dead.", release)
    _add_shard(one)
    one = add("seek", "Go on elsewhere, without state, under a new incarnation.", seek, check_seek)
    _add_which(one)
    one.add_argument("--to", metavar="PLACE", required=True, help=seeking.TARGETS)
    one = add("reset", "Drop the state, and go on at the same position.", reset, check_reset)
    _add_which(one)
    one = add("export", "Write all positions to a file, as JSON.", positions.export)
    one.add_argument("file", metavar="FILE", help="- for standard output")
    about = "Take positions over, from such a file or from KCL."
    one = add("import", about, positions.import_, positions.check_import)
    positions.add_arguments(one)


def _add_shard(parser: Parser) -> None:
    parser.add_argument("shard", metavar="SHARD")
    parser.add_argument("--merge", action="store_true", help="a shard of the merge stream")


def _add_which(parser: Parser) -> None:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("shard", metavar="SHARD", nargs="?")
    which.add_argument("--all", action="store_true", help=ALL)
    parser.add_argument("--yes", metavar="APP", help="the app's name: yes, drop its state")


def _doing(verb: Verb, check: Check | None) -> Callable[[argparse.Namespace], int]:
    def do(args: argparse.Namespace) -> int:
        pipeline = load_pipeline(args)
        if check is not None:  # before anything is asked of a service
            check(pipeline, args)
        asyncio.run(_with_leases(verb, pipeline, args))
        return 0

    return do


async def _with_leases(verb: Verb, pipeline: Pipeline, args: argparse.Namespace) -> None:
    async with app.open_leases(pipeline, say) as tools:
        await verb(tools, pipeline, args)


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


# ---- seeing -----------------------------------------------------------------------------------


async def list_(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    found = [await admin.read() for admin in (tools.admin, tools.merge) if admin is not None]
    if args.output == "json":
        told = [_listed(leases, args) for leases in found]
        merge = {"merge": told[1]} if len(told) > 1 else {}
        write_json({"app": pipeline.app, **told[0], **merge})
        return
    rows = []
    for leases in found:
        stream = {"stream": leases.stream.name} if len(found) > 1 else {}
        rows += [stream | row for row in _listed(leases, args)["shards"]]
        if not leases.shards:
            say(f"no leases: nobody has read {leases.stream.name} by table {pipeline.state.table}")
    write_table(rows)


def _listed(leases: Leases, args: argparse.Namespace) -> dict[str, Any]:
    rows = [_summary(leases, row, wording(args)) for row in leases.shards.values()]
    return {"stream": str(leases.stream), "shards": rows}


async def show(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    admin = _of_stream(tools, args)
    leases = await admin.read()
    row = seeking.known(leases.shards, args.shard)
    details = _details(leases, row, wording(args))
    if args.output == "json":
        write_json(details)
        return
    width = max(map(len, details))
    for name, value in details.items():
        for i, line in enumerate(_lines(value)):
            sys.stdout.write(f"{'' if i else name:{width}}  {line}\n")


def _summary(leases: Leases, row: ShardRow, told: Wording) -> dict[str, Any]:
    state = [pair.state for pair in row.pairs][-1]
    return {
        "shard": row.id,
        "stage": _stage(leases, row),
        "owner": row.owner,
        "epoch": row.epoch,
        "position": told(row.position),
        "caught_up": _age(row.caught_up_at_ms, leases.service_date_ms),
        "state_bytes": state.total_bytes if state else 0,
        "commit": row.commit,
        "seeks": row.seeks,
        "generation": row.generation,
    }


def _stage(leases: Leases, row: ShardRow) -> str:
    if row.ended:
        return "ended"
    if row.owner is not None:
        worker = leases.workers.get(row.owner)
        return "held" if worker is None else _standing(worker, row)
    if not is_readable(row, leases.shards):
        return "waits for its parents"
    return "unowned" if row.successor is None else f"for {row.successor}"


def _standing(worker: WorkerRow, row: ShardRow) -> str:
    if worker.buried:
        return "held, owner buried"
    held = next((one for one in worker.held if one.shard_id == row.id), None)
    if held is not None and held.to is not None:
        return f"held, moving to {held.to}"
    return "held, owner draining" if worker.draining else "held"


def _details(leases: Leases, row: ShardRow, told: Wording) -> dict[str, Any]:
    shard = row.shard
    return _summary(leases, row, told) | {
        "stream": str(leases.stream),
        "incarnation": row.incarnation,
        "caught_up_at": _time(row.caught_up_at_ms),
        "successor": row.successor,
        "moved": row.moved,
        "write_id": row.write_id,
        "hash_range": [str(shard.first_hash), str(shard.last_hash)],
        "parents": list(shard.parents),
        "children": seeking.children_of(leases.shards, row.id),
        "pairs": [to_builtins(pair) | {"position": told(pair.position)} for pair in row.pairs],
        "marks": [
            {"commit": mark.commit, "at": told(mark.mark.position), "fact": mark.mark.fact}
            | {"watermark": _time(mark.mark.watermark_ms)}
            for mark in row.marks
        ],
    }


# ---- changing ---------------------------------------------------------------------------------


def _of_stream(tools: LeaseTools, args: argparse.Namespace) -> LeaseAdmin:
    if not args.merge:
        return tools.admin
    if tools.merge is None:
        raise UsageError("--merge: the pipeline file has no global rule, and so no merge stream")
    return tools.merge


async def release(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    admin = _of_stream(tools, args)
    row = await admin.release(await admin.read(), args.shard)
    if row is None:
        say(f"{args.shard} is owned by nobody: nothing to do")
    else:
        say(f"{args.shard} is free, at {shown(row.position)}: its owner {row.owner} is dead")


def check_seek(pipeline: Pipeline, args: argparse.Namespace) -> None:
    check_reset(pipeline, args)
    position = seeking.target(args.to, seeking.ANY_DATE_MS)
    if args.all and position.kind == "at":
        raise UsageError("--to: a sequence number is one shard's; name the shard")


def check_reset(pipeline: Pipeline, args: argparse.Namespace) -> None:
    need_yes(pipeline, args.yes, "all shards" if args.all else args.shard)


async def seek(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    """Refused, if at all, before `discover` makes the table this application's."""
    admin = tools.admin
    foreseen = await admin.foreseen()
    position = seeking.target(args.to, foreseen.service_date_ms)
    listed = await admin.listed()
    write_id = token_hex(8)

    def changes(rows: Mapping[str, ShardRow]) -> list[seeking.Change]:
        if args.all:
            reopen = args.to.lower() != "latest"
            return seeking.seek_all(rows, listed, position, write_id, reopen=reopen)
        return seeking.seek_one(rows, args.shard, position, write_id)

    changes(foreseen.shards)
    if position.kind == "at":
        await admin.probe({args.shard: position})
    if args.all:
        await _forget_merged(tools, write_id)
    leases = await admin.discover()
    tell(await apply(admin, leases, changes(leases.shards), is_all=args.all))


async def _forget_merged(tools: LeaseTools, write_id: str) -> None:
    """Global rules begin anew with all shards: what they were told before is left unread."""
    admin = tools.merge
    if admin is None:
        return
    listed = await admin.listed()
    leases = await admin.discover()
    now = seeking.target("latest", leases.service_date_ms)
    changes = seeking.seek_all(leases.shards, listed, now, write_id, reopen=False)
    await tools.admin.bury_all()
    tell(await apply(admin, leases, changes, is_all=True), "merge stream ")


async def reset(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    """Refused, if at all, before `discover` makes the table this application's."""
    admin = tools.admin
    write_id = token_hex(8)
    seeking.reset((await admin.foreseen()).shards, args.shard, write_id)
    if args.all:
        await _forget_merged(tools, write_id)
    leases = await admin.discover()
    changes = seeking.reset(leases.shards, args.shard, write_id)
    tell(await apply(admin, leases, changes, is_all=args.all))


async def apply(
    admin: LeaseAdmin, leases: Leases, changes: Sequence[seeking.Change], *, is_all: bool
) -> Sequence[seeking.Change]:
    """The changes, once they are written."""
    owners = owners_of(leases.shards, [change.before.id for change in changes])
    await admin.bury(leases.stream, owners | (leases.workers.keys() if is_all else set()))
    await admin.write(changes)
    return changes


def tell(changes: Sequence[seeking.Change], where: str = "") -> None:
    for change in changes:
        before, after = change.before, change.after
        again = ", read again" if before.ended and not after.ended else ""
        was, now = shown(before.position), shown(after.position)
        say(f"{where}{after.id}: {was} → {now}, epoch {after.epoch}{again}")


def need_yes(pipeline: Pipeline, yes: str | None, which: str) -> None:
    """UsageError unless the app's name was given."""
    if yes != pipeline.app:
        given = "" if yes is None else f", not {yes!r}"
        raise UsageError(
            f"this drops the state of {which} of app {pipeline.app!r}: open windows, what detectors"
            f" learnt, ids seen; events get new ids. Say so with --yes {pipeline.app}{given}"
        )


# ---- printing ---------------------------------------------------------------------------------


def write_table(rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    lines = [[name.replace("_", " ").upper() for name in rows[0]]]
    lines += [["-" if value is None else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:{width}}" for cell, width in zip(line, widths, strict=True))
        sys.stdout.write("  ".join(cells).rstrip() + "\n")


def _lines(value: Any) -> list[str]:
    if isinstance(value, list):
        return [" ".join(_lines(each)) for each in value] or ["-"]
    if isinstance(value, dict):
        return [", ".join(f"{name} {_lines(each)[0]}" for name, each in value.items())]
    return ["-" if value is None else str(value)]


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds")


def wording(args: argparse.Namespace) -> Wording:
    """How positions are told: as they are stored to a program, and with UTC to a person."""
    return str if args.output == "json" else shown


def shown(position: Position) -> str:
    """A position for people: `at_time:2026-01-31T12:00:00.000Z`, where the row has milliseconds."""
    if position.kind != "at_time":
        return str(position)
    time = datetime.fromtimestamp(int(position.value) / 1000, UTC).isoformat(
        timespec="milliseconds"
    )
    return f"at_time:{time.removesuffix('+00:00')}Z"


def _age(ms: int | None, now_ms: int) -> str | None:
    """How long ago; `-` where a shard has not been seen at its tip."""
    return None if ms is None else f"{max(0, now_ms - ms) / 1000:.0f}s ago"
