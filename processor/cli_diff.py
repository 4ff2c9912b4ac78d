"""`processor diff OLD NEW`: what a changed pipeline file does to the state of each rule."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from msgspec import to_builtins

from processor import config
from processor.cli import Parser, overrides, write_json
from processor.config.changes import Changes, RuleChange, compare

STATE_LOST = 1


def add_arguments(parser: Parser) -> None:
    parser.add_argument("old", metavar="OLD", help="the pipeline file that runs now")
    parser.add_argument("new", metavar="NEW", help="the one that is to replace it")


def diff(args: argparse.Namespace) -> int:
    """0, or 1 if a rule loses its state; a bad file raises ConfigError."""
    old, new = (config.load(file, os.environ, overrides(args)) for file in (args.old, args.new))
    changes = compare(old, new)
    if args.output == "json":
        write_json(as_json(changes))
    else:
        sys.stdout.writelines(f"{line}\n" for line in as_text(changes))
    return STATE_LOST if changes.loses_state else 0


def as_json(changes: Changes) -> dict[str, Any]:
    told: dict[str, Any] = to_builtins(changes)
    return told | {"loses_state": changes.loses_state}


def as_text(changes: Changes) -> Iterator[str]:
    for one in changes.elsewhere:
        yield f"{one.setting}"
        yield f"    {one.means}"
    for change in changes.rules:
        yield from _rule(change)
    for name, settings in (("sinks", changes.sinks), ("without effect on state", changes.others)):
        if settings:
            yield f"{name}:"
            yield from (f"    {setting}" for setting in settings)


def _rule(change: RuleChange) -> Iterator[str]:
    was = f" (was {change.was})" if change.was else ""
    yield f"{change.rule}{was}: {change.fate}: {change.means}"
    for setting in change.why:
        weight = "" if setting.shapes_state or change.fate != "reset" else " (state would go on)"
        yield f"    {setting}{weight}"
