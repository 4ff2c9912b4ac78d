"""Learning from a recording: the state with which each shard of a stream begins.

Records go where the service would route them, to the shards that are to begin (`takers`); nothing
is told. At the end all shards are as far as the recording is: what had ended by then is learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from processor import zones
from processor.core import plan
from processor.core.plan import Plan
from processor.core.rules import Learnt
from processor.history.lines import Recorded
from processor.history.stages import Stages, Told
from processor.model import Pipeline, Shard

PAGE = 1_000  # records of a shard that are fed at once: the cheapest a record
BATCH = 20_000  # records after which all shards are fed: some shards have few


class Learning(Struct):
    """What became of the records so far; counts by rule where they name one."""

    records: int = 0  # that were fed
    bad_lines: int = 0  # no records
    unplaced: int = 0  # no shard takes them
    left_to_stream: int = 0  # the stream still has them
    rejected: int = 0
    late: int = 0
    duplicates: int = 0
    overflowed: dict[str, int] = {}
    first_ms: int | None = None  # the earliest arrival
    last_ms: int | None = None  # the latest


class Learner:
    """Feeds a recording to the shards of a stream."""

    def __init__(
        self, compiled: Plan, takers: Sequence[Shard], until_ms: Sequence[int | None]
    ) -> None:
        """`until_ms`: of each taker; records that arrived from then on are its stream's own."""
        self.told = Learning()
        self.stages = Stages(compiled, takers)
        self._until_ms = until_ms
        self._waiting: list[list[Recorded]] = [[] for _ in takers]
        self._is_first_batch = True

    def __repr__(self) -> str:
        return f"<Learner of {self.told.records} records, {self.stages!r}>"

    def learn(self, recorded: Iterable[Recorded], on_batch: Callable[[Learner], None]) -> None:
        """All of it. `on_batch` is called after each batch, to show how far it is."""
        for n, record in enumerate(recorded, 1):
            self._take(record)
            if n % BATCH == 0:
                self._end_batch()
                on_batch(self)
        self._end_batch()
        self._end()

    def _take(self, record: Recorded) -> None:
        home = self._home(record)
        if home is None:
            self.told.unplaced += 1
            return
        until_ms = self._until_ms[home]
        if until_ms is not None and record.arrival_ms >= until_ms:
            self.told.left_to_stream += 1
            return
        waiting = self._waiting[home]
        waiting.append(record)
        if len(waiting) == PAGE:
            self._feed(home)

    def _home(self, record: Recorded) -> int | None:
        """None where no taker has it, or where nobody knows."""
        if not record.partition_key and len(self._waiting) > 1:
            return None
        return self.stages.home(record.partition_key)

    def _end_batch(self) -> None:
        for nth in range(len(self._waiting)):
            self._feed(nth)
        if self._is_first_batch:  # who has nothing to tell of global rules is not waited for
            self._is_first_batch = False
            for nth in range(len(self._waiting)):
                self._count(self.stages.quieten(nth, self.told.last_ms or 0))

    def _feed(self, nth: int) -> None:
        records, self._waiting[nth] = self._waiting[nth], []
        if not records:
            return
        told, arrivals = self.told, [record.arrival_ms for record in records]
        first_ms, last_ms = min(arrivals), max(arrivals)
        told.records += len(records)
        told.first_ms = first_ms if told.first_ms is None else min(told.first_ms, first_ms)
        told.last_ms = last_ms if told.last_ms is None else max(told.last_ms, last_ms)
        self._count(self.stages.feed(nth, records, told.last_ms))

    def _end(self) -> None:
        """Time goes on to the end of the recording, in all shards alike."""
        reached = [shard.watermark_ms for shard in self.stages.shards]
        end_ms = max((ms for ms in reached if ms is not None), default=None)
        if end_ms is None:
            return
        for nth, watermark_ms in enumerate(reached):
            if watermark_ms is not None and watermark_ms < end_ms:
                self._count(self.stages.advance(nth, end_ms, end_ms))
        for nth in range(len(reached)):
            self._count(self.stages.quieten(nth, end_ms))

    def _count(self, steps: Iterable[Told]) -> None:
        told = self.told
        for step, is_merged in steps:
            counts = step.counts
            told.rejected += sum(counts.rejects.values())
            told.late += sum(counts.late_by_rule.values())
            if not is_merged:
                told.duplicates += counts.duplicates
            for rule, n in counts.overflowed.items():
                told.overflowed[rule] = told.overflowed.get(rule, 0) + n

    @property
    def learnt(self) -> Mapping[str, Learnt]:
        """How much the detectors know, by rule that has some."""
        return self.stages.learnt


def silent(pipeline: Pipeline) -> Plan:
    """The pipeline, compiled, with nothing told: where results go changes no state."""
    rules = (replace(rule, emit_windows=None, emit_anomalies=None) for rule in pipeline.rules)
    pipeline = replace(pipeline, rules=tuple(rules))
    return plan.compile(pipeline, zones.tables(pipeline))
