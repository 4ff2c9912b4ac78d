"""What a rule as a whole has to say to its alarms: mutes, and the alarm budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from processor.core.alarms import rarity
from processor.core.alarms.rarity import Rarity
from processor.core.instructions import Instructed
from processor.core.keys import KeyTable
from processor.detectors.base import Wave
from processor.model import Bools, BudgetSpec, DetectSpec, Floats, Rows


class Ruling:
    """`control.Control` of one rule on one shard, or in one bucket."""

    def __init__(
        self,
        rule: str,
        detects: Mapping[str, DetectSpec],
        keys: KeyTable,
        budget: BudgetSpec | None,
        share: float,
    ):
        """`detects`: by what their columns are called. `share`: of the rule's keys, which are here
        if they are spread evenly; so much of its budget is ours."""
        self.instructed = Instructed()
        self._untold: dict[str, int] = {}
        self._rule, self._detects, self.keys = rule, detects, keys
        self._budget, self._share = budget, share
        self._rarities = {series: Rarity() for series in detects}
        self._bars: dict[str, float] = {}  # of the wave that is being judged

    def __repr__(self) -> str:
        return f"<Ruling of {self._rule}, {self._rarities!r}>"

    # ---- asked by alarms ----------------------------------------------------------------------

    def on_scores(self, series: str, scores: Floats, wave: Wave) -> None:
        one = self._rarities[series]
        if self._budget is not None:  # by what was before this wave
            openings = self._budget.openings * self._share / len(self._rarities)
            self._bars[series] = one.bar(openings, self._budget.period_ms)
        one.on_wave(wave.end_ms, wave.end_ms - wave.start_ms, scores)

    def on_openings(self, series: str, scores: Floats) -> None:
        if len(scores):
            self._rarities[series].on_openings(scores)

    def merge_openings(self, series: str, scores: Floats) -> None:
        """They are told as one."""
        self._rarities[series].merge_openings(scores)

    def bar(self, series: str) -> float:
        return self._bars.get(series, 0.0)

    def muted(self, series: str, rows: Rows, wave: Wave) -> Bools:
        found = np.zeros(len(rows), dtype=np.bool_)
        mutes = self.instructed.mutes(self._rule, self._detects[series].name, wave.start_ms)
        if not mutes:
            return found
        if any(not mute.key for mute in mutes):
            return ~found
        for i, row in enumerate(rows.tolist()):
            key = self.keys.group(row).key
            found[i] = any(mute.has(key) for mute in mutes)
        return found

    def on_untold(self, reason: str, n: int) -> None:
        if n:
            self._untold[reason] = self._untold.get(reason, 0) + n

    def take_untold(self) -> dict[str, int]:
        """Alarms that opened without an event since it was last asked, by why."""
        taken, self._untold = self._untold, {}
        return taken

    def expected_every(self, series: str, score: float) -> float | None:
        return self._rarities[series].expected_every(score)

    # ---- state --------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, rarity.Saved]:
        return {series: one.snapshot() for series, one in self._rarities.items()}

    def adopt(self, saved: Mapping[str, rarity.Saved], share: float = 1.0) -> None:
        """See `Rarity.adopt`; of a detector that is not there any more, nothing."""
        for series, one in saved.items():
            if series in self._rarities:
                self._rarities[series].adopt(one, share)


def of_series(series: Sequence[str], detects: Sequence[DetectSpec]) -> dict[str, DetectSpec]:
    return dict(zip(series, detects, strict=True))
