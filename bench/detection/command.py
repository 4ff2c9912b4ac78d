"""The command: runs the parts, prints tables and bars, writes JSON, and fails on a missed bar."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from bench.detection import absent, cost, kinds, life, on_families, on_nab, plots
from bench.detection.bars import Bar, Part, table
from bench.harness import Table, as_text, machine, versions
from processor.errors import ProcessorError

NAME = "detection"
PARTS = ("nab", "families", "life", "absence", "cost")


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    for name, reason in kinds.unmeasured().items():
        print(f"{name} is not measured: {reason}\n")
    try:
        with ProcessPoolExecutor(max_workers=max(os.cpu_count() or 1, 2)) as pool:
            found = {name: part() for name, part in _parts(options, pool).items()}
        if options.plots:
            figures = found["families"].figures if "families" in found else {}
            kind = kinds.novelty("full")
            n = plots.draw(options.plots, options.nab, kind, options.seed, figures)
            print(f"{n} charts in {options.plots}\n")
    except ProcessorError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 1
    return report(found, options)


def report(found: Mapping[str, Part], options: argparse.Namespace) -> int:
    """Print what was found and write it as JSON; 1 where a bar is missed."""
    bars = [bar for part in found.values() for bar in part.bars]
    for shown in (*(t for part in found.values() for t in part.tables), table(bars)):
        print(_text(shown), end="\n\n")
    missed = [bar for bar in bars if not bar.is_met]
    print(f"{NAME}: {len(bars) - len(missed)} of {len(bars)} bars reached")
    if options.json:
        options.json.write_bytes(_json(found, bars, options))
    return 1 if missed else 0


def parser() -> argparse.ArgumentParser:
    result = argparse.ArgumentParser(prog=f"python -m bench {NAME}", description=__doc__)
    result.add_argument("--nab", type=Path, metavar="DIR", help="NAB's folder, or a part of it")
    result.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    result.add_argument("--plots", type=Path, metavar="DIR", help="draw charts into it")
    result.add_argument("--seed", type=int, default=1, help="of the made series (default 1)")
    result.add_argument("--full", action="store_true", help="five times the made series")
    result.add_argument(
        "--only", action="append", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    names = [kind.name for kind in kinds.measured()]
    result.add_argument(
        "--kind", action="append", choices=names, metavar="KIND", help=f"of {', '.join(names)}"
    )
    return result


def _parts(options: argparse.Namespace, pool: Executor) -> dict[str, Callable[[], Part]]:
    chosen = [kind for kind in kinds.measured() if not options.kind or kind.name in options.kind]
    quick = [k for k in chosen if options.full or options.kind or k.kind not in kinds.SLOW]
    size = on_families.Size(n_clean=100, n_injected=40) if options.full else on_families.Size()
    n_each, n_absent = (50, 500) if options.full else (10, 100)
    every: dict[str, Callable[[], Part]] = {
        "nab": partial(on_nab.run, options.nab, quick, pool),
        "families": partial(on_families.run, quick, options.seed, size, pool),
        "life": partial(life.run, quick, options.seed, n_each, pool),
        "absence": partial(absent.run, options.seed, n_absent),
        "cost": partial(cost.run, quick, options.seed),
    }
    return {name: part for name, part in every.items() if not options.only or name in options.only}


def _text(shown: Table) -> str:
    return as_text(shown) if shown.rows else shown.title


def _json(found: Mapping[str, Part], bars: Sequence[Bar], options: argparse.Namespace) -> bytes:
    everything = {
        "benchmark": NAME,
        **_headline(found),
        "is_full": options.full,
        "seed": options.seed,
        "bars": [bar.in_json() for bar in bars],
        "parts": {name: part.figures for name, part in found.items()},
        "machine": machine(),
        "versions": versions(),
    }
    return msgspec.json.format(msgspec.json.encode(everything), indent=2) + b"\n"


def _headline(found: Mapping[str, Part]) -> dict[str, Any]:
    """NAB's three profiles for `full`, and the standard one as shipped; null without NAB."""
    full: Mapping[str, Any] = found["nab"].figures.get("full", {}) if "nab" in found else {}
    names = ("standard", "low_fp", "low_fn", "at_high", "at_default")
    return {name: full.get(name) for name in names}
