"""Run histories: `python -m tests.sim --seeds N --first M`, or one of them with `--seed S`."""

from __future__ import annotations

import argparse
import json
import sys

from tests.sim.arguments import add_range
from tests.sim.pool import outcomes
from tests.sim.report import Report
from tests.sim.run import run_seed

FOUND = ("seed", "checker", "what")
PROGRESS = 100  # seeds between two lines


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    add_range(parser, seeds=100)
    parser.add_argument("--seed", type=int, help="run this one alone and print its history")
    parser.add_argument("--hunt", action="store_true", help="stop at the first failure; JSON")
    args = parser.parse_args()
    if args.seed is not None:
        return one(args.seed)
    seeds = range(args.first, args.first + args.seeds)
    return hunt(seeds, args.jobs) if args.hunt else many(seeds, args.jobs)


def one(seed: int) -> int:
    outcome = run_seed(seed)
    print("\n".join(outcome.lines))
    print(f"seed {seed}: {outcome.what or 'all promises were kept'}")
    return 1 if outcome.checker else 0


def hunt(seeds: range, jobs: int) -> int:
    tried = 0
    for outcome in outcomes(seeds, jobs, chunk=1):
        tried += 1
        if outcome.checker:
            break
    print(json.dumps({name: getattr(outcome, name) for name in FOUND} | {"tried": tried}))
    return 0


def many(seeds: range, jobs: int) -> int:
    report = Report()
    for outcome in outcomes(seeds, jobs):
        report.add(outcome)
        if outcome.checker:
            print(f"seed {outcome.seed}: {outcome.what[:300]}", flush=True)
        if report.seeds % PROGRESS == 0:
            print(f"{report.seeds} of {len(seeds)} seeds", flush=True)
    print("\n".join(report.lines()))
    if report.failed:
        first = min(report.failed)
        print(f"\nthe history of seed {first.seed}:\n" + "\n".join(first.lines))
    return 1 if report.failed or report.missing() else 0


if __name__ == "__main__":
    sys.exit(main())
