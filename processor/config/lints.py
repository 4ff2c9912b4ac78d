"""What is legal in a pipeline file but hardly meant: `validate` and `explain` tell it.

A lint speaks of what surely is or costs something else than the file seems to say. What may well be
meant is no lint: with `--deny-warnings` each of them stops a deploy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from math import gcd

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from processor import detectors
from processor.config.checks import has_global_rule, is_global
from processor.config.values import show_duration
from processor.core import patterns
from processor.detectors.base import Params
from processor.model import EventSpec, MergeSpec, Pipeline, RuleSpec, WindowSpec

TAKE_OVER_MS_MAX = 15_000  # of a killed worker's shards
LATENESS_WINDOWS_MAX = 10  # a result that waits for ten windows is news of yesterday
EARLY_COUNT_MIN = 10  # with fewer, nearly each record is an event of its own
WINDOWS_A_RECORD_MAX = 100  # a day of windows each 15 minutes has 96
PANES_A_WINDOW_MAX = 1_000  # each key's memory as many times over
MERGE_PUTS_MAX = 1.0  # records a second that one rule puts from one shard, whatever is in them

MAX_GROUPS = {field.name: field.default for field in fields(RuleSpec)}["max_groups"]

DAY_MS = 86_400_000
WARM_UP_MS_MAX = 30 * DAY_MS  # a detector that is silent for longer is taken for one that is off
SEASON_MS = {"day": DAY_MS, "week": 7 * DAY_MS}
# The shortest of each.
CALENDAR_MS = {"day": DAY_MS, "week": 7 * DAY_MS, "month": 28 * DAY_MS, "year": 365 * DAY_MS}

# Names of what has a value of its own for each record, visitor or moment. A store's or a device's
# id is not among them: those are what people group by.
_ONE_EACH = (
    "(uu|gu|ul)?id|ksuid|nonce|seq(uence)?(_?(no|num|number))?|offset"
    "|(time_?stamp|time|ts|date_?time)(_?(ms|us|ns))?|([a-z]+_)?(created|updated|occurred)_?at"
    "|([a-z]+_)?(uuid|guid|ulid)|(event|message|msg|record|request|req|trace|span|correlation"
    "|transaction|txn|order|payment|invoice)_?(id|no|number)|trace_?parent"
)
_ONE_A_VISITOR = (
    "(user|visitor|session|player|login)s?(_?(id|name|key|token|uuid))?"
    "|e_?mail(_?address)?|phone(_?number)?|((client|remote|source|src|peer|x_forwarded_for)_?)?"
    "(ip|ip_?addr(ess)?|addr(ess)?)|user_?agent|cookie|token|url|uri|referr?er|query(_?string)?"
)
_OF = ("id", "uuid", "guid", "ulid", "number", "no", "name", "key")
_ENVELOPES = ("meta", "metadata", "detail", "data", "event", "payload", "header", "headers", "body")


class Warning(Struct, frozen=True):
    """Something legal that is hardly meant."""

    path: str
    message: str
    file: str = ""
    line: int | None = None

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line is not None else self.file
        return f"{where}: {self.path}: warning: {self.message}"


# ---- lints ----------------------------------------------------------------------------------


def lint(pipeline: Pipeline) -> list[Warning]:
    """In no order: the caller sorts by line."""
    found = [warning for rule in pipeline.rules for warning in _lint_rule(rule, pipeline.event)]
    used = {sink for rule in pipeline.rules for sink in (rule.emit_windows, rule.emit_anomalies)}
    found += [
        Warning(f"sinks.{name}", "no rule sends anything to it")
        for name in pipeline.sinks
        if name not in used
    ]
    if (
        pipeline.event.id is None
        and pipeline.event.dedupe_horizon_ms != EventSpec().dedupe_horizon_ms
    ):
        message = "without event.id no repeat is recognised, so this has no effect"
        found.append(Warning("event.dedupe_horizon", message))
    found += _lint_horizon(pipeline.event, pipeline.rules)
    if pipeline.merge is not None:
        found += _lint_merge(pipeline.merge, pipeline)
    return found


def _lint_merge(merge: MergeSpec, pipeline: Pipeline) -> Iterator[Warning]:
    if not has_global_rule(pipeline):
        yield Warning("merge", "no rule is global, so nothing goes through this stream")
    if merge.on_stall_ms is not None and merge.on_stall_ms < TAKE_OVER_MS_MAX:
        wait = show_duration(merge.on_stall_ms)
        message = f"a killed worker's shards stand still for up to 15 s; {wait} does not outwait it"
        yield Warning("merge.on_stall", message)

    yield from (
        warning
        for rule in pipeline.rules
        if is_global(pipeline.event, rule)
        for warning in _lint_traffic(rule, merge)
    )


def _lint_horizon(event: EventSpec, rules: Iterable[RuleSpec]) -> Iterator[Warning]:
    late, horizon = event.out_of_orderness_ms, event.dedupe_horizon_ms
    if event.id is None:
        return
    for rule in rules:
        if rule.lateness_ms > horizon:
            message = (
                f"records count for {show_duration(rule.lateness_ms)} after their window's end, but"
                f" ids are known for {show_duration(horizon)} only (event.dedupe_horizon): what is"
                " repeated after that counts twice"
            )
            yield Warning(f"rules.{rule.name}.lateness", message)
    if horizon < late:
        message = (
            f"a repeat may come {show_duration(late)} late (event.out_of_orderness), but ids are"
            f" known for {show_duration(horizon)} only: it would count twice"
        )
        yield Warning("event.dedupe_horizon", message)


def _lint_traffic(rule: RuleSpec, merge: MergeSpec) -> Iterator[Warning]:
    """Every shard tells every bucket that its watermark has passed a window's end."""
    period_ms = closing_period_of(rule.window)
    if period_ms and merge.buckets * 1_000 > MERGE_PUTS_MAX * period_ms:
        message = (
            f"each shard puts {merge.buckets} records (merge.buckets) into {merge.stream} every"
            f" {show_duration(period_ms)}, also where nothing was counted"
        )
        yield Warning(f"rules.{rule.name}.window", message)


