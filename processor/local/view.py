"""What a person sees of the demo: a live table in a terminal, plain progress lines elsewhere.

Everything goes to standard error: standard output belongs to the report.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, Self

PLAIN_EVERY_S = 5.0  # a minute's run leaves a dozen lines
REFRESH_PER_S = 4  # as often as the eye follows figures
ALARMS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class ShardLine:
    """One shard: who owns it, since which epoch, how much it took."""

    shard_id: str
    worker: str
    epoch: int
    records: int


@dataclass(frozen=True, slots=True)
class Progress:
    """A moment of the run. `now_ms` is the fortnight's time."""

    elapsed_s: float
    now_ms: int
    sent: int
    total: int
    throttled: int
    processed: int
    received: int
    letters: int
    reshards: int
    deploys: int
    shards: Sequence[ShardLine]
    alarms: Sequence[str]  # sentences, oldest first
    overall: str = ""  # the newest figures over all shards


class View(AbstractContextManager["View"], Protocol):
    """Shows progress; both methods return at once."""

    def show(self, progress: Progress) -> None: ...

    def say(self, text: str) -> None: ...


def make_view(wants_live: bool) -> View:
    """The live view where somebody looks at it, and `rich` is there to draw it."""
    if not (wants_live and sys.stderr.isatty()):
        return PlainView()
    try:
        from processor.local.live import LiveView
    except ImportError:
        return PlainView()  # `rich` comes with the extra `demo` only
    return LiveView()


def when(now_ms: int) -> str:
    """A time of the fortnight, as a person says it."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%a %d %b %H:%M")


def changes_of(progress: Progress) -> dict[str, int]:
    """Of what never happened nothing is said."""
    counts = {"reshards": progress.reshards, "deploys": progress.deploys}
    return {name: n for name, n in counts.items() if n}


class PlainView:
    """A line now and then: for logs, pipes and CI."""

    def __init__(self) -> None:
        self._due_s = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        pass  # nothing is held

    def show(self, progress: Progress) -> None:
        if progress.elapsed_s < self._due_s:
            return
        self._due_s = progress.elapsed_s + PLAIN_EVERY_S
        self.say(
            f"{progress.elapsed_s:5.1f} s  {when(progress.now_ms)}"
            f"  sent {progress.sent:,} of {progress.total:,}"
            f"  processed {progress.processed:,}  events {progress.received:,}"
            f"  dead letters {progress.letters}  alarms {len(progress.alarms)}"
            f"{''.join(f'  {name} {n}' for name, n in changes_of(progress).items())}"
        )
        if progress.overall:
            self.say(f"        in the last ten minutes: {progress.overall}")

    def say(self, text: str) -> None:
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()
