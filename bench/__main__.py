"""Runs one benchmark by name, prints what it found, and writes it as JSON if asked to."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bench import bounds, chaos, end_to_end, global_rules, hot_path, leases, state
from bench.detection import command as detection
from bench.harness import Options, Report, to_json, to_text
from bench.results import ResultsDiffer
from processor.errors import ProcessorError

BENCHMARKS: Mapping[str, Callable[[Options], Report]] = {
    hot_path.NAME: hot_path.run,
    end_to_end.NAME: end_to_end.run,
    state.NAME: state.run,
    leases.NAME: leases.run,
    global_rules.NAME: global_rules.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    if words and words[0] == detection.NAME:  # its options are its own: --help after it says which
        return detection.main(words[1:])
    parser = _parser()
    options = parser.parse_args(words)
    if options.name == chaos.NAME:
        if options.quick:
            parser.error(f"--quick: {chaos.NAME} has --short instead")
        return _chaos(options)
    if options.name == bounds.NAME:
        if options.quick or options.short:
            parser.error(f"--quick, --short: {bounds.NAME} has --seconds instead")
        return _bounds(options)
    if options.short:
        parser.error(f"--short: {options.name} has --quick instead")
    settings = Options(is_quick=options.quick, seed=options.seed)
    try:
        report = BENCHMARKS[options.name](settings)
    except ResultsDiffer as error:
        print(f"{options.name}: {error}", file=sys.stderr)
        return 1
    print(to_text(report))
    if options.json:
        options.json.write_bytes(to_json(report, settings))
    return 0


def _bounds(options: argparse.Namespace) -> int:
    result = bounds.run(options.seconds)
    print(bounds.to_text(result))
    if options.json:
        options.json.write_bytes(bounds.to_json(result))
    return 1 if result.failures else 0


def _chaos(options: argparse.Namespace) -> int:
    try:
        result = chaos.run(options.seed, is_short=options.short)
    except ProcessorError as error:
        print(f"{chaos.NAME}: {error}", file=sys.stderr)
        return 1
    print(chaos.to_text(result))
    if options.json:
        options.json.write_bytes(chaos.to_json(result))
    return 1 if result.failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "name",
        choices=[*BENCHMARKS, bounds.NAME, chaos.NAME, detection.NAME],
        help=f"which benchmark ({detection.NAME} has options of its own, and must come first)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    parser.add_argument("--quick", action="store_true", help="smallest size: does it work?")
    parser.add_argument("--short", action="store_true", help="of chaos: 3 minutes, not 10")
    parser.add_argument(
        "--seconds",
        type=float,
        default=bounds.SECONDS,
        metavar="N",
        help=f"of bounds: all cases together (default {bounds.SECONDS:.0f})",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the events (default 1)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
