"""One pass over a recording with every detector at every setting, by the production code.

Each setting is a detector of its own beside the others, so alarms are those that the service would
have told: with all of its options, and the same windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

import orjson
from msgspec import Struct
from msgspec.structs import fields, replace

from processor import history
from processor.history import Recorded
from processor.model import DetectSpec, Pipeline, RuleSpec
from processor.tuning.ladder import OWN, Rung, ladder, why_short

DAY_MS = 86_400_000
# What a rule's detectors share is left out: the settings would use it up for one another.
SHARED = ("alarm_budget", "collapse")
SERIES_MAX = 10_000  # series a setting whose alarms are kept by window; beyond, counted only
OPENINGS_MAX = 1_000  # windows of one series that are kept to be drawn


class Tried(Struct):
    """A setting and what it opened: `by_day` counts by days since the epoch, UTC."""

    rung: Rung
    by_day: Counter[int]
    by_key: Counter[str]
    openings_ms: dict[str, list[int]]  # by key: starts of windows

    @property
    def total(self) -> int:
        return sum(self.by_day.values())


class Result(Struct):
    """One detector of one rule; keys are JSON arrays of their values."""

    rule: RuleSpec
    detect: DetectSpec
    tried: list[Tried]
    note: str

    @property
    def own(self) -> Tried:
        return next(one for one in self.tried if one.rung.name == OWN)


class Outcome(Struct):
    """What was tried, and on how much."""

    results: list[Result]
    records: int
    first_ms: int
    last_ms: int

    @property
    def days(self) -> float:
        return max((self.last_ms - self.first_ms) / DAY_MS, 1 / 24)


def attempt(pipeline: Pipeline, recorded: Iterable[Recorded]) -> Outcome:
    """Raises ConfigError where the pipeline is wrong."""
    results = [_result(rule, spec) for rule in pipeline.rules for spec in rule.detect]
    outcome = Outcome(results, 0, 0, 0)
    rules = tuple(_widened(rule, results) for rule in pipeline.rules)
    counted = _counted(outcome, recorded)
    for event in history.run(replace(pipeline, rules=rules), counted):
        if event.detail_type == "Anomaly Opened":
            _note(results, orjson.loads(event.detail))
    return outcome


def suggestion(result: Result, days: float, per_day: float) -> str:
    """Which setting comes nearest to so many alarms a day without passing them."""
    rates = [(one, one.total / days) for one in result.tried]
    fitting = [(one, rate) for one, rate in rates if rate <= per_day]
    if not fitting:
        one, rate = min(rates, key=lambda pair: pair[1])
        least = f"the least, {one.rung.name}: {rate:.2f}"
        return f"every setting tells more than {per_day:g} alarms a day; {least}"
    one, rate = max(fitting, key=lambda pair: (pair[1], -pair[0].rung.threshold))
    return f"for up to {per_day:g} alarms a day: {one.rung.name}, which gives about {rate:.2f}"


def _result(rule: RuleSpec, spec: DetectSpec) -> Result:
    tried = [Tried(rung, Counter(), Counter(), {}) for rung in ladder(spec)]
    return Result(rule, spec, tried, why_short(spec))


def _widened(rule: RuleSpec, results: list[Result]) -> RuleSpec:
    """The rule with a detector for each setting, called by the places of both."""
    detect = [
        replace(one.detect, name=f"{i}/{j}", options=tried.rung.options)
        for i, one in enumerate(results)
        if one.rule is rule
        for j, tried in enumerate(one.tried)
    ]
    alone = {one.name: one.default for one in fields(RuleSpec) if one.name in SHARED}
    return replace(rule, detect=tuple(detect), **alone)


def _counted(outcome: Outcome, recorded: Iterable[Recorded]) -> Iterator[Recorded]:
    for record in recorded:
        at_ms = record.arrival_ms
        outcome.first_ms = min(outcome.first_ms, at_ms) if outcome.records else at_ms
        outcome.last_ms = max(outcome.last_ms, at_ms) if outcome.records else at_ms
        outcome.records += 1
        yield record


def _note(results: list[Result], detail: dict[str, object]) -> None:
    anomaly, window, key = detail["anomaly"], detail["window"], detail["key"]
    assert isinstance(anomaly, dict)
    assert isinstance(window, dict)
    assert isinstance(key, dict)
    i, _, j = str(anomaly["detector"]).partition("/")
    tried, name = results[int(i)].tried[int(j)], key_text(key)
    tried.by_day[window["start"] // DAY_MS] += 1
    tried.by_key[name] += 1
    if name in tried.openings_ms or len(tried.openings_ms) < SERIES_MAX:
        kept = tried.openings_ms.setdefault(name, [])
        if len(kept) < OPENINGS_MAX:
            kept.append(window["start"])


def key_text(key: dict[str, object]) -> str:
    return orjson.dumps(list(key.values())).decode()
