"""The NAB part: three profiles by the official protocol, and at the shipped sensitivities.

"By the protocol" means that the threshold is the best for the corpus, a profile at a time, as NAB
has it. What counts as a detection is that a detector speaks up (on escalation). `told` is what of
it reached people at that sensitivity: a raise while an alarm is open is not told again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.detection import judged, kinds, nab
from bench.detection.bars import Bar, Part, shown
from bench.detection.judged import Judged, Kind
from bench.detection.nab import File
from bench.detection.nab_score import PROFILES, Profile, curve
from bench.harness import Table
from processor.model import Floats

# Each costs another run over all files.
TOLD: Mapping[str, Sequence[str]] = {"full": ("high", "medium")}
DETECTED = 1.0  # the score of what was told, where there is no other


class Outcome(NamedTuple):
    """One detector's scores on NAB; by profile, and by sensitivity and profile."""

    best: Mapping[str, float]
    thresholds: Mapping[str, float]
    fixed: Mapping[str, Mapping[str, float]]
    told: Mapping[str, Mapping[str, float]]

    def in_json(self) -> dict[str, Any]:
        at = {f"at_{name}": by["standard"] for name, by in self.fixed.items()}
        return {**self.best, **at, "at_default": at["at_medium"], **self._asdict()}


def run(folder: Path | None, measured: Sequence[Kind], pool: Executor) -> Part:
    """Every kind on all files there are; nothing but a word without a folder."""
    if folder is None:
        return Part(tables=[Table("NAB: skipped; --nab DIR says where its data is", [""], [])])
    files = nab.load(folder)
    outcomes = dict(
        zip(
            (kind.name for kind in measured),
            pool.map(_outcome_of, [(folder, kind) for kind in measured]),
            strict=True,
        )
    )
    figures: dict[str, Any] = {name: found.in_json() for name, found in outcomes.items()}
    figures["files"] = [file.name for file in files]
    return Part(figures, [_table(files, outcomes)], _bars(outcomes))


def outcome(files: Sequence[File], kind: Kind) -> Outcome:
    marks = [one.marks[:, 0] for one in judge(files, kinds.wide_open(kind))]
    curves = {name: curve(files, marks, profile) for name, profile in PROFILES.items()}
    best = {name: found.best for name, found in curves.items()}
    fixed = {level: kinds.threshold(kind, level) for level in kinds.SENSITIVITIES}
    return Outcome(
        {name: found.score for name, found in best.items()},
        {name: found.threshold for name, found in best.items()},
        {
            level: {name: found.at(threshold).score for name, found in curves.items()}
            for level, threshold in fixed.items()
        },
        {level: _told(files, kinds.at(kind, level)) for level in TOLD.get(kind.name, ())},
    )


def judge(files: Sequence[File], kind: Kind) -> list[Judged]:
    return judged.judge_apart(kind, [(f.times_ms, f.values, f.step_ms) for f in files])


def _told(files: Sequence[File], kind: Kind) -> dict[str, float]:
    opened = [np.where(one.opened[:, 0], DETECTED, np.nan) for one in judge(files, kind)]
    return {name: _at_one(files, opened, profile) for name, profile in PROFILES.items()}


def _at_one(files: Sequence[File], marks: Sequence[Floats], profile: Profile) -> float:
    return curve(files, marks, profile).at(DETECTED).score


def _outcome_of(task: tuple[Path, Kind]) -> Outcome:
    """In a process of its own, which reads the files itself."""
    folder, kind = task
    return outcome(nab.load(folder), kind)


def _table(files: Sequence[File], outcomes: Mapping[str, Outcome]) -> Table:
    n_windows = sum(len(file.windows) for file in files)
    header = ["standard / low-FP / low-FN", "by protocol", "threshold", "high", "medium", "low"]
    header += ["told, high", "told, medium"]
    rows = [
        [
            name,
            _three(found.best),
            shown(found.thresholds["standard"]),
            *(_three(found.fixed[level]) for level in kinds.SENSITIVITIES),
            *(shown(found.told.get(level, {}).get("standard"), 1) for level in ("high", "medium")),
        ]
        for name, found in outcomes.items()
    ]
    return Table(f"NAB, {len(files)} series with {n_windows} labelled windows", header, rows)


def _three(scores: Mapping[str, float]) -> str:
    return " / ".join(shown(scores[name], 1) for name in PROFILES)


def _bars(outcomes: Mapping[str, Outcome]) -> list[Bar]:
    bars = []
    if "full" in outcomes:
        full = outcomes["full"]
        at_high, at_medium = (full.fixed[level]["standard"] for level in ("high", "medium"))
        bars = [
            Bar("NAB full, standard", full.best["standard"], 76.0, True),
            Bar("NAB full, low_fp", full.best["low_fp"], 68.0, True),
            Bar("NAB full, low_fn", full.best["low_fn"], 81.0, True),
            Bar("NAB full at high, standard", at_high, 74.0, True),
            Bar("NAB full at medium, standard", at_medium, 72.0, True),
        ]
    if "standard" in outcomes:
        best = outcomes["standard"].best["standard"]
        bars.append(Bar("NAB standard, standard", best, 74.0, True))
    return bars
