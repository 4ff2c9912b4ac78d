"""Planted bugs: each patch is put into a copy of the package, and histories run until one breaks.

    python -m tests.sim.planted [--seeds 500] [--first M] [NAME…]

A patch begins with what it breaks and two lines that this file reads: `Caught by:` the checkers
that are the right ones for it, and `Seed:` one whose history is known to break. There the tests
begin; this command begins at `--first`, for it tells how many seeds it takes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.sim.arguments import add_range

ROOT = Path(__file__).parent.parent.parent
BUGS = Path(__file__).parent / "bugs"
SEEDS_MAX = 500


class Bug(NamedTuple):
    """One patch."""

    name: str
    path: Path
    checkers: tuple[str, ...]
    seed: int


class Hunt(NamedTuple):
    """How it ended: after so many seeds, by which checker; none of them: not caught."""

    tried: int
    seed: int
    checker: str
    what: str


def bugs() -> list[Bug]:
    return [_bug(path) for path in sorted(BUGS.glob("*.patch"))]


def _bug(path: Path) -> Bug:
    head = dict(line.split(": ", 1) for line in path.read_text().splitlines()[:10] if ": " in line)
    checkers = tuple(name.strip() for name in head["Caught by"].split(";"))
    return Bug(path.stem, path, checkers, int(head["Seed"]))


def plant(bug: Bug, folder: Path) -> None:
    """A copy of the package with the bug in it. CalledProcessError where it does not apply."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "processor", folder / "processor", ignore=ignored)
    subprocess.run(
        ["git", "apply", "-p1", str(bug.path)], cwd=folder, check=True, capture_output=True
    )


def hunt(bug: Bug, first: int, seeds: int = SEEDS_MAX, jobs: int = 1) -> Hunt:
    """Run histories on a planted copy, in a process of its own, until one of them fails."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plant(bug, folder)
        command = [sys.executable, "-m", "tests.sim", "--hunt", "--first", str(first)]
        done = subprocess.run(
            [*command, "--seeds", str(seeds), "--jobs", str(jobs)],
            cwd=folder,  # its package is found before the one beside the tests
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        )
    return Hunt(**json.loads(done.stdout))


def _report(chosen: list[Bug], first: int, seeds: int, jobs: int) -> Iterator[bool]:
    for bug in chosen:
        found = hunt(bug, first, seeds, jobs)
        is_right = found.checker in bug.checkers
        verdict = (
            "caught" if is_right else "caught by the wrong checker" if found.checker else "MISSED"
        )
        print(f"{bug.name}: {verdict} after {found.tried} seeds (seed {found.seed})")
        print(f"    {found.what[:200]}", flush=True)
        yield is_right


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim.planted", description=__doc__)
    parser.add_argument("names", nargs="*", help="patches by name; none: all")
    add_range(parser, seeds=SEEDS_MAX)
    args = parser.parse_args(arguments)
    known = [bug.name for bug in bugs()]
    unknown = [name for name in args.names if name not in known]
    if unknown:
        parser.error(f"there is no planted bug {', '.join(unknown)}, only {', '.join(known)}")
    chosen = [bug for bug in bugs() if not args.names or bug.name in args.names]
    return 0 if all(list(_report(chosen, args.first, args.seeds, args.jobs))) else 1


if __name__ == "__main__":
    sys.exit(main())
