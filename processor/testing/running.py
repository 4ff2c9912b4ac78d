"""Runs a case through the production pipeline, both stages of it, and judges each step.

Time is the case's own: it goes on with records, with `idle` and with `arrival`, and nothing else.
An idle shard is judged as the runtime does it, by answers 5 s apart that bring no records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import orjson
from msgspec import Struct

from processor import zones
from processor.core.plan import Plan, compile
from processor.core.progress import ANSWERS_APART_MS_MAX
from processor.history import stages
from processor.history.lines import Recorded
from processor.history.stages import Stages, even_shards
from processor.model import DeadLetter, DerivedEvent
from processor.testing.comparing import Difference, Outcome, Told, differences
from processor.testing.suite import Case, Idle, Records, Sent, Step, Suite, Watermark


class Wrong(Struct, frozen=True):
    """A step after which something else was told; `number` counts from 1.

    `watermarks_ms`: of each shard by then; None where there was no record yet.
    """

    number: int
    line: int
    watermarks_ms: tuple[int | None, ...]
    differences: tuple[Difference, ...]


class Verdict(Struct, frozen=True):
    """What became of a case: nothing wrong, or the steps that were."""

    case: str
    line: int
    steps: int
    wrong: tuple[Wrong, ...]


def run(suite: Suite, only: str = "") -> list[Verdict]:
    """Every case whose name contains `only`, each from nothing."""
    plan = compile(suite.pipeline, zones.tables(suite.pipeline))
    return [judge(plan, suite.start_ms, case) for case in suite.cases if only in case.name]


def judge(plan: Plan, start_ms: int, case: Case) -> Verdict:
    trial = Trial(plan, start_ms, case)
    wrong = []
    for number, step in enumerate(case.steps, 1):
        trial.take(step)
        if step.expect is not None:
            found = differences(step.expect, trial.outcome())
            if found:
                wrong.append(Wrong(number, step.line, trial.watermarks_ms, tuple(found)))
    return Verdict(case.name, case.line, len(case.steps), tuple(wrong))


class Trial:
    """The shards of one case, and what they have told since somebody asked."""

    def __init__(self, plan: Plan, start_ms: int, case: Case) -> None:
        self._rules = case.rules
        self._clock_ms = start_ms
        self._stages = Stages(plan, even_shards(case.shards))
        self._forget()

    def __repr__(self) -> str:
        return f"<Trial at {self._clock_ms} {self._stages!r}>"

    @property
    def watermarks_ms(self) -> tuple[int | None, ...]:
        return tuple(shard.watermark_ms for shard in self._stages.shards)

    def take(self, step: Step) -> None:
        shards = range(len(self._stages.shards)) if step.shard is None else [step.shard]
        match step.action:
            case Records() as records:
                self._send(records, step.shard)
            case Idle(ms):
                self._pass(ms, shards)
            case Watermark(to_ms):
                for shard in shards:
                    self._heard(self._stages.advance(shard, to_ms, self._clock_ms))

    def outcome(self) -> Outcome:
        """What was told since the last time."""
        told = Outcome(self._events, self._letters, self._late, self._duplicates, self._unmatched)
        self._forget()
        return told

    def _forget(self) -> None:
        self._events: list[Told] = []
        self._letters: list[Told] = []
        self._late: dict[str, int] = {}
        self._duplicates = self._unmatched = 0

    # ---- the steps

    def _send(self, records: Records, shard: int | None) -> None:
        """A page for each shard that gets some; page cuts show in nothing, so one will do."""
        if records.arrival_ms is not None:
            self._clock_ms = records.arrival_ms
        pages: dict[int, list[Recorded]] = {}
        for sent in records.sent:
            if records.arrival_ms is None and sent.time_ms is not None:
                self._clock_ms = max(self._clock_ms, sent.time_ms)
            i = self._home(sent) if shard is None else shard
            arrived = Recorded(sent.payload, sent.partition_key, self._clock_ms)
            pages.setdefault(i, []).append(arrived)
        for i, page in sorted(pages.items()):
            self._heard(self._stages.feed(i, page, self._clock_ms))

    def _home(self, sent: Sent) -> int:
        home = self._stages.home(sent.partition_key)
        assert home is not None, "even shards hold the whole hash space"
        return home

    def _pass(self, ms: int, shards: Sequence[int]) -> None:
        """Empty answers from now on, as far apart as they may be, and one at the very end."""
        end_ms = self._clock_ms + ms
        for date_ms in (*range(self._clock_ms, end_ms, ANSWERS_APART_MS_MAX), end_ms):
            self._clock_ms = date_ms
            self._heard(self._stages.feed_nothing(date_ms, shards))

    # ---- what they tell

    def _heard(self, told: Iterable[stages.Told]) -> None:
        """What either stage tells. (Repeats in the merge stage are none of the user's.)"""
        for step, is_merged in told:
            if not is_merged:
                self._duplicates += step.counts.duplicates
                self._unmatched += step.counts.unmatched
            self._events += filter(self._is_looked_at, map(_event, step.events))
            self._letters += map(_letter, step.dead_letters)
            for rule, n in step.counts.late_by_rule.items():
                if self._rules is None or rule in self._rules:
                    self._late[rule] = self._late.get(rule, 0) + n

    def _is_looked_at(self, event: Told) -> bool:
        return self._rules is None or event["rule"] in self._rules


def _event(event: DerivedEvent) -> Told:
    detail: Told = orjson.loads(event.detail)
    return {**detail, "detail_type": event.detail_type, "sink": event.sink}


def _letter(letter: DeadLetter) -> Told:
    payload = letter.payload.decode(errors="backslashreplace")
    return {"reason": letter.reason, "detail": letter.detail, "payload": payload}
