"""`processor explain`: each rule of a pipeline file in words, its memory, its traffic, its cost."""

from __future__ import annotations

import argparse
import os
import shutil
import sys

from msgspec import to_builtins

from processor import config
from processor.cli import Parser, config_path, overrides, write_json
from processor.explaining import prices, report
from processor.explaining.account import account
from processor.explaining.traffic import Assumed

WIDTH = 100  # where nobody says how wide the terminal is
RATE_MAX = 1e9
KEYS_MAX = 10**12
SHARDS_MAX = 100_000  # ten times what the service gives an account


def add_arguments(parser: Parser) -> None:
    usual = Assumed()
    parser.add_argument("file", metavar="FILE", nargs="?", help="default: -c or PROCESSOR_CONFIG")
    parser.add_argument(
        "--rate",
        type=_rate,
        default=usual.rate,
        help=f"records a second, over all shards ({usual.rate:g})",
    )
    parser.add_argument(
        "--keys",
        type=lambda text: _count(text, KEYS_MAX),
        default=usual.keys,
        help=f"groups of each rule ({usual.keys})",
    )
    parser.add_argument(
        "--shards",
        type=lambda text: _count(text, SHARDS_MAX),
        default=usual.shards,
        help=f"of the stream ({usual.shards})",
    )


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not 0 < rate <= RATE_MAX:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected records a second, such as 500")
    return rate


def _count(text: str, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:20]) <= most:
        raise argparse.ArgumentTypeError(
            f"found {text!r}, expected a whole number from 1 to {most:,}"
        )
    return int(text)


def explain(args: argparse.Namespace) -> int:
    """0; warnings are part of what is told. A bad file raises ConfigErrors."""
    file = args.file or config_path(args)
    checked = config.check(file, os.environ, overrides(args))
    assumed = Assumed(args.rate, args.keys, args.shards)
    told = account(checked.pipeline, checked.warnings, assumed)
    if args.output == "json":
        write_json(to_builtins(told) | {"prices": _prices()})
    else:
        width = shutil.get_terminal_size((WIDTH, 0)).columns if sys.stdout.isatty() else WIDTH
        sys.stdout.writelines(f"{line}\n" for line in report.as_text(told, width))
    return 0


def _prices() -> dict[str, float | str]:
    return {
        "as_of": prices.AS_OF,
        "usd_per_million_events": prices.USD_PER_MILLION_EVENTS,
        "usd_per_million_put_units": prices.USD_PER_MILLION_PUT_UNITS,
    }
