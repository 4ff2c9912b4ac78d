"""`processor mark-expected`, `mute`, `unmute`, `mutes`: what people ask of alarms.

A verb writes an instruction into the lease table, and waits for the word of the shards that took
it. Workers read instructions every few seconds, so an answer takes that long.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import sys
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from processor import app
from processor.app import LeaseTools
from processor.cli import Parser, load_pipeline, write_json
from processor.cli_leases import say, write_table
from processor.config.checks import is_global
from processor.config.values import Wrong, parse_duration
from processor.core import instructions
from processor.core.events import ID_LENGTH
from processor.core.instructions import Instruction
from processor.errors import Missing, UsageError
from processor.model import Pipeline, RuleSpec
from processor.ports import Placed
from processor.runtime.asking import Answer, Desk, instruction
from processor.runtime.lease_admin import LeaseAdmin

Verb = Callable[[LeaseTools, Pipeline, argparse.Namespace], Awaitable[None]]

WAIT_S = 30.0  # workers look every 5 s, and a shard may be busy with a page or a checkpoint


def add_arguments(name: str, parser: Parser) -> None:
    verb: Verb
    match name:
        case "mark-expected":
            verb = mark_expected
            parser.add_argument("event", metavar="EVENT_ID", help="detail.id of an anomaly's event")
            parser.add_argument(
                "--undo", action="store_true", help="accept nothing of that series any more"
            )
        case "mute":
            verb = mute
            _add_selection(parser)
            end = parser.add_mutually_exclusive_group(required=True)
            end.add_argument(
                "--until", metavar="TIME", help="in event time, such as 2026-01-31T12:00:00Z"
            )
            end.add_argument("--for", dest="lasts", metavar="DURATION", help="from now on: 2h, 3d")
        case "unmute":
            verb = unmute
            parser.add_argument("mute", metavar="ID", nargs="?", help="as `processor mutes` tells")
            _add_selection(parser)
        case _:
            verb = mutes
    if name != "mutes":
        parser.add_argument(
            "--wait", type=_seconds, default=WAIT_S, metavar="SECONDS", help="for the shards' word"
        )
    parser.set_defaults(do=_doing(verb))


def _add_selection(parser: Parser) -> None:
    parser.add_argument("--rule", metavar="RULE")
    parser.add_argument(
        "--key",
        action="append",
        default=[],
        metavar="VALUE[,…] or FIELD=VALUE",
        help="all values in the order of group_by, or one field's; may be repeated; default: all",
    )
    parser.add_argument("--detector", default="", metavar="NAME", help="default: all of the rule")


def _doing(verb: Verb) -> Callable[[argparse.Namespace], int]:
    def do(args: argparse.Namespace) -> int:
        pipeline = load_pipeline(args)
        check = _CHECKS.get(verb)
        if check is not None:  # before anything is asked of a service
            check(pipeline, args)
        asyncio.run(_with_tools(verb, pipeline, args))
        return 0

    return do


async def _with_tools(verb: Verb, pipeline: Pipeline, args: argparse.Namespace) -> None:
    async with app.open_leases(pipeline, say) as tools:
        await verb(tools, pipeline, args)


# ---- the verbs --------------------------------------------------------------------------------


async def mark_expected(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    desk = Desk(tools.admin)
    asked = instruction("unexpect" if args.undo else "expect", desk.wall_ms(), of=args.event)
    placed = await desk.ask(asked)
    answer = await desk.wait(asked, _stages(tools), args.wait, for_all=False)
    await desk.take_back(placed)
    if not answer.taken:
        raise _nobody(args, answer)
    shards = ", ".join(answer.taken)
    what = "accepted no more" if args.undo else "accepted: the like stays silent for its series"
    _told(
        args, {"event": args.event, "act": asked.act, "taken": answer.taken}, f"{what} ({shards})"
    )


def _nobody(args: argparse.Namespace, answer: Answer) -> Missing:
    why = "each series knows its newest opened, escalated and resolved event, and this is none"
    if answer.idle:
        n = f"{len(answer.idle)} of {len(answer.shards)} shards"
        why = f"{n} are read by no worker ({_some(answer.idle)}): try again once one does"
    unchanged = "nothing was changed, unless a shard takes it at this very moment"
    search = f"finding a shard that knows it, for {args.wait:g} s,"
    return Missing(f"event {args.event}", search, f"{why}; {unchanged}")


async def mute(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    desk = Desk(tools.admin)
    now_ms = desk.wall_ms()
    until_ms = _until_ms(args, now_ms)
    rule, key, detector = _selected(pipeline, args)
    asked = instruction("mute", now_ms, rule=rule, key=key, detector=detector, until_ms=until_ms)
    await desk.ask(asked)
    await _tell_taken(tools, pipeline, args, asked, f"muted until {_time(until_ms)}")


async def unmute(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    """Each mute that fits: it is taken back, and shards that took it are told that it is over."""
    desk = Desk(tools.admin)
    found = [one for one in await desk.read() if _fits(pipeline, args, one.instruction)]
    if not found:
        raise UsageError("no such mute; `processor mutes` lists them")
    if args.output == "json" and len(found) > 1:
        ids = ", ".join(placed.instruction.id for placed in found)
        raise UsageError(f"several mutes fit, name one by its ID: {ids}")
    for placed in found:
        mute = placed.instruction
        over = instruction("unmute", desk.wall_ms(), of=mute.id, rule=mute.rule)
        await desk.ask(over)
        await desk.take_back(placed)
        await _tell_taken(tools, pipeline, args, over, f"mute {mute.id} is over")


async def mutes(tools: LeaseTools, pipeline: Pipeline, args: argparse.Namespace) -> None:
    desk = Desk(tools.admin)
    rows = [await _row(desk, tools, pipeline, placed) for placed in await desk.read()]
    if args.output == "json":
        write_json({"app": pipeline.app, "instructions": rows})
    elif rows:
        write_table([row | {"key": _key_text(row["key"])} for row in rows])
    else:
        say(f"nobody asked for anything of app {pipeline.app}")


async def _row(desk: Desk, tools: LeaseTools, pipeline: Pipeline, placed: Placed) -> dict[str, Any]:
    asked = placed.instruction
    answer = await desk.answer(asked, _stages_of(tools, pipeline, asked.rule))
    return {
        "id": asked.id,
        "act": asked.act,
        "rule": asked.rule or None,
        "key": asked.key,
        "detector": asked.detector or None,
        "until": _time(asked.until_ms) if asked.until_ms else None,
        "of": asked.of or None,
        "taken": f"{_took(answer)} of {len(answer.shards)} shards",
    }


async def _tell_taken(
    tools: LeaseTools,
    pipeline: Pipeline,
    args: argparse.Namespace,
    asked: Instruction,
    what: str,
) -> None:
    stages = _stages_of(tools, pipeline, asked.rule)
    answer = await Desk(tools.admin).wait(asked, stages, args.wait, for_all=True)
    missing = sorted(set(answer.shards) - set(answer.taken))
    taken = f"{_took(answer)} of {len(answer.shards)} shards took it"
    if missing:
        taken += f" so far, not yet {_some(missing)}: `processor mutes` says when"
    plain = {"id": asked.id, "act": asked.act, "taken": answer.taken, "missing": missing}
    _told(args, plain, f"{asked.id}: {what}; {taken}")


def _took(answer: Answer) -> int:
    """Of those that have not ended: a child goes on with what its parent took."""
    return len(set(answer.taken) & set(answer.shards))


def _told(args: argparse.Namespace, plain: dict[str, Any], sentence: str) -> None:
    if args.output == "json":
        write_json(plain)
    else:
        sys.stdout.write(f"{sentence}\n")


# ---- arguments --------------------------------------------------------------------------------


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected seconds, 0 or more")
    return seconds


def _check_event(_: Pipeline, args: argparse.Namespace) -> None:
    if len(args.event) != ID_LENGTH or not _is_id(args.event):
        raise UsageError(f"EVENT_ID: found {args.event!r}; expected the detail.id of an event")


def _check_mute(pipeline: Pipeline, args: argparse.Namespace) -> None:
    _selected(pipeline, args)
    _until_ms(args, 0)


def _check_unmute(pipeline: Pipeline, args: argparse.Namespace) -> None:
    if args.mute is not None:
        return
    if args.rule is None:
        raise UsageError("name a mute: its ID, or --rule (and --key, --detector) as it was muted")
    _selected(pipeline, args)


_CHECKS: dict[Verb, Callable[[Pipeline, argparse.Namespace], None]] = {
    mark_expected: _check_event,
    mute: _check_mute,
    unmute: _check_unmute,
}


def _selected(pipeline: Pipeline, args: argparse.Namespace) -> tuple[str, dict[str, str], str]:
    """Rule, key, and detector that the words mean."""
    rule = _rule(pipeline, args)
    return rule.name, _key(rule, args.key), _detector(rule, args.detector)


def _is_id(text: str) -> bool:
    try:
        return instructions.brief(text) > 0
    except ValueError:
        return False


def _rule(pipeline: Pipeline, args: argparse.Namespace) -> RuleSpec:
    known = {rule.name: rule for rule in pipeline.rules if rule.detect}
    if args.rule not in known:
        names = ", ".join(sorted(known)) or "none"
        found = "is missing" if args.rule is None else f"found {args.rule!r}"
        raise UsageError(f"--rule: {found}; rules with detectors: {names}")
    return known[args.rule]


def _detector(rule: RuleSpec, name: str) -> str:
    known = sorted({detect.name for detect in rule.detect})
    if name and name not in known:
        raise UsageError(f"--detector: found {name!r}; rule {rule.name} has {', '.join(known)}")
    return name


def _key(rule: RuleSpec, given: Sequence[str]) -> dict[str, str]:
    """Field → value. A rule with one field takes the whole text, commas and all."""
    key: dict[str, str] = {}
    for text in given:
        field, sign, value = text.partition("=")
        if sign and field in rule.group_by:
            key[field] = value
            continue
        values = [text] if len(rule.group_by) == 1 else text.split(",")
        if len(values) != len(rule.group_by) or not rule.group_by:
            fields = ",".join(rule.group_by) or "nothing, so leave --key out"
            raise UsageError(
                f"--key: found {text!r}; rule {rule.name} groups by {fields}: give all values in"
                " that order, or FIELD=VALUE"
            )
        key |= dict(zip(rule.group_by, values, strict=True))
    return key


def _until_ms(args: argparse.Namespace, now_ms: int) -> int:
    if args.lasts is not None:
        try:
            return now_ms + parse_duration(args.lasts)
        except Wrong as wrong:
            raise UsageError(f"--for: found {args.lasts!r}; expected {wrong.expected}") from wrong
    try:
        at = datetime.fromisoformat(args.until)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise UsageError(
            f"--until: found {args.until!r}; expected a time with its zone, such as"
            " 2026-01-31T12:00:00Z"
        )
    return int(at.timestamp() * 1_000)


def _fits(pipeline: Pipeline, args: argparse.Namespace, asked: Instruction) -> bool:
    """Whether it is the mute that `unmute` means."""
    if asked.act != "mute":
        return False
    if args.mute is not None:
        return bool(asked.id == args.mute)
    return (asked.rule, asked.key, asked.detector) == _selected(pipeline, args)


def _stages(tools: LeaseTools) -> Collection[LeaseAdmin]:
    return [admin for admin in (tools.admin, tools.merge) if admin is not None]


def _stages_of(tools: LeaseTools, pipeline: Pipeline, name: str) -> Collection[LeaseAdmin]:
    """Where a rule's alarms are made."""
    for rule in pipeline.rules:
        if rule.name == name:
            admin = tools.merge if is_global(pipeline.event, rule) else tools.admin
            return [admin] if admin is not None else []
    return _stages(tools)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _key_text(key: dict[str, str]) -> str | None:
    return ", ".join(f"{field}={value}" for field, value in key.items()) or None


def _time(ms: int) -> str:
    return (
        datetime.fromtimestamp(ms / 1_000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    )
