"""Reads one rule of the pipeline file: its pattern, window, aggregates, detectors and sinks."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from processor.config import maintenance, shape, windows
from processor.config.aggregates import read_aggregates, read_where
from processor.config.detectors import read_detect
from processor.config.document import plain
from processor.config.section import Faults, read_section
from processor.core.figures import is_number
from processor.model import AggregateSpec, DetectSpec, RuleSpec
from processor.wording import describe, did_you_mean, is_name, one_of

OTHER_KEYS = ("where", "window", "panes", "aggregates", "detect", "maintenance", "emit")


def read_rule(name: str, tree: Any, faults: Faults) -> RuleSpec | None:
    """None where it has faults of its own: then nothing else is asked of it."""
    path, before = f"rules.{name}", len(faults)
    check_name(name, path, faults)
    own = read_section(tree, path, shape.RULE, faults, OTHER_KEYS)
    if not isinstance(tree, dict):
        return None
    window = windows.read_window(tree.get("window"), f"{path}.window", faults)
    lateness_ms = own.get("lateness_ms", 0)
    own["panes"] = windows.read_panes(tree.get("panes"), lateness_ms, f"{path}.panes", faults)
    aggregates = read_aggregates(tree.get("aggregates"), f"{path}.aggregates", faults)
    detect = read_detects(tree, aggregates, f"{path}.detect", faults)
    where = read_where(tree.get("where"), f"{path}.where", faults)
    place = f"{path}.maintenance"
    own["maintenance"] = maintenance.read_maintenance(tree.get("maintenance"), place, faults)
    if "emit" in tree and tree["emit"] is not None:
        own |= read_section(tree["emit"], f"{path}.emit", shape.EMIT, faults)
    if window is None or len(faults) > before:
        return None
    rule = RuleSpec(
        name=name, where=where, window=window, aggregates=aggregates, detect=detect, **own
    )
    windows.check(rule, faults)
    maintenance.check(rule, faults)
    check_collapse(rule, faults)
    return rule


def check_collapse(rule: RuleSpec, faults: Faults) -> None:
    """It is about alarms that somebody would be told."""
    if rule.collapse is None:
        return
    path, by = f"rules.{rule.name}.collapse", rule.collapse.by
    if by is not None and by not in rule.group_by:
        known = one_of(rule.group_by) if rule.group_by else "no field: group_by is []"
        faults.add(f"{path}.by", describe(by), known + did_you_mean(by, rule.group_by))
    if not rule.detect:
        faults.add(path, "a rule without detect", "a rule with detectors, whose alarms it is about")
    elif rule.emit_anomalies is None:
        faults.add(path, "a rule without emit.anomalies", "a sink there, that alarms go to")


def check_name(name: str, path: str, faults: Faults) -> None:
    if not is_name(name):
        faults.add(path, f"the name {name!r}", "letters, digits, _ . - and at most 64 of them")


def read_detects(
    rule: dict[str, Any], figures: Collection[AggregateSpec], path: str, faults: Faults
) -> tuple[DetectSpec, ...]:
    """`figures` are those of the rule that have no faults."""
    tree = rule.get("detect")
    if tree is None:
        return ()
    if not isinstance(tree, list):
        faults.add(path, describe(plain(tree)), "a list, such as [{novelty: orders}]")
        return ()
    aggregates = rule.get("aggregates")
    named = list(aggregates) if isinstance(aggregates, dict) else []
    specs = [read_detect(each, f"{path}[{i}]", named, faults) for i, each in enumerate(tree)]
    _check_repeats(specs, path, faults)
    lists = {figure.name for figure in figures if not is_number(figure)}
    for i, spec in enumerate(specs):
        if spec is not None and spec.aggregate in lists:
            found = f"{spec.aggregate}, which is a list"
            faults.add(f"{path}[{i}].{spec.kind}", found, "a figure that is a number")
    return tuple(spec for spec in specs if spec is not None)


def _check_repeats(specs: Collection[DetectSpec | None], path: str, faults: Faults) -> None:
    """Its name is part of an event's id: two of the same would be one."""
    seen: set[tuple[str, str]] = set()
    for i, spec in enumerate(specs):
        if spec is None:
            continue
        if (spec.aggregate, spec.name) in seen:
            found = f"the name {spec.name} a second time on {spec.aggregate}"
            faults.add(f"{path}[{i}]", found, "a name of its own, such as {name: second}")
        seen.add((spec.aggregate, spec.name))
