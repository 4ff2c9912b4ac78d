"""What a file of cases holds, read and checked: steps, and what is expected after each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from processor.core.patterns import Pattern
from processor.model import Pipeline


class Sent(Struct, frozen=True):
    """A record as the producer sends it; `time_ms` is its event's own, None where it has none."""

    payload: bytes
    partition_key: str
    time_ms: int | None


class Records(Struct, frozen=True):
    """Records arrive in this order: when they happen, unless `arrival_ms` is given."""

    sent: tuple[Sent, ...]
    arrival_ms: int | None = None


class Idle(Struct, frozen=True):
    """So much time passes without records."""

    ms: int


class Watermark(Struct, frozen=True):
    """A mark moves the watermark there."""

    to_ms: int


Action = Records | Idle | Watermark


class Leaf(Struct, frozen=True):
    """One value that is written; `pattern` where alternatives stand in its place."""

    path: tuple[str, ...]
    value: Any
    pattern: Pattern | None = None


class Expected(Struct, frozen=True):
    """An event or dead letter by what is written of it: the rest may be anything."""

    line: int
    leaves: tuple[Leaf, ...]
    written: Any


class Expect(Struct, frozen=True):
    """All that is told since the expectation before; what is not written is not there.

    `late`: drops, added up over the rules or by rule. None: anything will do.
    """

    line: int
    events: tuple[Expected, ...] = ()
    is_exact: bool = True  # else others may be told besides
    dead_letters: tuple[Expected, ...] = ()
    late: int | Mapping[str, int] = 0
    duplicates: int = 0
    unmatched: int | None = None


class Step(Struct, frozen=True):
    """`shard`: the only one that it is about; None: records go where their key is at home."""

    line: int
    action: Action
    shard: int | None = None
    expect: Expect | None = None


class Case(Struct, frozen=True):
    """`rules`: those that are looked at; None: all."""

    name: str
    line: int
    steps: tuple[Step, ...]
    shards: int = 1
    rules: frozenset[str] | None = None


class Suite(Struct, frozen=True):
    """The cases of one file, and the pipeline that they try."""

    file: str
    pipeline_file: str
    pipeline: Pipeline
    start_ms: int
    cases: tuple[Case, ...]
