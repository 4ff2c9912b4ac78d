"""The arguments that both commands of the simulator take."""

from __future__ import annotations

import argparse
import os


def add_range(parser: argparse.ArgumentParser, seeds: int) -> None:
    """`--seeds`, by default so many, `--first` and `--jobs`."""
    parser.add_argument("--seeds", type=at_least_one, default=seeds, help="how many histories")
    parser.add_argument("--first", type=int, default=0, help="the first one's seed")
    jobs = os.cpu_count() or 1
    parser.add_argument("--jobs", type=at_least_one, default=jobs, help="processes")


def at_least_one(text: str) -> int:
    """No histories break no promise: a run of none would be green and mean nothing."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)
