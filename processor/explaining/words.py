"""The rest of a rule in words: where it is counted and why, what of, its keys and detectors."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from itertools import starmap

from processor import detectors
from processor.config.maintenance import in_words
from processor.config.options import DURATION_SUFFIX
from processor.config.values import BUDGET, show_duration
from processor.model import (
    AggregateSpec,
    DetectSpec,
    EventSpec,
    MergeSpec,
    RuleSpec,
    SinkSpec,
)


def scope(rule: RuleSpec, event: EventSpec, merge: MergeSpec | None) -> str:
    key = event.partition_key
    if key in rule.group_by:
        return (
            f"each shard by itself: group_by contains {key}, which the producer takes as partition"
            " key, so all records of a group come from one shard"
        )
    why = (
        "event.partition_key is not given, so nobody knows which shard a group's records are on"
        if key is None
        else f"group_by does not contain {key}, so a group's records are on any shard"
    )
    through = "the merge stream" if merge is None else f"{merge.stream} ({merge.buckets} buckets)"
    stall = None if merge is None else merge.on_stall_ms
    waits = (
        "a shard that stands still holds all results back"
        if stall is None
        else f"a shard that stands still for {show_duration(stall)} is left out: complete is false"
    )
    return (
        f"all shards together: {why}. Each shard tells {through} what it has counted when a window"
        f" ends, and results wait for the slowest shard; {waits}"
    )


def counted(rule: RuleSpec) -> str:
    which = f"records that match {_json(rule.where)}" if rule.where else "every record"
    if not rule.group_by:
        return f"{which}, in one group"
    return f"{which}, by {' and '.join(rule.group_by)}"


def figures(rule: RuleSpec) -> list[str]:
    return [f"{a.name}: {_figure(a)}" for a in rule.aggregates]


def _figure(a: AggregateSpec) -> str:
    what = f"{a.kind} of {a.field}" if a.field else a.kind
    if a.of:
        what = f"{a.kind} of {' and '.join(a.of)}"
    options = ", ".join(starmap(_option, a.options.items()))
    where = f", of records that match {_json(a.where)}" if a.where else ""
    return f"{what}{f' ({options})' if options else ''}{where}"


def keys(rule: RuleSpec) -> str:
    if not rule.group_by:
        return "one, of all records"
    bound = f"at most {rule.max_groups:,} groups a shard; records of further ones "
    bound += {
        "other": "count together, as __other__",
        "evict": "take the place of the most silent groups, which are told as they stand",
        "dead_letter": "are dead letters",
    }[rule.overflow]
    if rule.forget_after_ms is not None:
        return f"{bound}. A group without records for {show_duration(rule.forget_after_ms)} is new"
    if rule.window.kind == "running":
        return bound
    return f"{bound}. None is ever forgotten; forget_after would say when"


def detects(rule: RuleSpec) -> list[str]:
    return [_detect(detect) for detect in rule.detect]


def budget(rule: RuleSpec, *, is_global: bool) -> list[str]:
    if rule.alarm_budget is None:
        return []
    of = "bucket of groups" if is_global else "shard"
    return [
        f"{BUDGET.show(rule.alarm_budget)} alarms of the rule: the bar rises until no more"
        f" are to be expected; each {of} holds its part, and in it each detector an equal one"
    ]


def collapses(rule: RuleSpec) -> list[str]:
    if rule.collapse is None:
        return []
    of = "the rule" if rule.collapse.by is None else f"one value of {rule.collapse.by}"
    where = "one window and shard"
    return [f"more than {rule.collapse.over:,} alarms of {of} in {where} are told as one event"]


def maintenance(rule: RuleSpec) -> list[str]:
    zone = rule.window.zone or "UTC"
    return [
        f"detectors neither score nor learn {in_words(spec)} ({zone})" for spec in rule.maintenance
    ]


def _detect(detect: DetectSpec) -> str:
    plugin = type(detectors.get(detect.kind))
    about = (sys.modules[plugin.__module__].__doc__ or "").partition("\n\n")[0]
    sentence = " ".join(about.split()).partition(": ")[2].rstrip(".")
    options = ", ".join(starmap(_option, detect.options.items()))
    name = detect.kind if detect.name == detect.kind else f"{detect.name}, a {detect.kind},"
    return f"{name} on {detect.aggregate}{f' ({options})' if options else ''}: {sentence}"


def repeats(event: EventSpec) -> str:
    if event.id is None:
        return "repeats count again: event.id is not given"
    horizon = show_duration(event.dedupe_horizon_ms)
    return (
        f"a record whose {event.id} was seen is dropped and counted; ids are known until the"
        f" watermark is {horizon} past them"
    )


def sent(rule: RuleSpec, sinks: Mapping[str, SinkSpec]) -> Iterator[str]:
    for what, name in (("windows", rule.emit_windows), ("anomalies", rule.emit_anomalies)):
        if name is not None:
            yield f"{what} to {name} ({sinks[name].kind} {sinks[name].target})"


def _option(name: str, value: object) -> str:
    """As in the file: what is kept in milliseconds is a duration there."""
    if name.endswith(DURATION_SUFFIX) and isinstance(value, int):
        return f"{name.removesuffix(DURATION_SUFFIX)} {show_duration(value)}"
    return f"{name} {_shown(value)}"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} from {_shown(each)}" for name, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
