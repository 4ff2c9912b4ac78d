"""Seeds over processes: each runs one history after the other; only failures come whole."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator

from tests.sim.run import Outcome, run_seed

CHUNK = 8  # seeds handed out at once: some 10 s of work


def outcomes(seeds: Iterable[int], jobs: int, chunk: int = CHUNK) -> Iterator[Outcome]:
    """In the order in which they are done."""
    if jobs == 1:
        yield from map(_run, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(_run, seeds, chunk)


def _run(seed: int) -> Outcome:
    outcome = run_seed(seed)
    return outcome if outcome.checker else outcome._replace(lines=[])