def span_of(window: WindowSpec) -> int | None:
    """How long a window is at the least, in ms; None: without end."""
    lengths = {"tumbling": window.size_ms, "hopping": window.size_ms, "session": window.gap_ms}
    if window.kind == "calendar":
        return CALENDAR_MS[window.calendar or "day"]
    return lengths.get(window.kind)


def period_of(window: WindowSpec) -> int | None:
    """How far ends of windows are apart, in ms; None where each key has ends of its own."""
    if window.kind == "hopping":
        return window.every_ms
    return None if window.kind == "session" else span_of(window)


def closing_period_of(window: WindowSpec) -> int | None:
    """The same of what shards tell of a global rule: of hopping windows, their panes."""
    if window.kind == "hopping" and window.every_ms:
        return gcd(window.size_ms, window.every_ms)
    return period_of(window)


def _lint_rule(rule: RuleSpec, event: EventSpec) -> Iterator[Warning]:
    path = f"rules.{rule.name}"
    for place in patterns.compile(rule.where, f"{path}.where").replaced:
        message = "has no effect where a later list for the same field counts, as in EventBridge"
        yield Warning(place, message)
    yield from _lint_waiting(rule, event, path)
    yield from _lint_panes(rule, path)
    yield from _lint_keys(rule, event, path)
    yield from _lint_collapse(rule, path)
    yield from _lint_detectors(rule, path)
    if rule.emit_windows is None and rule.emit_anomalies is None:
        yield Warning(path, "it emits nothing: name a sink in emit.windows or emit.anomalies")
    elif rule.detect and rule.emit_anomalies is None:
        yield Warning(f"{path}.detect", "nobody is told what is found: set emit.anomalies")
    if rule.emit_anomalies is not None and not rule.detect:
        yield Warning(f"{path}.emit.anomalies", "nothing is ever sent: the rule has no detectors")
    if rule.alarm_budget is not None and not rule.detect:
        yield Warning(f"{path}.alarm_budget", "it has no effect: the rule has no detectors")


def _lint_waiting(rule: RuleSpec, event: EventSpec, path: str) -> Iterator[Warning]:
    """Results that come when nobody waits for them any more."""
    size = span_of(rule.window)
    if size is None:
        return
    late, longest = event.out_of_orderness_ms, LATENESS_WINDOWS_MAX * size
    wait, window = show_duration(late), show_duration(size)
    if late > longest:
        message = f"results come {wait} late (event.out_of_orderness), over 10 windows of {window}"
        yield Warning(f"{path}.window", message)
    elif late > size:
        message = f"a window of {window} is shorter than event.out_of_orderness, {wait}"
        yield Warning(f"{path}.window", message)
    if rule.lateness_ms > longest:
        message = (
            f"windows of {window} stay open for {show_duration(rule.lateness_ms)}: over 10 of"
            " each key are kept at once"
        )
        yield Warning(f"{path}.lateness", message)


def _lint_panes(rule: RuleSpec, path: str) -> Iterator[Warning]:
    window, panes = rule.window, rule.panes
    size, every = span_of(window), panes.early_every_ms
    if size is not None and every is not None and every >= size:
        message = f"a window of {show_duration(size)} is over before the first pane is due"
        yield Warning(f"{path}.panes", message)
    if panes.early_count is not None and panes.early_count < EARLY_COUNT_MIN:
        message = f"an event for every {panes.early_count} records of a key: nearly as many as come"
        yield Warning(f"{path}.panes", message)
    if window.kind == "hopping" and window.every_ms:
        yield from _lint_hopping(window, path)


