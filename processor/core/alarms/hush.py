"""Which open alarms people hear of. An alarm may be open and untold; its column `hushed` says why.

    muted      its key is; once the mute is over and it still is open, it is told
    below      its score is below the bar that the rule's alarm budget sets; told when it passes it
    collapsed  it is told with many others, as one event
    left       … which is over, and it still is open: it is told with the next window
    expected   somebody said so: it resolves with the next window

An alarm that resolves untold is never heard of; metrics count each that is hushed.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from processor.core.alarms.control import Control
from processor.detectors.base import Wave
from processor.model import Bools, Floats, Ints, Rows, State

TOLD, MUTED, BELOW, COLLAPSED, LEFT, EXPECTED = range(6)
_WAITING = (MUTED, BELOW, LEFT)  # for a reason that may be over
REASONS = {
    MUTED: "told now that its mute is over",
    BELOW: "told now that its score passes what the alarm budget asks for",
    LEFT: "left over from many at once that were told as one",
}


class Facts(NamedTuple):
    """Of n series whose alarms are open, just opened, or just over: bool[n] each."""

    opens: Bools
    escalates: Bools
    over: Bools


class Heard(NamedTuple):
    """What of them is told: bool[n] each; `late` says of the opened ones why only now."""

    opened: Bools
    escalated: Bools
    resolved: Bools
    late: Ints


def on_windows(
    control: Control, series: str, alarms: State, rows: Rows, facts: Facts, wave: Wave
) -> Heard:
    """Decide for alarms of a wave, and note why some stay untold."""
    before = alarms["hushed"][rows]
    scores: Floats = alarms["worst_score"][rows]
    is_muted = control.muted(series, rows, wave)
    is_below = (scores < control.bar(series)) & ~np.isneginf(scores)  # without a score it is told
    counted = scores[facts.opens & ~is_muted]
    control.on_openings(series, np.where(np.isneginf(counted), np.nan, counted))
    reason = np.where(is_muted, MUTED, np.where(is_below, BELOW, TOLD)).astype(np.uint8)
    asks = facts.opens | (np.isin(before, _WAITING) & ~facts.over & ~facts.opens)
    was_told = ~facts.opens & ((before == TOLD) | (before == EXPECTED))
    for name, code in (("muted", MUTED), ("budget", BELOW)):
        control.on_untold(name, int((facts.opens & (reason == code)).sum()))
    alarms["hushed"][rows[asks]] = reason[asks]
    alarms["hushed"][rows[facts.over]] = TOLD
    return Heard(
        opened=asks & (reason == TOLD),
        escalated=facts.escalates & was_told & ~is_muted,
        resolved=facts.over & was_told,
        late=np.where(facts.opens, TOLD, before).astype(np.int64),
    )
