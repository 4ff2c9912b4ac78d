"""What the event of a storm says: how many series, which detectors, the worst few, a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from processor.core.alarms.alarm import Collapsed, Pending
from processor.core.keys import KeyTable
from processor.detectors.base import SEVERITIES, duration
from processor.model import DetectSpec, Floats, Ints

WORST = 5  # series that are named: what fits into a message that somebody reads

Key = tuple[tuple[str, str | int], ...]
Counted = Sequence[tuple[DetectSpec, int]]


class Seen(NamedTuple):
    """Openings of one window, and their severities and scores, n each."""

    openings: Sequence[Pending]
    severities: Ints
    scores: Floats
    by_detector: Counted
    keys: KeyTable


class Left(NamedTuple):
    """A series that is still open when its storm is over."""

    text: str
    key: Key
    detect: DetectSpec


def started(rule: str, key: Key, seen: Seen, start_ms: int) -> Collapsed:
    n = len(seen.openings)
    by = ", ".join(f"{many} by {d.name} on {d.aggregate}" for d, many in seen.by_detector)
    return Collapsed(
        state="collapsed",
        severity=SEVERITIES[int(seen.severities.max())],
        opened_ms=start_ms,
        series=n,
        by_detector=_listed(seen.by_detector),
        worst=[_worst(seen, i) for i in _worst_places(seen)],
        still_open=n,
        left=[],
        sentence=f"{n} series of {_whose(rule, key)} went off in this window: {by}",
    )


def ended(
    rule: str,
    key: Key,
    by_detector: Counted,
    left: Sequence[Left],
    since_ms: tuple[int, int],
    of: tuple[int, int],
) -> Collapsed:
    """`since_ms`: start of its first window, end of the last; `of`: its event's `brief`, and the
    place of its severity."""
    n, (start_ms, end_ms) = sum(many for _, many in by_detector), since_ms
    lasted = duration(end_ms - start_ms)
    named = sorted(left, key=lambda one: (one.text, one.detect.aggregate, one.detect.name))[:WORST]
    rest = f"{len(left) or 'none'} of them still {'are' if len(left) > 1 else 'is'}"
    return Collapsed(
        state="resolved",
        severity=SEVERITIES[of[1]],
        opened_ms=start_ms,
        series=n,
        by_detector=_listed(by_detector),
        worst=[],
        still_open=len(left),
        left=[{"key": dict(one.key), **_named(one.detect)} for one in named],
        sentence=f"over after {lasted}: {n} series of {_whose(rule, key)} had gone off; {rest}",
        of=of[0],
    )


def _whose(rule: str, key: Key) -> str:
    return f"rule {rule}" + "".join(f" with {field} {value}" for field, value in key)


def _named(detect: DetectSpec) -> dict[str, Any]:
    return {"detector": detect.name, "aggregate": detect.aggregate}


def _listed(counted: Counted) -> list[dict[str, Any]]:
    return [{**_named(detect), "series": many} for detect, many in counted]


def _worst_places(seen: Seen) -> list[int]:
    """By severity, then score; what is equal in both, by the text of its key."""
    ranks = np.lexsort((-seen.scores, -seen.severities))  # no score is -inf: it comes last
    last = ranks[min(WORST, len(ranks)) - 1]
    ours, theirs = (of - of[last] for of in (seen.severities, _finite(seen.scores)))
    at = np.flatnonzero((ours > 0) | ((ours == 0) & (theirs >= 0)))

    def rank(i: int) -> tuple[int, float, str]:
        text = seen.keys.text(seen.openings[i].row)
        return -int(seen.severities[i]), -float(seen.scores[i]), text

    return sorted(at.tolist(), key=rank)[:WORST]


def _finite(scores: Floats) -> Floats:
    return np.clip(scores, -1e300, 1e300)


def _worst(seen: Seen, i: int) -> dict[str, Any]:
    alarm = seen.openings[i].make()
    return {
        "key": dict(seen.keys.group(alarm.row).key),
        **_named(alarm.detect),
        "value": alarm.value,
        "expected": alarm.expected,
        "score": alarm.score,
        "severity": alarm.severity,
        "sentence": alarm.sentence,
    }
