"""What all shards of one of the two stages share: where they read, what they run, where it goes.

    source stage   source stream → a ShardPipeline a shard → sinks, and partials → merge stream
    merge stage    merge stream → a MergePipeline a shard → sinks

Both are followed by the same loops under the same leases. The second is there only if a rule is
global, and reads nothing but what the first one of all workers put.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, Protocol

from msgspec import Struct, field

from processor.core.instructions import Instruction
from processor.core.merge.members import Behind
from processor.core.pipeline import ShardPipeline
from processor.core.plan import Plan
from processor.core.snapshots import Totals
from processor.core.stored.stream import Part
from processor.model import Mark, Page, Position, Shard, Step
from processor.ports import Clock, DeadLetters, PartialSink, Sink, Source, StepObserver
from processor.runtime.checkpoints import Captures


class Machine(Protocol):
    """What yields a shard's steps, of either stage; see `core.pipeline.ShardPipeline`."""

    totals: Totals
    position: Position | None

    @property
    def watermark_ms(self) -> int | None: ...
    @property
    def furthest_ms(self) -> int | None: ...
    @property
    def windows_open(self) -> int: ...
    @property
    def groups(self) -> Mapping[str, int]: ...
    def steps(self, item: Page | Mark, *, may_wait: bool = False) -> Iterator[Step]: ...
    def settle(self) -> Iterator[Step]: ...
    def finish(self) -> Iterator[Step]: ...
    def is_due(self, watermark_ms: int) -> bool: ...
    def is_asked(self, instruction: Instruction) -> bool: ...

    def has_taken(self, instruction: Instruction) -> bool: ...
    @property
    def is_quiet_due(self) -> bool: ...
    @property
    def behind(self) -> Behind | None: ...
    def parts(self) -> Iterable[Part]: ...
    def restoring(self, state: bytes, position: Position) -> Iterator[None]: ...
    def inherit(self, states: Sequence[bytes]) -> None: ...


Fresh = Callable[[Plan, Shard, str], Machine]  # of a plan, a shard and its incarnation


class Road(Struct, frozen=True):
    """One stage, in one process. `partials`: where global rules meet; None: no rule is global."""

    plan: Plan
    source: Source
    sinks: Mapping[str, Sink]
    dead_letters: DeadLetters
    clock: Clock
    observer: StepObserver
    captures: Captures = field(default_factory=Captures)
    partials: PartialSink | None = None
    fresh: Fresh = ShardPipeline
    is_merge: bool = False

    @property
    def stream(self) -> str:
        """Name or ARN of the stream that it reads."""
        pipeline = self.plan.pipeline
        if not self.is_merge:
            return pipeline.source.stream
        assert pipeline.merge is not None, "no rule is global"
        return pipeline.merge.stream

    @property
    def start(self) -> str:
        """Of the merge stream everything counts: what is in it, only we put there."""
        return "trim_horizon" if self.is_merge else self.plan.pipeline.source.start

    @property
    def on_gap(self) -> Literal["stop", "continue"]:
        """Of both streams: what is lost of the merge stream makes windows partial, too."""
        return self.plan.pipeline.source.on_gap

    @property
    def max_drift_ms(self) -> int | None:
        """How far a shard that catches up may be ahead of the slowest that does; None: any."""
        merge = self.plan.pipeline.merge
        return merge.max_drift_ms if self.partials is not None and merge is not None else None

    @property
    def on_stall_ms(self) -> int | None:
        """How long global rules wait for a shard that stands still; None: for ever."""
        merge = self.plan.pipeline.merge
        return merge.on_stall_ms if self.is_merge and merge is not None else None


class ShardView(Struct, frozen=True):
    """A shard as `/status` shows it."""

    totals: Totals
    position: str
    epoch: int
    watermark_ms: int | None
    lag_ms: int | None
    windows_open: int
    groups: Mapping[str, int]
