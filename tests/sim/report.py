"""What a run of many seeds came to: failures, and how often each fault and each path occurred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.sim.run import Outcome

# A run that never took one of these says nothing of it.
PATHS = (
    "ambiguous write settled as applied",
    "ambiguous write settled as not applied",
    "burial",
    "closing in several records",
    "duplicate records",
    "broken records",
    "falls back to the older pair",
    "finds itself buried and joins anew",
    "first claim",
    "hand-off by successor's time-out",
    "hand-off to the successor",
    "late at the merge stage",
    "lost a lease",
    "late records",
    "mark",
    "mark replayed",
    "merge adopted",
    "partial told again",
    "put by the buried",
    "quiet mark",
    "reclaim of one's own",
    "repeat of an applied write refused",
    "release to anybody",
    "release to one who is not ready",
    "release to one who is ready",
    "reshard by merge",
    "reshard by merge of the merge stream",
    "reshard by scale",
    "reshard by scale of the merge stream",
    "reshard by split",
    "reshard by split of the merge stream",
    "split adopted",
    "split of a split",
    "take-over from the dead",
    "write under an old epoch refused",
)
FAULTS = ("weather", "outage", "crash", "pause", "aim", "damage", "deafness", "deploy", "refusal")
JUDGED_FROM = 200  # seeds; in fewer, the rarest of the paths need not occur


@dataclass
class Report:
    seeds: int = 0
    paths: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.seeds += 1
        self.paths.update(outcome.paths)
        self.faults.update(outcome.faults)
        if outcome.checker:
            self.failed.append(outcome)

    def missing(self) -> list[str]:
        """What should have occurred in so many seeds, and did not."""
        if self.seeds < JUDGED_FROM:
            return []
        missing = [name for name in PATHS if not self.paths[name]]
        return missing + [name for name in FAULTS if not self.faults[name]]

    def lines(self) -> Iterator[str]:
        yield f"{self.seeds} seeds, {len(self.failed)} failed"
        yield "faults:"
        yield from _table(self.faults.items())
        yield "paths:"
        yield from _table((Counter(dict.fromkeys(PATHS, 0)) | self.paths).items())
        for outcome in sorted(self.failed):
            yield f"seed {outcome.seed}: {outcome.what[:300]}"
        for name in self.missing():
            yield f"never occurred: {name}"


def _table(counts: Iterable[tuple[str, int]]) -> Iterator[str]:
    for name, count in sorted(counts):
        yield f"  {count:9,}  {name}"
