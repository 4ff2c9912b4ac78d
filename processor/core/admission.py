"""Which records of a rule count where it has as many keys as it may, and what others are told.

A record that is refused by one rule is counted by the others. That it came, is remembered: its
repeat is a duplicate.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from msgspec import Struct

from processor.core.keys import REFUSED, KeyTable
from processor.core.records import Records
from processor.model import Rows

TOO_MANY_GROUPS = "too_many_groups"


class Refusal(NamedTuple):
    """A record that a rule does not count."""

    record: int  # its place among those of the page that could be decoded
    reason: str
    detail: str


class Tally(Struct):
    """What became of the keys of a rule and of records, since this was last taken."""

    evicted: int = 0  # keys
    forgotten: int = 0
    overflowed: int = 0  # records whose key was one too many: in `other`, or refused
    late: int = 0  # records that came, or were lost, after their window had been told for good
    late_at: list[Rows] = []  # places in the page of those that came so
    refusals: list[Refusal] = []


def admit(keys: KeyTable, records: Records, tally: Tally) -> tuple[int, Records, Rows]:
    """Look up the keys: of how many records, those of them that count, and their rows.

    Not of all where the next one needs room that only an eviction makes.
    """
    rows = keys.indices(records.keys, records.partition_keys)
    n = len(rows)
    tally.overflowed += keys.count_other(rows)
    records = records.part(slice(0, n))
    refused = rows == REFUSED
    if refused.any():
        at = np.flatnonzero(refused).tolist()
        tally.overflowed += len(at)
        tally.refusals += (_too_many_groups(keys, records, i) for i in at)
        taken = np.flatnonzero(~refused)
        records, rows = records.part(taken), rows[taken]
    return n, records, rows


def _too_many_groups(keys: KeyTable, records: Records, i: int) -> Refusal:
    key = [column[i] for column in records.keys]
    detail = f"the key {key} is one more than max_groups, {keys.max}"
    return Refusal(int(records.at[i]), TOO_MANY_GROUPS, detail)
