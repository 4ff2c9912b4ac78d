"""NAB's scoring: what detections are worth, and the best threshold over a corpus.

Lavin and Ahmad, "Evaluating Real-time Anomaly Detection Algorithms – the Numenta Anomaly
Benchmark" (2015), section III, as the benchmark's own code (`nab/sweeper.py`) has it:

- A point counts as a detection where its score reaches the threshold. Points on probation do not.
- The first detection in a labelled window earns sigma(y), where y runs from -1 at the window's
  first point to nearly 0 at its last, in units of what its first point earns; further ones nothing.
- A window without a detection costs the weight of a false negative.
- A detection outside costs the weight of a false positive times |sigma(y)|: nearly nothing right
  after a window, all of it from three window lengths on, and before the first window.
- sigma(y) = 2 / (1 + exp(5 y)) - 1.
- The sum is normalised: 0 is to detect nothing, 100 to detect each window at its first point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from bench.detection.nab import File
from processor.model import Floats, Ints

FAR = 3.0  # window lengths behind a window a false positive costs all


class Profile(NamedTuple):
    """What an application thinks a true positive, a miss and a false alarm are worth."""

    hit: float
    miss: float
    false_alarm: float


PROFILES: Mapping[str, Profile] = {
    "standard": Profile(1.0, 1.0, 0.11),
    "low_fp": Profile(1.0, 1.0, 0.22),
    "low_fn": Profile(1.0, 2.0, 0.11),
}


class Scored(NamedTuple):
    """One profile's outcome at one threshold."""

    score: float  # normalised: 0 to detect nothing, 100 to be perfect
    raw: float
    threshold: float


class Curve(NamedTuple):
    """Outcomes at every threshold that tells points apart, from the highest down."""

    thresholds: Floats
    raws: Floats
    scores: Floats  # normalised

    @property
    def best(self) -> Scored:
        i = int(self.raws.argmax())  # of equals, the highest threshold
        return Scored(float(self.scores[i]), float(self.raws[i]), float(self.thresholds[i]))

    def at(self, threshold: float) -> Scored:
        i = int(np.searchsorted(-self.thresholds, -threshold, side="right")) - 1
        return Scored(float(self.scores[i]), float(self.raws[i]), threshold)


def sigmoid(position: Floats) -> Floats:
    """From nearly 1 at -1 through 0 at 0 to -1."""
    worth: Floats = 2.0 / (1.0 + np.exp(5.0 * np.minimum(position, FAR))) - 1.0
    return np.where(position >= FAR, -1.0, worth)


def worths(file: File) -> tuple[Floats, Ints]:
    """What a detection at each point earns (in a window) or costs, before weights; float64[n].

    And the window that each point is in, int64[n], -1 for none.
    """
    n = len(file.values)
    at, inside = np.arange(n), np.full(n, -1, dtype=np.int64)
    position = np.full(n, FAR)
    for i, (first, last) in enumerate(sorted(file.windows)):
        width = last - first + 1
        inside[first : last + 1] = i
        position[first : last + 1] = -(last - at[first : last + 1] + 1) / width
        # A window of one point has no length to be behind of: then all is far.
        position[last + 1 :] = (at[last + 1 :] - last) / (width - 1) if width > 1 else FAR
    worth = sigmoid(position)
    return np.where(inside >= 0, worth / sigmoid(np.array([-1.0]))[0], worth), inside


def curve(files: Sequence[File], scores: Sequence[Floats], profile: Profile) -> Curve:
    """The outcome of `scores` (a column a file, NaN for none) at every threshold, over all files.

    Above the highest score nothing is detected.
    """
    n_windows = sum(len(file.windows) for file in files)
    parts = [_changes(file, own, profile) for file, own in zip(files, scores, strict=True)]
    marks = np.concatenate([np.zeros(0), *(marks for marks, _ in parts)])
    changes = np.concatenate([np.zeros(0), *(changes for _, changes in parts)])
    order = np.argsort(-marks, kind="stable")
    marks, sums = marks[order], np.cumsum(changes[order])
    last = np.append(marks[1:] != marks[:-1], True)[: len(marks)]  # all points of a score at once
    raws = np.concatenate([[0.0], sums[last]]) - profile.miss * n_windows
    thresholds = np.concatenate([[np.inf], marks[last]])
    return Curve(thresholds, raws, normalised(raws, n_windows, profile))


def normalised(raws: Floats, n_windows: int, profile: Profile) -> Floats:
    """0 is what detecting nothing gets, 100 what perfect detection does; NaN without windows."""
    nothing, perfect = -profile.miss * n_windows, profile.hit * n_windows
    if not n_windows:
        return np.full(len(raws), np.nan)
    scaled: Floats = 100.0 * (raws - nothing) / (perfect - nothing)
    return scaled


def _changes(file: File, scores: Floats, profile: Profile) -> tuple[Floats, Floats]:
    """The scores at which something changes, and what changes when the threshold comes there."""
    worth, inside = worths(file)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    judged = np.arange(len(scores)) >= file.probation
    outside = judged & (inside < 0)
    marks, changes = [scores[outside]], [profile.false_alarm * worth[outside]]
    for i in range(len(file.windows)):
        at = np.flatnonzero(judged & (inside == i))
        at = at[np.argsort(-scores[at], kind="stable")]
        won = np.concatenate([[-profile.miss], np.maximum.accumulate(profile.hit * worth[at])])
        marks.append(scores[at])
        changes.append(np.diff(np.maximum(won, -profile.miss)))
    return np.concatenate(marks), np.concatenate(changes)