def _lint_hopping(window: WindowSpec, path: str) -> Iterator[Warning]:
    size, every = window.size_ms, window.every_ms
    pane = gcd(size, every)
    if size > WINDOWS_A_RECORD_MAX * every:
        message = f"each key is told of every {show_duration(every)}, and each record in"
        yield Warning(f"{path}.window", f"{message} {size // every:,} windows")
    elif size > PANES_A_WINDOW_MAX * pane:
        message = (
            f"{show_duration(size)} every {show_duration(every)} is kept in panes of"
            f" {show_duration(pane)}, {size // pane:,} of each key: a size that"
            f" {show_duration(every)} divides needs fewer"
        )
        yield Warning(f"{path}.window", message)


def _lint_collapse(rule: RuleSpec, path: str) -> Iterator[Warning]:
    """A limit that is out of reach."""
    if rule.collapse is None:
        return
    fields = set(rule.group_by) - {rule.collapse.by}
    keys = rule.max_groups + 1 if fields else 1  # `__other__` is one more
    most = keys * len(rule.detect)
    if most <= rule.collapse.over:
        of = f"one {rule.collapse.by}" if rule.collapse.by is not None else "the rule"
        alarms, detectors, groups = (
            f"{n:,} {name}{'s' if n > 1 else ''}"
            for n, name in ((most, "alarm"), (len(rule.detect), "detector"), (keys, "group"))
        )
        message = (
            f"{of} never has more than {alarms} at a time ({detectors} on {groups}), so none are"
            " ever told as one"
        )
        yield Warning(f"{path}.collapse", message)


# ---- detectors on long windows ----------------------------------------------------------------


def _lint_detectors(rule: RuleSpec, path: str) -> Iterator[Warning]:
    every_ms = period_of(rule.window) or 0
    for i, detect in enumerate(rule.detect):
        params: Params = msgspec.convert(dict(detect.options), detectors.get(detect.kind).params)
        if params.warm_up * every_ms > WARM_UP_MS_MAX:
            lasts = show_duration(params.warm_up * every_ms)
            message = (
                f"nothing is told for {lasts}: warm_up is {params.warm_up} windows, one every"
                f" {show_duration(every_ms)}; let it learn from history (processor warm), or give a"
                " smaller warm_up or shorter windows"
            )
            yield Warning(f"{path}.detect[{i}].{detect.kind}", message)
        season = detect.options.get("season")
        if every_ms and season in SEASON_MS and every_ms % SEASON_MS[season] == 0:
            message = (
                f"windows every {show_duration(every_ms)} all begin at the same time of the"
                f" {season}, so this season tells nothing apart"
            )
            yield Warning(f"{path}.detect[{i}].season", message)


# ---- keys that never end ----------------------------------------------------------------------


def _lint_keys(rule: RuleSpec, event: EventSpec, path: str) -> Iterator[Warning]:
    """Fields with a value for every record, or for everybody who ever comes by."""
    whole = {
        event.id: "event.id, so each record is a group of its own",
        event.time: "event.time, so nearly each record is a group of its own",
        event.correlation_id: "event.correlation_id, so each unit of work is a group of its own",
        event.traceparent: "event.traceparent, so each trace is a group of its own",
    }
    place = f"{path}.group_by"
    for field in rule.group_by:
        if field in whole:
            yield Warning(place, f"{field} is {whole[field]}")
        elif _is_named(_ONE_EACH, field):
            yield Warning(place, f"{field} looks like a field with a value for every record")
        elif _is_named(_ONE_A_VISITOR, field) and not _is_bounded(rule):
            yield Warning(place, f"{field} looks unbounded: {_unbounded(rule)}")


def _is_bounded(rule: RuleSpec) -> bool:
    """Whether the file says what is to become of keys."""
    return (
        rule.max_groups != MAX_GROUPS
        or rule.overflow != "other"
        or rule.forget_after_ms is not None
        or rule.window.kind == "running"
    )


def _unbounded(rule: RuleSpec) -> str:
    return (
        f"after {rule.max_groups:,} values a shard (max_groups) further ones are not told apart,"
        " and none is ever forgotten without forget_after"
    )


def _is_named(names: str, field: str) -> bool:
    """By the last part of its path, with the one before where that says whose id it is."""
    *outer, last = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|-", "_", field).lower().split(".")
    if outer and last in _OF and outer[-1] not in _ENVELOPES:
        last = f"{outer[-1]}_{last}"
    return re.fullmatch(names, last) is not None
