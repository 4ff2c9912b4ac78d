"""What people ask of alarms (this was expected; keep quiet about that key), and what became of it.

    a command writes an Instruction into the lease table     workers read it every few seconds
    a shard that it concerns commits it as a Mark, "instructed", and then applies it

So an instruction takes effect at a position of each shard, and a replay applies it there again.
Which were applied is part of the state: a restart, a successor and a shard's children don't apply
them a second time. All times in them are of events, but `expires_ms`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from typing import Literal

import msgspec
from msgspec import Struct

# In the table at a time: read whole by each worker every few seconds. At their longest they make
# 150 KB, 20 read units.
INSTRUCTIONS_MAX = 256
INSTRUCTION_BYTES_MAX = 512
# Ids that a state remembers: those in the table, and as many again several times over. An older one
# is not in the table any more.
TAKEN_MAX = 1_024
# Mutes that a state holds; of more, those that end first go.
MUTES_MAX = 128

Act = Literal["mute", "unmute", "expect", "unexpect"]


class Instruction(Struct, frozen=True, omit_defaults=True):
    """One thing that somebody asked. `id` begins with the time of asking, so ids are in order.

    mute      of the keys that have all values of `key` (any, where it is empty) alarms of `rule`'s
              detector (any, where it is "") stay untold in windows that start before `until_ms`
    unmute    the mute with the id `of` is over
    expect    what the event with the id `of` told was no surprise
    unexpect  what was accepted of that event's series is accepted no more
    """

    id: str
    act: Act
    expires_ms: int  # by the clock: nobody need take it from then on
    of: str = ""
    rule: str = ""
    key: dict[str, str] = {}  # field → value, as text
    detector: str = ""
    until_ms: int = 0

    def is_of(self, rule: str, detector: str) -> bool:
        """Whether it is about that detector of that rule."""
        return self.rule == rule and self.detector in ("", detector)

    def has(self, key: Iterable[tuple[str, str | int]]) -> bool:
        """Whether it is about that key, (field, value) each."""
        if not self.key:
            return True
        values = {field: str(value) for field, value in key}
        return all(values.get(field) == value for field, value in self.key.items())

    def __str__(self) -> str:
        keys = ", ".join(f"{field}={value}" for field, value in self.key.items())
        of = f" {self.of}" if self.of else ""
        return f"{self.act}{of} {self.rule} {keys}".rstrip()


def encoded(instruction: Instruction) -> str:
    """As a mark carries it, and the table holds it; the same instruction is the same text."""
    return msgspec.json.encode(instruction).decode()


def decoded(text: str) -> Instruction:
    """Raises msgspec.DecodeError or ValidationError where it is none."""
    return msgspec.json.decode(text, type=Instruction)


def brief(event_id: str) -> int:
    """The first 8 bytes of an event's id, as columns keep it; 0 is no event's.

    Raises ValueError where it is no id.
    """
    raw = base64.b32decode(event_id.upper(), casefold=False)
    if len(raw) < 8:
        raise ValueError(f"{event_id!r} is no event's id")
    return int.from_bytes(raw[:8], "big")


class Saved(Struct, frozen=True):
    """What a state remembers."""

    taken: tuple[str, ...] = ()
    mutes: tuple[Instruction, ...] = ()


class Instructed:
    """What a shard has been told: which instructions it took, and what is muted."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._mutes: dict[str, Instruction] = {}

    def __repr__(self) -> str:
        return f"<Instructed {len(self._taken)} times, {len(self._mutes)} mutes>"

    def has_taken(self, instruction: Instruction) -> bool:
        return instruction.id in self._taken

    def take(self, instruction: Instruction) -> None:
        """Remember it; a mute holds from now on, or is over."""
        self._taken.add(instruction.id)
        if instruction.act == "mute":
            self._mutes[instruction.id] = instruction
        elif instruction.act == "unmute":
            self._mutes.pop(instruction.of, None)
        self._trim()

    def _trim(self) -> None:
        for old in sorted(self._taken)[:-TAKEN_MAX]:
            self._taken.discard(old)
        by_end = sorted(self._mutes.values(), key=lambda mute: (mute.until_ms, mute.id))
        for first in by_end[:-MUTES_MAX]:
            del self._mutes[first.id]

    def mutes(self, rule: str, detector: str, start_ms: int) -> list[Instruction]:
        """Those that hold for a window that starts then."""
        if not self._mutes:
            return []
        return [
            mute
            for _, mute in sorted(self._mutes.items())
            if start_ms < mute.until_ms and mute.is_of(rule, detector)
        ]

    def snapshot(self) -> Saved:
        mutes = tuple(mute for _, mute in sorted(self._mutes.items()))
        return Saved(tuple(sorted(self._taken)), mutes)

    def adopt(self, saved: Saved) -> None:
        """Go on with what another, or the one before, was told: a parent's or one's own."""
        lifted = set(saved.taken) | self._taken
        mine = {mute.id for mute in saved.mutes} & self._mutes.keys()
        both = {mute.id: mute for mute in saved.mutes} | self._mutes
        # A mute that one of two parents knows to be over is over.
        self._mutes = {
            id_: mute
            for id_, mute in both.items()
            if id_ in mine or not (id_ in self._taken and id_ in saved.taken)
        }
        self._taken = lifted
        self._trim()


def fields_of(rule: str, group_by: Iterable[str], given: Mapping[str, str]) -> str | None:
    """What is wrong with the fields of a mute's key; None: nothing."""
    unknown = [field for field in given if field not in group_by]
    if not unknown:
        return None
    known = ", ".join(group_by) or "nothing: mute the whole rule"
    return f"rule {rule} has no key field {unknown[0]!r}; it groups by {known}"
