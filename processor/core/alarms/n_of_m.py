"""n of m: so many of the last windows must be beyond. A window is a bit, the last the lowest."""

from __future__ import annotations

import numpy as np

from processor.core.alarms.alarm import LONG_AGO
from processor.model import Bools, Rows, State


def on_windows(alarms: State, rows: Rows, beyond: Bools, counts: Bools, m: int) -> None:
    """Take in one window of each row; where it does not count it is passed over."""
    taken = rows[counts]
    mask = np.uint64(2**m - 1)
    bits = alarms["beyond"][taken]
    alarms["beyond"][taken] = ((bits << np.uint64(1)) | beyond[counts]) & mask


def on_escalations(alarms: State, rows: Rows, escalates: Bools, counts: Bools) -> None:
    """Count the windows since the last one that was an escalation."""
    taken = rows[counts]
    since = alarms["since_escalation"][taken]
    since = np.where(since < LONG_AGO, since + np.uint8(1), since)
    alarms["since_escalation"][taken] = np.where(escalates[counts], np.uint8(0), since)


def beyond_of(alarms: State, rows: Rows) -> Rows:
    """How many of the last m windows were beyond."""
    return np.bitwise_count(alarms["beyond"][rows]).astype(np.intp)


def forget(alarms: State, rows: Rows) -> None:
    """An alarm is over: its windows make no other one."""
    alarms["beyond"][rows] = 0
    alarms["since_escalation"][rows] = LONG_AGO
